//! Jobs from submit to end.

use crate::lab::{Lab, block, until};
use crate::worker::{Worker, hello, task};
use arborist_core::engine::{JobId, JobState};
use arborist_core::proof_object::proof_key;
use arborist_operator::dispatch::{JobError, SubmitError, SubmitRequest, SubmitSource};
use bytes::Bytes;
use futures::TryStreamExt;
use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[test]
fn a_block_is_proven_and_its_books_add_up() {
    let lab = Lab::new();
    let job = lab.submit(block(3));
    let mut worker = Worker::login(&lab.dispatcher, hello("w"));
    let tasks = worker.work(&lab, job);
    assert_eq!(tasks.len(), 11);
    assert_eq!(lab.wait(job), JobState::Complete);
    let report = lab.dispatcher.report(job).unwrap();
    assert_eq!(report.shares.len(), 1);
    assert_eq!(report.shares[0].proofs, [3, 3, 3, 1, 1]);
    assert_eq!(lab.metric("arborist_completions_total{kind=\"vm\",origin=\"made\"}"), 3);
    assert_eq!(lab.metric("arborist_root_checks_total{result=\"valid\"}"), 1);
    assert_eq!(lab.metric("arborist_leases_total"), 11);
}

#[test]
fn a_proof_that_a_worker_found_is_counted_once_and_is_its_makers() {
    let lab = Lab::new();
    let job = lab.submit(block(1));
    let mut gone = Worker::login(&lab.dispatcher, hello("gone"));
    let lease = gone.leases(1).remove(0);
    gone.prove(&lab, &lease);
    gone.hand_back(&lease);
    gone.acknowledged();
    drop(gone);
    let mut worker = Worker::login(&lab.dispatcher, hello("w"));
    let again = worker.leases(1).remove(0);
    assert_eq!(task(&again), task(&lease));
    worker.report_found(&again);
    until("its maker is known", || {
        let makers = lab.dispatcher.attribution(job).unwrap();
        (makers == [("gone".to_owned(), 1, 5)]).then_some(())
    });
    worker.work(&lab, job);
    assert_eq!(lab.wait(job), JobState::Complete);
    let count = |kind: &str, origin: &str| {
        lab.metric(&format!("arborist_completions_total{{kind=\"{kind}\",origin=\"{origin}\"}}"))
    };
    let counts = ["vm", "kernel", "base", "root"].map(|kind| (count(kind, "made"), count(kind, "found")));
    assert_eq!(counts, [(0, 1), (1, 0), (1, 0), (1, 0)]);
}

#[test]
fn submitting_the_same_block_again_is_the_same_job() {
    let lab = Lab::new();
    let both = lab
        .runtime
        .block_on(async { tokio::join!(lab.dispatcher.submit(block(2)), lab.dispatcher.submit(block(2))) });
    let (a, b) = (both.0.unwrap(), both.1.unwrap());
    assert_eq!(a, b);
    assert_eq!(lab.dispatcher.jobs().len(), 1);
    let other = SubmitRequest { prover_id: [4; 32], ..block(2) };
    assert_ne!(lab.submit(other), a, "another prover's root is another task");
}

#[test]
fn a_block_that_was_forgotten_is_complete_at_once() {
    let lab = Lab::new();
    let first = lab.submit(block(2));
    Worker::login(&lab.dispatcher, hello("w")).work(&lab, first);
    assert_eq!(lab.wait(first), JobState::Complete);
    lab.runtime.block_on(lab.dispatcher.forget(first)).unwrap();
    assert!(lab.dispatcher.jobs().is_empty());
    let again = lab.submit(block(2));
    assert_ne!(again, first);
    assert_eq!(lab.wait(again), JobState::Complete);
    assert_eq!(lab.metric("arborist_leases_total"), 7, "no worker was asked again");
    let report = lab.dispatcher.report(again).unwrap();
    assert_eq!(report.shares.iter().map(|s| s.worker.as_str()).collect::<Vec<_>>(), ["w"]);
}

#[test]
fn what_two_blocks_share_is_proven_once() {
    let lab = Lab::new();
    let job = lab.submit(block(2));
    Worker::login(&lab.dispatcher, hello("w")).work(&lab, job);
    assert_eq!(lab.wait(job), JobState::Complete);
    // the same calls for another prover: all but the root is there
    let second = lab.submit(SubmitRequest { prover_id: [4; 32], ..block(2) });
    let tasks = Worker::login(&lab.dispatcher, hello("w")).work(&lab, second);
    assert_eq!(tasks.len(), 1);
    assert_eq!(lab.wait(second), JobState::Complete);
}

