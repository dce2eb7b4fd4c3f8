//! Blocks by manifest, through real processes.

use crate::kit::{Lab, OperatorOptions, arborist, assert_books_balance};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

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
