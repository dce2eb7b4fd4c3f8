//! How jobs come into the books again after a restart: their trees are built anew.

use super::books::is_over;
use super::{Command, Engine, JobId, JobSpec, Millis, Notice, PreparedJob, Record, RestoreError, Unresolved};
use crate::system::ProofSystem;
use crate::tree::Leaves;
use std::collections::{HashMap, HashSet};

/// Finds what a job's tree is built from.
pub(super) type Resolve<'a> = &'a mut dyn FnMut(&JobSpec) -> Result<(Vec<u8>, Leaves), Unresolved>;

/// How jobs come into the books again.
pub(super) struct Rebuilding<'a> {
    pub(super) resolve: Resolve<'a>,
    /// Jobs that are not to be in the books in the end.
    pub(super) dropped: HashSet<JobId>,
    /// Jobs that are over in the end, and since when, as far as the records say.
    pub(super) over: HashMap<JobId, Millis>,
    /// What is to be done about those that are lost.
    pub(super) left_out: Vec<Command>,
}

impl Rebuilding<'_> {
    /// Enters a job, of which it is known how many tasks it had or not; `None` if it is left out.
    pub(super) fn enter(
        &mut self,
        engine: &mut Engine,
        (spec, system): (JobSpec, ProofSystem),
        at: Millis,
        total: Option<u32>,
    ) -> Result<Option<(u32, Vec<u32>)>, RestoreError> {
        engine.last_job = engine.last_job.max(spec.id.0);
        let (id, name) = (spec.id, spec.name.clone());
        match self.build(spec, system, total, engine) {
            Ok(tree) => Ok(Some(engine.enter_job(tree, at))),
            Err(_) if self.dropped.contains(&id) => Ok(None),
            Err(Unresolved::NotNow(reason)) => Err(RestoreError::Job { id, name, reason }),
            Err(Unresolved::Lost(why)) => {
                self.dropped.insert(id);
                let told = Command::Notice(Notice::LeftOut { job: id, name, why });
                self.left_out.extend([Command::Persist(Record::Forgotten(id)), told]);
                Ok(None)
            }
        }
    }

    /// A job without a tree was taken up again: it needs one. A record that says so may be older than what is known
    /// of the job, or of a time between.
    pub(super) fn revive(&mut self, engine: &mut Engine, id: JobId, at: Millis) -> Result<(), RestoreError> {
        let Some(ended) = engine.jobs.past(id).and_then(|past| past.view.ended) else { return Ok(()) };
        if at < ended || self.over.get(&id) == Some(&ended) {
            return Ok(());
        }
        let Some(past) = engine.jobs.remove_past(id) else { return Ok(()) };
        let (total, submitted) = (past.total(), past.view.submitted);
        let request = (past.view.spec, past.system);
        if let Some((slot, shared)) = self.enter(engine, request, submitted, Some(total))? {
            engine.jobs[slot].since = at;
            engine.share_again(slot, &shared);
        }
        Ok(())
    }

    fn build(
        &mut self,
        spec: JobSpec,
        system: ProofSystem,
        total: Option<u32>,
        engine: &Engine,
    ) -> Result<PreparedJob, Unresolved> {
        let (calls, leaves) = (self.resolve)(&spec)?;
        let max_calls = engine.config.profile.max_calls;
        let tree = PreparedJob::of_system(spec, &calls, leaves, max_calls, system);
        let tree = tree.map_err(|e| Unresolved::Lost(e.to_string()))?;
        match (tree.shape.total(), total) {
            (now, Some(then)) if now != then => {
                Err(Unresolved::Lost(format!("its tree has {now} tasks now and had {then}")))
            }
            _ => Ok(tree),
        }
    }
}

/// Jobs whose last state in the records is an end, and when that was.
pub(super) fn over_in_the_end(records: &[Record]) -> HashMap<JobId, Millis> {
    let mut over = HashMap::new();
    for record in records {
        match record {
            Record::State(id, state, at) if is_over(state) => _ = over.insert(*id, *at),
            Record::State(id, ..) | Record::Forgotten(id) => _ = over.remove(id),
            _ => {}
        }
    }
    over
}
