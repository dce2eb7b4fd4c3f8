//! What a worker may do in the store that is served to it.

use crate::lab::{Lab, block, block_file, until};
use crate::worker::{Worker, hello, task};
use arborist_core::ids::{ArtifactHash, TaskId};
use arborist_core::wire::{Held, Hello, Lease};
use arborist_operator::store::http::{Access, Key, Right};

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
    let held = Held { task: base.task.clone(), fence: base.fence, running_millis: 1 };
    let worker = Worker::login(&lab.dispatcher, Hello { held: vec![held], ..hello("w") });
    rights(&lab, &worker.token, &proof(&base), Granted, Granted);
    rights(&lab, &worker.token, &inputs(&base)[0], Granted, Forbidden);
}
