//! What is left of a job that is over once its tree went: its request, counts and report.

use super::books::is_over;
use super::codec::{BadBytes, Reader, Writer};
use super::record::{get_spec, get_state, get_system, put_spec, put_state, put_system};
use super::{
    Command, Counts, Engine, JobId, JobSpec, JobState, JobView, KindReport, PathStep, PreparedJob, Record,
    Report, Share, TaskState, TaskView, Waits,
};
use crate::circuit::Kind;
use crate::ids::TaskId;
use crate::system::ProofSystem;
use crate::tree::NodeId;
use std::cmp::Reverse;

/// The most jobs that are over and keep their trees.
const MOST_KEPT: usize = 128;

/// A job that is over and has no tree any more.
#[derive(Debug)]
pub(crate) struct Past {
    pub(crate) view: JobView,
    pub(crate) root: TaskId,
    /// The proof system that its proofs are of.
    pub(crate) system: ProofSystem,
    /// Some of its proofs were, or may have been, made for another job, or are another's too.
    pub(crate) borrowed: bool,
    pub(crate) report: Report,
    /// CPU time in milliseconds of each of the report's shares.
    pub(crate) cpu_millis: Vec<u64>,
}

impl Past {
    pub(crate) fn attribution(&self) -> Vec<(String, u32, u64)> {
        let of = self.report.shares.iter().zip(&self.cpu_millis);
        of.map(|(share, cpu)| (share.worker.clone(), share.proofs.iter().sum(), *cpu)).collect()
    }

    /// The root's task, if this is its node.
    pub(crate) fn root_view(&self, node: NodeId) -> Option<TaskView> {
        if node.0.checked_add(1) != Some(self.total()) {
            return None;
        }
        let last = self.report.critical_path.last().filter(|step| step.task == self.root);
        let done = self.view.counts[Kind::Root.index()].done > 0;
        Some(TaskView {
            state: if done { TaskState::Done } else { TaskState::Waiting },
            attempts: 0,
            waits: (!done).then_some(Waits::JobEnded),
            workers: last
                .map(|step| step.worker.clone())
                .filter(|name| !name.is_empty())
                .into_iter()
                .collect(),
            millis: last.map(|step| u32::try_from(step.millis).unwrap_or(u32::MAX)),
        })
    }

    pub(crate) fn total(&self) -> u32 {
        self.view.counts.iter().map(|counts| counts.total).sum()
    }
}

impl Engine {
    /// Drops the trees of jobs that are over, but for those that ended last: they may be revived, or a later job
    /// may have tasks of theirs.
    pub(crate) fn drop_old_trees(&mut self) {
        let over = self.jobs.iter().filter(|(_, job)| is_over(&job.state));
        let mut over: Vec<_> = over.map(|(slot, job)| (Reverse((job.ended, job.spec.id)), slot)).collect();
        over.sort_unstable();
        let mut kept = 0u64;
        let mut dropped = vec![];
        for (place, (_, slot)) in over.into_iter().enumerate() {
            kept += u64::from(self.jobs[slot].shape().total());
            if kept > u64::from(self.config.kept_tasks) || place >= MOST_KEPT {
                dropped.push(slot);
            }
        }
        // The oldest first, as if each had been dropped in its time.
        dropped.into_iter().rev().for_each(|slot| self.drop_tree(slot));
    }

    fn drop_tree(&mut self, slot: u32) {
        let job = &self.jobs[slot];
        let id = job.spec.id;
        let (report, cpu_millis) = self.report_of(job);
        let past = Past {
            view: job.view(),
            root: job.root_id(),
            system: job.tree.system.clone(),
            borrowed: job.is_borrowed(),
            report,
            cpu_millis,
        };
        let tasks = past.total();
        self.drop_job(slot);
        self.jobs.insert_past(past);
        self.out.push(Command::TreeDropped { job: id, tasks });
    }

    /// As [`Engine::revive`], of a job whose tree was dropped: here it is again.
    pub(crate) fn revive_with(&mut self, mut tree: PreparedJob) {
        let id = tree.spec.id;
        let revivable = |past: &&Past| {
            let stopped = matches!(past.view.state, JobState::Cancelled | JobState::Failed { .. });
            stopped && tree.ids.last() == Some(&past.root)
        };
        if self.jobs.past(id).filter(revivable).is_none() {
            return self.revive(id);
        }
        let Some(past) = self.jobs.remove_past(id) else { return };
        tree.spec = past.view.spec;
        self.out.push(Command::Persist(Record::State(id, JobState::Proving, self.now)));
        self.trust_all();
        let (slot, shared) = self.enter_job(tree, past.view.submitted);
        self.take_up(slot, shared);
    }

