//! SIGHUP, when a terminal closes: workers and operators leave as at SIGTERM, unless they were started by `nohup`.

use crate::kit::{Lab, OperatorOptions, Process, assert_books_balance, wait_for};
use crate::prove::{go_on, half_way};
use nix::sys::signal::Signal;
use std::process::Command;
use tempfile::TempDir;

#[test]
fn a_worker_hands_in_what_it_runs_and_takes_nothing_more_at_sighup() {
    let lab = Lab::start(OperatorOptions { args: vec!["--lease=5s".into()], ..Default::default() });
    let leaver = lab.worker("leaver", &["--fake-millis=400"]);
    let job = lab.submit(4, &[1], 1);
    lab.wait_done(job, 2);
    leaver.signal(Signal::SIGHUP);
    assert_eq!(leaver.wait_end("it has drained").code(), Some(0), "{}", leaver.log());
    assert!(leaver.log().contains("draining"), "{}", leaver.log());
    let before = lab.records();
    let _other = lab.worker("other", &[]);
    let report = lab.wait_complete(job);
    lab.records().assert_nothing_of_made_again(&before);
    assert_books_balance(&lab, &report, 15);
    assert_eq!(lab.metric("arborist_leases_lost_total").unwrap_or(0.0), 0.0, "{}", lab.logs());
}

#[test]
fn a_closed_terminal_drains_prove_and_the_same_command_goes_on() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("out");
    let process = half_way(&out);
    process.signal(Signal::SIGHUP);
    assert_eq!(process.wait_end("it has drained").code(), Some(3), "{}", process.log());
    assert!(process.log().contains("SIGHUP: letting the workers finish"), "{}", process.log());
    go_on(&out);
}

#[test]
fn run_stops_at_sighup_as_at_sigterm() {
    let lab = Lab::start(OperatorOptions::default());
    let operator = lab.operator.as_ref().unwrap();
    operator.signal(Signal::SIGHUP);
    assert_eq!(operator.wait_end("it leaves").code(), Some(0), "{}", operator.log());
    assert!(operator.log().contains("SIGHUP"), "{}", operator.log());
}

#[test]
fn what_nohup_started_outlives_its_terminal() {
    let lab = Lab::start(OperatorOptions::default());
    let mut worker = Command::new("sh");
    worker.args(["-c", "trap '' HUP; exec \"$0\" \"$@\""]).arg(crate::kit::worker_program().get_program());
    worker.args([
        "--backend=fake",
        "--name=deaf",
        "--cores=1",
        "--memory-mib=1024",
        "--connect",
        &lab.address,
    ]);
    for (option, file) in [("--ca-cert", "ca.pem"), ("--token-file", "worker-token")] {
        worker.arg(option).arg(lab.state().join(file));
    }
    let worker = Process::spawn(worker, lab.folder().join("deaf.log"));
    let connected = || lab.metric("arborist_workers_connected").filter(|n| *n == 1.0);
    wait_for("it is logged in", || lab.logs(), connected);
    worker.signal(Signal::SIGHUP);
    let job = lab.submit(2, &[0], 1);
    lab.wait_complete(job);
    assert!(!worker.has_ended(), "{}", worker.log());
    worker.signal(Signal::SIGTERM);
    assert_eq!(worker.wait_end("it leaves").code(), Some(0), "{}", worker.log());
}
