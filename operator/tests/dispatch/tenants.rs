//! Jobs of several namespaces.

use crate::lab::{Lab, block, block_file_of};
use crate::worker::{Worker, hello};
use arborist_core::engine::{JobId, JobState};
use arborist_core::ids::ArtifactHash;
use arborist_core::proof_object::input_key;
use arborist_operator::dispatch::{Quota, SubmitRequest, SubmitSource};
use arborist_operator::intake::{BlockFile, Held, Objects};
use bytes::Bytes;
use futures::future::BoxFuture;
use std::sync::Arc;

fn of(namespace: &str, request: SubmitRequest) -> SubmitRequest {
    SubmitRequest { namespace: namespace.into(), ..request }
}

#[test]
fn the_same_block_is_one_job_within_a_namespace_only() {
    let lab = Lab::new();
    let first = lab.submit(of("a", block(2)));
    let second = lab.submit(of("b", block(2)));
    assert_ne!(first, second);
    assert_eq!(lab.submit(of("a", block(2))), first);
    let root = lab.dispatcher.root_task(first).unwrap();
    assert_eq!(lab.dispatcher.root_task(second), Some(root));
    assert_eq!(lab.dispatcher.find_root("b", &root), Some(second));
    lab.runtime.block_on(lab.dispatcher.cancel(first)).unwrap();
    let tasks = Worker::login(&lab.dispatcher, hello("w")).work(&lab, second);
    assert_eq!((tasks.len(), lab.wait(second)), (7, JobState::Complete));
    assert_eq!(lab.wait(first), JobState::Cancelled, "nobody else's job was touched");
}

#[test]
fn a_bad_namespace_is_refused_by_name() {
    let lab = Lab::new();
    let error = lab.runtime.block_on(lab.dispatcher.submit(of("A\nb", block(1)))).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("namespace: `A\\nb`, allowed are"), "{text}");
}

#[test]
fn a_quota_refuses_what_is_beyond_it_until_a_job_is_over() {
    let lab = Lab::tuned(|o| o.quotas.each = Quota { jobs: Some(2), tasks: Some(30), bytes: None });
    let submit = |namespace: &str, transactions| {
        let request =
            SubmitRequest { block_number: transactions as u64, ..of(namespace, block(transactions)) };
        lab.runtime.block_on(lab.dispatcher.submit(request))
    };
    let first = submit("a", 1).unwrap();
    submit("a", 2).unwrap();
    let refused = submit("a", 3).unwrap_err().to_string();
    assert_eq!(refused, "quota: namespace a has 2 open jobs, with 1 more it is over the 2 that it may have");
    assert!(submit("a", 2).is_ok(), "what is there already is not more");
    assert!(submit("b", 3).is_ok(), "another namespace has a quota of its own");
    let refused = submit("b", 20).unwrap_err().to_string();
    assert!(refused.starts_with("quota: namespace b has 11 tasks of open jobs, with "), "{refused}");
    lab.runtime.block_on(lab.dispatcher.cancel(first)).unwrap();
    assert!(submit("a", 3).is_ok());
    let refused = submit("a", 1).unwrap_err().to_string();
    assert!(refused.contains("open jobs"), "one that is taken up again counts too: {refused}");
}

/// A block file of this number, with as many transactions of `length` bytes of private proof each.
fn file_of(number: u64, lengths: &[usize]) -> SubmitRequest {
    let proofs: Vec<Bytes> =
        lengths.iter().enumerate().map(|(t, length)| vec![t as u8 + 1; *length].into()).collect();
    block_file_of(number, &proofs)
}

fn file_bytes(request: &SubmitRequest) -> u64 {
    let SubmitSource::Block(file) = &request.source else { panic!("it is a file") };
    file.json().len() as u64
}

fn refusal(lab: &Lab, request: SubmitRequest) -> String {
    lab.runtime.block_on(lab.dispatcher.submit(request)).unwrap_err().to_string()
}

#[test]
fn the_bytes_of_inputs_are_bounded_and_what_is_over_is_not_even_put() {
    let (first, second) = (file_of(2, &[4_000, 5_000]), file_of(3, &[3_000]));
    let (has, more) = (file_bytes(&first) + 9_000, file_bytes(&second) + 3_000);
    let bounded = move |bytes: u64| {
        Lab::tuned(move |o| o.quotas.each = Quota { bytes: Some(bytes), ..Quota::default() })
    };
    let lab = bounded(has + more);
    lab.submit(of("a", first.clone()));
    lab.submit(of("a", second.clone()));

    let mut lab = bounded(has + more - 1);
    let job = lab.submit(of("a", first.clone()));
    let allowed = has + more - 1;
    let said = format!(
        "quota: namespace a has {has} bytes of inputs of open jobs, with {more} more it is over the {allowed} that it may have"
    );
    assert_eq!(refusal(&lab, of("a", second.clone())), said);
    let proof = input_key(&ArtifactHash::of(&[1; 3_000]));
    assert_eq!(lab.runtime.block_on(lab.store.head(&proof)).unwrap(), None, "nothing of it is in the store");
    assert_eq!(lab.submit(of("a", first.clone())), job, "what is there already is not more");
    lab.submit(of("a", block(3)));
    for crash in [true, false] {
        lab.restart_after(crash);
        assert_eq!(refusal(&lab, of("a", second.clone())), said, "counted anew after a start");
    }
    lab.submit(of("b", second.clone()));
    lab.runtime.block_on(lab.dispatcher.cancel(job)).unwrap();
    lab.submit(of("a", second));
    let refused = refusal(&lab, of("a", first));
    assert!(refused.contains("bytes of inputs"), "one that is taken up again counts too: {refused}");
}

