use crate::support::*;
use arborist_core::circuit::Circuit;
use arborist_core::wire::Reason;
use nix::sys::signal::Signal;

#[test]
fn unacknowledged_results_are_held_and_said_again_after_a_lost_connection() {
    let dispatcher = Dispatcher::start();
    dispatcher.acknowledge(false);
    let _worker = dispatcher.fake_worker(&[]);
    dispatcher.hello();
    dispatcher.lease([lease(1, Circuit::Base, task(1))]);
    let first = dispatcher.frame("a result", |frame| (!frame.completed.is_empty()).then(|| frame.clone()));
    dispatcher.break_connection();
    let hello = dispatcher.hello();
    let held: Vec<_> = hello.held.iter().map(|h| (h.fence, h.task.clone())).collect();
    assert_eq!(held, [(1, task(1).0.to_vec())]);
    dispatcher.acknowledge(true);
    dispatcher.close_connection();
    dispatcher.hello();
    let again =
        dispatcher.frame("the result again", |frame| (!frame.completed.is_empty()).then(|| frame.clone()));
    assert_eq!(again.completed, first.completed);
    assert!(again.seq > first.seq);
    until("the acknowledgement to be taken in", || {
        dispatcher.close_connection();
        dispatcher.hello().held.is_empty()
    });
}

#[test]
fn a_proof_goes_on_while_the_connection_is_gone() {
    let dispatcher = Dispatcher::start();
    let _worker = dispatcher.fake_worker(&["--fake-millis", "200"]);
    dispatcher.hello();
    dispatcher.lease([lease(1, Circuit::Base, task(1))]);
    dispatcher.frame("the lease taken", |frame| (frame.heartbeat.as_ref()?.fences == [1]).then_some(()));
    dispatcher.answer(Answer::Refuse { text: "no leader", permanent: false });
    dispatcher.close_connection();
    until("the proof", || dispatcher.stored(task(1)).is_some());
    dispatcher.answer(Answer::ByToken);
    assert!(!dispatcher.result(1).unwrap().found);
}

#[test]
fn sigterm_hands_back_what_has_not_begun_finishes_the_rest_and_exits_0() {
    let dispatcher = Dispatcher::start();
    // long enough for the signal to come in its middle on a busy machine too
    let worker = dispatcher.fake_worker(&["--fake-millis", "4000", "--fake-sigma", "0", "--cores", "1"]);
    dispatcher.hello();
    dispatcher.lease((1..=3).map(|fence| lease(fence, Circuit::Base, task(fence as u8))));
    let ran = dispatcher.running(1);
    worker.terminate();
    let (mut done, mut back, mut draining) = (vec![], vec![], false);
    dispatcher.frame("every lease's end", |frame| {
        draining |= frame.draining.is_some();
        done.extend(frame.completed.iter().map(|c| c.fence));
        back.extend(frame.failed.iter().map(|f| (f.fence, reason(f))));
        (done.len() + back.len() == 3).then_some(())
    });
    let (code, text) = worker.end();
    assert_eq!(code, Some(0), "{text}");
    assert!(draining, "it says that it leaves");
    assert_eq!(done, ran, "what ran was finished");
    back.sort_by_key(|(fence, _)| *fence);
    let others: Vec<_> = (1..=3).filter(|fence| !ran.contains(fence)).collect();
    assert_eq!(back, others.iter().map(|fence| (*fence, Reason::HandedBack)).collect::<Vec<_>>());
}

#[test]
fn what_outlives_the_grace_period_is_handed_back() {
    let dispatcher = Dispatcher::start();
    let worker = dispatcher.fake_worker(&["--fake-faults", "hang=1000", "--grace", "0"]);
    dispatcher.hello();
    dispatcher.lease([lease(1, Circuit::Base, task(1))]);
    dispatcher.running(1);
    worker.terminate();
    assert_eq!(reason(&dispatcher.failure(1)), Reason::HandedBack);
    let (code, text) = worker.end();
    assert_eq!(code, Some(0), "{text}");
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let dispatcher = Dispatcher::start();
    let worker = dispatcher.fake_worker(&["--fake-faults", "hang=1000", "--grace", "3600"]);
    dispatcher.hello();
    dispatcher.lease([lease(1, Circuit::Base, task(1))]);
    dispatcher.running(1);
    worker.terminate();
    dispatcher.frame("word that it leaves", |frame| frame.draining.clone());
    worker.signal(Signal::SIGINT);
    let (code, text) = worker.end();
    assert_eq!(code, Some(1), "{text}");
}

