//! `arborist verify` with the real program and a real root proof: every way to tamper is named.

use arborist_circuits::{Plonky2, Published, Sample, Statements, prover_word, sample_block};
use arborist_core::backend::{Backend, Cancel, Child, Proof, ProveRequest};
use arborist_core::circuit::Circuit;
use arborist_core::ids::TaskId;
use arborist_core::proof_object::{Maker, ProofObject};
use assert_cmd::Command;
use ed25519_dalek::SigningKey;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::LazyLock;
use tempfile::TempDir;

const TASK: TaskId = TaskId([7; 32]);
const ROOT: Circuit = Circuit::Root { height: 0 };

/// A proven block of one transaction without calls.
struct Proven {
    proof: Proof,
    statement: Published,
}

static PROVEN: LazyLock<Proven> = LazyLock::new(|| {
    let Sample { block, mut private_proofs } = sample_block(&[0], 5, 9, 1, |_| {}).unwrap();
    let statements = Statements::new(&block, prover_word("tester")).unwrap();
    let private = private_proofs.remove(0);
    let prove = |circuit, public_inputs, inputs, children| {
        let request =
            ProveRequest { circuit, public_inputs, inputs, children, threads: 2, cancel: Cancel::default() };
        Plonky2::new().prove(&request).unwrap()
    };
    let base = prove(Circuit::Base, statements.base(0).unwrap(), vec![private], vec![]);
    let child = Child { circuit: Circuit::Base, proof: base };
    let proof = prove(ROOT, statements.root(), vec![], vec![child]);
    Proven { proof, statement: statements.published() }
});

fn seal(proof: &Proof) -> Vec<u8> {
    let maker =
        Maker { worker: "w-1".into(), node: "n".into(), finished_unix_ms: 1, millis: 2, cpu_millis: 3 };
    ProofObject::seal(TASK, ROOT, proof, &maker, &SigningKey::from_bytes(&[9; 32]))
}

fn public() -> Value {
    json!({
        "version": 1, "backend": "plonky2", "circuits": "mini-rollup-v1", "task": TASK.to_string(),
        "prover": "tester", "statement": PROVEN.statement,
    })
}

fn verify(folder: &Path, proof: &[u8], public: &Value) -> (i32, String, String) {
    std::fs::write(folder.join("root.proof"), proof).unwrap();
    std::fs::write(folder.join("public.json"), public.to_string()).unwrap();
    run(&[folder.to_str().unwrap()])
}

