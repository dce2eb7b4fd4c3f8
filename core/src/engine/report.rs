//! What is worth keeping of a job.

use super::table::{Job, Proven};
use super::{Counts, Engine, JobId, KindReport, Millis, PathStep, Report, Share};
use crate::circuit::Kind;
use crate::tree::NodeId;
use hashbrown::HashMap;
use std::cmp::Reverse;

fn seconds(millis: Millis) -> f64 {
    millis as f64 / 1_000.0
}

/// Sums over the proofs of one kind.
#[derive(Default)]
struct Sums {
    reused: u32,
    /// Wall times of those that were made for this job.
    made: Vec<u32>,
    cpu_millis: u64,
    bytes: u64,
    retries: u32,
}

/// What one worker made.
#[derive(Default)]
struct Made {
    proofs: [u32; 5],
    millis: u64,
    cpu_millis: u64,
}

impl Engine {
    /// Times, shares and the critical path of a job; of one that goes on, so far. Looks at every task of a job whose
    /// tree is there.
    pub fn report(&self, id: JobId) -> Option<Report> {
        match self.jobs.past(id) {
            Some(past) => Some(past.report.clone()),
            None => Some(self.report_of(&self.jobs[self.jobs.slot(id)?]).0),
        }
    }

    /// Who made how many of a job's proofs, and in how much CPU time (milliseconds): most proofs first,
    /// then by name. Proofs whose maker is not known are not in it. Looks at every task of a job whose tree is there.
    pub fn attribution(&self, id: JobId) -> Option<Vec<(String, u32, u64)>> {
        if let Some(past) = self.jobs.past(id) {
            return Some(past.attribution());
        }
        let made = self.shares(&self.jobs[self.jobs.slot(id)?]);
        let of = made.into_iter().map(|(share, cpu)| (share.worker, share.proofs.iter().sum(), cpu));
        Some(of.collect())
    }

    /// A job's report, and the CPU time in milliseconds of each of its shares.
    pub(crate) fn report_of(&self, job: &Job) -> (Report, Vec<u64>) {
        let end = job.ended.unwrap_or(self.now);
        let mut sums: [Sums; 5] = Default::default();
        for (node, proven) in job.done() {
            let of = &mut sums[job.kind(node).index()];
            of.bytes += u64::from(proven.proof_bytes);
            if proven.found {
                of.reused += 1;
            } else {
                of.made.push(proven.millis);
                of.cpu_millis += u64::from(proven.cpu_millis);
            }
        }
        for (node, extra) in &job.extra {
            sums[job.kind(*node).index()].retries += extra.charged();
        }
        let kinds = Kind::ALL.into_iter().zip(sums);
        let kinds = kinds.map(|(kind, sums)| kind_report(kind, job.counts[kind.index()], sums));
        let (shares, cpu_millis) = self.shares(job).into_iter().unzip();
        let report = Report {
            kinds: kinds.collect(),
            makespan_seconds: seconds(end.saturating_sub(job.submitted)),
            shares,
            critical_path: self.critical_path(job),
        };
        (report, cpu_millis)
    }

    /// Who made what, with the CPU time in milliseconds: most proofs first, then by name.
    fn shares(&self, job: &Job) -> Vec<(Share, u64)> {
        let mut by_maker: HashMap<u32, Made> = HashMap::new();
        for (node, proven) in job.done() {
            let made = by_maker.entry(proven.maker).or_default();
            made.proofs[job.kind(node).index()] += 1;
            made.millis += u64::from(proven.millis);
            made.cpu_millis += u64::from(proven.cpu_millis);
        }
        let share = |(maker, made): (u32, Made)| {
            let Made { proofs, millis, cpu_millis } = made;
            Some((Share { worker: self.maker_name(maker)?.to_owned(), proofs, millis }, cpu_millis))
        };
        let mut shares: Vec<_> = by_maker.into_iter().filter_map(share).collect();
        shares.sort_by(|(a, _), (b, _)| {
            let proofs = |share: &Share| Reverse(share.proofs.iter().sum::<u32>());
            proofs(a).cmp(&proofs(b)).then_with(|| a.worker.cmp(&b.worker))
        });
        shares
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

fn kind_report(kind: Kind, counts: Counts, sums: Sums) -> KindReport {
    let Sums { reused, mut made, cpu_millis, bytes, retries } = sums;
    let sum: u64 = made.iter().map(|m| u64::from(*m)).sum();
    let mean_seconds = seconds(sum) / made.len().max(1) as f64;
    let rank = (made.len() * 95).div_ceil(100).saturating_sub(1);
    let p95 = if made.is_empty() { 0 } else { *made.select_nth_unstable(rank).1 };
    KindReport {
        kind: kind.name().to_owned(),
        count: counts.total,
        reused,
        mean_seconds,
        p95_seconds: seconds(u64::from(p95)),
        cpu_seconds: seconds(cpu_millis),
        bytes,
        retries,
    }
}
