//! What those who run machines ask of a dispatcher and tell it.

use crate::lab::{Lab, TOKEN, block, until};
use crate::worker::{Worker, hello, task};
use arborist_core::circuit::Kind;
use arborist_core::engine::{Serves, TaskState, WorkerState};
use arborist_core::profile::Needs;
use arborist_core::wire::{FromWorker, Held, Hello, Lease, ToWorker};
use arborist_operator::dispatch::{Identity, Login, Refusal};
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;

const USUAL: Needs = Needs { cores: 1, memory_mib: 16 };
const LARGER: Needs = Needs { cores: 1, memory_mib: 2048 };

fn lab() -> Lab {
    Lab::tuned(|o| o.engine.classes.push(LARGER))
}

fn demand(lab: &Lab) -> Vec<(Kind, Needs, u32, u32)> {
    let rows = lab.dispatcher.demand(Duration::ZERO).into_iter();
    rows.map(|d| (d.kind, d.needs, d.running, d.ready)).collect()
}

#[test]
fn demand_is_seen_from_outside() {
    let lab = lab();
    assert_eq!(demand(&lab), []);
    let job = lab.submit(block(2));
    assert_eq!(demand(&lab), [(Kind::Vm, USUAL, 0, 2)]);
    assert_eq!(lab.dispatcher.estimate(job), None);
    let mut worker = Worker::login(&lab.dispatcher, hello("w"));
    worker.leases(1);
    assert_eq!(demand(&lab), [(Kind::Vm, USUAL, 1, 1)]);
    assert!(lab.dispatcher.estimate(job).is_some());
    let hour = lab.dispatcher.demand(Duration::from_secs(3600));
    assert_eq!(hour.iter().map(|d| d.soon).sum::<u32>(), 5);
    let root = lab.dispatcher.root_task(job).unwrap();
    assert_eq!(lab.dispatcher.find_root("", &root), Some(job));
    assert_eq!(lab.dispatcher.attribution(job), Some(vec![]));
}

#[test]
fn a_dead_worker_is_hung_up_on_and_its_lease_goes_on_elsewhere() {
    let lab = lab();
    lab.submit(block(1));
    let mut dead = Worker::login(&lab.dispatcher, hello("dead"));
    let lease = dead.leases(1).remove(0);
    let mut other = Worker::login(&lab.dispatcher, hello("other"));
    lab.dispatcher.worker_dead("nobody");
    lab.dispatcher.worker_dead("dead");
    assert!(dead.is_closed());
    assert_eq!(task(&other.leases(1)[0]), task(&lease));
    until("its login is gone", || (lab.metric("arborist_workers_connected") == 1).then_some(()));
}

#[test]
fn a_worker_that_died_disconnected_does_not_keep_its_lease_until_it_expires() {
    let lab = lab();
    lab.submit(block(1));
    let mut dead = Worker::login(&lab.dispatcher, hello("dead"));
    let lease = dead.leases(1).remove(0);
    drop(dead);
    until("the end is noticed", || {
        let states = lab.dispatcher.worker_states();
        (states[0].state == WorkerState::Disconnected).then_some(())
    });
    let mut other = Worker::login(&lab.dispatcher, hello("other"));
    assert!(other.leases_by_now(&[]).is_empty());
    lab.dispatcher.worker_dead("dead");
    assert_eq!(task(&other.leases(1)[0]), task(&lease));
}

#[test]
fn a_worker_killed_for_its_memory_is_charged_though_it_is_back_already() {
    let lab = lab();
    lab.submit(block(1));
    let mut killed = Worker::login(&lab.dispatcher, hello("w"));
    let lease = killed.leases(1).remove(0);
    drop(killed);
    let mut again = Worker::login(&lab.dispatcher, hello("w"));
    assert_eq!(task(&again.leases(1)[0]), task(&lease));
    for _ in 0..2 {
        lab.dispatcher.worker_out_of_memory("w", "its first death");
        assert_eq!(demand(&lab), [(Kind::Vm, LARGER, 0, 1)]);
        assert_eq!(lab.dispatcher.task(&task(&lease)).unwrap().attempts, 1);
    }
    assert_eq!(lab.metric("arborist_charges_total{reason=\"out_of_memory\"}"), 1);
    assert_eq!(again.next().revoked.len(), 1, "it would die of it again");
    let mut large = Worker::login(&lab.dispatcher, Hello { memory_mib: 4096, ..hello("large") });
    let lease = large.leases(1).remove(0);
    assert_eq!(lease.memory_mib, LARGER.memory_mib);
}

