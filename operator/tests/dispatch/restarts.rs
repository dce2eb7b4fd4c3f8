//! What outlives the dispatcher.

use crate::lab::{Lab, PATIENCE, block, block_file, until};
use crate::worker::{Worker, hello, task};
use arborist_core::engine::JobState;
use arborist_core::ids::{ArtifactHash, TaskId};
use arborist_core::proof_object::input_key;
use arborist_core::wire::{Held, Hello};
use arborist_operator::dispatch::SubmitSource;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
        let held =
            Held { task: lease.task.clone(), fence: lease.fence, running_millis: 7, mac: lease.mac.clone() };
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

/// What is done to the object of this key.
type Spoil = dyn Fn(&Lab, &str);

#[test]
fn a_job_whose_block_is_lost_does_not_keep_the_dispatcher_from_starting() {
    let gone = |lab: &Lab, key: &str| lab.runtime.block_on(lab.store.delete(key)).unwrap();
    let damaged = move |lab: &Lab, key: &str| {
        gone(lab, key);
        lab.runtime.block_on(lab.store.create(key, "a disk's garbage".into())).unwrap();
    };
    let nothing = |_: &Lab, _: &str| {};
    let cases: [(&Spoil, &str); 3] = [(&gone, "test-v1"), (&damaged, "test-v1"), (&nothing, "test-v2")];
    for (case, (spoil, circuits)) in cases.into_iter().enumerate() {
        let upgraded = Arc::new(AtomicBool::new(false));
        let is_upgraded = upgraded.clone();
        let mut lab = Lab::tuned(move |options| {
            if is_upgraded.load(Ordering::Relaxed) {
                options.engine.profile.circuits = circuits.into();
            }
        });
        let request = block_file();
        let SubmitSource::Block(file) = &request.source else { panic!("it is a file") };
        let key = input_key(&ArtifactHash::of(file.json()));
        let (lost, stays) = (lab.submit(request.clone()), lab.submit(block(2)));
        spoil(&lab, &key);
        upgraded.store(true, Ordering::Relaxed);
        lab.restart_after(true);
        assert!(lab.dispatcher.job(lost).is_none() && lab.dispatcher.job(stays).is_some(), "case {case}");
        until("it is counted", || (lab.metric("arborist_jobs_left_out_total") == 1).then_some(()));
        lab.restart_after(false);
        assert_eq!(lab.dispatcher.jobs().len(), 1, "case {case}");
        let mut worker = Worker::login(&lab.dispatcher, Hello { circuits: circuits.into(), ..hello("w") });
        if circuits == "test-v1" {
            worker.work(&lab, stays);
            assert_eq!(lab.wait(stays), JobState::Complete, "case {case}");
        } else {
            let made_for = lab.dispatcher.other_system(stays).expect("it waits for its circuits");
            assert_eq!(made_for.circuits, "test-v1");
        }
        assert_eq!(lab.metric("arborist_jobs_left_out_total"), 0, "case {case}: once is enough");
        if case == 0 {
            let again = lab.submit(request);
            lab.restart_after(true);
            assert_eq!(lab.dispatcher.job(again).unwrap().spec.name, "of a file");
        }
    }
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
