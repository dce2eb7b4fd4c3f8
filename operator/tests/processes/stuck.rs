//! A part of the operator that does not go on: `/healthz` names it, a signal ends the process all the same. Real
//! processes; the part is a network thread that is held from outside.

use crate::kit::http::{Answer, look};
use crate::kit::{
    ApiServer, Held, LONG_PATIENCE, Lab, Leader, OperatorOptions, arborist, wait_for, wait_within,
};
use nix::sys::signal::Signal;
use tempfile::TempDir;

const THREAD: &str = "net-0";

fn wait_named(ask: impl Fn() -> Answer, log: impl Fn() -> String) -> String {
    let red = || Some(ask()).filter(|answer| answer.status == 503);
    wait_within(LONG_PATIENCE, "/healthz says so", log, red).text()
}

/// What a probe in the image does.
fn is_healthy(address: &str) -> bool {
    let mut healthcheck = arborist();
    healthcheck.args(["healthcheck", &format!("http://{address}/healthz")]);
    healthcheck.output().expect("it runs").status.success()
}

#[test]
fn a_network_thread_of_run_that_hangs_is_named_until_it_goes_on() {
    let lab = Lab::start(OperatorOptions::default());
    assert!(is_healthy(lab.http()), "{}", lab.logs());
    let Some(held) = Held::thread(lab.operator.as_ref().unwrap(), THREAD) else { return };
    let text = wait_named(|| look(lab.http(), "/healthz"), || lab.logs());
    assert!(text.starts_with("network thread net-0: stuck for "), "{text}");
    assert!(!is_healthy(lab.http()), "{}", lab.logs());
    drop(held);
    wait_for("it is healthy again", || lab.logs(), || is_healthy(lab.http()).then_some(()));
    let _worker = lab.worker("a", &[]);
    let job = lab.submit(2, &[0], 1);
    lab.wait_complete(job);
}

#[test]
fn a_network_thread_of_run_that_hangs_keeps_neither_the_journal_nor_the_process_from_its_end() {
    let mut lab = Lab::start(OperatorOptions::default());
    let job = lab.submit(2, &[0], 1);
    let operator = lab.operator.as_ref().unwrap();
    let Some(held) = Held::thread(operator, THREAD) else { return };
    operator.signal(Signal::SIGTERM);
    operator.wait_left("it leaves");
    drop(held);
    assert_eq!(operator.wait_end("all of it has ended").code(), Some(0), "{}", operator.log());
    assert!(operator.log().contains("the network threads do not stop"), "{}", operator.log());
    lab.kill_operator();
    lab.start_operator();
    assert_eq!(lab.get(&format!("/jobs/{job}")).expect("the job")["state"], "proving");
}

#[test]
fn a_network_thread_of_a_leader_that_hangs_is_named_and_a_signal_ends_the_process() {
    let folder = TempDir::new().unwrap();
    let leader = Leader::start(folder.path(), ApiServer::start(0));
    leader.wait_leads();
    let log = || leader.process.log();
    let Some(held) = Held::thread(&leader.process, THREAD) else { return };
    let text = wait_named(|| leader.look("/healthz"), log);
    assert!(text.starts_with("dispatcher: network thread net-0: stuck for "), "{text}");
    leader.process.signal(Signal::SIGTERM);
    leader.process.wait_left("it leaves");
    assert_eq!(leader.holder(), "", "a standby need not wait for the Lease's end: {}", log());
    drop(held);
    assert_eq!(leader.process.wait_end("all of it has ended").code(), Some(0), "{}", log());
}