#[test]
fn a_bad_root_proof_is_moved_aside_and_made_again() {
    let lab = Lab::new();
    let job = lab.submit(block(1));
    let mut worker = Worker::login(&lab.dispatcher, hello("liar"));
    let mut lease = worker.leases(1).remove(0);
    while lease.kind != 4 {
        worker.prove(&lab, &lease);
        worker.report(&lease);
        lease = worker.leases(1).remove(0);
    }
    let root = task(&lease);
    lab.runtime.block_on(lab.store.create_proof(&root, Bytes::from_static(b"no proof at all"))).unwrap();
    worker.report(&lease);
    // a worker on another machine: the liar's is not asked again for it
    let mut honest = Worker::login(&lab.dispatcher, hello("honest"));
    let again = honest.leases(1).remove(0);
    assert_eq!(task(&again), task(&lease));
    let left = lab.runtime.block_on(lab.store.get_proof(&root)).unwrap();
    assert_eq!(left, None, "nobody is asked before the bad one is gone");
    until("the bad one is counted", || (lab.metric("arborist_quarantined_total") == 1).then_some(()));
    honest.prove(&lab, &again);
    honest.report(&again);
    assert_eq!(lab.wait(job), JobState::Complete);
    let aside = format!("quarantine/{}.1.reason", proof_key(&task(&lease)));
    let reason = lab.runtime.block_on(lab.store.get(&aside)).unwrap().expect("the reason is kept");
    assert!(String::from_utf8_lossy(&reason).contains("liar"));
    assert_eq!(lab.metric("arborist_root_checks_total{result=\"invalid\"}"), 1);
}

#[test]
fn finished_jobs_and_their_proofs_are_deleted_after_a_while() {
    for kept_tasks in [1 << 19, 0] {
        let lab = Lab::tuned(move |o| {
            o.retention = Some(Duration::from_millis(100));
            o.engine.kept_tasks = kept_tasks;
        });
        // all but the root is shared with a job that is not over
        let kept = lab.submit(SubmitRequest { prover_id: [4; 32], suspended: true, ..block(1) });
        let job = lab.submit(SubmitRequest { prover_id: [5; 32], ..block(1) });
        let mut worker = Worker::login(&lab.dispatcher, hello("w"));
        for _ in 0..4 {
            let lease = worker.leases(1).remove(0);
            worker.prove(&lab, &lease);
            worker.report(&lease);
        }
        until("the finished one is deleted", || lab.dispatcher.job(job).is_none().then_some(()));
        let left = || lab.runtime.block_on(lab.store.list("proofs").try_collect::<Vec<_>>()).unwrap().len();
        until("its root is deleted; what the other job needs stays: vm, kernel, base", || {
            assert!(left() >= 3);
            (left() == 3).then_some(())
        });
        assert!(lab.dispatcher.job(kept).is_some());
    }
}

#[test]
fn a_stopped_job_whose_tree_was_dropped_is_taken_up_again() {
    type Again = fn(&Lab, JobId);
    let revive: Again = |lab, job| lab.runtime.block_on(lab.dispatcher.revive(job)).unwrap();
    let submit: Again = |lab, job| assert_eq!(lab.submit(block(2)), job);
    for (restart, again) in [(false, revive), (false, submit), (true, revive), (true, submit)] {
        let mut lab = Lab::tuned(|o| o.engine.kept_tasks = 0);
        let job = lab.submit(block(2));
        let mut worker = Worker::login(&lab.dispatcher, hello("w"));
        let first = worker.leases(1).remove(0);
        worker.prove(&lab, &first);
        worker.report(&first);
        worker.leases(1);
        lab.runtime.block_on(lab.dispatcher.cancel(job)).unwrap();
        assert_eq!(lab.wait(job), JobState::Cancelled);
        assert!(lab.dispatcher.task(&task(&first)).is_none(), "only its root is known");
        drop(worker);
        if restart {
            lab.restart_after(false);
        }
        again(&lab, job);
        let done: u32 = lab.dispatcher.job(job).unwrap().counts.iter().map(|c| c.done).sum();
        assert_eq!(done, 1, "what lies in the store is not made again");
        let tasks = Worker::login(&lab.dispatcher, hello("v")).work(&lab, job);
        assert!(!tasks.contains(&task(&first)));
        assert_eq!(lab.wait(job), JobState::Complete);
        assert_eq!(lab.dispatcher.attribution(job).unwrap().len(), 2);
    }
}

