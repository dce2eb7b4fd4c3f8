//! Jobs of several namespaces.

use crate::lab::{Lab, block};
use crate::worker::{Worker, hello};
use arborist_core::engine::{JobId, JobState};
use arborist_operator::dispatch::{Quota, SubmitRequest};

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
    let lab = Lab::tuned(|o| o.quotas.each = Quota { jobs: Some(2), tasks: Some(30) });
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
