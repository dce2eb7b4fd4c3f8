//! The process backend with the reference plug-in, and with one that misbehaves in every way.

use crate::support::*;
use arborist_core::circuit::Circuit;
use arborist_core::fake_proof;
use arborist_core::proof_object::ProofObject;
use arborist_core::wire::{self, Reason, ToWorker};
use nix::sys::signal::kill;
use nix::unistd::Pid;
use std::path::Path;
use std::process::{Command, Output};

const HASH: &str = env!("CARGO_BIN_EXE_arborist-plugin-hash");
const BAD: &str = env!("CARGO_BIN_EXE_arborist-plugin-bad");

/// A worker whose job folders are in `jobs` of the dispatcher's folder.
fn worker(dispatcher: &Dispatcher, plugin: &str, mode: Option<&str>, more: &[&str]) -> Worker {
    let jobs = dispatcher.dir.path().join("jobs");
    std::fs::create_dir_all(&jobs).unwrap();
    let mut args = vec!["--backend", "process", "--plugin", plugin, "--work-dir", jobs.to_str().unwrap()];
    args.extend(mode.into_iter().flat_map(|mode| ["--plugin-arg", mode]));
    args.extend(more);
    let worker = dispatcher.worker(&args);
    dispatcher.hello();
    worker
}

/// Folders of jobs that are left in those of the workers' processes.
fn jobs_left(dispatcher: &Dispatcher) -> usize {
    let processes = std::fs::read_dir(dispatcher.dir.path().join("jobs")).unwrap();
    let folders = processes.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    folders.map(|folder| std::fs::read_dir(folder).unwrap().count()).sum()
}

#[test]
fn the_reference_plugin_proves_over_a_child_and_its_proof_is_verified() {
    let dispatcher = Dispatcher::start();
    let _worker = worker(&dispatcher, HASH, None, &[]);
    let child = proof(KERNEL, &[5]);
    dispatcher.put_proof(task(1), &sealed(task(1), KERNEL, &child));
    dispatcher.lease([lease_over(2, task(2), task(1))]);
    let done = dispatcher.result(2).unwrap();
    assert!(!done.found);
    let object = ProofObject::open(&task(2), &dispatcher.stored(task(2)).unwrap()).unwrap();
    assert_eq!(object.proof, fake_proof::prove(Circuit::Base, &[2, 7], &[], &[&child], 1000));
    assert_eq!(jobs_left(&dispatcher), 0);
}

#[test]
fn the_plugin_finds_bad_children_and_existing_proofs_too() {
    let dispatcher = Dispatcher::start();
    let _worker = worker(&dispatcher, HASH, None, &[]);
    let mut invalid = proof(KERNEL, &[5]);
    invalid.bytes[200] ^= 1;
    dispatcher.put_proof(task(1), &sealed(task(1), KERNEL, &invalid));
    dispatcher.lease([lease_over(2, task(2), task(1))]);
    let failed = dispatcher.failure(2);
    assert_eq!((reason(&failed), &failed.child[..]), (Reason::BadChild, &task(1).0[..]), "{}", failed.text);
    dispatcher.put_proof(task(3), &sealed(task(3), Circuit::Base, &proof(Circuit::Base, &[3, 7])));
    dispatcher.lease([lease(3, Circuit::Base, task(3))]);
    assert!(dispatcher.result(3).unwrap().found);
}

#[test]
fn every_misbehaviour_has_its_reason_and_stores_nothing() {
    for (mode, expected, words) in [
        ("bad-proof", Reason::BadProof, "does not verify"),
        ("partial-proof", Reason::BadProof, "does not verify"),
        ("wrong-public-inputs", Reason::BadProof, "3 public inputs, not 2"),
        ("oversize", Reason::Oversize, "32768"),
        ("partial-result", Reason::Error, "result.json"),
        ("garbage-json", Reason::Error, "result.json"),
        ("no-result", Reason::Error, "result.json"),
        ("path-outside", Reason::Error, "name of a file"),
        ("link", Reason::Error, "not a regular file"),
        ("exits-1", Reason::Error, "no luck today"),
        ("bad-input", Reason::BadInput, "code 11"),
        ("killed", Reason::OutOfMemory, "memory"),
        ("takes-memory", Reason::OutOfMemory, "memory"),
        ("hangs", Reason::TimedOut, "ran longer"),
        ("ignores-sigterm", Reason::TimedOut, "ran longer"),
        ("verify-crashes", Reason::Error, "could not be checked"),
    ] {
        let dispatcher = Dispatcher::start();
        let _worker = worker(&dispatcher, BAD, Some(mode), &[]);
        let limit_millis = if expected == Reason::TimedOut { 200 } else { 0 };
        dispatcher.lease([wire::Lease { limit_millis, ..lease(1, Circuit::Base, task(1)) }]);
        let failed = dispatcher.failure(1);
        // the mode that only verifies badly is told apart from a bad proof
        let text = &failed.text;
        assert_eq!(reason(&failed), expected, "{mode}: {text}");
        let unable = expected == Reason::Error && mode == "verify-crashes";
        assert!(text.contains(words) || (unable && text.contains("verify")), "{mode}: {text}");
        assert!(dispatcher.stored(task(1)).is_none(), "{mode}");
        assert_eq!(jobs_left(&dispatcher), 0, "{mode}");
    }
}

