//! What a worker may do in the store that is served to it.

use crate::lab::{Lab, block, block_file, until};
use crate::worker::{Worker, hello, task};
use arborist_core::engine::JobId;
use arborist_core::ids::{ArtifactHash, TaskId};
use arborist_core::proof_object::input_key;
use arborist_core::wire::{Held, Hello, Lease};
use arborist_operator::dispatch::SubmitSource;
use arborist_operator::store::http::{Access, Key, Right};
use futures::TryStreamExt;
use std::collections::HashSet;

fn proof(lease: &Lease) -> Key {
    Key::Proof(task(lease))
}

/// The proofs that a lease is made from.
fn children(lease: &Lease) -> Vec<Key> {
    lease.children.iter().map(|child| Key::Proof(TaskId::from_slice(&child.task).unwrap())).collect()
}

fn inputs(lease: &Lease) -> Vec<Key> {
    lease.inputs.iter().map(|hash| Key::Input(ArtifactHash::from_slice(hash).unwrap())).collect()
}

#[track_caller]
fn rights(lab: &Lab, token: &str, key: &Key, read: Right, write: Right) {
    let d = &lab.dispatcher;
    assert_eq!((d.may_read(token, key), d.may_write(token, key)), (read, write), "{key:?}");
}

use Right::{Forbidden, Granted, Unknown};

#[test]
fn a_session_reads_what_its_leases_are_made_from_and_writes_only_their_proofs() {
    let lab = Lab::new();
    lab.submit(block_file());
    let mut worker = Worker::login(&lab.dispatcher, hello("w"));
    let mut other = Worker::login(&lab.dispatcher, hello("other"));
    let base = worker.leases(1).remove(0);
    assert_eq!(inputs(&base).len(), 1, "its private proof");
    rights(&lab, &worker.token, &proof(&base), Granted, Granted);
    rights(&lab, &worker.token, &inputs(&base)[0], Granted, Forbidden);
    for key in [Key::Proof(TaskId([9; 32])), Key::Input(ArtifactHash([9; 32]))] {
        rights(&lab, &worker.token, &key, Forbidden, Forbidden);
        rights(&lab, "guess", &key, Unknown, Unknown);
    }
    for key in [proof(&base), inputs(&base)[0]] {
        rights(&lab, &other.token, &key, Forbidden, Forbidden);
        rights(&lab, "", &key, Unknown, Unknown);
    }
    worker.prove(&lab, &base);
    worker.report(&base);
    worker.acknowledged();
    // the lease is over, and so is its worker's right
    let root = match worker.leases_by_now(&[]).pop() {
        Some(root) => {
            rights(&lab, &worker.token, &inputs(&base)[0], Forbidden, Forbidden);
            rights(&lab, &worker.token, &proof(&base), Granted, Forbidden);
            root
        }
        None => other.leases(1).remove(0),
    };
    assert_eq!(children(&root), [proof(&base)]);
    let (name, token) = (worker.token.clone(), other.token.clone());
    drop((worker, other));
    for token in [name, token] {
        until("its token is void", || {
            (lab.dispatcher.may_read(&token, &proof(&base)) == Unknown).then_some(())
        });
    }
}

#[test]
fn every_lease_of_a_tree_has_the_rights_to_its_children_and_to_nothing_else() {
    let lab = Lab::new();
    let job = lab.submit(block(3));
    let mut worker = Worker::login(&lab.dispatcher, hello("w"));
    let mut proven: Vec<Key> = vec![];
    let total: u32 = lab.dispatcher.job(job).unwrap().counts.iter().map(|c| c.total).sum();
    while proven.len() < total as usize {
        let lease = worker.leases(1).remove(0);
        rights(&lab, &worker.token, &proof(&lease), Granted, Granted);
        for done in &proven {
            let right = if children(&lease).contains(done) { Granted } else { Forbidden };
            rights(&lab, &worker.token, done, right, Forbidden);
        }
        assert!(children(&lease).iter().all(|child| proven.contains(child)));
        worker.prove(&lab, &lease);
        worker.report(&lease);
        proven.push(proof(&lease));
    }
}

