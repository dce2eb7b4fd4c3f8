//! Blocks by manifest, through real processes.

use crate::kit::{Lab, OperatorOptions, arborist, assert_books_balance, serve_files};
use crate::prove::{fake, run};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

const TRANSACTIONS: u64 = 256;
/// T·(2N+2)−1 with two calls each.
const TASKS: u64 = TRANSACTIONS * 6 - 1;

fn succeeds(command: &mut Command) -> String {
    let output = command.output().expect("the program runs");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn post(lab: &Lab, path: &str, body: &Value) -> (u16, Value) {
    let answer = lab.ask("POST", path, "Content-Type: application/json\r\n", body.to_string().as_bytes());
    (answer.status, answer.json())
}

/// A block whose private proofs are random bytes.
fn new_block(folder: &Path) -> PathBuf {
    let file = folder.join("block.json");
    succeeds(
        arborist()
            .args(["block", "new", "--transactions", &TRANSACTIONS.to_string(), "--calls", "2"])
            .args(["--objects", "random:1500", "--out"])
            .arg(&file),
    );
    file
}

#[test]
fn a_block_by_manifest_is_pushed_taken_in_and_proven_with_stand_ins() {
    let lab = Lab::start(OperatorOptions::default());
    let file = new_block(lab.folder());
    let block: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    // a third of the private proofs is not in the store yet
    let (status, answer) = post(&lab, "/blocks?prover=alice", &block);
    assert_eq!(status, 409, "{answer}");
    let error = answer["error"].as_str().unwrap_or_default();
    assert!(
        error.starts_with("transactions[") && error.contains("`arborist block push` it first"),
        "{error}"
    );
    let store = format!("file://{}", lab.store().display());
    let pushed = succeeds(arborist().args(["block", "push", "--store", &store]).arg(&file));
    assert!(pushed.starts_with(&format!("url: {store}/inputs/")), "{pushed}");
    let (status, answer) = post(&lab, "/blocks?prover=alice", &block);
    assert_eq!(status, 200, "{answer}");
    let job = answer["id"].as_u64().expect("a job");
    let _workers = ["a", "b"].map(|name| lab.worker(name, &["--fake-millis", "1"]));
    let report = lab.wait_complete(job);
    assert_books_balance(&lab, &report, TASKS);
    assert_eq!(lab.metric("arborist_intake_bytes"), Some(0.0), "nothing of the file is held any more");
}

#[test]
fn prove_takes_the_private_proofs_beside_the_block_file() {
    let lab = Lab::prepare(OperatorOptions::default());
    let file = new_block(lab.folder());
    let out = lab.folder().join("out");
    let prove = || {
        let mut command = arborist();
        command.args(["prove", "--backend", "fake", "--fake-millis", "1", "--block"]).arg(&file);
        command.arg("--out").arg(&out);
        command
    };
    let objects = lab.folder().join("objects");
    let lost = std::fs::read_dir(&objects).unwrap().next().unwrap().unwrap().path();
    let aside = lab.folder().join("aside");
    std::fs::rename(&lost, &aside).unwrap();
    let output = prove().output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains(".private_proof: the object ")
            && stderr.contains("neither in the artifact store nor in"),
        "{stderr}"
    );
    std::fs::rename(&aside, &lost).unwrap();
    succeeds(&mut prove());
    assert!(out.join("root.proof").exists());
}

/// A small block whose private proofs are random bytes, in this folder; gives back the file's SHA-256.
fn small_block(folder: &Path) -> String {
    let file = folder.join("block.json");
    let mut command = arborist();
    command.args(["block", "new", "--transactions=2", "--calls=1", "--objects=random:1500"]);
    succeeds(command.arg("--out").arg(&file));
    hex::encode(Sha256::digest(std::fs::read(&file).unwrap()))
}

