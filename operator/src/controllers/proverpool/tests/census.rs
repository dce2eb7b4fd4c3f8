use super::fixtures::*;
use crate::controllers::proverpool::census::{Absent, Census, Rules, Standing, Trouble, Workers};
use crate::kubernetes::pods::PoolPods;
use arborist_core::engine::{WorkerBrief, WorkerState};
use serde_json::{Value, json};
use std::time::Duration;

const RULES: Rules =
    Rules { template: Some("new"), grace: Duration::from_secs(30), delay: Duration::from_secs(60) };

/// Where one pod stands that has been absent for so many seconds.
fn stands(spec: Value, status: Value, worker: Option<WorkerBrief>, absent_for: u64) -> Standing {
    let pods = PoolPods { pods: vec![record("vm-a", "new", spec, status)], expected: 0 };
    let workers: Workers = worker.into_iter().map(|worker| (worker.name.clone(), worker)).collect();
    let absent = Absent::from([("prod/vm-a".to_owned(), at(0).instant)]);
    Census::take(pods, &workers, &absent, &RULES, at(absent_for)).members[0].standing
}

#[test]
fn a_pod_stands_where_kubernetes_and_the_engine_say() {
    let oom = json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}});
    let oom_loop = json!({"containerStatuses": [{"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": oom}]});
    let stuck = Standing::Stuck;
    let cases = [
        (json!({}), json!({"phase": "Failed"}), 0, Standing::Over),
        (json!({"deleting": true}), running(), 0, Standing::Leaving),
        (json!({"deleting": true}), json!({"phase": "Failed"}), 0, Standing::Over),
        (json!({}), json!({}), 500, Standing::Pending),
        (json!({}), unschedulable("no room"), 29, Standing::Pending),
        (json!({}), unschedulable("no room"), 30, stuck(Trouble::Unschedulable)),
        (on_node(), json!({"phase": "Pending"}), 299, Standing::Arriving),
        (on_node(), json!({"phase": "Pending"}), 300, stuck(Trouble::Mute)),
        (on_node(), running(), 59, Standing::Arriving),
        (on_node(), running(), 60, stuck(Trouble::Mute)),
        (on_node(), unheard(), 10, Standing::Lost),
        (on_node(), with_slow_sidecar(), 59, Standing::Arriving),
        (on_node(), with_slow_sidecar(), 60, stuck(Trouble::Mute)),
        (on_node(), waiting("ImagePullBackOff", "x:1", ""), 0, stuck(Trouble::Image)),
        (on_node(), waiting("CrashLoopBackOff", "x:1", ""), 0, stuck(Trouble::CrashLoop)),
        (on_node(), waiting("CreateContainerConfigError", "x:1", ""), 0, stuck(Trouble::Config)),
        (on_node(), oom_loop, 0, stuck(Trouble::OutOfMemory)),
    ];
    for (spec, status, absent_for, standing) in cases {
        assert_eq!(stands(spec, status.clone(), None, absent_for), standing, "{status}");
    }
}

#[test]
fn a_worker_that_is_there_says_more_than_its_pod() {
    let idle = |since| worker("vm-a", WorkerState::Live, 0, Some(at(since)));
    let with = |worker| stands(on_node(), running(), Some(worker), 100);
    assert_eq!(with(idle(40)), Standing::Idle(Duration::from_secs(60)));
    assert_eq!(with(idle(400)), Standing::Idle(Duration::ZERO), "clocks may differ a little");
    let state = |state, leases| with(worker("vm-a", state, leases, None));
    assert_eq!(state(WorkerState::Live, 2), Standing::Busy);
    assert_eq!(state(WorkerState::Silent, 0), Standing::Busy);
    assert_eq!(state(WorkerState::Disconnected, 1), Standing::Busy);
    assert_eq!(state(WorkerState::Draining, 1), Standing::Draining { done: false });
    assert_eq!(state(WorkerState::Draining, 0), Standing::Draining { done: true });
    assert_eq!(state(WorkerState::Barred, 0), Standing::Draining { done: true });
    // but not than its end
    let gone =
        stands(json!({"deleting": true}), running(), Some(worker("vm-a", WorkerState::Live, 1, None)), 0);
    assert_eq!(gone, Standing::Leaving);
}

#[test]
fn pods_are_counted_where_they_stand() {
    let pods = vec![
        record("vm-a", "new", on_node(), running()),
        record("vm-b", "old", on_node(), running()),
        record("vm-c", "new", on_node(), json!({"phase": "Pending"})),
        record("vm-d", "new", json!({}), unschedulable("no room")),
        record("vm-e", "new", on_node(), waiting("ErrImagePull", "x:1", "")),
        record("vm-f", "new", json!({"deleting": true}), running()),
        record("vm-g", "new", json!({}), json!({"phase": "Failed"})),
        record("vm-h", "new", on_node(), unheard()),
        record("vm-i", "old", json!({"deleting": true}), json!({"phase": "Succeeded"})),
    ];
    let workers: Workers =
        [worker("vm-a", WorkerState::Live, 3, None), worker("vm-b", WorkerState::Live, 0, Some(at(10)))]
            .into_iter()
            .map(|worker| (worker.name.clone(), worker))
            .collect();
    let census = Census::take(PoolPods { pods, expected: 2 }, &workers, &Absent::new(), &RULES, at(100));
    let counts = census.counts;
    assert_eq!((counts.busy, counts.idle, counts.removable, counts.arriving), (1, 1, 1, 1));
    assert_eq!((counts.pending, counts.unschedulable, counts.stuck), (1, 1, 1));
    assert_eq!((counts.draining, counts.gone, counts.lost, counts.outdated), (1, 2, 1, 1));
    assert_eq!((counts.present(), counts.there(), census.have()), (2, 5, 7));
    assert_eq!(counts.trouble, Some(Trouble::Image));
    assert_eq!(census.example(Trouble::Image).unwrap().name(), "vm-e");
}
