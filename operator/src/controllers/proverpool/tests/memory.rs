use super::fixtures::*;
use crate::controllers::proverpool::census::{Moment, Workers};
use crate::controllers::proverpool::memory::{PoolMemory, Refusal, Refusals, Window};
use crate::kubernetes::pods::PoolPods;
use arborist_core::engine::WorkerState;
use serde_json::json;
use std::time::Duration;

#[test]
fn the_window_keeps_the_most_that_was_wanted() {
    let (mut window, delay) = (Window::default(), Duration::from_secs(60));
    let mut most = |second: u64, wanted: u32| {
        window.add(at(second).instant, wanted);
        window.most(at(second).instant, delay)
    };
    for (second, wanted, expected) in [
        (0, 5, 5),
        (10, 9, 9),
        (20, 3, 9),
        (30, 4, 9),
        (79, 1, 9),
        (80, 1, 4), // nine were wanted until 20
        (138, 1, 4),
        (139, 1, 1),
        (140, 7, 7),
    ] {
        assert_eq!(most(second, wanted), expected, "at {second} s");
    }
    // a number counts as long as it stands, however old it is
    let mut still = Window::default();
    still.add(at(0).instant, 8);
    assert_eq!(still.most(at(5000).instant, delay), 8);
}

#[test]
fn refusals_are_tried_again_one_at_a_time_and_ever_later() {
    let said: fn(String) -> Refusal = Refusal::Said;
    let mut refusals = Refusals::default();
    for (why, pauses) in [(said, vec![1, 2, 4, 8, 16, 32, 60, 60]), (Refusal::Away, vec![1, 2, 4, 4, 4])] {
        refusals.clear();
        assert_eq!(refusals.allowed(at(0).instant), u32::MAX);
        let mut second = 0;
        for pause in pauses {
            refusals.refused(at(second).instant, why("quota".into()));
            let almost = at(second).instant + Duration::from_millis(pause * 790);
            assert_eq!(refusals.allowed(almost), 0, "{pause}");
            second += pause;
            assert_eq!(refusals.allowed(at(second).instant), 1, "{pause}");
        }
    }
    refusals.clear();
    assert_eq!(refusals.allowed(at(0).instant), u32::MAX);
}

#[test]
fn only_what_lasts_or_has_a_reason_limits_a_pool() {
    let [said, away]: [fn(String) -> Refusal; 2] = [Refusal::Said, Refusal::Away];
    for (tries, limits) in [
        (&[] as &[_], false),
        (&[away], false),
        (&[away, away], false),
        (&[away, away, away], true),
        (&[said], true),
        (&[said, away], true),
    ] {
        let mut refusals = Refusals::default();
        for why in tries {
            refusals.refused(at(0).instant, why("why".into()));
        }
        assert_eq!(refusals.message().is_some(), limits, "{}", tries.len());
        refusals.clear();
        assert_eq!(refusals.message(), None);
    }
}