    /// What is known of a root's task whose job has no tree any more: the job and how it ended.
    pub(crate) fn past_root(&self, task: &TaskId) -> Option<(JobId, NodeId)> {
        let (id, past) =
            self.jobs.of_root(task).iter().rev().find_map(|id| Some((*id, self.jobs.past(*id)?)))?;
        Some((id, NodeId(past.total().saturating_sub(1))))
    }
}

pub(super) fn put_past(w: &mut Writer, past: &Past) {
    let JobView { spec, state, counts, submitted, ended, policy } = &past.view;
    put_spec(w, spec);
    put_state(w, state);
    w.varint(*submitted);
    w.option(*ended);
    w.varint(*policy as u64);
    for Counts { total, done, running, ready, failed } in counts {
        [total, done, running, ready, failed].into_iter().for_each(|n| w.varint(u64::from(*n)));
    }
    w.0.extend_from_slice(&past.root.0);
    put_system(w, &past.system);
    w.byte(u8::from(past.borrowed));
    put_report(w, &past.report);
    past.cpu_millis.iter().for_each(|cpu| w.varint(*cpu));
}

fn put_report(w: &mut Writer, report: &Report) {
    let Report { kinds, makespan_seconds, shares, critical_path } = report;
    for row in kinds {
        let KindReport { kind: _, count, reused, mean_seconds, p95_seconds, cpu_seconds, bytes, retries } =
            row;
        [count, reused, retries].into_iter().for_each(|n| w.varint(u64::from(*n)));
        w.varint(*bytes);
        [mean_seconds, p95_seconds, cpu_seconds].into_iter().for_each(|s| w.float(*s));
    }
    w.float(*makespan_seconds);
    w.varint(shares.len() as u64);
    for Share { worker, proofs, millis } in shares {
        w.text(worker);
        proofs.iter().for_each(|n| w.varint(u64::from(*n)));
        w.varint(*millis);
    }
    w.varint(critical_path.len() as u64);
    for PathStep { circuit, task, worker, waited_millis, millis } in critical_path {
        w.text(circuit);
        w.0.extend_from_slice(&task.0);
        w.text(worker);
        w.varint(*waited_millis);
        w.varint(*millis);
    }
}

pub(super) fn get_past(r: &mut Reader<'_>) -> Result<Past, BadBytes> {
    let (spec, state): (JobSpec, JobState) = (get_spec(r)?, get_state(r)?);
    let (submitted, ended, policy) = (r.varint()?, r.option()?, r.number()?);
    let mut counts = [Counts::default(); 5];
    for of in &mut counts {
        let (total, done, running) = (r.number()?, r.number()?, r.number()?);
        *of = Counts { total, done, running, ready: r.number()?, failed: r.number()? };
    }
    let view = JobView { spec, state, counts, submitted, ended, policy };
    let (root, system, borrowed) = (TaskId(r.array()?), get_system(r)?, r.flag()?);
    let report = get_report(r)?;
    let cpu_millis = report.shares.iter().map(|_| r.varint()).collect::<Result<_, _>>()?;
    Ok(Past { view, root, system, borrowed, report, cpu_millis })
}

fn get_report(r: &mut Reader<'_>) -> Result<Report, BadBytes> {
    let mut kinds = vec![];
    for kind in Kind::ALL {
        let (count, reused, retries, bytes) = (r.number()?, r.number()?, r.number()?, r.varint()?);
        let (mean_seconds, p95_seconds, cpu_seconds) = (r.float()?, r.float()?, r.float()?);
        let kind = kind.name().to_owned();
        kinds.push(KindReport {
            kind,
            count,
            reused,
            mean_seconds,
            p95_seconds,
            cpu_seconds,
            bytes,
            retries,
        });
    }
    let makespan_seconds = r.float()?;
    let mut shares = vec![];
    for _ in 0..r.number::<u32>()? {
        let worker = r.text()?;
        let mut proofs = [0; 5];
        for of_kind in &mut proofs {
            *of_kind = r.number()?;
        }
        shares.push(Share { worker, proofs, millis: r.varint()? });
    }
    let mut critical_path = vec![];
    for _ in 0..r.number::<u32>()? {
        let (circuit, task, worker) = (r.text()?, TaskId(r.array()?), r.text()?);
        critical_path.push(PathStep {
            circuit,
            task,
            worker,
            waited_millis: r.varint()?,
            millis: r.varint()?,
        });
    }
    Ok(Report { kinds, makespan_seconds, shares, critical_path })
}