#[test]
fn a_root_proof_that_is_named_outlives_its_tree() {
    let lab = Lab::tuned(|o| o.retention = Some(Duration::from_millis(50)));
    let named = Arc::new(Mutex::new(None));
    let (asked, answer) = (Arc::new(AtomicUsize::new(0)), named.clone());
    let count = asked.clone();
    lab.dispatcher.keep_roots(move || {
        count.fetch_add(1, Ordering::SeqCst);
        answer.lock().unwrap().clone()
    });
    let job = lab.submit(block(1));
    let root = lab.dispatcher.root_task(job).unwrap();
    let mut worker = Worker::login(&lab.dispatcher, hello("w"));
    for _ in 0..4 {
        let lease = worker.leases(1).remove(0);
        worker.prove(&lab, &lease);
        worker.report(&lease);
    }
    assert_eq!(lab.wait(job), JobState::Complete);
    let before = asked.load(Ordering::SeqCst);
    until("some looks", || (asked.load(Ordering::SeqCst) > before + 3).then_some(()));
    assert!(lab.dispatcher.job(job).is_some(), "nothing is deleted while the names are not known");

    *named.lock().unwrap() = Some(HashSet::from([root]));
    until("the tree is deleted", || lab.dispatcher.job(job).is_none().then_some(()));
    let left = || lab.runtime.block_on(lab.store.list("proofs").try_collect::<Vec<_>>()).unwrap().len();
    until("its proofs are deleted, but the root's", || {
        assert!(left() >= 1);
        (left() == 1).then_some(())
    });
    let release = || lab.runtime.block_on(lab.dispatcher.release_root(&root)).unwrap();
    assert!(release());
    assert_eq!(left(), 0);
}

#[test]
fn jobs_are_cancelled_suspended_and_moved() {
    let lab = Lab::new();
    let (d, rt) = (&lab.dispatcher, &lab.runtime);
    let job = lab.submit(SubmitRequest { suspended: true, ..block(1) });
    let mut worker = Worker::login(d, hello("w"));
    assert!(worker.leases_by_now(&[]).is_empty(), "a suspended job leases nothing");
    rt.block_on(d.suspend(job, false)).unwrap();
    let lease = worker.leases(1).remove(0);
    rt.block_on(d.priority(job, 5)).unwrap();
    rt.block_on(d.deadline(job, Some(u64::MAX / 2))).unwrap();
    assert_eq!(d.job(job).unwrap().spec.priority, 5);
    rt.block_on(d.cancel(job)).unwrap();
    assert_eq!(worker.next().revoked, [lease.fence]);
    assert_eq!(lab.wait(job), JobState::Cancelled);
    rt.block_on(d.deadline(job, Some(1))).unwrap();
    assert_eq!(rt.block_on(d.cancel(JobId(99))), Err(JobError::Unknown(JobId(99))));
}

#[test]
fn a_job_past_its_deadline_fails() {
    let lab = Lab::new();
    let job = lab.submit(SubmitRequest { deadline: Some(1), ..block(1) });
    assert!(matches!(lab.wait(job), JobState::Failed { .. }));
}

#[test]
fn bad_blocks_are_refused() {
    let lab = Lab::new();
    let submit = |source| lab.runtime.block_on(lab.dispatcher.submit(SubmitRequest { source, ..block(1) }));
    let none = submit(SubmitSource::Synthetic { calls: vec![], seed: 1 });
    assert!(matches!(none, Err(SubmitError::BadShape(_))), "{none:?}");
    let many = submit(SubmitSource::Synthetic { calls: vec![200], seed: 1 });
    assert!(matches!(many, Err(SubmitError::BadShape(_))), "{many:?}");
    let many = submit(SubmitSource::Synthetic { calls: vec![0; 65_537], seed: 1 });
    assert!(matches!(many, Err(SubmitError::BadShape(_))), "{many:?}");
}

#[test]
fn metrics_and_health_are_served() {
    let lab = Lab::new();
    let router = arborist_operator::metrics::router(lab.dispatcher.clone());
    let get = |path: &'static str| {
        let router = router.clone();
        lab.runtime.block_on(async move {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let server = tokio::spawn(async move { axum::serve(listener, router).await });
            let response = reqwest::get(format!("http://{address}{path}")).await.unwrap();
            let answer = (response.status().as_u16(), response.text().await.unwrap());
            server.abort();
            answer
        })
    };
    // http without TLS, but its client wants a provider all the same
    let _chosen_before = rustls::crypto::ring::default_provider().install_default();
    lab.submit(block(2));
    let (status, text) = get("/metrics");
    assert_eq!(status, 200);
    assert!(text.contains("arborist_tasks{kind=\"vm\",state=\"ready\"} 2"), "{text}");
    assert!(text.contains("arborist_jobs{state=\"proving\"} 1"), "{text}");
    assert_eq!(get("/healthz"), (200, "ok\n".into()));
    assert_eq!(get("/readyz").0, 200);
    lab.runtime.block_on(lab.dispatcher.abandon());
    assert_eq!(get("/readyz"), (503, "stopping\n".into()));
}
