//! The status at each stage, golden, and its size.

use crate::api::conditions::{Finding, Status, job as condition, merge, reason};
use crate::api::{Attribution, ProvingJobStatus, ReportReceipt, ReportTarget, RootProof};
use crate::controllers::provingjob::build::build;
use crate::controllers::provingjob::dereference::{Seen, Tree};
use crate::controllers::provingjob::fit::{MAX_BYTES, bytes, fit};
use crate::controllers::provingjob::fixtures::{ROOT, at, complete, evidence, job, spec, validated, view};
use crate::controllers::provingjob::memory::{Delivery, Failure, Known};
use crate::controllers::provingjob::status;
use arborist_core::circuit::KindSet;
use arborist_core::engine::{JobState, JobView};
use arborist_core::profile::{Needs, Profile};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

fn shown(more: Value, old: Option<ProvingJobStatus>, seen: &Seen, after: i64) -> ProvingJobStatus {
    let mut object = job(spec(more));
    object.status = old;
    let built = build(&object, &validated(&object), seen, &Profile::rfp(), at(after)).unwrap();
    let old = object.status.unwrap_or_default();
    status::build(&old, &built.picture, 1, at(after)).status
}

fn with(view: JobView) -> Seen {
    let tree = Tree { view, estimate: None, workers: vec![], quarantined: None };
    Seen { root: Some(ROOT), tree: Some(tree), ..Seen::default() }
}

fn failure(reason: &'static str, again: bool) -> Seen {
    let failure = Failure {
        reason,
        message: "GET https://blocks.example/9.json: 404 Not Found".into(),
        generation: 1,
        attempts: 2,
        in_a_row: 2,
        next: again.then(|| at(30)),
    };
    Seen { known: Known { failure: Some(failure), ..Known::default() }, ..Seen::default() }
}

/// Conditions as a table: type, status, reason, message.
fn table(status: &ProvingJobStatus) -> Vec<String> {
    let row = |c: &crate::api::conditions::Condition| {
        let row = format!("{:<9} {:<8} {:<20} {}", c.type_, format!("{:?}", c.status), c.reason, c.message);
        row.trim_end().to_owned()
    };
    status.conditions.iter().map(row).collect()
}

fn running() -> JobView {
    let mut view = view();
    (view.counts[0].ready, view.counts[0].running, view.counts[0].done) = (1, 2, 1);
    view
}

fn stages() -> Vec<(&'static str, ProvingJobStatus)> {
    let none = || json!({});
    let large = vec![(Needs { cores: 32, memory_mib: 64 << 10 }, KindSet::ALL)];
    let mut seen_running = with(running());
    if let Some(tree) = &mut seen_running.tree {
        (tree.workers, tree.estimate) = (large.clone(), Some(super::super::deadline::millis(at(95))));
    }
    let checking = JobView { state: JobState::Checking, ..complete(at(80)) };
    let mut quarantined = with(view());
    if let Some(tree) = &mut quarantined.tree {
        (tree.view.counts[0].ready, tree.view.counts[0].failed) = (0, 4);
        tree.quarantined = Some("vm 0a1b2c3d: the backend failed: out of ideas".into());
    }
    let mut proven = with(complete(at(80)));
    proven.evidence = Some(Ok(evidence(1_000)));
    let unreadable =
        Seen { evidence: Some(Err("the artifact store did not answer".into())), ..proven.clone() };
    let late = JobView { state: JobState::Failed { why: "7 of 11 proofs missing".into() }, ..view() };
    let target = || json!({"reportTo": [{"name": "coordinator", "secretName": "s"}]});
    let delivery = |delivered: bool, refused: Option<i64>| {
        let mut seen = Seen { root: Some(ROOT), ..proven.clone() };
        let delivery = Delivery {
            attempts: 2,
            delivered_at: delivered.then(|| at(90)),
            answer: if delivered { "200: receipt 42".into() } else { "503: not now".into() },
            refused,
            ..Delivery::default()
        };
        seen.known.deliveries.insert("coordinator".into(), delivery);
        seen
    };
    vec![
        ("preparing", shown(none(), None, &Seen::default(), 1)),
        ("source unavailable", shown(none(), None, &failure(reason::SOURCE_UNAVAILABLE, true), 5)),
        ("wrong source", shown(none(), None, &failure(reason::SOURCE_HASH_MISMATCH, false), 5)),
        ("waiting for workers", shown(none(), None, &with(view()), 10)),
        (
            "waiting for long",
            shown(json!({"deadlineSeconds": 900}), Some(waiting_since_start()), &with(view()), 100),
        ),
        ("running", shown(json!({"deadlineSeconds": 100}), None, &seen_running, 20)),
        ("running late", shown(json!({"deadlineSeconds": 90}), None, &seen_running, 20)),
        ("suspended", shown(json!({"suspend": true}), None, &with(running()), 20)),
        ("quarantined", shown(none(), None, &quarantined, 20)),
        ("checking", shown(none(), None, &with(checking), 81)),
        ("not written down", shown(none(), None, &unreadable, 82)),
        ("complete", shown(none(), None, &proven, 82)),
        ("sending", shown(target(), None, &proven, 82)),
        ("report failed", shown(target(), None, &delivery(false, None), 82)),
        ("report refused", shown(target(), None, &delivery(false, Some(1)), 82)),
        ("reported", shown(target(), None, &delivery(true, None), 92)),
        ("deadline exceeded", shown(json!({"deadlineSeconds": 60}), None, &with(late), 61)),
    ]
}

