//! The same block again: by another backend, after a damage to the store, after tasks gave up.

use crate::kit::{self, arborist, wait_for, worker_program};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

fn run(command: &mut Command) -> (i32, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    (status.code().unwrap(), said)
}

fn prove(out: &Path, block: &Path, args: &[&str]) -> (i32, String) {
    let mut command = arborist();
    command.args(["prove", "--worker-cores=1", "--prover=p", "--out"]).arg(out);
    run(command.arg("--block").arg(block).args(args))
}

fn verify(out: &Path, args: &[&str]) -> (i32, String) {
    run(arborist().arg("verify").arg(out).args(args))
}

/// Where the root's proof lies in the store, by what was published last.
fn stored_root(out: &Path) -> PathBuf {
    let public: Value = serde_json::from_slice(&std::fs::read(out.join("public.json")).unwrap()).unwrap();
    out.join("state/store/proofs").join(public["task"].as_str().unwrap())
}

fn damage(file: &Path) {
    let mut bytes = std::fs::read(file).unwrap();
    bytes[9_000] ^= 1;
    std::fs::write(file, bytes).unwrap();
}

#[test]
fn one_folder_serves_all_backends_and_a_complete_block_is_looked_at_again() {
    let folder = TempDir::new().unwrap();
    let (out, block) = (folder.path().join("out"), folder.path().join("b.json"));
    let new = ["block", "new", "--transactions=2", "--calls=0", "--out"];
    assert_eq!(run(arborist().args(new).arg(&block)).0, 0);
    let plugin = Path::new(worker_program().get_program()).with_file_name("arborist-plugin-hash");
    let plugin = format!("--plugin={}", plugin.display());

    let (code, said) = prove(&out, &block, &["--backend=fake"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(verify(&out, &[]).0, 1, "fake proofs prove nothing");

    let (code, said) = prove(&out, &block, &["--backend=process", &plugin]);
    assert_eq!(code, 0, "{said}");
    assert!(!said.contains("there already"), "no fake proof is one of the plug-in's: {said}");
    let (code, said) = verify(&out, &[&plugin]);
    assert_eq!(code, 0, "{said}");

    let (code, said) = prove(&out, &block, &[]);
    assert_eq!(code, 0, "{said}");
    assert!(!said.contains("there already"), "{said}");
    let (code, said) = verify(&out, &[]);
    assert_eq!(code, 0, "{said}");

    for case in ["a flipped bit", "deleted"] {
        match case {
            "deleted" => std::fs::remove_file(stored_root(&out)).unwrap(),
            _ => damage(&stored_root(&out)),
        }
        let (code, said) = prove(&out, &block, &[]);
        assert_eq!(code, 0, "{case}: {said}");
        assert!(said.contains("the root proof made before is made again"), "{case}: {said}");
        let (code, said) = verify(&out, &[]);
        assert_eq!(code, 0, "{case}: {said}");
        assert_eq!(std::fs::read(stored_root(&out)).unwrap(), std::fs::read(out.join("root.proof")).unwrap());
    }
    let aside = std::fs::read_dir(out.join("state/store/quarantine/proofs")).unwrap().count();
    assert!(aside > 0, "the bad one is kept aside");
}

#[test]
fn tasks_that_gave_up_are_tried_again_by_the_same_command() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("out");
    let command = |faults: &[&str]| {
        let mut command = arborist();
        command.args(["prove", "--backend=fake", "--transactions=2", "--calls=1", "--grace=1s", "--out"]);
        command.arg(&out).args(faults);
        command
    };
    let process = kit::Process::spawn(command(&["--fake-faults=poison=1000"]), folder.path().join("log"));
    wait_for("a task gives up", || process.log(), || process.log().contains(" gave up after ").then_some(()));
    process.signal(Signal::SIGINT);
    assert_eq!(process.wait_end("it has drained").code(), Some(3), "{}", process.log());
    let (code, said) = run(&mut command(&[]));
    assert_eq!(code, 0, "{said}");
}

#[test]
fn a_made_up_block_and_proofs_that_fit_no_worker_are_refused_before_anything_is_served() {
    let folder = TempDir::new().unwrap();
    let state = folder.path().join("state");
    let cases: [(&[&str], &str); 3] = [
        (&["run", "--synthetic", "--state"], "--synthetic: given with --backend plonky2, allowed is fake"),
        (&["prove", "--worker-cores=2", "--needs=vm=4/1Gi", "--out"], "--needs: vm needs 4 cores"),
        (
            &["prove", "--transactions=1", "--calls=0", "--backend=process", "--plugin=/bin/false", "--out"],
            "--plugin: the plug-in /bin/false",
        ),
    ];
    for (args, expected) in cases {
        let (code, said) = run(arborist().args(args).arg(&state));
        assert_eq!(code, 2, "{args:?}: {said}");
        let error = said.lines().find_map(|line| line.strip_prefix("error: ")).unwrap_or_default();
        assert!(error.starts_with(expected), "{args:?}: {said}");
    }
}
