//! What is worth keeping of a job.

use super::table::{Job, Proven};
use super::{Engine, JobId, KindReport, Millis, PathStep, Report};
use crate::attribution::shares;
use crate::circuit::Kind;
use crate::tree::NodeId;

fn seconds(millis: Millis) -> f64 {
    millis as f64 / 1_000.0
}

impl Engine {
    /// Times, shares and the critical path of a job; of one that goes on, so far. Looks at every task.
    pub fn report(&self, id: JobId) -> Option<Report> {
        let job = &self.jobs[self.jobs.slot(id)?];
        let end = job.ended.unwrap_or(self.now);
        let done = || (0..job.shape().total()).filter(|n| job.is_done(*n)).map(|n| (n, job.proven(n)));
        let made = done().filter_map(|(n, p)| Some((job.kind(n), self.maker_name(p.maker)?, p.millis)));
        Some(Report {
            kinds: Kind::ALL.iter().map(|kind| kind_report(job, *kind, done())).collect(),
            makespan_seconds: seconds(end.saturating_sub(job.submitted)),
            shares: shares(made),
            critical_path: self.critical_path(job),
        })
    }

    /// Who made how many of a job's proofs, and in how much CPU time (milliseconds): most proofs first,
    /// then by name. Proofs whose maker is not known are not in it. Looks at every task.
    pub fn attribution(&self, id: JobId) -> Option<Vec<(String, u32, u64)>> {
        let job = &self.jobs[self.jobs.slot(id)?];
        let mut sums = vec![(0u32, 0u64); self.makers.len()];
        for node in (0..job.shape().total()).filter(|node| job.is_done(*node)) {
            let proven = job.proven(node);
            if let Some((proofs, cpu)) = sums.get_mut(proven.maker as usize) {
                *proofs += 1;
                *cpu += u64::from(proven.cpu_millis);
            }
        }
        let of = self.makers.iter().zip(sums).filter(|(_, (proofs, _))| *proofs > 0);
        let mut all: Vec<_> = of.map(|(maker, (proofs, cpu))| (maker.name.clone(), proofs, cpu)).collect();
        all.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        Some(all)
    }

    /// From the root down, always to the child that was done last; returned from the leaf up.
    fn critical_path(&self, job: &Job) -> Vec<PathStep> {
        let mut path = vec![];
        let mut next = Some(job.shape().root()).filter(|root| job.is_done(root.0));
        while let Some(node) = next {
            let children = job.shape().children(node);
            let last = children.as_slice().iter().copied().max_by_key(|c| job.proven(c.0).at);
            let proven = job.proven(node.0);
            let millis = if proven.found { 0 } else { Millis::from(proven.millis) };
            let ready = last.map_or(job.submitted, |c| job.proven(c.0).at);
            path.push(self.step(job, node, &proven, proven.at.saturating_sub(millis).saturating_sub(ready)));
            next = last;
        }
        path.reverse();
        path
    }

    fn step(&self, job: &Job, node: NodeId, proven: &Proven, waited_millis: Millis) -> PathStep {
        PathStep {
            circuit: job.shape().circuit(node).to_string(),
            task: job.tree.ids[node.index()],
            worker: self.maker_name(proven.maker).unwrap_or_default().to_owned(),
            waited_millis,
            millis: Millis::from(proven.millis),
        }
    }
}

fn kind_report(job: &Job, kind: Kind, done: impl Iterator<Item = (u32, Proven)>) -> KindReport {
    let of_kind: Vec<Proven> = done.filter(|(n, _)| job.kind(*n) == kind).map(|(_, p)| p).collect();
    let mut made: Vec<u32> = of_kind.iter().filter(|p| !p.found).map(|p| p.millis).collect();
    made.sort_unstable();
    let sum: u64 = made.iter().map(|m| u64::from(*m)).sum();
    let cpu: u64 = of_kind.iter().filter(|p| !p.found).map(|p| u64::from(p.cpu_millis)).sum();
    let p95 = made.get((made.len() * 95).div_ceil(100).saturating_sub(1)).copied().unwrap_or(0);
    KindReport {
        kind: kind.name().to_owned(),
        count: job.counts[kind.index()].total,
        reused: of_kind.iter().filter(|p| p.found).count() as u32,
        mean_seconds: seconds(sum) / made.len().max(1) as f64,
        p95_seconds: seconds(u64::from(p95)),
        cpu_seconds: seconds(cpu),
        bytes: of_kind.iter().map(|p| u64::from(p.proof_bytes)).sum(),
        retries: job.extra.iter().filter(|(n, _)| job.kind(**n) == kind).map(|(_, e)| e.charged()).sum(),
    }
}