#[test]
fn a_worker_that_leaves_says_so_when_it_logs_in_anew() {
    let dispatcher = Dispatcher::start();
    let worker = dispatcher.fake_worker(&["--fake-faults", "hang=1000", "--grace", "3600"]);
    assert!(!dispatcher.hello().draining);
    dispatcher.lease([lease(1, Circuit::Base, task(1))]);
    dispatcher.running(1);
    worker.terminate();
    dispatcher.frame("word that it leaves", |frame| frame.draining.clone());
    dispatcher.break_connection();
    let hello = dispatcher.hello();
    assert_eq!((hello.draining, hello.held.len()), (true, 1));
    worker.signal(Signal::SIGINT);
    let (code, text) = worker.end();
    assert_eq!(code, Some(1), "{text}");
}

#[test]
fn an_idle_worker_leaves_at_once_connected_or_not() {
    let dispatcher = Dispatcher::start();
    let worker = dispatcher.fake_worker(&["--grace", "3600"]);
    dispatcher.hello();
    worker.terminate();
    assert_eq!(worker.end().0, Some(0));
    dispatcher.answer(Answer::Refuse { text: "no leader", permanent: false });
    let worker = dispatcher.fake_worker(&["--grace", "3600"]);
    dispatcher.hello();
    worker.terminate();
    assert_eq!(worker.end().0, Some(0));
}

/// As after an upgrade of the operator that changes the protocol.
fn refuse_for_good(dispatcher: &Dispatcher) {
    dispatcher.answer(Answer::Refuse { text: "run both from one release", permanent: true });
    dispatcher.close_connection();
}

#[test]
fn a_worker_that_is_refused_for_good_finishes_and_stores_what_runs() {
    let dispatcher = Dispatcher::start();
    let worker = dispatcher.fake_worker(&["--fake-millis", "4000", "--fake-sigma", "0", "--cores", "1"]);
    dispatcher.hello();
    dispatcher.lease((1..=2).map(|fence| lease(fence, Circuit::Base, task(fence as u8))));
    let ran = dispatcher.running(1);
    refuse_for_good(&dispatcher);
    let (code, text) = worker.end();
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("run both from one release"), "{text}");
    assert!(dispatcher.stored(task(ran[0] as u8)).is_some(), "{text}");
}

#[test]
fn a_worker_that_is_refused_for_good_stays_no_longer_than_its_grace_period_or_two_signals() {
    for (grace, signals, wanted) in [("0", 0, 3), ("3600", 2, 1)] {
        let dispatcher = Dispatcher::start();
        let worker = dispatcher.fake_worker(&["--fake-faults", "hang=1000", "--grace", grace]);
        dispatcher.hello();
        dispatcher.lease([lease(1, Circuit::Base, task(1))]);
        dispatcher.running(1);
        refuse_for_good(&dispatcher);
        dispatcher.hello();
        for signal in [Signal::SIGTERM, Signal::SIGINT].into_iter().take(signals) {
            worker.signal(signal);
        }
        let (code, text) = worker.end();
        assert_eq!(code, Some(wanted), "{text}");
    }
}

#[test]
fn it_leaves_at_once_with_its_parent_if_told_to() {
    let dispatcher = Dispatcher::start();
    let mut worker =
        dispatcher.fake_worker(&["--exit-with-parent", "--fake-faults", "hang=1000", "--grace", "3600"]);
    dispatcher.hello();
    dispatcher.lease([lease(1, Circuit::Base, task(1))]);
    dispatcher.running(1);
    drop(worker.child.stdin.take());
    let (code, text) = worker.end();
    assert_eq!(code, Some(1), "{text}");
}
