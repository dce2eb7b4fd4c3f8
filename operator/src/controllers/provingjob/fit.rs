//! Keeping a status below its bound, whatever the names and answers of others.

use crate::api::ProvingJobStatus;
use crate::api::conditions::{cut, is_true, job as condition};

/// The most bytes that a status may take as JSON: 2 kB.
pub(super) const MAX_BYTES: usize = 2_048;

/// What is shortened, in this order, until the status fits. Everything of it can be had elsewhere: in events, in the
/// operator's log, in the result's ConfigMap.
const STEPS: [fn(&mut ProvingJobStatus); 8] = [
    counts_of_proven,
    |s| answers(s, 40),
    |s| messages(s, 120),
    |s| messages(s, 60),
    |s| answers(s, 0),
    |s| messages(s, 0),
    |s| s.attribution = None,
    uri,
];

/// The status, shortened as far as it has to be.
pub(super) fn fit(mut status: ProvingJobStatus) -> ProvingJobStatus {
    for step in STEPS {
        if bytes(&status) <= MAX_BYTES {
            break;
        }
        step(&mut status);
    }
    status
}

/// The size of a status as JSON.
pub(super) fn bytes(status: &ProvingJobStatus) -> usize {
    // a status is numbers and texts, and always JSON; were it not, the API server would refuse it
    serde_json::to_vec(status).map_or(0, |json| json.len())
}

fn messages(status: &mut ProvingJobStatus, max: usize) {
    status.conditions.iter_mut().for_each(|c| c.message = shorter(&c.message, max));
}

fn answers(status: &mut ProvingJobStatus, max: usize) {
    status.reports.iter_mut().for_each(|r| r.answer = shorter(&r.answer, max));
}

/// At most `max` bytes; nothing rather than an ellipsis alone.
fn shorter(text: &str, max: usize) -> String {
    if max == 0 { String::new() } else { cut(text, max) }
}

/// Once all are done they say nothing that `progress` does not.
fn counts_of_proven(status: &mut ProvingJobStatus) {
    if is_true(&status.conditions, condition::PROVEN) {
        status.counts.clear();
    }
}

/// The proof's name in the store follows from the root's task.
fn uri(status: &mut ProvingJobStatus) {
    if let Some(proof) = &mut status.root_proof {
        proof.uri.clear();
    }
}
