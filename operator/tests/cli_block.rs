//! `arborist block` with the real program: every kind of bad block file is one clear line and exit code 2.

use assert_cmd::Command;
use serde_json::{Value, json};
use sha2::Digest;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use tempfile::TempDir;

fn arborist() -> Command {
    let mut command = Command::cargo_bin("arborist").expect("the program is built");
    command.env_remove("RUST_LOG");
    command
}

/// Two transactions with 0 and 2 calls, made once for all tests: the block and the folder of its private proofs.
static SAMPLE: LazyLock<(Value, TempDir)> = LazyLock::new(|| {
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
    (serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap(), folder)
});

fn sample() -> Value {
    SAMPLE.0.clone()
}

/// A private proof of the sample.
fn private_proof(transaction: usize) -> Vec<u8> {
    let hash = SAMPLE.0["transactions"][transaction]["private_proof"].as_str().unwrap();
    std::fs::read(SAMPLE.1.path().join("objects").join(hash)).unwrap()
}

/// Checks a file with the sample's private proofs.
fn check(file: &Path) -> Command {
    let mut command = arborist();
    command.args(["block", "check"]).arg(file).arg("--objects").arg(SAMPLE.1.path().join("objects"));
    command
}

/// Checks a file and gives back what stands on standard error.
fn refused(file: &Path) -> String {
    let result = check(file).assert().code(2);
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
    let file = write(&folder, sample().to_string().as_bytes());
    let result = check(&file).assert().success();
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
    assert_one_line("not JSON", &refused(&file), &["bad.json", "file: no JSON"]);
    let file = write(&folder, b"{\"version\": 2, \"prof");
    assert_one_line("cut off", &refused(&file), &["bad.json: file: the file ends here", "line 1"]);
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
        ("version", |b| b["version"] = json!(1), &["version: 1", "expected is 2"]),
        ("profile", |b| b["profile"] = json!("other"), &["profile: `other`", "mini-rollup-v1"]),
        ("T = 0", |b| b["transactions"] = json!([]), &["transactions: 0 of them", "1 to 65536"]),
        (
            "too many calls",
            |b| {
                let call = b["transactions"][1]["calls"][0].clone();
                b["transactions"][1]["calls"] = json!(vec![call; 8]);
            },
            &["transactions[1].calls: more than 7 of them"],
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
        (
            "unknown field",
            |b| b["colour"] = json!("red"),
            &["colour: an unknown field", "known here are version"],
        ),
        (
            "missing field",
            |b| drop(b.as_object_mut().unwrap().remove("chain_id")),
            &["chain_id: it is missing"],
        ),
        (
            "bad word",
            |b| b["state_before"] = json!("xyz"),
            &["state_before: the text `xyz`", "64 hexadecimal digits"],
        ),
        (
            "private proof is not there",
            |b| b["transactions"][0]["private_proof"] = json!("0".repeat(64)),
            &["transactions[0].private_proof: there is no object 0000"],
        ),
        (
            "private proof of another transaction",
            |b| b["transactions"][1]["private_proof"] = b["transactions"][0]["private_proof"].clone(),
            &["transactions[1].private_proof:"],
        ),
    ];
    assert_ne!(sample()["state_after"], json!(word));
    let folder = TempDir::new().unwrap();
    for (name, change, expected) in cases {
        let mut block = sample();
        change(&mut block);
        let file = write(&folder, block.to_string().as_bytes());
        assert_one_line(name, &refused(&file), expected);
    }
}

#[test]
fn each_bad_private_proof_is_told_and_with_stand_ins_only_the_hashes_count() {
    let folder = TempDir::new().unwrap();
    let objects = folder.path().join("objects");
    std::fs::create_dir(&objects).unwrap();
    let mut block = sample();
    // one is damaged and named so, of the other the bytes were exchanged
    let mut damaged = private_proof(0);
    damaged[900] ^= 1;
    let hash = blake3::hash(&damaged).to_hex().to_string();
    std::fs::write(objects.join(&hash), &damaged).unwrap();
    block["transactions"][0]["private_proof"] = json!(hash);
    let second = block["transactions"][1]["private_proof"].as_str().unwrap().to_owned();
    std::fs::write(objects.join(&second), &damaged).unwrap();
    let file = write(&folder, block.to_string().as_bytes());
    let check = |backend: &str| {
        let result = arborist().args(["block", "check", "--backend", backend]).arg(&file).assert().code(2);
        let stderr = String::from_utf8(result.get_output().stderr.clone()).unwrap();
        stderr.lines().filter(|line| line.starts_with("error: ")).map(str::to_owned).collect::<Vec<_>>()
    };
    let told = check("plonky2");
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].contains("bad.json: transactions[0].private_proof: "), "{told:?}");
    assert!(
        told[1].contains("transactions[1].private_proof: ") && told[1].contains("has the hash"),
        "{told:?}"
    );
    let told = check("fake");
    assert_eq!(told.len(), 1, "{told:?}");
    std::fs::write(objects.join(second), private_proof(1)).unwrap();
    arborist().args(["block", "check", "--backend", "fake"]).arg(&file).assert().success();
}

#[test]
fn a_block_is_pushed_once_and_what_is_printed_is_where_it_lies() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("block.json");
    let new = ["block", "new", "--transactions", "40", "--calls", "0,1", "--objects", "random:100", "--out"];
    arborist().args(new).arg(&file).assert().success();
    let store = format!("file://{}", folder.path().join("store").display());
    let push = || {
        let mut command = arborist();
        command.args(["block", "push", "--store", &store, "--parallel", "3"]).arg(&file);
        command
    };
    let lost = std::fs::read_dir(folder.path().join("objects")).unwrap().next().unwrap().unwrap().path();
    let bytes = std::fs::read(&lost).unwrap();
    std::fs::remove_file(&lost).unwrap();
    let stderr = push().assert().code(2).get_output().stderr.clone();
    assert!(String::from_utf8_lossy(&stderr).contains(".private_proof: there is no object"));
    std::fs::write(&lost, bytes).unwrap();
    let output = push().assert().success().get_output().clone();
    let json = std::fs::read(&file).unwrap();
    let key = format!("inputs/{}", blake3::hash(&json).to_hex());
    let sha256 = hex::encode(sha2::Sha256::digest(&json));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("url: {store}/{key}\nsha256: {sha256}\n"));
    assert_eq!(std::fs::read(folder.path().join("store").join(key)).unwrap(), json);
    let inputs = std::fs::read_dir(folder.path().join("store/inputs")).unwrap().count();
    assert_eq!(inputs, 41, "the private proofs and the block file");
    let again = push().assert().success().get_output().stderr.clone();
    assert!(String::from_utf8_lossy(&again).contains("0 private proofs sent"));
}

#[test]
fn options_out_of_range_are_refused_before_anything_is_made() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("block.json");
    for (option, value, expected) in [
        ("--transactions", "0", "--transactions"),
        ("--transactions", "70000", "--transactions"),
        ("--transactions", "4294967295", "--transactions"),
        ("--objects", "random:0", "--objects"),
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
