//! `arborist block` with the real program: every kind of bad block file is one clear line and exit code 2.

use assert_cmd::Command;
use serde_json::{Value, json};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use tempfile::TempDir;

fn arborist() -> Command {
    let mut command = Command::cargo_bin("arborist").expect("the program is built");
    command.env_remove("RUST_LOG");
    command
}

/// Two transactions with 0 and 2 calls, made once for all tests.
static SAMPLE: LazyLock<Value> = LazyLock::new(|| {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("block.json");
    let output = arborist()
        .args(["block", "new", "--transactions", "2", "--calls", "0,2", "--seed", "7"])
        .args(["--chain-id", "5", "--block-number", "9", "--out"])
        .arg(&file)
        .assert()
        .success();
    let stderr = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
    assert!(stderr.contains("private proofs made: 2 of 2"), "{stderr}");
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
});

/// Checks a file and gives back what stands on standard error.
fn refused(file: &Path) -> String {
    let result = arborist().args(["block", "check"]).arg(file).assert().code(2);
    let output = result.get_output();
    assert!(output.stdout.is_empty(), "nothing on standard output");
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn assert_one_line(name: &str, stderr: &str, expected: &[&str]) {
    assert_eq!(stderr.lines().count(), 1, "{name}: {stderr}");
    for part in expected {
        assert!(stderr.contains(part), "{name}: `{part}` is missing in: {stderr}");
    }
}

fn write(folder: &TempDir, bytes: &[u8]) -> PathBuf {
    let file = folder.path().join("bad.json");
    std::fs::write(&file, bytes).unwrap();
    file
}

#[test]
fn a_sample_block_is_valid_and_carries_its_numbers() {
    let folder = TempDir::new().unwrap();
    let file = write(&folder, SAMPLE.to_string().as_bytes());
    let result = arborist().args(["block", "check"]).arg(&file).assert().success();
    let stdout = String::from_utf8_lossy(&result.get_output().stdout).into_owned();
    for part in ["valid", "Block 9 of chain 5", "2 transactions with 2 public calls"] {
        assert!(stdout.contains(part), "{stdout}");
    }
}

#[test]
fn a_file_that_is_no_block_is_one_line() {
    let folder = TempDir::new().unwrap();
    let missing = folder.path().join("missing.json");
    assert_one_line("missing", &refused(&missing), &["missing.json", "file:", "a block file in JSON"]);
    assert_one_line("folder", &refused(folder.path()), &["file: a folder", "a block file"]);
    let file = write(&folder, b"<xml>\n</xml>\n");
    assert_one_line("not JSON", &refused(&file), &["bad.json", "file: not a block in JSON"]);
    let file = write(&folder, b"{\"version\": 1, \"prof");
    assert_one_line("cut off", &refused(&file), &["file: not a block in JSON", "line 1"]);
}

#[test]
fn a_file_of_two_gigabytes_is_refused_unread() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("huge.json");
    File::create(&file).unwrap().set_len(2 << 30).unwrap();
    let expected = ["huge.json: file: 2147483648 bytes", "at most 536870912"];
    assert_one_line("2 GB", &refused(&file), &expected);
}

type Change = fn(&mut Value);

#[test]
fn a_wrong_field_is_one_line_that_names_it_and_what_is_allowed() {
    let word = "a".repeat(64);
    let cases: [(&str, Change, &[&str]); 13] = [
        ("version", |b| b["version"] = json!(2), &["version: 2", "allowed is 1"]),
        ("profile", |b| b["profile"] = json!("other"), &["profile: `other`", "mini-rollup-v1"]),
        ("T = 0", |b| b["transactions"] = json!([]), &["transactions: 0 of them", "1 to 65536"]),
        (
            "too many calls",
            |b| {
                let call = b["transactions"][1]["calls"][0].clone();
                b["transactions"][1]["calls"] = json!(vec![call; 8]);
            },
            &["transactions[1].calls: 8 of them", "at most 7"],
        ),
        (
            "calls do not chain",
            |b| b["transactions"][1]["calls"][1]["state_before"] = json!("a".repeat(64)),
            &["transactions[1].calls[1].state_before:", "states must chain"],
        ),
        (
            "end does not chain",
            |b| b["state_after"] = json!("a".repeat(64)),
            &["state_after:", "states must chain"],
        ),
        (
            "duplicate hash",
            |b| b["transactions"][1]["hash"] = b["transactions"][0]["hash"].clone(),
            &["transactions[1].hash:", "transactions[0]", "must differ"],
        ),
        (
            "siblings",
            |b| b["transactions"][1]["calls"][0]["siblings"] = json!([]),
            &["transactions[1].calls[0].siblings: 0 of them", "16"],
        ),
        ("unknown field", |b| b["colour"] = json!("red"), &["unknown field `colour`", "expected one of"]),
        ("missing field", |b| drop(b.as_object_mut().unwrap().remove("chain_id")), &["chain_id"]),
        ("bad word", |b| b["state_before"] = json!("xyz"), &["`xyz` is not 64 hexadecimal digits"]),
        (
            "private proof is no base64",
            |b| b["transactions"][0]["private_proof"] = json!("?"),
            &["transactions[0].private_proof: not base64"],
        ),
        (
            "private proof of another transaction",
            |b| b["transactions"][1]["private_proof"] = b["transactions"][0]["private_proof"].clone(),
            &["transactions[1].private_proof:"],
        ),
    ];
    assert_ne!(SAMPLE["state_after"], json!(word));
    let folder = TempDir::new().unwrap();
    for (name, change, expected) in cases {
        let mut block = SAMPLE.clone();
        change(&mut block);
        let file = write(&folder, block.to_string().as_bytes());
        assert_one_line(name, &refused(&file), expected);
    }
}

#[test]
fn a_damaged_private_proof_is_refused() {
    let mut block = SAMPLE.clone();
    let proof = block["transactions"][0]["private_proof"].as_str().unwrap();
    let middle = proof.len() / 2;
    let other = if &proof[middle..=middle] == "A" { "B" } else { "A" };
    let damaged = format!("{}{other}{}", &proof[..middle], &proof[middle + 1..]);
    block["transactions"][0]["private_proof"] = json!(damaged);
    let folder = TempDir::new().unwrap();
    let file = write(&folder, block.to_string().as_bytes());
    assert_one_line("damaged", &refused(&file), &["transactions[0].private_proof:"]);
}

#[test]
fn options_out_of_range_are_refused_before_anything_is_made() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("block.json");
    for (option, value, expected) in [
        ("--transactions", "0", "--transactions"),
        ("--transactions", "70000", "--transactions"),
        ("--transactions", "60000", "--transactions"),
        ("--calls", "8", "--calls"),
        ("--calls", "1,x", "--calls"),
    ] {
        let result = arborist().args(["block", "new", option, value, "--out"]).arg(&out).assert().code(2);
        let stderr = String::from_utf8_lossy(&result.get_output().stderr).into_owned();
        assert!(stderr.contains(expected), "{option} {value}: {stderr}");
        assert!(!out.exists());
    }
}

#[test]
fn the_committed_schema_is_the_programs() {
    let result = arborist().args(["block", "schema"]).assert().success();
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/block.schema.json");
    let committed = std::fs::read_to_string(committed).unwrap();
    let printed = String::from_utf8_lossy(&result.get_output().stdout).into_owned();
    assert_eq!(printed, committed, "run `arborist block schema > docs/block.schema.json`");
}