fn run(args: &[&str]) -> (i32, String, String) {
    let output = Command::cargo_bin("arborist").unwrap().arg("verify").args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_real_root_proof_is_valid_and_its_statement_is_printed() {
    let folder = TempDir::new().unwrap();
    let (code, stdout, stderr) = verify(folder.path(), &seal(&PROVEN.proof), &public());
    assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");
    for part in ["valid: block 9 of chain 5, 1 transactions", "(tester)"] {
        assert!(stdout.contains(part), "{stdout}");
    }
    assert!(!stdout.contains("w-1"), "who made it nobody has checked: {stdout}");
    assert!(stdout.contains(&PROVEN.statement.transactions_commitment.to_string()), "{stdout}");
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (code, ..) = run(&["--proof", &file("root.proof"), "--public", &file("public.json")]);
    assert_eq!(code, 0);
}

type Tamper = fn(&mut Proof, &mut Value);

#[test]
fn whatever_is_tampered_with_is_refused_by_the_check_that_is_there_for_it() {
    let cases: [(&str, Tamper); 12] = [
        ("task", |_, public| public["task"] = json!("ab".repeat(32))),
        ("backend", |_, public| public["backend"] = json!("fake")),
        ("backend", |_, public| public["backend"] = json!("process")),
        ("circuits", |_, public| public["circuits"] = json!("mini-rollup-v2")),
        ("prover", |_, public| public["prover"] = json!("thief")),
        ("statement", |_, public| {
            public["prover"] = json!("thief");
            public["statement"]["prover_id"] = json!(prover_word("thief"));
        }),
        ("statement", |_, public| public["statement"]["state_after"] = json!("00".repeat(32))),
        ("statement", |_, public| public["statement"] = json!(null)),
        ("transactions", |_, public| public["statement"]["transactions"] = json!(0)),
        ("circuit", |_, public| public["statement"]["transactions"] = json!(2)),
        ("verification key", |proof, _| proof.vk_hash[0] ^= 1),
        ("proof", |proof, _| proof.bytes[50_000] ^= 1),
    ];
    let folder = TempDir::new().unwrap();
    for (check, tamper) in cases {
        let (mut proof, mut public) = (PROVEN.proof.clone(), public());
        tamper(&mut proof, &mut public);
        let (code, stdout, stderr) = verify(folder.path(), &seal(&proof), &public);
        assert_eq!((code, stdout.as_str()), (1, ""), "{check}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{check}: {stderr}");
        assert!(stderr.starts_with(&format!("error: invalid: {check}: ")), "{check}: {stderr}");
    }
}

#[test]
fn a_statement_changed_in_proof_and_publication_alike_does_not_verify() {
    let (mut proof, mut public) = (PROVEN.proof.clone(), public());
    proof.public_inputs[0] = 10;
    public["statement"]["block_number"] = json!(10);
    let folder = TempDir::new().unwrap();
    let (code, _, stderr) = verify(folder.path(), &seal(&proof), &public);
    assert_eq!(code, 1);
    assert!(stderr.starts_with("error: invalid: proof: "), "{stderr}");
}

/// A text that takes a line of its own and colours it.
const FORGED: &str = "x\n\u{1b}[32mvalid: block 9 of chain 5\u{1b}[0m";

#[test]
fn what_nobody_has_checked_prints_no_line_of_its_own() {
    let folder = TempDir::new().unwrap();
    let maker =
        Maker { worker: FORGED.into(), node: FORGED.into(), finished_unix_ms: 1, millis: 2, cpu_millis: 3 };
    let resealed = ProofObject::seal(TASK, ROOT, &PROVEN.proof, &maker, &SigningKey::from_bytes(&[8; 32]));
    let (code, stdout, _) = verify(folder.path(), &resealed, &public());
    assert_eq!(code, 0, "the proof is as good as before");
    assert_eq!(stdout.matches("valid").count(), 1, "{stdout:?}");
    assert!(!stdout.contains('\u{1b}'), "{stdout:?}");
    for (field, code, check) in
        [("prover", 2, "prover: `x"), ("backend", 1, "backend"), ("circuits", 1, "circuits")]
    {
        let mut public = public();
        public[field] = json!(FORGED);
        let (found, stdout, stderr) = verify(folder.path(), &seal(&PROVEN.proof), &public);
        assert_eq!((found, stdout.as_str()), (code, ""), "{field}: {stderr:?}");
        assert!(stderr.contains(check) && !stderr.contains('\u{1b}'), "{field}: {stderr:?}");
        assert_eq!(stderr.lines().count(), 1, "{field}: {stderr:?}");
    }
}

/// A stand-in for the worker's program: it describes a plug-in, and a check lasts until the file was replaced by another;
/// what it was given to check it keeps.
fn stand_in(folder: &Path, keys: &str) -> std::path::PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let program = folder.join("worker");
    let described = json!({"backend": "process", "circuits": "mini-rollup-v1", "keys": keys});
    let script = format!(
        "#!/bin/sh\ncase $1 in\ndescribe) echo '{described}';;\nverify) echo replaced > {0}/root.proof; echo \"$@\" > \
         {0}/args; cat > {0}/given;;\nesac\n",
        folder.display()
    );
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    program
}

