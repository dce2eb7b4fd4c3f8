//! What is told of jobs and workers.

use arborist_core::circuit::Kind;
use arborist_core::engine::{Counts, JobState, JobView, WorkerView};
use serde_json::{Value, json};

/// A state's name.
pub fn state(state: &JobState) -> &'static str {
    match state {
        JobState::Proving => "proving",
        JobState::Checking => "checking",
        JobState::Complete => "complete",
        JobState::Failed { .. } => "failed",
        JobState::Cancelled => "cancelled",
    }
}

/// A job as it stands.
pub fn job(job: &JobView) -> Value {
    let why = match &job.state {
        JobState::Failed { why } => Some(why),
        _ => None,
    };
    json!({
        "id": job.spec.id.0, "name": job.spec.name, "namespace": job.spec.namespace, "state": state(&job.state), "why": why,
        "chain_id": job.spec.chain_id, "block_number": job.spec.block_number,
        "priority": job.spec.priority, "suspended": job.spec.suspended, "deadline": job.spec.deadline,
        "submitted": job.submitted, "ended": job.ended,
        "counts": Kind::ALL.iter().zip(&job.counts).map(|(kind, counts)| row(*kind, counts)).collect::<Vec<_>>(),
    })
}

fn row(kind: Kind, counts: &Counts) -> Value {
    let Counts { total, done, running, ready, failed } = *counts;
    json!({"kind": kind.name(), "total": total, "done": done, "running": running, "ready": ready, "failed": failed})
}

/// A worker in the books.
pub fn worker(worker: &WorkerView) -> Value {
    json!({
        "name": worker.name, "node": worker.node, "cores": worker.capacity.cores,
        "memory_mib": worker.capacity.memory_mib, "state": worker.state, "running": worker.running,
        "prefetched": worker.prefetched,
    })
}
