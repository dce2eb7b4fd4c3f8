//! An artifact store that is gone, full, or holds garbage: the block completes, each task counts once, and no finished
//! proof is made again. Real operators and workers, fake proofs.

use crate::kit::{Lab, OperatorOptions, Process, arborist, assert_books_balance, small_disk, sum, wait_for};
use nix::sys::signal::Signal;
use std::time::Duration;

fn lab() -> Lab {
    Lab::start(OperatorOptions { args: vec!["--lease=2s".into()], ..Default::default() })
}

const TRANSACTIONS: u32 = 8;
const TASKS: u64 = 8 * (2 * 2 + 2) - 1;

#[test]
fn the_store_is_gone_for_ten_seconds() {
    let lab = lab();
    let workers = ["a", "b"].map(|name| lab.worker(name, &["--fake-millis=60"]));
    let job = lab.submit(TRANSACTIONS, &[2], 1);
    lab.wait_done(job, 10);
    // A file in the folder's place: nothing can be read or written below it.
    let (store, away) = (lab.store(), lab.state().join("store.away"));
    std::fs::rename(&store, &away).unwrap();
    std::fs::write(&store, b"").unwrap();
    // the length of the fault, not a wait for a state
    std::thread::sleep(Duration::from_secs(10));
    let waits = || workers.iter().any(|w| w.log().contains("the proof waits for the store"));
    wait_for("a worker holds a proof back", || lab.logs(), || waits().then_some(()));
    std::fs::remove_file(&store).unwrap();
    std::fs::rename(&away, &store).unwrap();
    let before = lab.records();
    let report = lab.wait_complete(job);
    lab.records().assert_nothing_of_made_again(&before);
    assert_books_balance(&lab, &report, TASKS);
    assert_eq!(sum(&report, "retries"), 0, "a store that does not answer is charged to nobody: {report}");
}

#[test]
fn the_disk_is_full_and_gets_room_again() {
    let mut lab = Lab::prepare(OperatorOptions { args: vec!["--lease=2s".into()], ..Default::default() });
    let Some(disk) = small_disk(&lab.store(), "128k") else { return };
    lab.start_operator();
    let workers = ["a", "b"].map(|name| lab.worker(name, &["--fake-millis=20"]));
    let job = lab.submit(TRANSACTIONS, &[2], 2);
    let full = || workers.iter().any(|w| w.log().contains("store is full"));
    wait_for("the disk is full", || lab.logs(), || full().then_some(()));
    let before = lab.records();
    disk.enlarge();
    let report = lab.wait_complete(job);
    lab.records().assert_nothing_of_made_again(&before);
    assert_books_balance(&lab, &report, TASKS);
    drop(workers);
}

#[test]
fn damaged_and_truncated_proofs_are_moved_aside_and_made_again() {
    let lab = lab();
    // Some bases get done, then the worker is busy with a merge for longer than the test.
    let first = lab.worker("first", &["--prefetch=0", "--fake-millis=base=10,merge=600000"]);
    let job = lab.submit(4, &[0], 3);
    wait_for(
        "a merge is leased",
        || lab.logs(),
        || {
            let status = lab.get(&format!("/jobs/{job}"))?;
            (status["counts"][3]["running"] == 1).then_some(())
        },
    );
    first.kill();
    let before = lab.records();
    assert!(before.proofs.len() >= 2);
    let damaged: Vec<_> = before.proofs.keys().copied().collect();
    for (n, task) in damaged.iter().enumerate() {
        let file = lab.store().join("proofs").join(task.to_string());
        let mut bytes = std::fs::read(&file).unwrap();
        if n % 2 == 0 {
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
        } else {
            bytes.truncate(bytes.len() / 2);
        }
        std::fs::write(&file, bytes).unwrap();
    }
    assert_eq!(lab.records().proofs.len(), 0, "none opens any more");
    let _second = lab.worker("second", &[]);
    let report = lab.wait_complete(job);
    assert_books_balance(&lab, &report, 4 + 3);
    let after = lab.records();
    for task in &damaged {
        assert_eq!(after.proofs[task].worker, "second", "{task} was made again");
        let aside = lab.store().join("quarantine/proofs").join(format!("{task}.1"));
        assert!(aside.is_file(), "the damaged proof is kept at {}", aside.display());
        let reason = std::fs::read_to_string(aside.with_extension("1.reason")).unwrap();
        assert!(!reason.is_empty());
    }
}

/// A bucket whose server takes connections and never answers.
#[test]
fn a_signal_ends_a_start_that_waits_for_the_store() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut command = arborist();
    command
        .arg("run")
        .arg(format!("--state={}", folder.path().join("state").display()))
        .args(["--store=s3://silent", "--listen=127.0.0.1:0", "--http=127.0.0.1:0"])
        .env("AWS_ENDPOINT", format!("http://{}", silent.local_addr().unwrap()))
        .envs([("AWS_ALLOW_HTTP", "true"), ("AWS_REGION", "here")])
        .envs([("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")]);
    let operator = Process::spawn(command, folder.path().join("log"));
    silent.set_nonblocking(true).unwrap();
    let _asked = wait_for("it asks the store", || operator.log(), || silent.accept().ok());
    operator.signal(Signal::SIGTERM);
    let status = operator.wait_end("it leaves");
    assert!(status.success(), "{status}: {}", operator.log());
    assert!(operator.log().contains("leaving before the start was over"), "{}", operator.log());
}
