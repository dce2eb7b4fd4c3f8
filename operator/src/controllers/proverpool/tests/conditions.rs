use super::fixtures::*;
use crate::api::ProverPoolStatus;
use crate::api::conditions::{Finding, MAX_MESSAGE, Status, cut, reason};
use crate::controllers::proverpool::apply::Applied;
use crate::controllers::proverpool::census::{Absent, Census, Rules, Workers};
use crate::controllers::proverpool::dereference::Seen;
use crate::controllers::proverpool::findings::findings;
use crate::controllers::proverpool::memory::Planned;
use crate::controllers::proverpool::update_status::status;
use crate::controllers::proverpool::validate::Invalid;
use crate::kubernetes::pods::PoolPods;
use arborist_core::circuit::Kind;
use arborist_core::engine::WorkerState;
use arborist_core::plan::{Because, Bound, Share, Starved, Wanted, Why};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::time::Duration;

/// A pool that wants `wanted` pods and has `busy` workers and these other pods (spec and status), all there for four minutes.
fn seen(wanted: u32, busy: usize, others: Vec<(Value, Value)>) -> Seen {
    let mut workers = Workers::new();
    let mut pods = vec![];
    for number in 0..busy {
        let name = format!("busy-{number}");
        pods.push(record(&name, "t", on_node(), running()));
        workers.insert(format!("prod/{name}"), worker(&name, WorkerState::Live, 1, None));
    }
    let mut absent = Absent::new();
    for (number, (spec, status)) in others.into_iter().enumerate() {
        let pod = record(&format!("other-{number}"), "t", spec, status);
        absent.insert(pod.worker().to_owned(), at(0).instant);
        pods.push(pod);
    }
    let rules = Rules { template: Some("t"), grace: Duration::from_secs(60), delay: Duration::from_secs(60) };
    let census = Census::take(PoolPods { pods, expected: 0 }, &workers, &absent, &rules, at(240));
    let shares = if wanted > 0 { vec![Share { kind: Kind::Vm, tasks: wanted, each: 1 }] } else { vec![] };
    let because = Because { pods: wanted, shares, bound: Bound::Demand };
    Seen {
        invalid: None,
        census,
        planned: Planned {
            generation: 1,
            wanted: Wanted { pods: wanted, because, denied: 0, starved: None },
        },
        lately: wanted,
        deleted: HashSet::new(),
        delete_failed: false,
        allowed: 0,
        refusal: None,
        rejection: None,
        limited: false,
        startup: None,
        grace: rules.grace,
    }
}

/// Ready, Scaling, Starved, CapacityLimited, each as `+Reason: message` or `-Reason: message`.
fn told(seen: &Seen) -> Vec<String> {
    let text = |finding: Finding| {
        let sign = if finding.status == Status::True { "+" } else { "-" };
        let colon = if finding.message.is_empty() { "" } else { ": " };
        format!("{sign}{}{colon}{}", finding.reason, finding.message)
    };
    findings(&valid(&pool("vm", json!({}))), seen).into_iter().map(text).collect()
}

#[test]
fn conditions_of_a_pool_that_does_well() {
    let enough = "-EnoughCapacity";
    let cases = [
        (seen(0, 0, vec![]), ["+NoWork: nothing to prove", "-NoWork: no pods are wanted", enough, enough]),
        (
            seen(2, 0, vec![(json!({}), json!({})), (on_node(), json!({"phase": "Pending"}))]),
            ["-Starting: 2 of 2 pods are starting", "+ScalingUp: 0 of 2 workers, 2 starting", enough, enough],
        ),
        (
            seen(3, 2, vec![(on_node(), json!({"phase": "Pending"}))]),
            ["+AsWanted: 2 workers for 3 wanted", "+ScalingUp: 2 of 3 workers, 1 starting", enough, enough],
        ),
        (
            seen(2, 0, vec![(on_node(), unheard()), (on_node(), json!({"phase": "Pending"}))]),
            [
                "-Starting: 1 of 2 pods are starting, 1 on nodes that are not heard",
                "+ScalingUp: 0 of 2 workers, 1 starting, 1 on nodes that are not heard",
                enough,
                enough,
            ],
        ),
        (
            seen(2, 2, vec![]),
            ["+AsWanted: 2 workers for 2 wanted", "-AsWanted: 2 pods, as wanted", enough, enough],
        ),
        (
            seen(1, 3, vec![(json!({"deleting": true}), running())]),
            [
                "+AsWanted: 3 workers for 1 wanted",
                "+ScalingDown: 3 pods for 1 wanted, 1 leaving",
                enough,
                enough,
            ],
        ),
    ];
    for (seen, expected) in cases {
        assert_eq!(told(&seen), expected);
    }
}

