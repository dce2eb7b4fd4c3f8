//! How jobs come into the books again after a restart: their trees are built anew.

use super::{Command, Engine, JobId, JobSpec, Millis, Notice, PreparedJob, Record, RestoreError, Unresolved};
use crate::system::ProofSystem;
use crate::tree::Leaves;
use std::collections::HashSet;

/// Finds what a job's tree is built from.
pub(super) type Resolve<'a> = &'a mut dyn FnMut(&JobSpec) -> Result<(Vec<u8>, Leaves), Unresolved>;

/// How jobs come into the books again.
pub(super) struct Rebuilding<'a> {
    pub(super) resolve: Resolve<'a>,
    /// Jobs that are not to be in the books in the end.
    pub(super) dropped: HashSet<JobId>,
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