/// The pods of a pool at a second: names of those refused, of those refused that are being deleted, of those logged in and of
/// those not. After it: refusals in a row, and how many pods may be made while one is on its way.
type Second<'a> = (u64, [&'a [&'a str]; 4], u32, u32);

#[test]
fn pods_that_nodes_refuse_together_are_one_refusal_until_a_worker_comes_up() {
    let all = u32::MAX;
    let stories: [&[Second]; 6] = [
        &[(0, [&[], &[], &["w"], &["a"]], 0, all)],
        // at once, or while nothing is tried
        &[(0, [&["a", "b", "c"], &[], &[], &[]], 1, 0), (0, [&["a", "d"], &[], &[], &[]], 1, 0)],
        // the next try after the pause, and what is there is not news
        &[
            (0, [&["a"], &[], &[], &[]], 1, 0),
            (5, [&["a"], &[], &[], &[]], 1, 0),
            (6, [&["a", "b"], &[], &[], &[]], 2, 0),
        ],
        // one that is deleted before it started fails too
        &[(0, [&[], &["a"], &[], &[]], 0, all)],
        // a worker that was there all the time is no sign, one that comes up is
        &[
            (0, [&["a"], &[], &["w"], &["b"]], 1, 0),
            (5, [&["a"], &[], &["w"], &["b"]], 1, 0),
            (9, [&["a"], &[], &["w", "b"], &[]], 0, all),
        ],
        &[
            (0, [&["a"], &[], &[], &[]], 1, 0),
            (299, [&[], &[], &[], &[]], 1, 0),
            (302, [&[], &[], &[], &[]], 0, all),
        ],
    ];
    for story in stories {
        let mut memory = PoolMemory::default();
        for (second, [failed, going, there, absent], streak, allowed) in story {
            let pod = |spec: &serde_json::Value, status: &serde_json::Value, names: &[&str]| {
                let one = |name: &&str| record(name, "t", spec.clone(), status.clone());
                names.iter().map(one).collect::<Vec<_>>()
            };
            let going = pod(&json!({"deleting": true}), &refused("no room"), going);
            let alive = [pod(&on_node(), &running(), there), pod(&on_node(), &running(), absent)].concat();
            let pods = [pod(&on_node(), &refused("no room"), failed), going, alive].concat();
            let brief = |name: &&str| worker(name, WorkerState::Live, 1, None);
            let workers = there.iter().map(brief).map(|worker| (worker.name.clone(), worker)).collect();
            memory.note(&PoolPods { pods, expected: 0 }, &workers, at(*second));
            let now = at(*second).instant;
            assert_eq!(
                (memory.rejections.streak, memory.allowed(1, now)),
                (*streak, *allowed),
                "{story:?}: {second} s"
            );
        }
    }
}

#[test]
fn while_nodes_refuse_pods_one_is_tried_at_a_time_and_the_third_limits_the_pool() {
    let mut memory = PoolMemory::default();
    for (second, streak, limited) in [(0, 1, false), (2, 2, false), (10, 3, true), (30, 4, true)] {
        let pods = vec![record(&format!("vm-{second}"), "t", on_node(), refused("no room"))];
        memory.note(&PoolPods { pods, expected: 0 }, &Workers::new(), at(second));
        let allowed = |coming, later| memory.allowed(coming, at(second + later).instant);
        assert_eq!((memory.rejections.streak, memory.is_limited(at(second).instant)), (streak, limited));
        assert_eq!((allowed(0, 0), allowed(0, 60), allowed(1, 60)), (0, 1, 0), "{second}");
    }
}

#[test]
fn starts_are_measured_from_the_making_to_the_login() {
    let mut memory = PoolMemory::default();
    let pool = valid(&pool("vm", json!({})));
    let names = ["a", "b", "c"];
    let pods = |status: serde_json::Value| PoolPods {
        pods: names.iter().map(|name| record(name, "t", on_node(), status.clone())).collect(),
        expected: 0,
    };
    let logged_in = |count: usize| -> Workers {
        let brief = |name: &&str| worker(name, WorkerState::Live, 0, None);
        names.iter().take(count).map(brief).map(|worker| (worker.name.clone(), worker)).collect()
    };
    let mut note = |at: Moment, count| {
        memory.note(&pods(running()), &logged_in(count), at);
        (memory.startup(&pool).as_secs(), memory.absent.len())
    };
    assert_eq!(note(at(1), 0), (120, 3), "as the user says, until it was measured");
    assert_eq!(note(at(12), 1), (12, 2));
    assert_eq!(note(at(14), 2), (14, 1));
    assert_eq!(note(at(30), 3), (14, 0), "the median");
    // a worker that comes back is no start, however soon
    assert_eq!(note(at(400), 2), (14, 1));
    let restarted = json!({"phase": "Running", "containerStatuses": [{"restartCount": 1}]});
    memory.note(&pods(restarted), &logged_in(3), at(500));
    assert_eq!(memory.startup(&pool).as_secs(), 14);
}

/// Most pods may find a machine that is there, and the next ones none.
#[test]
fn a_pod_may_wait_for_a_node_as_long_as_slow_starts_took() {
    let vm = |estimate: &str| valid(&pool("vm", json!({"scaling": {"startupEstimate": estimate}})));
    // starts on machines that were there, starts of machines, the user's estimate; seconds of grace and of a start
    for (warm, cold, estimate, grace, startup) in [
        (0, 0, "120s", 120, 120),
        (1, 0, "120s", 120, 10),
        (20, 5, "120s", 200, 10),
        (5, 20, "60s", 200, 200),
        (26, 5, "5s", 200, 10),
        (30, 1, "5s", 10, 10),
        (0, 1, "1h", 600, 200),
        (1, 0, "0s", 10, 10),
    ] {
        let mut memory = PoolMemory::default();
        for seconds in std::iter::repeat_n(200, cold).chain(std::iter::repeat_n(10, warm)) {
            memory.startups.add(seconds);
        }
        let found = (memory.grace(&vm(estimate)).as_secs(), memory.startup(&vm(estimate)).as_secs());
        assert_eq!(found, (grace, startup), "{warm} warm, {cold} cold, {estimate}");
    }
}

/// A new operator knows of no worker until the first one has found it; a connection may end at any time.
#[test]
fn a_worker_that_finds_back_is_no_start() {
    let workers = || -> Workers {
        let worker = worker("a", WorkerState::Live, 0, None);
        [(worker.name.clone(), worker)].into()
    };
    let there = || PoolPods { pods: vec![record("a", "t", on_node(), running())], expected: 0 };
    // second of the visit, whether the worker is logged in, median
    let failover = [(3 * 3600, false, None), (3 * 3600 + 2, true, None)];
    let blip = [(0, false, None), (4, true, Some(4)), (6, false, Some(4)), (300, true, Some(4))];
    let known_late = [(5, true, None), (7, false, None), (400, true, None)];
    let slow = [(1, false, None), (500, false, None), (900, true, Some(900))];
    for visits in [&failover[..], &blip, &known_late, &slow] {
        let mut memory = PoolMemory::default();
        for (second, logged_in, median) in visits {
            let workers = if *logged_in { workers() } else { Workers::new() };
            memory.note(&there(), &workers, at(*second));
            assert_eq!(memory.startups.median(), *median, "{visits:?} at {second} s");
        }
    }
}

#[test]
fn a_pod_that_was_deleted_is_remembered_until_the_watch_tells() {
    let mut memory = PoolMemory::default();
    let gone = record("a", "t", on_node(), running());
    memory.deleted.insert(gone.uid.clone());
    let note = |memory: &mut PoolMemory, pods| {
        memory.note(&PoolPods { pods, expected: 0 }, &Workers::new(), at(0));
        memory.deleted.len()
    };
    assert_eq!(note(&mut memory, vec![gone]), 1);
    assert_eq!(note(&mut memory, vec![record("a", "t", json!({"deleting": true}), running())]), 0);
}
