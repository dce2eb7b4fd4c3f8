//! What a job's conditions say at each stage: the table that docs/operate.md explains.

use super::stage::{Proving, Reporting, Stage, Why};
use crate::api::conditions::{Condition, Finding, Status, job as condition, reason};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// A job that nobody works on for so long is at risk if it has a deadline, and sooner if no more is left. Workers
/// take some time to start.
const PATIENCE: SignedDuration = SignedDuration::from_secs(60);

/// The conditions of a stage. A type that is not named keeps what it says.
pub(super) fn of(stage: &Stage) -> Vec<Finding> {
    let story = story(stage);
    let say = |type_, status, reason, message: &str| Finding::new(type_, status, reason, message);
    let (about, failed) = (accepted(stage), stage.is_over() && !is_complete(stage));
    let proven = matches!(stage, Stage::Proven(_));
    let over = stage.is_over();
    let mut all = vec![];
    if let Some((status, reason, message)) = about {
        all.push(say(condition::ACCEPTED, status, reason, &message));
    }
    all.push(match stage {
        Stage::Proving(Proving::Running(message)) => {
            say(condition::PROVING, Status::True, reason::RUNNING, message)
        }
        Stage::Checking => say(condition::PROVING, Status::True, reason::CHECKING_ROOT, ""),
        Stage::Proven(_) => say(condition::PROVING, Status::False, reason::ROOT_VERIFIED, ""),
        Stage::Proving(_) => say(condition::PROVING, Status::False, story.reason, &story.message),
        _ => say(condition::PROVING, Status::False, story.reason, ""),
    });
    all.push(match proven {
        true => say(condition::PROVEN, Status::True, reason::ROOT_VERIFIED, ""),
        false => say(condition::PROVEN, Status::False, story.reason, ""),
    });
    all.push(reported(stage, &story));
    all.push(match is_complete(stage) {
        true => say(condition::COMPLETE, Status::True, reason::DONE, "the root proof is verified"),
        false if matches!(stage, Stage::Proven(Reporting::Unpublished(_))) => {
            say(condition::COMPLETE, Status::False, story.reason, &story.message)
        }
        // the message stands at the condition that it is about: a status has no room for it twice
        false => say(condition::COMPLETE, Status::False, story.reason, ""),
    });
    all.push(match failed {
        true => say(condition::FAILED, Status::True, story.reason, &story.message),
        false if over => say(condition::FAILED, Status::False, reason::DONE, ""),
        false => say(condition::FAILED, Status::False, story.reason, ""),
    });
    all
}

fn is_complete(stage: &Stage) -> bool {
    matches!(stage, Stage::Proven(Reporting::NoTargets | Reporting::Delivered(_)))
}

/// The one thing that is to be said about a stage: the column Why.
fn story(stage: &Stage) -> Why {
    let why = |reason, message: &str| Why { reason, message: message.to_owned() };
    match stage {
        Stage::Refused(given) | Stage::Waiting(given) | Stage::Unusable(given) => given.clone(),
        Stage::Preparing(message) => why(reason::PENDING, message),
        Stage::Proving(Proving::Running(message)) => why(reason::RUNNING, message),
        Stage::Proving(Proving::Workers(message)) => why(reason::WAITING_FOR_WORKERS, message),
        Stage::Proving(Proving::Suspended(message)) => why(reason::SUSPENDED, message),
        Stage::Proving(Proving::Quarantined(message)) => why(reason::TASKS_QUARANTINED, message),
        Stage::Checking => why(reason::CHECKING_ROOT, ""),
        Stage::Proven(Reporting::Unpublished(given)) => given.clone(),
        Stage::Proven(Reporting::NoTargets) => why(reason::NO_TARGETS, ""),
        Stage::Proven(Reporting::Sending(message)) => why(reason::SENDING, message),
        Stage::Proven(Reporting::Failing(message)) => why(reason::REPORT_FAILED, message),
        Stage::Proven(Reporting::Refused(message)) => why(reason::REPORT_REFUSED, message),
        Stage::Proven(Reporting::Delivered(message)) => why(reason::DELIVERED, message),
        Stage::Late(message) => why(reason::DEADLINE_EXCEEDED, message),
    }
}

fn accepted(stage: &Stage) -> Option<(Status, &'static str, String)> {
    match stage {
        Stage::Refused(why) | Stage::Waiting(why) | Stage::Unusable(why) => {
            Some((Status::False, why.reason, why.message.clone()))
        }
        Stage::Preparing(message) => Some((Status::Unknown, reason::PENDING, message.clone())),
        Stage::Proving(_) | Stage::Checking | Stage::Proven(_) => {
            Some((Status::True, reason::SUBMITTED, String::new()))
        }
        // a job may be late with its tree in the books or without
        Stage::Late(_) => None,
    }
}

fn reported(stage: &Stage, story: &Why) -> Finding {
    let (status, reason, message) = match stage {
        Stage::Proven(Reporting::Delivered(message)) => (Status::True, reason::DELIVERED, message.as_str()),
        Stage::Proven(Reporting::NoTargets) => (Status::False, reason::NO_TARGETS, ""),
        Stage::Proven(Reporting::Unpublished(_)) => (Status::False, reason::PENDING, ""),
        Stage::Proven(_) => (Status::False, story.reason, story.message.as_str()),
        _ => (Status::False, reason::PENDING, ""),
    };
    Finding::new(condition::REPORTED, status, reason, message)
}

/// What the condition AtRisk rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Risk {
    pub deadline: Option<Timestamp>,
    /// The completion to expect, if that can be said.
    pub estimated: Option<Timestamp>,
}

/// Whether the job misses its deadline at its present speed. To come back from it a tenth of what remains must be to
/// spare, or it would go back and forth.
pub(super) fn at_risk(stage: &Stage, risk: Risk, before: &[Condition], now: Timestamp) -> Finding {
    let say = |status, reason, message: String| Finding::new(condition::AT_RISK, status, reason, message);
    let Some(deadline) = risk.deadline else {
        return say(Status::False, reason::NO_DEADLINE, String::new());
    };
    match stage {
        Stage::Late(_) => return say(Status::True, reason::DEADLINE_EXCEEDED, String::new()),
        Stage::Proven(_) => return say(Status::False, reason::ON_TIME, String::new()),
        Stage::Refused(_) | Stage::Unusable(_) => {
            return say(Status::Unknown, reason::PENDING, String::new());
        }
        Stage::Preparing(_) | Stage::Waiting(_) | Stage::Proving(_) | Stage::Checking => {}
    }
    let find = |type_| before.iter().find(|c| c.type_ == type_);
    let was = find(condition::AT_RISK).is_some_and(|c| c.status == Status::True);
    if let Some(estimated) = risk.estimated {
        let margin = if was { estimated.duration_since(now) / 10 } else { SignedDuration::ZERO };
        return if estimated.checked_add(margin).is_ok_and(|at| at <= deadline) {
            say(Status::False, reason::ON_TIME, String::new())
        } else {
            say(
                Status::True,
                reason::LATE,
                format!("completion is expected at {estimated}, after the deadline"),
            )
        };
    }
    // nothing goes on: for how long?
    let idle =
        find(condition::PROVING).filter(|c| c.status != Status::True).map(|c| c.last_transition_time.0);
    let waited = idle.map_or(SignedDuration::ZERO, |since| now.duration_since(since));
    if was || waited >= PATIENCE || deadline.duration_since(now) <= PATIENCE {
        return say(Status::True, reason::LATE, "nothing goes on, and the deadline comes nearer".into());
    }
    say(Status::Unknown, reason::PENDING, String::new())
}
