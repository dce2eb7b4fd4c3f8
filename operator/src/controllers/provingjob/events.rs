//! What is told as Kubernetes events: once for each change of a condition.

use crate::api::conditions::{Condition, Finding, Status, cut, job as condition, reason};
use kube::runtime::events::{Event, EventType};

/// An event's note has at most 1 kB.
const MAX_NOTE: usize = 1_000;

/// News about a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct News {
    pub warning: bool,
    pub reason: String,
    /// The condition that changed.
    pub action: &'static str,
    pub note: String,
}

impl From<News> for Event {
    fn from(news: News) -> Self {
        Self {
            type_: if news.warning { EventType::Warning } else { EventType::Normal },
            reason: news.reason,
            note: (!news.note.is_empty()).then_some(news.note),
            action: news.action.to_owned(),
            secondary: None,
        }
    }
}

/// The news in a change of conditions. `findings` have the messages in full.
pub(super) fn news(old: &[Condition], new: &[Condition], findings: &[Finding]) -> Vec<News> {
    let changed = |c: &&Condition| {
        let before = old.iter().find(|o| o.type_ == c.type_);
        before.is_none_or(|before| before.status != c.status || before.reason != c.reason)
    };
    let tell = |c: &Condition| {
        let (action, warning, reason) = worth_telling(c, old)?;
        let finding = findings.iter().find(|f| f.type_ == c.type_);
        let note = finding.map_or(c.message.as_str(), |f| f.message.as_str());
        // `Failed` alone says too little
        let note =
            if action == condition::FAILED { format!("{}: {note}", c.reason) } else { note.to_owned() };
        Some(News { warning, reason: reason.to_owned(), action, note: cut(&note, MAX_NOTE) })
    };
    new.iter().filter(changed).filter_map(tell).collect()
}

/// The condition, whether it is a warning, and the event's reason.
fn worth_telling<'a>(c: &'a Condition, old: &[Condition]) -> Option<(&'static str, bool, &'a str)> {
    let was_true = old.iter().any(|o| o.type_ == c.type_ && o.status == Status::True);
    let why = c.reason.as_str();
    match (c.type_.as_str(), c.status) {
        (condition::ACCEPTED, Status::True) => Some((condition::ACCEPTED, false, condition::ACCEPTED)),
        (condition::ACCEPTED, Status::False) => Some((condition::ACCEPTED, true, why)),
        (condition::PROVING, Status::True) if why == reason::RUNNING => {
            Some((condition::PROVING, false, condition::PROVING))
        }
        (condition::PROVING, Status::False) => match why {
            reason::WAITING_FOR_WORKERS | reason::TASKS_QUARANTINED => Some((condition::PROVING, true, why)),
            reason::SUSPENDED => Some((condition::PROVING, false, why)),
            _ => None,
        },
        (condition::AT_RISK, Status::True) if why == reason::LATE => {
            Some((condition::AT_RISK, true, condition::AT_RISK))
        }
        (condition::AT_RISK, Status::False) if was_true && why == reason::ON_TIME => {
            Some((condition::AT_RISK, false, reason::ON_TIME))
        }
        (condition::PROVEN, Status::True) => Some((condition::PROVEN, false, condition::PROVEN)),
        (condition::REPORTED, Status::True) => Some((condition::REPORTED, false, condition::REPORTED)),
        (condition::REPORTED, Status::False) if why == reason::REPORT_FAILED => {
            Some((condition::REPORTED, true, why))
        }
        (condition::COMPLETE, Status::True) => Some((condition::COMPLETE, false, condition::COMPLETE)),
        (condition::FAILED, Status::True) => Some((condition::FAILED, true, condition::FAILED)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::conditions::merge;
    use k8s_openapi::jiff::Timestamp;

    fn conditions(findings: &[Finding]) -> Vec<Condition> {
        merge(&[], &condition::ALL, findings, 1, Timestamp::UNIX_EPOCH)
    }

    fn told(before: &[Finding], after: &[Finding]) -> Vec<(bool, String)> {
        let found = news(&conditions(before), &conditions(after), after);
        found.into_iter().map(|news| (news.warning, news.reason)).collect()
    }

    #[test]
    fn each_change_is_told_once() {
        let say = |type_, status, reason| Finding::new(type_, status, reason, "m");
        let accepted = say(condition::ACCEPTED, Status::True, reason::SUBMITTED);
        let running = say(condition::PROVING, Status::True, reason::RUNNING);
        let waiting = say(condition::PROVING, Status::False, reason::WAITING_FOR_WORKERS);
        let late = say(condition::AT_RISK, Status::True, reason::LATE);
        let in_time = say(condition::AT_RISK, Status::False, reason::ON_TIME);
        let failed = say(condition::FAILED, Status::True, reason::DEADLINE_EXCEEDED);
        let missing = say(condition::ACCEPTED, Status::False, reason::SOURCE_UNAVAILABLE);
        let event = |warning, reason: &str| vec![(warning, reason.to_owned())];
        for (before, after, expected) in [
            (vec![], vec![accepted.clone()], event(false, "Accepted")),
            (vec![accepted.clone()], vec![accepted.clone()], vec![]),
            (vec![], vec![missing.clone()], event(true, "SourceUnavailable")),
            (vec![missing], vec![accepted], event(false, "Accepted")),
            (vec![running.clone()], vec![waiting.clone()], event(true, "WaitingForWorkers")),
            (vec![waiting], vec![running], event(false, "Proving")),
            (vec![], vec![late.clone()], event(true, "AtRisk")),
            (vec![late], vec![in_time.clone()], event(false, "OnTime")),
            (vec![], vec![in_time], vec![]),
            (vec![], vec![failed], event(true, "Failed")),
        ] {
            assert_eq!(told(&before, &after), expected, "{before:?} {after:?}");
        }
    }

    #[test]
    fn a_note_is_whole_though_the_message_was_cut() {
        let long = "x".repeat(600);
        let findings = [Finding::new(condition::FAILED, Status::True, reason::BAD_BLOCK, long.clone())];
        let found = news(&[], &conditions(&findings), &findings);
        assert_eq!(found[0].note, format!("BadBlock: {long}"));
        let event = Event::from(found[0].clone());
        assert_eq!((event.action.as_str(), event.reason.as_str()), ("Failed", "Failed"));
    }
}
