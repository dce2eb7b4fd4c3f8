//! What those who show a job look at beside the job itself.

use super::Dispatcher;
use super::past::PastError;
use arborist_circuits::Published;
use arborist_core::durations::Durations;
use arborist_core::engine::{ClassView, JobId, Source};

impl Dispatcher {
    /// What is published beside a job's root proof; `None` for an unknown job and for a block made up without inputs,
    /// whose proofs state nothing. Reads the block again if this operator was started after the job's tree was dropped.
    ///
    /// # Errors
    /// The block can't be read.
    pub async fn published(&self, id: JobId) -> Result<Option<Published>, PastError> {
        let inner = &self.inner;
        let (statements, published) = inner.room.look(|core| {
            let entry = core.jobs.get(&id);
            entry.map_or((None, None), |entry| (entry.statements.clone(), entry.published.clone()))
        });
        if let Some(published) = statements.map(|s| s.published()).or(published) {
            return Ok(Some(published));
        }
        let view = inner.room.look(|core| core.engine.job(id));
        let Some(spec) = view.map(|view| view.spec).filter(|spec| matches!(spec.source, Source::Block(_)))
        else {
            return Ok(None);
        };
        let (material, _file) = inner.material_of(&spec).await?;
        Ok(material.statements.map(|s| s.published()))
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
