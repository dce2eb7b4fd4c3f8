//! Jobs that are asked for again, and what makes their proofs.

use crate::lab::{Lab, block, until};
use crate::worker::{Worker, hello, task};
use arborist_core::engine::{JobId, JobState, TaskState};
use arborist_core::ids::{ArtifactHash, TaskId};
use arborist_core::proof_object::proof_key;
use arborist_core::system::FAKE;
use arborist_core::wire::{FromWorker, Hello, Reason};
use arborist_operator::dispatch::{JobError, SubmitError};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A complete job and the task of its root.
fn complete(lab: &Lab) -> (JobId, TaskId) {
    let job = lab.submit(block(2));
    Worker::login(&lab.dispatcher, hello("first")).work(lab, job);
    assert_eq!(lab.wait(job), JobState::Complete);
    (job, lab.dispatcher.root_task(job).unwrap())
}

fn lose(lab: &Lab, root: &TaskId) {
    lab.runtime.block_on(lab.store.delete(&proof_key(root))).unwrap();
}

/// One flipped bit at the object's end.
fn damage(lab: &Lab, root: &TaskId) {
    let mut object = lab.runtime.block_on(lab.store.get_proof(root)).unwrap().unwrap().to_vec();
    *object.last_mut().unwrap() ^= 1;
    lose(lab, root);
    lab.runtime.block_on(lab.store.create_proof(root, object.into())).unwrap();
}

fn submit(lab: &Lab, job: JobId) {
    assert_eq!(lab.submit(block(2)), job);
}

fn revive(lab: &Lab, job: JobId) {
    lab.runtime.block_on(lab.dispatcher.revive(job)).unwrap();
}

type Spoil = fn(&Lab, &TaskId);
type Ask = fn(&Lab, JobId);

#[test]
fn the_root_of_a_complete_job_is_made_again_if_it_is_lost_or_bad_when_somebody_asks() {
    let cases: [(&str, Spoil, Ask, bool); 4] = [
        ("lost, submitted", lose, submit, false),
        ("bad, submitted", damage, submit, true),
        ("lost, revived", lose, revive, false),
        ("bad, revived", damage, revive, true),
    ];
    for (case, spoil, ask, aside) in cases {
        let mut lab = Lab::new();
        let (job, root) = complete(&lab);
        ask(&lab, job);
        assert_eq!(lab.dispatcher.job(job).unwrap().state, JobState::Complete, "{case}: it is good");
        spoil(&lab, &root);
        ask(&lab, job);
        assert_eq!(lab.dispatcher.job(job).unwrap().state, JobState::Proving, "{case}");
        let mut worker = Worker::login(&lab.dispatcher, hello("second"));
        assert_eq!(worker.work(&lab, job), [root], "{case}: all else is there");
        assert_eq!(lab.wait(job), JobState::Complete, "{case}");
        assert_eq!(lab.metric("arborist_quarantined_total"), u64::from(aside), "{case}");
        let reason = lab.store.get(&format!("quarantine/{}.1.reason", proof_key(&root))).await_in(&lab);
        assert_eq!(reason.is_some(), aside, "{case}");
        let shares = lab.dispatcher.report(job).unwrap().shares;
        assert!(shares.iter().any(|share| share.worker == "second"), "{case}: {shares:?}");
        lab.restart_after(true);
        assert_eq!(lab.wait(job), JobState::Complete, "{case}");
        ask(&lab, job);
        assert_eq!(lab.dispatcher.job(job).unwrap().state, JobState::Complete, "{case}");
    }
}

/// Waits for what the store says.
trait AwaitIn<T> {
    fn await_in(self, lab: &Lab) -> T;
}

impl<T, F: Future<Output = Result<T, arborist_artifacts::StoreError>>> AwaitIn<T> for F {
    fn await_in(self, lab: &Lab) -> T {
        lab.runtime.block_on(self).unwrap()
    }
}

