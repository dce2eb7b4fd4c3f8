//! What a job's root proof states.

use super::Dispatcher;
use arborist_circuits::Published;
use arborist_core::engine::JobId;

impl Dispatcher {
    /// What is published beside a job's root proof; `None` for an unknown job and for a block made up without inputs,
    /// whose proofs state nothing.
    pub fn published(&self, id: JobId) -> Option<Published> {
        let statements = self.inner.room.look(|core| core.jobs.get(&id)?.statements.clone())?;
        Some(statements.published())
    }
}