#[test]
fn prove_takes_the_url_that_push_prints() {
    let folder = TempDir::new().unwrap();
    small_block(folder.path());
    let store = format!("file://{}", folder.path().join("store").display());
    let mut push = arborist();
    let pushed =
        succeeds(push.args(["block", "push", "--store", &store]).arg(folder.path().join("block.json")));
    let said = |name: &str| pushed.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
    let (url, sha256) = (said("url: "), said("sha256: "));
    // what is beside the file is not needed: it is all in the store
    std::fs::remove_dir_all(folder.path().join("objects")).unwrap();
    let out = folder.path().join("out");
    let (code, stdout, stderr) =
        run(fake(&out, &["--block", &url, "--sha256", &sha256, "--store", &store, "--fake-millis=1"]));
    assert_eq!(code, 0, "{stdout}{stderr}");
    assert!(out.join("root.proof").exists());
}

#[test]
fn run_takes_the_url_of_a_web_server_with_the_private_proofs_beside_the_block() {
    let folder = TempDir::new().unwrap();
    let sha256 = small_block(folder.path());
    let url = format!("{}/block.json?signature=1", serve_files(folder.path()));
    let args = vec!["--block".into(), url, "--sha256".into(), sha256];
    let lab = Lab::start(OperatorOptions { args, ..OperatorOptions::default() });
    let _worker = lab.worker("a", &["--fake-millis=1"]);
    let report = lab.wait_complete(1);
    assert_books_balance(&lab, &report, 7);
    assert_eq!(lab.metric("arborist_intake_bytes"), Some(0.0), "nothing of the file is held any more");
}

#[test]
fn a_url_that_does_not_give_the_block_is_told_as_of_a_provingjob() {
    let folder = TempDir::new().unwrap();
    let sha256 = small_block(folder.path());
    let no_block = "not a block";
    std::fs::write(folder.path().join("text"), no_block).unwrap();
    let web = serve_files(folder.path());
    let (block, text) = (format!("{web}/block.json"), format!("{web}/text"));
    let (missing, other) = (format!("{web}/none?secret=1"), "0".repeat(64));
    let of_text = hex::encode(Sha256::digest(no_block));
    let state = format!("--state={}", folder.path().join("state").display());
    for (url, hash, code, said) in [
        (
            &block,
            Some(&other),
            2,
            format!("--sha256: the source has SHA-256 {sha256}, the option says {other}"),
        ),
        (&block, None, 2, "--sha256: missing".into()),
        (&missing, Some(&sha256), 1, format!("--block: GET {web}/none: 404 Not Found")),
        (&text, Some(&of_text), 2, format!("{text}: file: ")),
        (&"ftp://h/b".to_owned(), Some(&sha256), 2, "allowed are http://, https://, s3://".into()),
    ] {
        let hash = hash.map(|hash| format!("--sha256={hash}"));
        let args: Vec<&str> = ["--block", url].into_iter().chain(hash.as_deref()).collect();
        let mut serve = arborist();
        serve
            .args(["run", "--backend=fake", &state, "--listen=127.0.0.1:0", "--http=127.0.0.1:0"])
            .args(&args);
        for command in [fake(&folder.path().join("out"), &args), serve] {
            let (found, _, stderr) = run(command);
            assert_eq!(found, code, "{args:?}: {stderr}");
            assert!(stderr.contains(&said) && !stderr.contains("secret"), "{args:?}: {stderr}");
        }
    }
}

#[test]
fn a_block_of_four_billion_transactions_is_refused_before_anything_is_made() {
    let lab = Lab::start(OperatorOptions::default());
    let synthetic = |transactions: u64, calls: &[u8]| {
        let body = json!({"synthetic": {"transactions": transactions, "calls": calls}, "prover": "me"});
        post(&lab, "/jobs", &body)
    };
    for (transactions, calls) in [(4_294_967_295, &[2][..]), (65_537, &[2]), (0, &[2]), (2, &[])] {
        let (status, answer) = synthetic(transactions, calls);
        assert_eq!(status, 400, "{transactions}: {answer}");
        assert!(answer["error"].as_str().is_some_and(|e| e.starts_with("synthetic.")), "{answer}");
    }
    let (status, _) = synthetic(4, &[2]);
    assert_eq!(status, 200);
}