#[test]
fn a_lease_that_is_adopted_after_a_restart_has_its_rights() {
    let mut lab = Lab::new();
    lab.submit(block_file());
    let mut worker = Worker::login(&lab.dispatcher, hello("w"));
    let base = worker.leases(1).remove(0);
    lab.restart_after(true);
    let held = Held { task: base.task.clone(), fence: base.fence, running_millis: 1, mac: base.mac.clone() };
    let worker = Worker::login(&lab.dispatcher, Hello { held: vec![held], ..hello("w") });
    rights(&lab, &worker.token, &proof(&base), Granted, Granted);
    rights(&lab, &worker.token, &inputs(&base)[0], Granted, Forbidden);
}

/// The inputs in the store, without the block.
fn stored_inputs(lab: &Lab, block: &str) -> Vec<String> {
    let listed = lab.store.list("inputs").map_ok(|entry| entry.key).try_collect::<Vec<_>>();
    lab.runtime.block_on(listed).unwrap().into_iter().filter(|key| key != block).collect()
}

/// Whether these are the same keys, in whatever order they were listed.
fn same(a: &[String], b: &[String]) -> bool {
    a.iter().collect::<HashSet<_>>() == b.iter().collect::<HashSet<_>>()
}

/// What makes an operator look again.
type Again = dyn Fn(&mut Lab, JobId);

#[test]
fn a_lost_input_is_put_again_when_work_on_its_job_begins_anew() {
    let SubmitSource::Block(file) = block_file().source else { panic!("it is a file") };
    let block = input_key(&ArtifactHash::of(file.json()));
    let call = input_key(&file.block().transactions[0].calls[0].input_hash());
    let submit = |lab: &mut Lab, job| assert_eq!(lab.submit(block_file()), job);
    let revive = |lab: &mut Lab, job| {
        lab.runtime.block_on(lab.dispatcher.cancel(job)).unwrap();
        lab.runtime.block_on(lab.dispatcher.revive(job)).unwrap();
    };
    let resume = |lab: &mut Lab, job| {
        lab.runtime.block_on(lab.dispatcher.suspend(job, true)).unwrap();
        lab.runtime.block_on(lab.dispatcher.suspend(job, false)).unwrap();
    };
    let restart = |lab: &mut Lab, _job| lab.restart_after(true);
    let cases: [(&str, &Again, bool); 4] = [
        ("submit", &submit, true),
        ("revive", &revive, false),
        ("resume", &resume, false),
        ("restart", &restart, false),
    ];
    for (case, again, with_block) in cases {
        let mut lab = Lab::new();
        let job = lab.submit(block_file());
        let inputs = stored_inputs(&lab, &block);
        assert_eq!(inputs.len(), 2, "its private proof and its call");
        // a private proof comes from outside, and only a submit brings it
        let lost: Vec<&String> =
            if with_block { inputs.iter().chain([&block]).collect() } else { vec![&call] };
        for key in lost {
            lab.runtime.block_on(lab.store.delete(key)).unwrap();
        }
        again(&mut lab, job);
        until(case, || (same(&stored_inputs(&lab, &block), &inputs)).then_some(()));
        assert!(lab.runtime.block_on(lab.store.head(&block)).unwrap().is_some(), "{case}");
    }
}

#[test]
fn a_block_that_is_lost_too_keeps_no_job_from_being_revived() {
    let lab = Lab::new();
    let job = lab.submit(block_file());
    lab.runtime.block_on(lab.dispatcher.cancel(job)).unwrap();
    let SubmitSource::Block(file) = block_file().source else { panic!("it is a file") };
    // neither the input nor what it could be made from again
    for key in stored_inputs(&lab, "").iter().chain([&input_key(&ArtifactHash::of(file.json()))]) {
        lab.runtime.block_on(lab.store.delete(key)).unwrap();
    }
    lab.runtime.block_on(lab.dispatcher.revive(job)).unwrap();
    let mut worker = Worker::login(&lab.dispatcher, hello("w"));
    assert_eq!(inputs(&worker.leases(1)[0]).len(), 1);
}