#[test]
fn a_crashing_verifier_blames_no_child() {
    let dispatcher = Dispatcher::start();
    let _worker = worker(&dispatcher, BAD, Some("verify-crashes"), &[]);
    dispatcher.put_proof(task(1), &sealed(task(1), KERNEL, &proof(KERNEL, &[5])));
    dispatcher.lease([lease_over(2, task(2), task(1))]);
    let failed = dispatcher.failure(2);
    assert_eq!((reason(&failed), failed.child.len()), (Reason::Error, 0), "{}", failed.text);
}

#[test]
fn nothing_of_the_group_is_left_behind() {
    let dispatcher = Dispatcher::start();
    let _worker = worker(&dispatcher, BAD, Some("leaves-a-child"), &[]);
    dispatcher.lease([lease(1, Circuit::Base, task(1))]);
    let text = dispatcher.failure(1).text;
    let pid = text.rsplit_once("child ").expect(&text).1.trim().parse().unwrap();
    until("the child's end", || gone(pid));
}

/// No such process, or one that is dead and only not yet collected.
fn gone(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    kill(Pid::from_raw(pid), None).is_err() || stat.contains(") Z ")
}

fn plugins_of(worker: &Worker) -> Vec<i32> {
    let parent = worker.child.id().to_string();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|p| p.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().nth(1).map(str::to_owned));
        fields.flatten() == Some(parent.clone())
    })
    .collect()
}

#[test]
fn a_revoked_lease_ends_the_plugin() {
    let dispatcher = Dispatcher::start();
    let worker = worker(&dispatcher, BAD, Some("hangs"), &[]);
    dispatcher.lease([lease(1, Circuit::Base, task(1))]);
    until("the plug-in", || plugins_of(&worker).len() == 1);
    let plugin = plugins_of(&worker)[0];
    dispatcher.send(ToWorker { revoked: vec![1], ..Default::default() });
    until("the plug-in's end", || gone(plugin));
    until("the job folder's end", || jobs_left(&dispatcher) == 0);
}

#[test]
fn a_leaving_worker_takes_its_plugin_along_however_it_leaves() {
    use nix::sys::signal::Signal;
    // the stubborn one does not end by SIGTERM, so it shows whether the worker insists
    for (mode, signals, code) in [
        ("ignores-sigterm", &[Signal::SIGTERM][..], Some(0)),
        ("ignores-sigterm", &[Signal::SIGTERM, Signal::SIGTERM], Some(1)),
        ("hangs", &[Signal::SIGKILL], None),
    ] {
        let dispatcher = Dispatcher::start();
        let grace = if signals.len() == 2 { "3600" } else { "0" };
        let worker = worker(&dispatcher, BAD, Some(mode), &["--grace", grace]);
        dispatcher.lease([lease(1, Circuit::Base, task(1))]);
        until("the plug-in", || plugins_of(&worker).len() == 1);
        let plugin = plugins_of(&worker)[0];
        for (i, signal) in signals.iter().enumerate() {
            if i > 0 {
                dispatcher.frame("word that it leaves", |frame| frame.draining.clone());
            }
            worker.signal(*signal);
        }
        assert_eq!(worker.end().0, code, "{mode} {signals:?}");
        until("the plug-in's end", || gone(plugin));
    }
}

