//! What outlives the dispatcher.

use crate::lab::{Lab, PATIENCE, block, until};
use crate::worker::{Worker, hello, task};
use arborist_core::engine::JobState;
use arborist_core::ids::TaskId;
use arborist_core::wire::{Held, Hello};
use std::collections::HashSet;
use std::time::Duration;

/// Proves `count` tasks, one after the other, each acknowledged.
fn prove_some(lab: &Lab, worker: &mut Worker, count: usize) -> Vec<TaskId> {
    let mut done = vec![];
    for _ in 0..count {
        let lease = worker.leases(1).remove(0);
        worker.prove(lab, &lease);
        worker.report(&lease);
        worker.acknowledged();
        done.push(task(&lease));
    }
    done
}

fn finish(lab: &Lab, job: arborist_core::engine::JobId, before: Vec<TaskId>, total: usize) {
    let mut worker = Worker::login(&lab.dispatcher, hello("after"));
    let after = worker.work(lab, job);
    assert_eq!(lab.wait(job), JobState::Complete);
    let all: HashSet<_> = before.iter().chain(&after).collect();
    assert_eq!(all.len(), total, "every task was proven");
    assert_eq!(before.len() + after.len(), total, "none twice");
}

#[test]
fn after_a_shutdown_nothing_finished_is_leased_again() {
    let mut lab = Lab::new();
    let job = lab.submit(block(4));
    let mut worker = Worker::login(&lab.dispatcher, hello("before"));
    let before = prove_some(&lab, &mut worker, 5);
    lab.restart_after(false);
    assert!(worker.is_closed());
    assert_eq!(lab.metric("arborist_proofs_found_total"), 0, "the journal knows them");
    finish(&lab, job, before, 15);
}

#[test]
fn after_a_crash_the_lost_tail_comes_from_the_store() {
    // nothing but the submit itself is ever written
    let mut lab = Lab::tuned(|o| o.journal.interval = Duration::from_secs(3600));
    let job = lab.submit(block(4));
    let mut worker = Worker::login(&lab.dispatcher, hello("before"));
    let before = prove_some(&lab, &mut worker, 6);
    lab.restart_after(true);
    assert_eq!(lab.metric("arborist_proofs_found_total"), 6, "each was looked up");
    finish(&lab, job, before, 15);
}

#[test]
fn running_leases_are_adopted_after_a_restart() {
    for crash in [true, false] {
        let mut lab = Lab::new();
        let job = lab.submit(block(2));
        let mut worker = Worker::login(&lab.dispatcher, hello("w"));
        let lease = worker.leases(1).remove(0);
        lab.restart_after(crash);
        let held = Held { task: lease.task.clone(), fence: lease.fence, running_millis: 7 };
        let mut worker = Worker::login(&lab.dispatcher, Hello { held: vec![held], ..hello("w") });
        let mut other = Worker::login(&lab.dispatcher, hello("other"));
        let another = other.leases(1).remove(0);
        assert_ne!(task(&another), task(&lease), "it still runs");
        assert!(another.fence > lease.fence, "fences grow across restarts");
        worker.prove(&lab, &lease);
        worker.report(&lease);
        worker.acknowledged();
        let counts = lab.dispatcher.job(job).unwrap().counts;
        assert_eq!(counts[0].done, 1, "crash: {crash}");
    }
}

#[test]
fn a_finished_job_stays_finished_and_a_cancelled_one_cancelled() {
    let mut lab = Lab::new();
    let done = lab.submit(block(1));
    Worker::login(&lab.dispatcher, hello("w")).work(&lab, done);
    assert_eq!(lab.wait(done), JobState::Complete);
    let cancelled = lab.submit(block(3));
    lab.runtime.block_on(lab.dispatcher.cancel(cancelled)).unwrap();
    lab.restart_after(true);
    assert_eq!(lab.wait(done), JobState::Complete);
    assert_eq!(lab.wait(cancelled), JobState::Cancelled);
    assert_eq!(lab.submit(block(3)), cancelled, "the same block is the same job, revived");
    assert_eq!(lab.dispatcher.job(cancelled).unwrap().state, JobState::Proving);
}

#[test]
fn a_root_that_was_being_checked_is_checked_after_the_restart() {
    let mut lab = Lab::new();
    let job = lab.submit(block(1));
    let mut worker = Worker::login(&lab.dispatcher, hello("w"));
    let mut lease = worker.leases(1).remove(0);
    while lease.kind != 4 {
        worker.prove(&lab, &lease);
        worker.report(&lease);
        worker.acknowledged();
        lease = worker.leases(1).remove(0);
    }
    worker.prove(&lab, &lease);
    // the proof is there, its report never came
    lab.restart_after(true);
    assert_eq!(lab.wait(job), JobState::Complete);
}

#[test]
fn the_older_of_two_dispatchers_stops() {
    let lab = Lab::tuned(|o| o.lease = Duration::from_secs(2));
    lab.submit(block(2));
    let mut worker = Worker::login(&lab.dispatcher, hello("w"));
    let second = lab.start_another();
    let by = lab.runtime.block_on(async {
        tokio::time::timeout(PATIENCE, lab.dispatcher.stopped()).await.expect("it notices")
    });
    assert!(by.is_some());
    assert!(worker.is_closed());
    until("it says so", || {
        lab.dispatcher.pending().iter().any(|p| p.contains("another operator")).then_some(())
    });
    assert!(lab.runtime.block_on(lab.dispatcher.submit(block(3))).is_err());
    assert_eq!(second.fenced(), None);
    assert_eq!(second.jobs().len(), 1);
    lab.runtime.block_on(second.abandon());
}