#[test]
fn idle_workers_are_drained_and_busy_ones_left_as_they_are() {
    let lab = lab();
    lab.submit(block(1));
    let mut busy = Worker::login(&lab.dispatcher, hello("busy"));
    let lease = busy.leases(1).remove(0);
    let mut idle = Worker::login(&lab.dispatcher, hello("idle"));
    let names: Vec<String> = ["busy", "idle", "nobody"].map(str::to_owned).into();
    assert_eq!(lab.dispatcher.drain_idle(&names), ["idle"]);
    let mut states = lab.dispatcher.worker_states();
    states.sort_by(|a, b| a.name.cmp(&b.name));
    let seen: Vec<_> = states.iter().map(|w| (w.state, w.leases, w.idle_since.is_some())).collect();
    assert_eq!(seen, [(WorkerState::Live, 1, false), (WorkerState::Draining, 0, true)]);
    lab.dispatcher.drain("busy");
    busy.prove(&lab, &lease);
    busy.report(&lease);
    busy.acknowledged();
    assert!(busy.leases_by_now(&[]).is_empty() && idle.leases_by_now(&[]).is_empty());
}

#[test]
fn a_worker_that_was_told_to_leave_is_leaving_also_when_it_comes_back() {
    let mut lab = lab();
    let login = |lab: &Lab| Worker::login(&lab.dispatcher, hello("w"));
    let first = login(&lab);
    assert_eq!(lab.dispatcher.drain_idle(&["w".to_owned()]), ["w"]);
    let job = lab.submit(block(1));
    // its connection broke, or it did not notice yet that it did
    let mut second = login(&lab);
    assert!(second.leases_by_now(&[]).is_empty());
    drop(first);
    drop(second);
    until("it is gone", || lab.dispatcher.worker_states().is_empty().then_some(()));
    let mut third = login(&lab);
    assert!(third.leases_by_now(&[]).is_empty());
    assert_eq!(lab.dispatcher.worker_states()[0].state, WorkerState::Draining);
    assert_eq!(lab.dispatcher.drain_idle(&["w".to_owned()]), ["w"], "its pod can still be deleted");

    // another of its name, after its end
    lab.dispatcher.worker_dead("w");
    assert!(third.is_closed());
    let mut fresh = login(&lab);
    let lease = fresh.leases(1).remove(0);

    // one that is busy, and is drained as its pod is being deleted, keeps what it has and gets nothing else
    lab.dispatcher.drain("w");
    drop(fresh);
    let held =
        Held { task: lease.task.clone(), fence: lease.fence, running_millis: 5, mac: lease.mac.clone() };
    let mut back = Worker::login(&lab.dispatcher, Hello { held: vec![held], ..hello("w") });
    assert!(back.leases_by_now(&[lease.fence]).is_empty());
    back.prove(&lab, &lease);
    back.report(&lease);
    back.acknowledged();
    assert!(back.leases_by_now(&[]).is_empty());
    assert_eq!(lab.dispatcher.job(job).unwrap().counts[0].done, 1);

    // an operator that takes over decides anew
    lab.restart_after(true);
    assert_eq!(login(&lab).leases(1).len(), 1);
}

#[test]
fn a_worker_gets_the_kinds_that_it_names_at_login() {
    let lab = lab();
    lab.submit(block(1));
    let mut kernels = Worker::login(&lab.dispatcher, Hello { kinds: 0b10, ..hello("kernels") });
    let mut all = Worker::login(&lab.dispatcher, hello("all"));
    let vm = all.leases(1).remove(0);
    assert!(kernels.leases_by_now(&[]).is_empty());
    all.prove(&lab, &vm);
    all.report(&vm);
    let kernel = kernels.leases(1).remove(0);
    let tasks = [&vm, &kernel].map(|lease| lab.dispatcher.task(&task(lease)).unwrap().workers);
    assert_eq!(tasks, [vec!["all".to_owned()], vec!["kernels".to_owned()]]);
}

