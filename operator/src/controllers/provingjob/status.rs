//! The status of a job, from what is shown and what it said before. Pure.

use super::build::Picture;
use super::findings::{self, Risk, at_risk};
use super::fit::fit;
use super::stage::Stage;
use super::{eta, publish};
use crate::api::conditions::{Condition, Finding, is_true, job as condition, merge, reason};
use crate::api::{CircuitKind, LevelCounts, ProvingJob, ProvingJobStatus};
use arborist_core::circuit::Kind;
use arborist_core::engine::Counts;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

/// Failures that only an edit of the job can change.
pub(super) const FAILED_FOR_GOOD: [&str; 3] =
    [reason::SOURCE_HASH_MISMATCH, reason::BAD_BLOCK, reason::REPORT_REFUSED];

/// Whether the root is verified and the result written down.
pub(super) fn proven(status: &ProvingJobStatus) -> bool {
    is_true(&status.conditions, condition::PROVEN) && status.root_proof.is_some()
}

/// Whether a job is complete, or failed and not edited since.
pub(super) fn is_over(job: &ProvingJob) -> bool {
    let Some(status) = &job.status else { return false };
    let generation = job.metadata.generation.unwrap_or_default();
    let failed = |c: &Condition| c.type_ == condition::FAILED && c.observed_generation == generation;
    is_true(&status.conditions, condition::COMPLETE)
        || status.conditions.iter().any(|c| failed(c) && c.status == crate::api::conditions::Status::True)
}

/// A status and what it was made of, in full length for events.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Shown {
    pub status: ProvingJobStatus,
    pub findings: Vec<Finding>,
}

/// The status that shows a picture.
pub(super) fn build(old: &ProvingJobStatus, picture: &Picture, generation: i64, now: Timestamp) -> Shown {
    let stage = &picture.stage;
    let before = old.estimated_completion.as_ref().map(|time| time.0);
    let goes_on = matches!(stage, Stage::Proving(_) | Stage::Checking);
    let estimated = if goes_on { eta::shown(before, now, picture.estimate) } else { None };
    let mut findings = findings::of(stage);
    findings.push(at_risk(stage, Risk { deadline: picture.deadline, estimated }, &old.conditions, now));
    remark_large_proof(&mut findings, picture, old);
    let conditions = merge(&old.conditions, &condition::ALL, &findings, generation, now);
    let accepted = is_true(&conditions, condition::ACCEPTED);
    let (published, attribution) = picture.published.clone().unzip();
    let whole = |at: Timestamp| Time(Timestamp::from_second(at.as_second()).unwrap_or(at));
    let progress = picture.counts.as_ref().map(progress);
    let status = ProvingJobStatus {
        observed_generation: generation,
        transactions: transactions(picture).or(old.transactions),
        percent: progress.map(|(done, total)| percent(done, total)).or(old.percent),
        progress: progress.map(|(done, total)| format!("{done}/{total}")).or_else(|| old.progress.clone()),
        counts: picture.counts.as_ref().map_or_else(|| old.counts.clone(), levels),
        deadline: picture.deadline.map(whole),
        estimated_completion: estimated.map(whole),
        started_at: old.started_at.clone().or_else(|| accepted.then(|| whole(now))),
        finished_at: stage.is_over().then(|| old.finished_at.clone().unwrap_or_else(|| whole(now))),
        root_task: picture.root.map(|root| root.to_string()),
        root_proof: published.or_else(|| old.root_proof.clone()),
        attribution: attribution.or_else(|| old.attribution.clone()),
        reports: picture.reports.clone(),
        conditions,
    };
    Shown { status: fit(status), findings }
}

/// The status of a job that is over and was edited since: what it says holds for the spec as it is now.
pub(super) fn of_edit(old: &ProvingJobStatus, generation: i64) -> ProvingJobStatus {
    let mut status = old.clone();
    status.observed_generation = generation;
    status.conditions.iter_mut().for_each(|c| c.observed_generation = generation);
    status
}

fn remark_large_proof(findings: &mut [Finding], picture: &Picture, old: &ProvingJobStatus) {
    let proof = picture.published.as_ref().map(|(proof, _)| proof).or(old.root_proof.as_ref());
    let Some(proof) = proof.filter(|proof| !publish::is_in_map(proof)) else { return };
    for finding in findings.iter_mut().filter(|f| f.type_ == condition::PROVEN) {
        finding.message = format!(
            "the root proof has {} bytes, too many for a ConfigMap: it is at {}",
            proof.bytes, proof.uri
        );
    }
}

fn transactions(picture: &Picture) -> Option<i64> {
    picture.counts.as_ref().map(|counts| counts[Kind::Base.index()].total.into())
}

fn progress(counts: &[Counts; 5]) -> (u32, u32) {
    (counts.iter().map(|c| c.done).sum(), counts.iter().map(|c| c.total).sum())
}

/// Rounded down: 100 means all.
fn percent(done: u32, total: u32) -> i32 {
    let percent = u64::from(done) * 100 / u64::from(total.max(1));
    i32::try_from(percent).unwrap_or(100)
}

fn levels(counts: &[Counts; 5]) -> Vec<LevelCounts> {
    let level = |kind: Kind| {
        let Counts { total, done, running, ready, failed } = counts[kind.index()];
        let [total, done, running, ready, failed] = [total, done, running, ready, failed].map(i64::from);
        (total > 0).then(|| LevelCounts { kind: circuit_kind(kind), total, done, running, ready, failed })
    };
    Kind::ALL.into_iter().filter_map(level).collect()
}

fn circuit_kind(kind: Kind) -> CircuitKind {
    match kind {
        Kind::Vm => CircuitKind::Vm,
        Kind::Kernel => CircuitKind::Kernel,
        Kind::Base => CircuitKind::Base,
        Kind::Merge => CircuitKind::Merge,
        Kind::Root => CircuitKind::Root,
    }
}