#[test]
fn what_keeps_pods_from_coming_up_is_told_with_its_name() {
    let pull = waiting("ImagePullBackOff", "registry.example/worker:no", "not found");
    let config = waiting("CreateContainerConfigError", "x", "secret \"bucket\" not found");
    let ended = json!({"exitCode": 3, "reason": "Error"});
    let crash = json!({"containerStatuses": [
        {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": ended}}
    ]});
    let cases = [
        (
            pull,
            reason::IMAGE_PULL_FAILED,
            "2 pods: image registry.example/worker:no can't be pulled: not found",
        ),
        (config, reason::CONTAINER_CONFIG_ERROR, "2 pods, such as other-0: secret \"bucket\" not found"),
        (
            crash,
            reason::CRASH_LOOP,
            "2 pods, such as other-0: ends again and again, last with exit code 3: see its log",
        ),
        (
            unschedulable("0/9 nodes"),
            reason::UNSCHEDULABLE,
            "2 pods, such as other-0, without a node for 60 s: 0/9 nodes",
        ),
        (
            running(),
            reason::NOT_LOGGED_IN,
            "2 pods, such as other-0: its worker does not log in: see its log and events",
        ),
    ];
    for (status, reason, message) in cases {
        let spec = if reason == reason::UNSCHEDULABLE { json!({}) } else { on_node() };
        let both = vec![(spec.clone(), status.clone()), (spec, status)];
        let nobody = told(&seen(2, 0, both.clone()));
        assert_eq!(
            (&nobody[0], &nobody[3]),
            (&format!("-{reason}: {message}"), &format!("+{reason}: {message}"))
        );
        // with workers at work the pool is ready, and limited
        let some = told(&seen(4, 2, both));
        assert_eq!(
            (some[0].as_str(), &some[3]),
            ("+AsWanted: 2 workers for 4 wanted", &format!("+{reason}: {message}"))
        );
    }
}

#[test]
fn the_scheduler_is_quoted_at_length_once() {
    let words = format!("0/1000 nodes are available: {}1 own group", "1 Insufficient cpu, ".repeat(12));
    let seen = seen(1, 0, vec![(json!({}), unschedulable(&words))]);
    let (valid, now) = (valid(&pool("vm", json!({}))), jiff::Timestamp::UNIX_EPOCH);
    let none = Applied { created: 0, deleted: 0 };
    let found = status(&valid, &seen, &none, &ProverPoolStatus::default(), now);
    let whole = format!("1 pod, such as other-0, without a node for 60 s: {words}");
    assert_eq!(found.conditions[3].message, whole);
    assert_eq!(found.conditions[0].message, cut(&whole, MAX_MESSAGE));
}

#[test]
fn the_api_servers_refusal_is_told_while_pods_are_missing() {
    let quota = "pods \"vm-abcde\" is forbidden: exceeded quota: pods=10";
    let refused = Seen { refusal: Some(quota.into()), ..seen(5, 1, vec![]) };
    let found = told(&refused);
    assert_eq!(found[0], format!("-PodCreationFailed: {quota}"));
    assert_eq!(found[3], format!("+PodCreationFailed: 1 of 5 pods are there; the API server says: {quota}"));
    let enough = Seen { refusal: Some(quota.into()), ..seen(1, 1, vec![]) };
    assert_eq!(told(&enough)[0], "+AsWanted: 1 workers for 1 wanted");
}

#[test]
fn what_nodes_refuse_is_told_while_workers_are_missing() {
    let why = "OutOfcpu: Pod was rejected: Node didn't have enough resource: cpu";
    let tried = vec![(on_node(), json!({"phase": "Pending"}))];
    let rejected = |busy, others| Seen { rejection: Some(why.into()), ..seen(2, busy, others) };
    let text =
        |present| format!("PodRejected: {present} of 2 workers; pods fail before their worker runs: {why}");
    for others in [vec![], tried.clone()] {
        let found = told(&rejected(0, others));
        assert_eq!((&found[0], &found[3]), (&format!("-{}", text(0)), &format!("+{}", text(0))));
    }
    let found = told(&rejected(1, tried));
    assert_eq!(
        (found[0].as_str(), &found[3]),
        ("+AsWanted: 1 workers for 2 wanted", &format!("+{}", text(1)))
    );
    assert_eq!(told(&rejected(2, vec![]))[3], "-EnoughCapacity");
    let both = Seen { refusal: Some("quota".into()), ..rejected(0, vec![]) };
    assert!(told(&both)[0].starts_with("-PodCreationFailed: "));
}

#[test]
fn limits_and_hunger_are_told() {
    let mut hungry = seen(4, 4, vec![]);
    hungry.planned.wanted.because.bound = Bound::Maximum { pods: 4, denied: 3 };
    hungry.planned.wanted.starved =
        Some(Starved { kind: Kind::Vm, needs: VM, tasks: 7, why: Why::TooSmall { largest: SMALL } });
    let found = told(&hungry);
    assert_eq!(found[3], "+AtMaximum: 3 more pods could be used, spec.scaling.max is 4");
    assert!(
        found[2].starts_with("+NoFittingPool: 7 vm proofs wait: each needs 32 cores and 64Gi"),
        "{}",
        found[2]
    );
    hungry.planned.wanted.because.bound = Bound::Budget { pods: 4, denied: 3 };
    hungry.planned.wanted.starved = Some(Starved { kind: Kind::Vm, needs: VM, tasks: 7, why: Why::Limited });
    let found = told(&hungry);
    assert_eq!(found[3], "+AtMaximum: 3 more pods could be used, spec.scaling.budgetPerHour pays for 4");
    assert!(found[2].starts_with("+AllPoolsLimited: "), "{}", found[2]);
    hungry.planned.wanted.because.bound = Bound::Quota { pods: 6, denied: 3 };
    assert_eq!(
        told(&hungry)[3],
        "+AtMaximum: 3 more pods could be used; the operator's quota for the pools of this namespace is 6"
    );
}

#[test]
fn a_spec_that_can_not_be_built_is_told_before_all_else_and_pods_are_counted() {
    let why = Invalid::MinAboveMax { min: 3, max: 2 };
    let invalid = Seen { invalid: Some(why), ..seen(0, 1, vec![(json!({}), json!({}))]) };
    let found = told(&invalid);
    assert_eq!(found[0], "-InvalidSpec: spec.scaling: min 3 is above max 2");
    assert_eq!(found[1], "+ScalingDown: 2 pods for 0 wanted, 0 leaving");
    let now = jiff::Timestamp::from_second(1_767_225_600).unwrap();
    let valid = valid(&pool("vm", json!({})));
    let status = status(&valid, &invalid, &Applied::default(), &ProverPoolStatus::default(), now);
    assert_eq!((status.wanted, &*status.wanted_because), (0, "0: the spec can't be built"));
    assert_eq!((status.replicas, status.busy, status.starting), (2, 1, 1));
}

#[test]
fn the_status_counts_pods_and_stays_small_at_worst() {
    let image = format!("registry.example/{}:tag", "x".repeat(300));
    let pull = waiting("ImagePullBackOff", &image, &"m".repeat(900));
    let others = vec![
        (on_node(), pull.clone()),
        (on_node(), pull),
        (json!({}), unschedulable(&"s".repeat(900))),
        (on_node(), json!({"phase": "Pending"})),
        (json!({"deleting": true}), running()),
    ];
    let mut seen = seen(9_999, 0, others);
    let share = |kind| Share { kind, tasks: 1_000_000, each: 100 };
    seen.planned.wanted.because.shares = Kind::ALL.map(share).to_vec();
    seen.planned.wanted.because.bound = Bound::Probing { probes: 16, denied: 1_000_000 };
    seen.planned.wanted.starved = Some(Starved {
        kind: Kind::Kernel,
        needs: VM,
        tasks: 1_000_000,
        why: Why::TooSmall { largest: SMALL },
    });
    seen.startup = Some(86_400);
    let name = "p".repeat(57);
    let valid = valid(&pool(&name, json!({})));
    let now = jiff::Timestamp::from_second(1_767_225_600).unwrap();
    let created = Applied { created: 10, deleted: 0 };
    let found = status(&valid, &seen, &created, &ProverPoolStatus::default(), now);
    assert_eq!((found.replicas, found.starting, found.unschedulable, found.draining), (4, 13, 1, 1));
    assert_eq!((found.wanted, found.idle, found.busy, found.startup_seconds), (9_999, 0, 0, 86_400));
    let selector = format!("app.kubernetes.io/name=arborist-worker,arborist.dev/pool={name}");
    assert_eq!(found.selector, selector);
    let bytes = serde_json::to_vec(&found).unwrap().len();
    println!("{bytes} bytes");
    assert!(bytes < 2_000, "{bytes} bytes");
    // what is measured once is not lost with the operator
    seen.startup = None;
    assert_eq!(status(&valid, &seen, &created, &found, now).startup_seconds, 86_400);
}
