use super::fixtures::*;
use crate::controllers::proverpool::census::{Absent, Census, Rules, Workers};
use crate::controllers::proverpool::decide::{Input, Steps, steps};
use crate::kubernetes::pods::{PodRecord, PoolPods};
use arborist_core::engine::{WorkerBrief, WorkerState};
use proptest::prelude::*;
use serde_json::json;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

const DELAY: Duration = Duration::from_secs(60);

/// A pool of pods, each with what its name says: `busy`, `idle<seconds>`, `pending`, `stuck`, `starting` (pulls its image),
/// `running` (not logged in), `lost`, `over`, `held` (over, and deleted but for a finalizer), `leaving`,
/// `drained`; `old-` before it: of an older template.
struct Scene {
    pods: Vec<&'static str>,
    wanted: u32,
    lately: Option<u32>,
    expected: usize,
    deleted: Vec<&'static str>,
    allowed: u32,
    delete_failed: bool,
    /// The present template's hash.
    template: Option<&'static str>,
}

fn scene(pods: &[&'static str], wanted: u32) -> Scene {
    Scene {
        pods: pods.to_vec(),
        wanted,
        lately: None,
        expected: 0,
        deleted: vec![],
        allowed: u32::MAX,
        delete_failed: false,
        template: Some("new"),
    }
}

impl Scene {
    fn pod(&self, place: usize, name: &str) -> (Arc<PodRecord>, Option<WorkerBrief>) {
        let (kind, template) = name.strip_prefix("old-").map_or((name, "new"), |kind| (kind, "old"));
        let pod = format!("{place}-{name}");
        let (spec, status) = match kind {
            "pending" => (json!({}), json!({})),
            "stuck" => (json!({}), unschedulable("no room")),
            "starting" => (on_node(), json!({"phase": "Pending"})),
            "over" => (on_node(), json!({"phase": "Failed"})),
            "lost" => (on_node(), unheard()),
            "held" => (json!({"deleting": true}), json!({"phase": "Succeeded"})),
            "leaving" => (json!({"deleting": true}), running()),
            _ => (on_node(), running()),
        };
        let brief = match kind {
            "busy" => Some(worker(&pod, WorkerState::Live, 1, None)),
            "drained" => Some(worker(&pod, WorkerState::Draining, 0, Some(at(0)))),
            _ => kind.strip_prefix("idle").map(|seconds| {
                let since = at(1000 - seconds.parse::<u64>().unwrap());
                worker(&pod, WorkerState::Live, 0, Some(since))
            }),
        };
        (record(&pod, template, spec, status), brief)
    }

    fn steps(&self) -> Steps {
        let (mut pods, mut workers) = (vec![], Workers::new());
        for (place, name) in self.pods.iter().enumerate() {
            let (pod, worker) = self.pod(place, name);
            pods.push(pod);
            workers.extend(worker.map(|worker| (worker.name.clone(), worker)));
        }
        let is_stuck = |pod: &&Arc<PodRecord>| pod.name().ends_with("stuck");
        let absent: Absent =
            pods.iter().filter(is_stuck).map(|pod| (pod.worker().to_owned(), at(0).instant)).collect();
        let rules = Rules { template: self.template, grace: Duration::from_secs(30), delay: DELAY };
        let uid = |pod: &&Arc<PodRecord>| self.deleted.iter().any(|name| pod.name().ends_with(name));
        let deleted: HashSet<Box<str>> = pods.iter().filter(uid).map(|pod| pod.uid.clone()).collect();
        let pods = PoolPods { pods, expected: self.expected };
        steps(&Input {
            census: &Census::take(pods, &workers, &absent, &rules, at(1000)),
            wanted: self.wanted,
            lately: self.lately.unwrap_or(self.wanted),
            delay: DELAY,
            template: self.template,
            deleted: &deleted,
            allowed: self.allowed,
            delete_failed: self.delete_failed,
        })
    }
}

fn names(pods: &[Arc<PodRecord>]) -> Vec<String> {
    pods.iter().map(|pod| pod.name().to_owned()).collect()
}

#[test]
fn what_is_missing_is_made() {
    for (pods, wanted, made) in [
        (&[] as &[&str], 5, 5),
        (&["busy", "idle0", "starting", "pending", "stuck", "running"], 8, 2),
        (&["leaving", "over", "held", "drained"], 2, 2),
        (&["busy", "busy"], 1, 0),
    ] {
        assert_eq!(scene(pods, wanted).steps().create, made, "{pods:?}");
    }
}

#[test]
fn pods_of_nodes_that_are_not_heard_are_made_up_for_once() {
    for (lost, others, made) in [(2, 1, 2), (3, 0, 3), (4, 0, 2), (5, 0, 1), (5, 1, 0), (6, 0, 0), (9, 0, 0)]
    {
        let pods = [vec!["lost"; lost], vec!["pending"; others]].concat();
        let steps = scene(&pods, 3).steps();
        assert_eq!((steps.create, steps.delete.len()), (made, 0), "{lost} lost of {pods:?}");
    }
}

#[test]
fn what_was_asked_for_is_not_made_again() {
    assert_eq!(Scene { expected: 4, ..scene(&["busy"], 6) }.steps().create, 1);
    let enough = Scene { expected: 5, ..scene(&["busy"], 6) }.steps();
    assert_eq!((enough.create, enough.stop_creating), (0, false));
    let too_many = Scene { expected: 6, ..scene(&["busy"], 6) }.steps();
    assert_eq!((too_many.create, too_many.stop_creating), (0, true));
}

#[test]
fn no_more_is_made_than_the_api_server_lets() {
    assert_eq!(Scene { allowed: 0, ..scene(&[], 5) }.steps().create, 0);
    assert_eq!(Scene { allowed: 1, ..scene(&[], 5) }.steps().create, 1);
}

/// The autoscaler that scaled to zero while the last levels ran.
#[test]
fn a_busy_pod_never_goes() {
    let steps = scene(&["busy", "old-busy", "busy"], 0).steps();
    assert_eq!((steps.delete, steps.retire), (vec![], vec![]));
}

#[test]
fn idle_pods_go_after_the_delay_longest_idle_first_and_no_more_than_too_many() {
    let steps = scene(&["idle61", "idle59", "idle300", "busy", "idle90"], 3).steps();
    assert_eq!(names(&steps.retire), ["2-idle300", "4-idle90"]);
    assert!(steps.delete.is_empty());
    assert!(scene(&["idle300", "busy"], 2).steps().retire.is_empty());
}

#[test]
fn pods_that_do_nothing_yet_go_first_those_without_a_node_before_others() {
    let pods = ["starting", "pending", "stuck", "busy", "idle300"];
    for (wanted, deleted, retired) in [
        (4, vec!["2-stuck"], vec![]),
        (2, vec!["2-stuck", "1-pending", "0-starting"], vec![]),
        (1, vec!["2-stuck", "1-pending", "0-starting"], vec!["4-idle300"]),
    ] {
        let steps = scene(&pods, wanted).steps();
        assert_eq!(
            (names(&steps.delete), names(&steps.retire)),
            (
                deleted.into_iter().map(str::to_owned).collect(),
                retired.into_iter().map(str::to_owned).collect()
            )
        );
    }
}

#[test]
fn a_dip_of_the_demand_costs_no_pod_that_starts() {
    let dip = Scene { lately: Some(3), ..scene(&["starting", "pending", "busy"], 1) };
    assert_eq!(dip.steps(), Steps::default());
}

/// After a failover workers find back one by one: a container that runs may be proving.
#[test]
fn a_container_that_runs_is_not_deleted_before_its_worker_could_be_asked() {
    assert_eq!(scene(&["running", "old-running"], 0).steps(), Steps::default());
}

#[test]
fn what_is_over_or_drained_is_cleared_away() {
    let steps = scene(&["over", "drained", "busy"], 1).steps();
    assert_eq!(
        (names(&steps.delete), names(&steps.retire)),
        (vec!["0-over".into()], vec!["1-drained".into()])
    );
    assert_eq!(
        scene(&["held", "old-held", "busy"], 1).steps(),
        Steps::default(),
        "these are deleted already"
    );
}

#[test]
fn pods_of_an_older_template_are_replaced_when_idle_a_few_at_a_time() {
    let eight = ["old-idle1", "old-idle5", "old-idle9", "old-busy", "idle2", "busy", "busy", "busy"];
    assert_eq!(names(&scene(&eight, 8).steps().retire), ["2-old-idle9", "1-old-idle5"], "a quarter");
    let seven = &eight[1..];
    let replaced = scene(seven, 8).steps();
    assert_eq!(
        (names(&replaced.retire), replaced.create),
        (vec!["1-old-idle9".into()], 1),
        "one is starting"
    );
    // nothing runs in these: they go at once, and are made anew
    let empty = scene(&["old-pending", "old-stuck", "old-starting", "busy"], 4).steps();
    assert_eq!((empty.delete.len(), empty.create), (3, 3));
}

/// Without a template no pod is older than it.
#[test]
fn pods_of_a_spec_that_can_not_be_built_go_when_they_have_nothing_to_do() {
    let pods =
        ["old-busy", "busy", "old-idle1", "idle59", "old-idle300", "pending", "old-stuck", "running", "over"];
    let without = |lately| Scene { template: None, lately: Some(lately), ..scene(&pods, 0) };
    let steps = without(9).steps();
    assert_eq!(
        (names(&steps.delete), names(&steps.retire)),
        (vec!["8-over".into()], vec!["4-old-idle300".into()])
    );
    let later = without(0).steps();
    assert_eq!(names(&later.delete), ["8-over", "6-old-stuck", "5-pending"]);
    assert_eq!((names(&later.retire), later.create), (vec!["4-old-idle300".into()], 0));
}

/// A drained worker whose pod stays does nothing for as long as that lasts.
#[test]
fn while_pods_can_not_be_deleted_no_more_than_one_worker_is_drained() {
    for (pods, deleted, retired) in [
        (&["idle300", "idle90", "busy"] as &[&str], vec![], vec!["0-idle300"]),
        (&["idle300", "drained", "drained"], vec![], vec!["1-drained"]),
        (&["idle300", "drained"], vec!["drained"], vec![]),
    ] {
        let failing = Scene { delete_failed: true, deleted, ..scene(pods, 0) };
        assert_eq!(names(&failing.steps().retire), retired, "{pods:?}");
    }
    let other = Scene { delete_failed: true, ..scene(&["old-pending", "over"], 1) }.steps();
    assert_eq!((other.delete.len(), other.create), (2, 1), "nobody's work is lost with these");
}

#[test]
fn a_pod_that_was_deleted_is_neither_counted_nor_deleted_again() {
    let steps = Scene { deleted: vec!["stuck", "over"], ..scene(&["stuck", "over", "busy"], 2) }.steps();
    assert_eq!((steps.delete.len(), steps.create), (0, 1));
}

proptest! {
    /// Whatever the pool looks like: what may be doing something is never deleted unasked, no pod goes twice, and there are
    /// never more than wanted made nor fewer left.
    #[test]
    fn nothing_useful_goes(
        pods in proptest::collection::vec(
            prop::sample::select(vec![
                "busy", "idle0", "idle300", "pending", "stuck", "starting", "running", "over", "held", "leaving", "drained",
                "old-busy", "old-idle0", "old-idle300", "old-pending", "old-stuck", "old-starting", "old-running",
            ]),
            0..30,
        ),
        wanted in 0..30_u32,
        more in 0..10_u32,
        expected in 0..5_usize,
    ) {
        let scene = Scene { lately: Some(wanted + more), expected, ..scene(&pods, wanted) };
        let steps = scene.steps();
        let empty = ["pending", "stuck", "starting", "over"];
        for pod in &steps.delete {
            prop_assert!(empty.iter().any(|kind| pod.name().ends_with(kind)), "{}", pod.name());
        }
        for pod in &steps.retire {
            prop_assert!(pod.name().contains("idle") || pod.name().ends_with("drained"), "{}", pod.name());
        }
        let all: HashSet<&str> = steps.delete.iter().chain(&steps.retire).map(|pod| pod.worker()).collect();
        prop_assert_eq!(all.len(), steps.delete.len() + steps.retire.len(), "twice");
        let there = pods.iter().filter(|kind| !["over", "held", "leaving", "drained"].contains(kind)).count() + expected;
        let old = |pod: &&Arc<PodRecord>| &*pod.template == "old";
        let counted = |pod: &&Arc<PodRecord>| !pod.name().ends_with("over") && !pod.name().ends_with("drained");
        let old_empty = steps.delete.iter().filter(old).count();
        let new_gone = steps.delete.iter().chain(&steps.retire).filter(|pod| counted(pod) && !old(pod)).count();
        prop_assert!(new_gone <= (there - old_empty).saturating_sub(wanted as usize), "too many go: {steps:?}");
        prop_assert_eq!(steps.create as usize, (wanted as usize).saturating_sub(there - old_empty));
    }
}