#[test]
fn a_plugin_is_given_the_bytes_that_were_checked_and_has_to_have_the_keys() {
    let folder = TempDir::new().unwrap();
    let keys = "ab".repeat(32);
    let program = stand_in(folder.path(), &keys);
    let object = seal(&PROVEN.proof);
    let verify = |public_keys: &str| {
        let mut public = public();
        public["backend"] = json!("process");
        public["keys"] = json!(public_keys);
        std::fs::write(folder.path().join("root.proof"), &object).unwrap();
        std::fs::write(folder.path().join("public.json"), public.to_string()).unwrap();
        let mut command = Command::cargo_bin("arborist").unwrap();
        command.env("ARBORIST_WORKER", &program).arg("verify").arg(folder.path());
        command.args(["--plugin", "/a/prover"]).output().unwrap()
    };
    let output = verify(&keys);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    assert_eq!(read("root.proof"), b"replaced\n", "somebody changed the file meanwhile");
    assert_eq!(read("given"), object);
    assert!(String::from_utf8(read("args")).unwrap().contains("--object -"));
    let output = verify(&"cd".repeat(32));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.starts_with("error: invalid: verification key: bound to the keys cdcd"), "{stderr}");
}

#[test]
fn a_truncated_or_damaged_object_is_refused() {
    let folder = TempDir::new().unwrap();
    let whole = seal(&PROVEN.proof);
    let mut damaged = whole.clone();
    *damaged.last_mut().unwrap() ^= 1;
    for bytes in [&whole[..whole.len() - 1], &whole[..100], &[], &damaged] {
        let (code, _, stderr) = verify(folder.path(), bytes, &public());
        assert_eq!(code, 1, "{stderr}");
        assert!(stderr.starts_with("error: invalid: proof object: "), "{stderr}");
    }
}

#[test]
fn files_that_are_missing_or_malformed_are_wrong_input() {
    let folder = TempDir::new().unwrap();
    let (code, _, stderr) = run(&[folder.path().to_str().unwrap()]);
    assert_eq!(code, 2);
    assert!(stderr.contains("public.json: file:"), "{stderr}");
    let mut other = public();
    other["version"] = json!(9);
    let (code, _, stderr) = verify(folder.path(), b"", &other);
    assert_eq!(code, 2);
    assert!(stderr.contains("version: 9, allowed is 1"), "{stderr}");
    for args in [&[][..], &["--proof", "x"], &["--public", "x"], &["d", "--proof", "x", "--public", "y"]] {
        assert_eq!(run(args).0, 2, "{args:?}");
    }
}

#[test]
fn a_proof_of_another_prover_or_block_than_expected_is_invalid_and_json_says_so() {
    let folder = TempDir::new().unwrap();
    let (code, ..) = verify(folder.path(), &seal(&PROVEN.proof), &public());
    assert_eq!(code, 0);
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let write = |name: &str, number: u64| {
        let block = sample_block(&[0], 5, number, 1, |_| {}).unwrap().block;
        std::fs::write(file(name), serde_json::to_vec(&block).unwrap()).unwrap();
        format!("--block={}", file(name))
    };
    let (own, other) = (write("own.json", 9), write("other.json", 10));
    std::fs::write(file("bad.json"), "{}").unwrap();
    let bad = format!("--block={}", file("bad.json"));
    let id = format!("--prover=0x{}", prover_word("tester"));
    let cases: [(&[&str], i32, Value, &str); 7] = [
        (&["--prover=tester"], 0, json!(true), ""),
        (&[&id], 0, json!(true), ""),
        (&["--prover=thief"], 1, json!(false), "prover"),
        (&[&own], 0, json!(true), ""),
        (&[&own, "--prover=tester"], 0, json!(true), ""),
        (&[&other], 1, json!(false), "block"),
        (&[&bad], 2, Value::Null, ""),
    ];
    for (args, expected, valid, check) in cases {
        let mut all = vec![folder.path().to_str().unwrap(), "--json"];
        all.extend(args);
        let (code, stdout, stderr) = run(&all);
        assert_eq!(code, expected, "{args:?}: {stdout}{stderr}");
        let answer: Value =
            serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("{args:?}: {e}: {stdout}"));
        assert_eq!(answer["valid"], valid, "{args:?}: {answer}");
        assert_eq!(answer["check"].as_str().unwrap_or_default(), check, "{args:?}: {answer}");
        match code {
            0 => assert_eq!(answer["statement"]["block_number"], 9, "{answer}"),
            _ => assert!(stderr.starts_with("error: "), "{args:?}: {stderr}"),
        }
    }
}