#[test]
fn a_key_other_than_the_pinned_one_is_refused() {
    let dispatcher = Dispatcher::start();
    let keys = dispatcher.dir.path().join("keys.json");
    let right = hex::encode(fake_proof::vk_hash(KERNEL));
    let json = format!(r#"{{"kernel/2": "{right}", "base": "{}"}}"#, "0".repeat(64));
    std::fs::write(&keys, json).unwrap();
    let _worker = worker(&dispatcher, HASH, None, &["--plugin-keys", keys.to_str().unwrap()]);
    dispatcher.lease([lease(1, KERNEL, task(1)), lease(2, Circuit::Base, task(2))]);
    let mut ends = vec![];
    dispatcher.frame("both results", |frame| {
        ends.extend(frame.completed.iter().map(|c| (c.fence, None)));
        ends.extend(frame.failed.iter().map(|f| (f.fence, Some(reason(f)))));
        (ends.len() == 2).then_some(())
    });
    ends.sort_unstable_by_key(|(fence, _)| *fence);
    assert_eq!(ends, [(1, None), (2, Some(Reason::BadProof))]);
}

#[test]
fn a_plugin_that_can_not_say_who_it_is_is_not_used() {
    let dispatcher = Dispatcher::start();
    for args in [&["--plugin", BAD, "--plugin-arg", "info-crashes"][..], &["--plugin", "/bin/true"]] {
        let mut all = vec!["--backend", "process"];
        all.extend(args);
        let (code, text) = dispatcher.worker(&all).end();
        assert_eq!(code, Some(2), "{text}");
        assert!(text.contains("`info`"), "{text}");
    }
}

fn verify(object: &Path, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_arborist-worker"))
        .args(["verify", "--circuit", "root/2", "--object"])
        .arg(object)
        .args(more)
        .output()
        .unwrap()
}

#[test]
fn the_verify_command_says_valid_invalid_or_that_it_can_not_say() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("root.proof");
    let circuit = Circuit::Root { height: 2 };
    let good = sealed(task(1), circuit, &proof(circuit, &[5]));
    let mut invalid = proof(circuit, &[5]);
    invalid.bytes[90] ^= 1;
    let hash = ["--backend", "process", "--plugin", HASH];
    let crashing = ["--backend", "process", "--plugin", BAD, "--plugin-arg", "verify-crashes"];
    let other_task = task(2).to_string();
    let named = ["--backend", "fake", "--task", &other_task];
    let cases: [(&[u8], &[&str], i32); 8] = [
        (&good, &hash, 0),
        (&good, &["--backend", "fake"], 0),
        (&sealed(task(1), circuit, &invalid), &hash, 1),
        (&sealed(task(1), Circuit::Base, &proof(Circuit::Base, &[5])), &hash, 1),
        (&good[..good.len() - 1], &hash, 1),
        (&good, &named, 1),
        (&good, &crashing, 2),
        (&good, &["--backend", "process", "--plugin", "/nowhere"], 2),
    ];
    for (n, (object, args, code)) in cases.into_iter().enumerate() {
        std::fs::write(&file, object).unwrap();
        let output = verify(&file, args);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "case {n}: {text}");
    }
    assert_eq!(verify(Path::new("/nowhere/proof"), &hash).status.code(), Some(2));
}

#[test]
fn a_proof_object_may_come_on_standard_input() {
    use std::io::Write;
    let root = Circuit::Root { height: 2 };
    let object = sealed(task(9), root, &proof(root, &[1]));
    for (bytes, code) in [(&object[..], 0), (&object[..object.len() - 1], 1)] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_arborist-worker"))
            .args([
                "verify",
                "--circuit",
                "root/2",
                "--object",
                "-",
                "--backend",
                "process",
                "--plugin",
                HASH,
            ])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(bytes).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(code));
    }
}

#[test]
fn a_plugin_is_described_by_its_keys_and_without_them_by_its_version() {
    let dir = tempfile::tempdir().unwrap();
    let keys = |hash: &str| {
        let file = dir.path().join(format!("{hash}.json"));
        std::fs::write(&file, format!(r#"{{"vm": "{}"}}"#, hash.repeat(32))).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let describe = |more: &[&str]| -> serde_json::Value {
        let mut command = Command::new(env!("CARGO_BIN_EXE_arborist-worker"));
        let output = command.arg("describe").args(more).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let plugin = ["--backend", "process", "--plugin", HASH];
    let (a, b) = (keys("aa"), keys("bb"));
    let all = [
        describe(&plugin),
        describe(&[&plugin[..], &["--plugin-keys", &a]].concat()),
        describe(&[&plugin[..], &["--plugin-keys", &b]].concat()),
    ];
    for (place, one) in all.iter().enumerate() {
        assert_eq!(
            (one["backend"].as_str(), one["circuits"].as_str()),
            (Some("process"), Some("mini-rollup-v1"))
        );
        assert_eq!(one["keys"].as_str().map(str::len), Some(64));
        assert!(all[..place].iter().all(|other| other["keys"] != one["keys"]), "{all:?}");
    }
    assert_eq!(describe(&["--backend", "fake"])["keys"], serde_json::Value::Null);
}