fn waiting_since_start() -> ProvingJobStatus {
    let waiting = Finding::new(condition::PROVING, Status::False, reason::WAITING_FOR_WORKERS, "");
    ProvingJobStatus {
        conditions: merge(&[], &condition::ALL, &[waiting], 1, at(0)),
        ..ProvingJobStatus::default()
    }
}

#[test]
fn the_conditions_of_every_stage_are_golden() {
    let all: Value = stages()
        .iter()
        .map(|(name, status)| ((*name).to_owned(), json!(table(status))))
        .collect::<serde_json::Map<_, _>>()
        .into();
    insta::assert_json_snapshot!(all);
}

#[test]
fn a_whole_status_is_golden() {
    let all = stages();
    let status = |name: &str| all.iter().find(|(n, _)| *n == name).unwrap().1.clone();
    insta::assert_json_snapshot!(json!({"running": status("running"), "reported": status("reported")}));
}

#[test]
fn every_stage_sets_every_condition_at_once() {
    for (name, status) in stages() {
        let types: Vec<_> = status.conditions.iter().map(|c| c.type_.as_str()).collect();
        assert_eq!(types, condition::ALL, "{name}");
        assert!(bytes(&status) < MAX_BYTES, "{name}: {}", bytes(&status));
        let over = status.conditions.iter().filter(|c| {
            (c.type_ == condition::COMPLETE || c.type_ == condition::FAILED) && c.status == Status::True
        });
        assert_eq!(over.count() == 1, status.finished_at.is_some(), "{name}");
    }
}

/// The most that a job can have to say at once, each in full length.
fn worst(findings: &[Finding]) -> ProvingJobStatus {
    let mut view = view();
    view.counts.iter_mut().for_each(|c| {
        (c.total, c.done, c.running, c.ready, c.failed) = (122_880, 122_880, 10_000, 122_880, 122_880);
    });
    let levels = shown(json!({}), None, &with(view), 0).counts;
    assert_eq!(levels.len(), 5);
    ProvingJobStatus {
        observed_generation: 999,
        transactions: Some(61_440),
        progress: Some("368639/368639".into()),
        percent: Some(100),
        counts: levels,
        deadline: Some(Time(at(0))),
        started_at: Some(Time(at(0))),
        root_task: Some("f".repeat(64)),
        conditions: merge(&[], &condition::ALL, findings, 999, at(0)),
        ..ProvingJobStatus::default()
    }
}

fn finding(type_: &'static str, status: Status, reason: &'static str) -> Finding {
    Finding::new(type_, status, reason, "ö".repeat(500))
}

#[test]
fn a_status_stays_below_two_kilobytes_while_it_is_proven() {
    let waits = reason::WAITING_FOR_WORKERS;
    let mut findings: Vec<_> =
        condition::ALL.iter().map(|type_| finding(type_, Status::Unknown, waits)).collect();
    findings[3].status = Status::False;
    let worst = ProvingJobStatus {
        estimated_completion: Some(Time(at(0))),
        finished_at: Some(Time(at(0))),
        ..worst(&findings)
    };
    assert!(bytes(&worst) > MAX_BYTES);
    let fitted = fit(worst);
    println!("{} bytes", bytes(&fitted));
    assert!(bytes(&fitted) <= MAX_BYTES, "{}", bytes(&fitted));
    assert_eq!(fitted.counts.len(), 5);
}

