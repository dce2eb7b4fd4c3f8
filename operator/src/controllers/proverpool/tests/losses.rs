use super::fixtures::*;
use crate::controllers::Scope;
use crate::controllers::proverpool::losses::{Loss, losses, sweep};
use crate::kubernetes::pods::{Change, PodBook};
use arborist_core::engine::WorkerState;
use serde_json::{Value, json};

fn told(before: Option<Value>, after: Option<Value>, now: u64) -> Vec<Loss> {
    let spec = |status: &Value| {
        if status["deleting"] == json!(true) { json!({"deleting": true, "nodeName": "n"}) } else { on_node() }
    };
    let pod = |status: Value| record("a", "t", spec(&status), status);
    let change = Change { before: before.map(pod), after: after.map(pod) };
    losses(&change, jiff::Timestamp::from_second(i64::try_from(at(now).millis / 1000).unwrap()).unwrap())
}

fn oom() -> Value {
    let killed = json!({"exitCode": 137, "reason": "OOMKilled", "finishedAt": "2026-01-01T00:01:00Z"});
    json!({"phase": "Running", "containerStatuses": [{"lastState": {"terminated": killed}, "restartCount": 1}]})
}

#[test]
fn the_engine_hears_of_each_end_once() {
    let failed = || json!({"phase": "Failed"});
    let deleting = || json!({"phase": "Running", "deleting": true});
    let crashed =
        json!({"phase": "Running", "containerStatuses": [{"state": {"terminated": {"exitCode": 1}}}]});
    let killed = || Loss::OutOfMemory("uid-of-a/1767225660".into());
    let cases = [
        (Some(running()), None, vec![Loss::Dead]),
        (Some(running()), Some(failed()), vec![Loss::Dead]),
        (Some(failed()), Some(failed()), vec![]),
        (Some(failed()), None, vec![Loss::Dead]),
        (None, Some(failed()), vec![Loss::Dead]),
        (Some(running()), Some(deleting()), vec![Loss::Leaving]),
        (Some(deleting()), Some(deleting()), vec![]),
        (None, Some(deleting()), vec![Loss::Leaving]),
        (Some(running()), Some(oom()), vec![killed()]),
        (Some(oom()), Some(oom()), vec![]),
        (None, Some(oom()), vec![killed()]),
        (Some(running()), Some(crashed), vec![]),
        (None, Some(running()), vec![]),
    ];
    for (before, after, expected) in cases {
        assert_eq!(told(before.clone(), after.clone(), 100), expected, "{before:?} {after:?}");
    }
}

#[test]
fn an_old_death_is_not_told_by_an_operator_that_sees_it_for_the_first_time() {
    assert_eq!(told(None, Some(oom()), 60 + 120).len(), 1);
    assert_eq!(told(None, Some(oom()), 60 + 121), vec![]);
}

#[test]
fn workers_whose_pods_went_while_nobody_looked_are_dead() {
    let (force, book) = (FakeForce::default(), PodBook::default());
    book.tell_of(pod("vm", "there", "t", on_node(), running()));
    book.tell_of(pod("vm", "leaving", "t", json!({"nodeName": "n", "deleting": true}), running()));
    book.tell_of(pod("vm", "over", "t", on_node(), json!({"phase": "Failed"})));
    let mut elsewhere = worker("x", WorkerState::Live, 0, None);
    elsewhere.name = "other/x".into();
    let mut local = worker("x", WorkerState::Live, 0, None);
    local.name = "no-pod-at-all".into();
    force.lock().workers = vec![
        worker("there", WorkerState::Live, 1, None),
        worker("gone", WorkerState::Disconnected, 1, None),
        worker("leaving", WorkerState::Live, 1, None),
        worker("over", WorkerState::Live, 1, None),
        elsewhere,
        local,
    ];
    sweep(&force, &book, &[Scope::Namespace("prod".into())]);
    assert_eq!(force.lock().told, ["dead prod/gone", "drain prod/leaving", "dead prod/over"]);
}
