//! What leaves the dispatcher, and what does not.

use crate::lab::{Lab, block, until};
use crate::worker::{Worker, hello, task};
use arborist_core::wire::{FromWorker, Heartbeat, Hello};

/// Leases named in a frame: fewer than a worker with so much prefetch may name.
const NAMED: u64 = 2_000;

fn reaching_far(name: &str) -> Hello {
    Hello { prefetch: 1_024, ..hello(name) }
}

/// Each names leases that nobody has: the answer revokes them all, some 20 kB.
fn unknown_leases(first: u64) -> FromWorker {
    let fences = (0..NAMED).map(|i| u64::MAX / 2 + first * NAMED + i).collect();
    FromWorker { heartbeat: Some(Heartbeat { fences }), ..Default::default() }
}

#[test]
fn what_does_not_fit_into_the_socket_is_sent_later_and_whole() {
    const FRAMES: u64 = 500;
    let lab = Lab::tuned(|o| o.max_waiting = 64 << 20);
    let mut worker = Worker::login(&lab.dispatcher, reaching_far("w"));
    let frames = lab.metric("arborist_frames_received_total");
    for i in 0..FRAMES {
        worker.send(unknown_leases(i));
    }
    until("all is read", || (lab.metric("arborist_frames_received_total") == frames + FRAMES).then_some(()));
    let mut revoked = 0;
    while revoked < FRAMES * NAMED {
        revoked += worker.next().revoked.len() as u64;
    }
    assert_eq!(revoked, FRAMES * NAMED);
}

#[test]
fn a_worker_that_does_not_read_is_dropped() {
    let lab = Lab::tuned(|o| o.max_waiting = 100_000);
    let mut worker = Worker::login(&lab.dispatcher, reaching_far("w"));
    until("it is dropped", || {
        worker.send(unknown_leases(0));
        (lab.metric("arborist_workers_connected") == 0).then_some(())
    });
}

#[test]
fn an_assignment_that_was_not_sent_returns_at_once() {
    let lab = Lab::tuned(|o| o.max_waiting = 64 << 20);
    let mut stuck = Worker::login(&lab.dispatcher, reaching_far("stuck"));
    // until the kernel takes no more: what follows waits in the dispatcher
    let frames = lab.metric("arborist_frames_received_total");
    for i in 0..750 {
        stuck.send(unknown_leases(i));
    }
    until("all is read", || (lab.metric("arborist_frames_received_total") == frames + 750).then_some(()));
    let job = lab.submit(block(1));
    let running = |lab: &Lab| lab.dispatcher.job(job).unwrap().counts.iter().map(|c| c.running).sum::<u32>();
    assert_eq!(running(&lab), 1, "assigned to the one who does not read");
    drop(stuck);
    // leases last 600 s here: only an undelivered one is free so soon
    until("it is ready again", || (running(&lab) == 0).then_some(()));
    let mut other = Worker::login(&lab.dispatcher, hello("other"));
    assert_eq!(other.leases(1).len(), 1);
}

#[test]
fn a_parked_worker_is_woken_by_anothers_result() {
    let lab = Lab::new();
    let mut first = Worker::login(&lab.dispatcher, hello("first"));
    let job = lab.submit(block(1));
    let vm = first.leases(1).remove(0);
    let mut parked = Worker::login(&lab.dispatcher, hello("parked"));
    assert!(parked.leases_by_now(&[]).is_empty(), "the call is all that is ready");
    // the first one leaves after this, so what its result makes ready is the other's
    first.send(FromWorker { draining: Some(Default::default()), ..Default::default() });
    first.prove(&lab, &vm);
    first.report(&vm);
    let kernel = parked.leases(1).remove(0);
    assert_eq!(kernel.kind, 1);
    assert_eq!(kernel.children[0].task, vm.task);
    assert_eq!(lab.dispatcher.job(job).unwrap().counts[0].done, 1);
}

#[test]
fn a_worker_that_drains_hands_back_and_gets_nothing_more() {
    let lab = Lab::new();
    lab.submit(block(2));
    let mut leaving = Worker::login(&lab.dispatcher, hello("leaving"));
    let lease = leaving.leases(1).remove(0);
    let draining = arborist_core::wire::Draining { handed_back: vec![lease.fence] };
    leaving.send(FromWorker { draining: Some(draining), ..Default::default() });
    assert!(leaving.leases_by_now(&[]).is_empty());
    let mut other = Worker::login(&lab.dispatcher, hello("other"));
    assert_eq!(task(&other.leases(1)[0]), task(&lease));
}