/// Nothing that a user or a target can name makes a status larger than 2 kB.
#[test]
fn a_status_stays_below_two_kilobytes_when_its_report_is_refused() {
    let refused = reason::REPORT_REFUSED;
    let findings = [
        finding(condition::ACCEPTED, Status::True, reason::SUBMITTED),
        finding(condition::PROVING, Status::False, reason::ROOT_VERIFIED),
        finding(condition::AT_RISK, Status::False, reason::NO_DEADLINE),
        finding(condition::PROVEN, Status::True, reason::ROOT_VERIFIED),
        finding(condition::REPORTED, Status::False, refused),
        finding(condition::COMPLETE, Status::False, refused),
        finding(condition::FAILED, Status::True, refused),
    ];
    let target = |n: u8| ReportReceipt {
        target: format!("{n}{}", "x".repeat(62)),
        attempts: 99_999,
        delivered_at: Some(Time(at(0))),
        answer: "y".repeat(128),
    };
    let worst = ProvingJobStatus {
        finished_at: Some(Time(at(0))),
        root_proof: Some(RootProof {
            uri: "u".repeat(300),
            config_map: "m".repeat(48),
            sha256: "f".repeat(64),
            bytes: 99_999_999,
        }),
        attribution: Some(Attribution { workers: 99_999, core_seconds: 999_999_999_999 }),
        reports: (0..4).map(target).collect(),
        ..worst(&findings)
    };
    assert!(bytes(&worst) > 2 * MAX_BYTES);
    let fitted = fit(worst.clone());
    println!("{} bytes of {}", bytes(&fitted), bytes(&worst));
    assert!(bytes(&fitted) <= MAX_BYTES, "{}", bytes(&fitted));
    assert_eq!((fitted.reports.len(), fitted.conditions.len()), (4, condition::ALL.len()));

    // with one target of a common name everything has room
    let receipt =
        ReportReceipt { target: "coordinator".into(), answer: "422: no such epoch".into(), ..target(0) };
    let mut findings = findings;
    findings.iter_mut().for_each(|f| f.message.clear());
    findings[6].message = "coordinator: 422: no such epoch".into();
    let uri = format!("s3://a-bucket-of-proofs/arborist/proofs/{}", "f".repeat(64));
    let common = ProvingJobStatus {
        conditions: merge(&[], &condition::ALL, &findings, 999, at(0)),
        reports: vec![receipt],
        root_proof: worst.root_proof.clone().map(|proof| RootProof { uri, ..proof }),
        counts: vec![],
        ..worst
    };
    assert_eq!(fit(common.clone()), common);
}

#[test]
fn a_report_under_way_at_the_deadline_is_not_lost() {
    let mut object = job(spec(json!({
        "deadlineSeconds": 90, "reportTo": [{"name": "a", "secretName": "s"}, {"name": "b", "secretName": "s"}],
    })));
    let mut seen = with(complete(at(80)));
    seen.evidence = Some(Ok(evidence(10)));
    let first = build(&object, &validated(&object), &seen, &Profile::rfp(), at(82)).unwrap();
    object.status = Some(status::build(&ProvingJobStatus::default(), &first.picture, 1, at(82)).status);
    seen.evidence = None;
    let told = |delivered: bool| Delivery {
        attempts: 1,
        delivered_at: delivered.then(|| at(89)),
        ..Delivery::default()
    };
    for (working, attempts, refused, over) in
        [(true, 1, None, false), (false, 1, None, true), (false, 0, None, false), (true, 1, Some(1), true)]
    {
        seen.known.working = working;
        seen.known.deliveries =
            [("a".into(), told(true)), ("b".into(), Delivery { attempts, refused, ..told(false) })].into();
        let built = build(&object, &validated(&object), &seen, &Profile::rfp(), at(90)).unwrap();
        assert_eq!(built.picture.stage.is_over(), over, "{working} {attempts} {refused:?}");
    }
}

#[test]
fn targets_are_told_one_after_the_other() {
    let target = |name: &str| ReportTarget { name: name.into(), secret_name: "s".into() };
    let object = job(spec(json!({"reportTo": [
        {"name": "a", "secretName": "s"}, {"name": "b", "secretName": "s"}, {"name": "c", "secretName": "s"},
    ]})));
    let mut object = object;
    let mut seen = with(complete(at(80)));
    seen.evidence = Some(Ok(evidence(10)));
    let profile = Profile::rfp();
    let first = build(&object, &validated(&object), &seen, &profile, at(82)).unwrap();
    assert!(first.publish.is_some() && first.start.is_none(), "written down first");
    object.status = Some(status::build(&ProvingJobStatus::default(), &first.picture, 1, at(82)).status);
    seen.evidence = None;
    let started = |seen: &Seen| {
        let built = build(&object, &validated(&object), seen, &profile, at(83)).unwrap();
        built.start.map(|start| match start {
            crate::controllers::provingjob::build::Start::Deliver { target, .. } => target,
            other => panic!("{other:?}"),
        })
    };
    assert_eq!(started(&seen), Some(target("a")));
    seen.known
        .deliveries
        .insert("a".into(), Delivery { delivered_at: Some(at(83)), attempts: 1, ..Delivery::default() });
    seen.known
        .deliveries
        .insert("b".into(), Delivery { next: Some(at(90)), attempts: 1, ..Delivery::default() });
    assert_eq!(started(&seen), Some(target("c")), "b is not due yet");
    seen.known.working = true;
    assert_eq!(started(&seen), None, "one at a time");
}