#[test]
fn a_private_proof_counts_once_for_a_block_and_wherever_it_was_before() {
    let request = file_of(2, &[4_000, 5_000]);
    let (bytes, proof) = (file_bytes(&request), Bytes::from(vec![2; 5_000]));
    let lab = Lab::tuned(move |o| o.quotas.each = Quota { bytes: Some(bytes + 8_999), ..Quota::default() });
    lab.runtime.block_on(lab.store.put_input(proof.clone())).unwrap();
    let refused = refusal(&lab, of("a", request));
    assert!(refused.contains(&format!("with {} more", bytes + 9_000)), "{refused}");
    lab.submit(of("a", block_file_of(3, &[proof.clone(), proof])));
}

/// Private proofs whose lengths nobody says, or says wrongly.
struct Liar(Held, Option<u64>);

impl Objects for Liar {
    fn place(&self) -> String {
        self.0.place()
    }

    fn get(&self, hash: ArtifactHash) -> BoxFuture<'_, Result<Option<Bytes>, String>> {
        self.0.get(hash)
    }

    fn size(&self, _: ArtifactHash) -> BoxFuture<'_, Option<u64>> {
        Box::pin(std::future::ready(self.1))
    }
}

#[test]
fn who_does_not_say_how_long_a_private_proof_is_gets_no_more_in() {
    let proofs = [4_000, 5_000, 6_000].map(|length| Bytes::from(vec![1; length]));
    let SubmitSource::Block(file) = block_file_of(2, &proofs).source else { panic!("it is a file") };
    for said in [None, Some(1)] {
        let bytes = file.json().len() as u64;
        let lab =
            Lab::tuned(move |o| o.quotas.each = Quota { bytes: Some(bytes + 14_999), ..Quota::default() });
        let objects = proofs.iter().map(|proof| (ArtifactHash::of(proof), proof.clone())).collect();
        let objects = Arc::new(Liar(Held { place: "the test", objects }, said));
        let file = BlockFile::read(file.json().clone(), 7, objects, None).unwrap();
        let request = SubmitRequest { source: SubmitSource::Block(Arc::new(file)), ..block(1) };
        let refused = refusal(&lab, of("a", request));
        assert!(refused.contains(&format!("with {} more", bytes + 15_000)), "{said:?}: {refused}");
        assert_eq!(lab.dispatcher.jobs().len(), 0);
    }
}

#[test]
fn a_job_is_revived_only_if_its_namespace_has_room_for_it() {
    let revive = |lab: &Lab, job| lab.runtime.block_on(lab.dispatcher.revive(job));
    let (first, second) = (file_of(2, &[4_000]), file_of(3, &[4_000]));
    let one = file_bytes(&first) + 4_000;
    for (quota, limit) in [
        (Quota { jobs: Some(1), ..Quota::default() }, "open jobs"),
        (Quota { tasks: Some(7), ..Quota::default() }, "tasks of open jobs"),
        (Quota { bytes: Some(one + 1), ..Quota::default() }, "bytes of inputs of open jobs"),
    ] {
        // with and without its tree, whose bytes have to be counted again after a restart
        for kept_tasks in [0, 1_000] {
            let mut lab = Lab::tuned(move |o| {
                o.quotas.each = quota;
                o.engine.kept_tasks = kept_tasks;
            });
            let old = lab.submit(of("a", first.clone()));
            lab.runtime.block_on(lab.dispatcher.cancel(old)).unwrap();
            let new = lab.submit(of("a", second.clone()));
            for restarted in [false, true] {
                if restarted {
                    lab.restart_after(true);
                }
                let refused = revive(&lab, old).unwrap_err().to_string();
                assert!(refused.contains(&format!(" {limit}, with ")), "{kept_tasks} {restarted}: {refused}");
                assert_eq!(lab.dispatcher.job(old).unwrap().state, JobState::Cancelled);
            }
            revive(&lab, new).expect("one that is open needs no room");
            lab.runtime.block_on(lab.dispatcher.cancel(new)).unwrap();
            revive(&lab, old).unwrap();
            assert_eq!(lab.dispatcher.job(old).unwrap().state, JobState::Proving);
        }
    }
}

#[test]
fn a_number_is_not_used_again_after_a_restart() {
    for crash in [true, false] {
        let mut lab = Lab::new();
        let first = lab.submit(block(1));
        let second = lab.submit(block(2));
        lab.runtime.block_on(async {
            lab.dispatcher.cancel(second).await.unwrap();
            lab.dispatcher.forget(second).await.unwrap();
        });
        lab.restart_after(crash);
        let third = lab.submit(block(3));
        assert_eq!([first, second, third], [1, 2, 3].map(JobId), "crash: {crash}");
        assert_eq!(lab.dispatcher.jobs().len(), 2);
    }
}