/// Knows each worker by its token.
struct Register;

impl Login for Register {
    fn check<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Identity, Refusal>> {
        let node = token.strip_prefix(TOKEN).unwrap_or_default();
        let node = node.strip_suffix(", leaving").unwrap_or(node).to_owned();
        let identity = Identity {
            subject: "pod".into(),
            worker: Some("w".into()),
            node: Some(node),
            capacity: Some(Needs { cores: 2, memory_mib: 2048 }),
            draining: token.ends_with("leaving"),
            serves: Serves::All,
        };
        Box::pin(std::future::ready(Ok(identity)))
    }
}

#[test]
fn a_worker_has_the_name_and_the_machine_that_its_token_says() {
    let lab = Lab::tuned(|o| o.login = Arc::new(Register));
    let token = format!("{TOKEN}node-7");
    let mut liar = Worker::connect(&lab.dispatcher);
    let hello_as = |name: &str| Hello { token: token.clone(), node: "node-1".into(), ..hello(name) };
    liar.send(FromWorker { hello: Some(hello_as("v")), ..Default::default() });
    let ToWorker { refused, .. } = liar.next();
    let refused = refused.expect("a refusal");
    assert!(refused.permanent && refused.text.contains("the token is w's"), "{refused:?}");
    let _worker = Worker::login(&lab.dispatcher, Hello { cores: 64, ..hello_as("w") });
    let states = lab.dispatcher.worker_states();
    assert_eq!((states[0].name.as_str(), states[0].node.as_str()), ("w", "node-7"));
    assert_eq!(
        states[0].capacity,
        Needs { cores: 2, memory_mib: 1024 },
        "no more than its pod, no more than it says"
    );
}

#[test]
fn a_worker_that_claims_more_than_its_pod_has_gets_what_fits_its_pod() {
    let lab = Lab::tuned(|o| o.login = Arc::new(Register));
    lab.submit(block(4));
    let token = format!("{TOKEN}node-7");
    let mut liar = Worker::login(&lab.dispatcher, Hello { token, cores: 64, ..hello("w") });
    assert_eq!(liar.leases_by_now(&[]).len(), 2);
}

#[test]
fn a_worker_whose_pod_is_being_deleted_finishes_what_it_has_under_the_next_leader() {
    // it says so itself, or only the cluster knows
    for (says, token) in [(true, "node-7"), (false, "node-7, leaving")] {
        let mut lab = Lab::tuned(|o| {
            o.login = Arc::new(Register);
            // also proofs that take long are queued
            o.engine.prefetch_below = u64::MAX;
        });
        let job = lab.submit(block(4));
        let hello = |held, draining, end: &str| Hello {
            token: format!("{TOKEN}{end}"),
            cores: 2,
            prefetch: 2,
            held,
            draining,
            ..hello("w")
        };
        let mut worker = Worker::login(&lab.dispatcher, hello(vec![], false, "node-7"));
        let leases = worker.leases(4);
        lab.restart_after(true);
        // one runs, one is finished and was not acknowledged, one was not begun; the fourth never came
        let held = |lease: &Lease, running_millis| Held {
            task: lease.task.clone(),
            fence: lease.fence,
            running_millis,
            mac: lease.mac.clone(),
        };
        let all = vec![held(&leases[0], 9), held(&leases[1], 0), held(&leases[2], 0)];
        let mut worker = Worker::login(&lab.dispatcher, hello(all, says, token));
        assert!(worker.leases_by_now(&[leases[0].fence]).is_empty(), "says so: {says}");
        assert_eq!(lab.dispatcher.worker_states()[0].state, WorkerState::Draining);
        for lease in &leases[..2] {
            worker.prove(&lab, lease);
            worker.report(lease);
        }
        worker.hand_back(&leases[2]);
        worker.acknowledged();
        assert!(worker.leases_by_now(&[]).is_empty(), "says so: {says}");
        let counts = lab.dispatcher.job(job).unwrap().counts;
        assert_eq!((counts[0].done, counts[0].running), (2, 0), "says so: {says}");
        let view = lab.dispatcher.task(&task(&leases[2])).unwrap();
        assert_eq!((view.state, view.attempts), (TaskState::Ready, 0), "it is another's at once");
    }
}
