//! When a job must be proven.

use crate::api::ProvingJob;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// The deadline, given as a time or in seconds after the job's creation. A text when both are set, or when it lies
/// beyond the calendar.
pub(super) fn of(job: &ProvingJob) -> Result<Option<Timestamp>, String> {
    match (&job.spec.deadline, job.spec.deadline_seconds) {
        (Some(_), Some(_)) => Err("deadline and deadlineSeconds: at most one may be set".into()),
        (Some(time), None) => Ok(Some(time.0)),
        (None, None) => Ok(None),
        (None, Some(seconds)) => {
            let created =
                job.metadata.creation_timestamp.as_ref().ok_or("the job has no creationTimestamp")?;
            let deadline = created.0.checked_add(SignedDuration::from_secs(seconds));
            deadline.map(Some).map_err(|_| format!("deadlineSeconds is {seconds}: beyond the calendar"))
        }
    }
}

/// Milliseconds since 1970, as the engine counts; what lies before is 1970.
pub(super) fn millis(time: Timestamp) -> u64 {
    u64::try_from(time.as_millisecond()).unwrap_or(0)
}

/// The reverse of [`millis`].
pub(super) fn time(millis: u64) -> Timestamp {
    i64::try_from(millis).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or(Timestamp::MAX)
}

/// What is left of `until`; nothing if it is past.
pub(super) fn left(until: Timestamp, now: Timestamp) -> std::time::Duration {
    until.duration_since(now).try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::provingjob::fixtures::{CREATED, job};
    use serde_json::{Value, json};
    use std::time::Duration;

    fn found(mut more: Value) -> Result<Option<Timestamp>, String> {
        let mut spec = json!({
            "chainId": 1, "blockNumber": 1, "proverId": "p", "source": {"configMap": {"name": "b"}},
        });
        spec.as_object_mut().unwrap().append(more.as_object_mut().unwrap());
        of(&job(spec))
    }

    #[test]
    fn a_deadline_is_a_time_or_seconds_after_the_creation() {
        let created: Timestamp = CREATED.parse().unwrap();
        let time = "2026-03-01T00:00:00Z";
        assert_eq!(found(json!({})), Ok(None));
        assert_eq!(found(json!({"deadline": time})), Ok(Some(time.parse().unwrap())));
        let hour = created + SignedDuration::from_hours(1);
        assert_eq!(found(json!({"deadlineSeconds": 3600})), Ok(Some(hour)));
        assert!(found(json!({"deadline": time, "deadlineSeconds": 1})).is_err());
        assert!(found(json!({"deadlineSeconds": i64::MAX})).is_err());
    }

    #[test]
    fn times_survive_the_way_to_the_engine_and_back() {
        let at: Timestamp = "2026-03-01T00:00:00.123Z".parse().unwrap();
        assert_eq!(time(millis(at)), at);
        assert_eq!(millis(Timestamp::MIN), 0);
        assert_eq!(time(u64::MAX), Timestamp::MAX);
        assert_eq!(left(at, at - SignedDuration::from_secs(3)), Duration::from_secs(3));
        assert_eq!(left(at, at + SignedDuration::from_secs(3)), Duration::ZERO);
    }
}
