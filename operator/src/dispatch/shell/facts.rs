//! What those who show a job look at beside the job itself.

use super::Dispatcher;
use arborist_circuits::Published;
use arborist_core::durations::Durations;
use arborist_core::engine::{ClassView, JobId};

impl Dispatcher {
    /// What is published beside a job's root proof; `None` for an unknown job and for a block made up without inputs,
    /// whose proofs state nothing.
    pub fn published(&self, id: JobId) -> Option<Published> {
        let statements = self.inner.room.look(|core| core.jobs.get(&id)?.statements.clone())?;
        Some(statements.published())
    }

    /// What was learned about durations of proofs.
    pub fn learned(&self) -> Durations {
        self.inner.room.look(|core| core.engine.learned().clone())
    }

    /// Workers that take leases and serve a namespace, by capacity, smallest first. Looks at every worker.
    pub fn capacity_for(&self, namespace: &str) -> Vec<ClassView> {
        self.inner.room.look(|core| core.engine.capacity_for(namespace))
    }
}