#[test]
fn a_root_that_is_made_again_when_the_operator_dies_is_made_after_its_restart() {
    let mut lab = Lab::new();
    let (job, root) = complete(&lab);
    damage(&lab, &root);
    submit(&lab, job);
    lab.restart_after(true);
    assert_eq!(lab.dispatcher.job(job).unwrap().state, JobState::Proving);
    assert_eq!(Worker::login(&lab.dispatcher, hello("second")).work(&lab, job), [root]);
    assert_eq!(lab.wait(job), JobState::Complete);
}

/// Reports a lease as failed.
fn fail(worker: &mut Worker, lease: &arborist_core::wire::Lease, reason: Reason) {
    let failed = arborist_core::wire::Failed {
        fence: lease.fence,
        task: lease.task.clone(),
        reason: reason.into(),
        ..Default::default()
    };
    worker.send(FromWorker { failed: vec![failed], ..Default::default() });
}

#[test]
fn quarantined_tasks_get_new_attempts_when_their_block_is_submitted_again() {
    let asks: [Ask; 2] = [|lab, job| assert_eq!(lab.submit(block(1)), job), revive];
    for ask in asks {
        let mut lab = Lab::tuned(|o| o.engine.max_attempts = 1);
        let job = lab.submit(block(1));
        let mut worker = Worker::login(&lab.dispatcher, hello("w"));
        let lease = worker.leases(1).remove(0);
        fail(&mut worker, &lease, Reason::Error);
        let failed = |lab: &Lab| lab.dispatcher.task(&task(&lease)).unwrap().state == TaskState::Failed;
        until("it is quarantined", || failed(&lab).then_some(()));
        lab.restart_after(false);
        assert!(failed(&lab), "a restart alone is no reason to try again");
        ask(&lab, job);
        Worker::login(&lab.dispatcher, hello("w")).work(&lab, job);
        assert_eq!(lab.wait(job), JobState::Complete);
    }
}

#[test]
fn a_made_up_block_is_refused_where_proofs_need_inputs() {
    let lab = Lab::tuned(|o| o.engine.profile.backend = "plonky2".into());
    let refused = lab.runtime.block_on(lab.dispatcher.submit(block(1))).unwrap_err();
    assert!(matches!(refused, SubmitError::Unprovable(_)), "{refused}");
    assert!(refused.to_string().contains("plonky2 (test-v1)"), "{refused}");
    assert!(lab.dispatcher.jobs().is_empty());
}

#[test]
fn the_proofs_of_one_proof_system_never_stand_for_those_of_another() {
    let keys = ArtifactHash([7; 32]);
    let other = Arc::new(AtomicBool::new(false));
    let is_other = other.clone();
    let mut lab = Lab::tuned(move |options| {
        assert_eq!(options.engine.profile.backend, FAKE);
        options.engine.profile.keys = is_other.load(Ordering::Relaxed).then_some(keys);
    });
    let (job, _) = complete(&lab);
    other.store(true, Ordering::Relaxed);
    lab.restart_after(false);
    let theirs = lab.dispatcher.other_system(job).expect("it is kept, and not ours");
    assert_eq!((theirs.keys, lab.dispatcher.system().keys), (None, Some(keys)));
    let refused = lab.runtime.block_on(lab.dispatcher.revive(job)).unwrap_err();
    assert!(matches!(refused, JobError::OtherSystem { .. }), "{refused}");

    let again = lab.submit(block(2));
    assert_ne!(again, job);
    let refused = Worker::connect(&lab.dispatcher).refused(hello("without keys"));
    assert!(refused.permanent && refused.text.starts_with("keys: "), "{refused:?}");
    let with_keys = Hello { backend_keys: keys.0.to_vec(), ..hello("w") };
    let made = Worker::login(&lab.dispatcher, with_keys).work(&lab, again);
    assert_eq!(made.len(), 7, "none is found");
    assert_eq!(lab.wait(again), JobState::Complete);

    other.store(false, Ordering::Relaxed);
    lab.restart_after(false);
    assert_eq!(lab.dispatcher.other_system(job), None);
    assert!(lab.dispatcher.other_system(again).is_some());
    submit(&lab, job);
    assert_eq!(lab.dispatcher.job(job).unwrap().state, JobState::Complete);
}
