//! How often a status is written.

use crate::api::ProvingJobStatus;
use crate::api::conditions::Condition;
use k8s_openapi::jiff::Timestamp;
use std::time::Duration;

/// The least time between two writes that only change counts.
pub(super) const EVERY: Duration = Duration::from_secs(2);

/// Whether to write a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// There is nothing to write.
    Never,
    /// Not yet: so long is left.
    In(Duration),
    Now,
}

/// Nothing is written that is there already; what people wait for at once; counts at most every [`EVERY`].
pub(super) fn due(
    old: &ProvingJobStatus,
    new: &ProvingJobStatus,
    written: Option<Timestamp>,
    now: Timestamp,
) -> Due {
    if old == new {
        return Due::Never;
    }
    if is_news(old, new) {
        return Due::Now;
    }
    let since = written.map(|at| super::deadline::left(now, at));
    match since.and_then(|since| EVERY.checked_sub(since)) {
        Some(left) if !left.is_zero() => Due::In(left),
        _ => Due::Now,
    }
}

fn is_news(old: &ProvingJobStatus, new: &ProvingJobStatus) -> bool {
    let said = |conditions: &[Condition]| -> Vec<_> {
        conditions
            .iter()
            .map(|c| (c.type_.clone(), c.status, c.reason.clone(), c.observed_generation))
            .collect()
    };
    said(&old.conditions) != said(&new.conditions)
        || old.observed_generation != new.observed_generation
        || old.root_task != new.root_task
        || old.root_proof != new.root_proof
        || old.deadline != new.deadline
        || old.finished_at != new.finished_at
        // an attempt that was made must be known after a restart
        || old.reports != new.reports
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::conditions::{Finding, Status, job, merge, reason};

    #[test]
    fn conditions_are_written_at_once_and_counts_every_two_seconds() {
        let at = |ms: i64| Timestamp::from_millisecond(1_000_000 + ms).unwrap();
        let conditions = |reason, message: &str| {
            let finding = Finding::new(job::PROVING, Status::False, reason, message);
            merge(&[], &job::ALL, &[finding], 1, at(0))
        };
        let old = ProvingJobStatus {
            progress: Some("1/9".into()),
            conditions: conditions(reason::WAITING_FOR_WORKERS, "3 vm"),
            ..Default::default()
        };
        let counts = ProvingJobStatus { progress: Some("2/9".into()), ..old.clone() };
        let message =
            ProvingJobStatus { conditions: conditions(reason::WAITING_FOR_WORKERS, "2 vm"), ..old.clone() };
        let news = ProvingJobStatus { conditions: conditions(reason::SUSPENDED, "3 vm"), ..old.clone() };
        for (new, written, expected) in [
            (&old, Some(at(-9_000)), Due::Never),
            (&counts, Some(at(-500)), Due::In(Duration::from_millis(1500))),
            (&message, Some(at(-500)), Due::In(Duration::from_millis(1500))),
            (&counts, Some(at(-2_000)), Due::Now),
            (&counts, None, Due::Now),
            (&news, Some(at(0)), Due::Now),
        ] {
            assert_eq!(due(&old, new, written, at(0)), expected, "{new:?} {written:?}");
        }
    }
}
