//! What the engine is told about pods that end: their leases return within the second of the pod's event.
//!
//! | the pod | the engine |
//! |---|---|
//! | gone from the API, or its phase is Failed or Succeeded (evicted, node shut down) | its worker is dead |
//! | is being deleted | its worker gets nothing new; it has SIGTERM, and finishes or hands back what it runs |
//! | its container was killed for lack of memory | what it ran asks for a larger machine |
//! | its container ended otherwise | nothing: the connection's end said so, and the same name may be back already |
//! | its node is not heard | nothing: its leases expire long before the API server notices (15 s against 40 s) |

use super::workforce::Workforce;
use crate::controllers::Scope;
use crate::kubernetes::pods::{Change, PodBook, PodRecord};
use jiff::Timestamp;

/// A death for lack of memory that an operator sees for the first time when it starts is told if it is no older.
const RECENT_SECONDS: i64 = 120;

/// What the engine is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Loss {
    /// The process is gone for good.
    Dead,
    /// It is asked to leave.
    Leaving,
    /// It was killed for lack of memory; the death's name.
    OutOfMemory(String),
}

/// What a change of a pod means to the engine.
pub(super) fn losses(change: &Change, now: Timestamp) -> Vec<Loss> {
    let Some(after) = &change.after else { return vec![Loss::Dead] };
    let before = change.before.as_deref();
    let mut losses = vec![];
    // first: what it ran when it died is charged once it is known to be lost, and death takes its session along
    if let Some(incident) = after.out_of_memory()
        && before
            .map_or_else(|| recent(after, now), |before| before.out_of_memory().as_ref() != Some(&incident))
    {
        losses.push(Loss::OutOfMemory(incident));
    }
    let was = |is: fn(&PodRecord) -> bool| before.is_some_and(is);
    if after.phase.is_over() && !was(|pod| pod.phase.is_over()) {
        losses.push(Loss::Dead);
    } else if after.deleting && !was(|pod| pod.deleting) {
        losses.push(Loss::Leaving);
    }
    losses
}

fn recent(pod: &PodRecord, now: Timestamp) -> bool {
    pod.ended.as_ref().is_some_and(|ended| now.as_second() - ended.finished <= RECENT_SECONDS)
}

/// Tells the engine.
pub(super) fn tell(workforce: &dyn Workforce, worker: &str, losses: Vec<Loss>) {
    for loss in losses {
        match loss {
            Loss::Dead => workforce.dead(worker),
            Loss::Leaving => workforce.drain(worker),
            Loss::OutOfMemory(incident) => {
                tracing::warn!(worker, "a worker was killed for using more memory than it has");
                workforce.out_of_memory(worker, &incident);
            }
        }
    }
}

/// Tells the engine of workers whose pods went, or began to, while no operator looked.
pub(super) fn sweep(workforce: &dyn Workforce, book: &PodBook, scopes: &[Scope]) {
    for worker in workforce.workers() {
        let Some((namespace, _)) = worker.name.split_once('/') else { continue };
        let ours = scopes.iter().any(|scope| match scope {
            Scope::Cluster => true,
            Scope::Namespace(of) => of == namespace,
        });
        if !ours {
            continue;
        }
        match book.find_worker(&worker.name) {
            Some(pod) if pod.deleting && !pod.phase.is_over() => workforce.drain(&worker.name),
            Some(pod) if !pod.phase.is_over() => {}
            _ => {
                tracing::info!(worker = worker.name, "a worker's pod is gone");
                workforce.dead(&worker.name);
            }
        }
    }
}
