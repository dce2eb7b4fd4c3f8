//! What the engine is to be told about a tree that one or several jobs want.

use arborist_core::engine::{JobState, JobView, Millis};

/// What a job wants of its tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wish {
    pub deadline: Option<Millis>,
    pub priority: i32,
    pub suspended: bool,
}

/// A change to a tree in the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Deadline(Option<Millis>),
    Priority(i32),
    Suspend(bool),
    /// New attempts; a job that had ended goes on.
    Revive,
}

/// Several jobs over one tree: the tree ends when the last of them would, goes as the most urgent of them, and rests
/// only when all of them rest. Each job's own deadline is the controller's to enforce: were the earliest the
/// engine's, that job's end would take the leases away that the others' proofs are being made under.
pub(super) fn together(mine: Wish, others: &[Wish]) -> Wish {
    others.iter().fold(mine, |all, other| Wish {
        deadline: all.deadline.zip(other.deadline).map(|(a, b)| a.max(b)),
        priority: all.priority.max(other.priority),
        suspended: all.suspended && other.suspended,
    })
}

/// What to tell the engine so that a tree is as wished: only what differs. `now` is the engine's time.
pub(super) fn changes(job: &JobView, wish: Wish, now: Millis) -> Vec<Change> {
    let mut changes = vec![];
    if job.state == JobState::Complete {
        return changes;
    }
    let spec = &job.spec;
    if spec.deadline != wish.deadline {
        changes.push(Change::Deadline(wish.deadline));
    }
    if spec.priority != wish.priority {
        changes.push(Change::Priority(wish.priority));
    }
    if spec.suspended != wish.suspended {
        changes.push(Change::Suspend(wish.suspended));
    }
    let ended = matches!(job.state, JobState::Failed { .. } | JobState::Cancelled);
    let quarantined = job.counts.iter().any(|kind| kind.failed > 0);
    // after the deadline was told, and not when it is past: the job would fail again at once. Who edits a job with proofs that failed too often
    // has mended something
    let passed = wish.deadline.is_some_and(|deadline| deadline <= now);
    if (ended && !passed) || (quarantined && !changes.is_empty()) {
        changes.push(Change::Revive);
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::provingjob::fixtures::view;

    const CALM: Wish = Wish { deadline: None, priority: 0, suspended: false };

    #[test]
    fn one_tree_of_several_jobs_serves_all() {
        let wish = |deadline, priority, suspended| Wish { deadline, priority, suspended };
        for (mine, others, expected) in [
            (wish(Some(5), 1, true), vec![], wish(Some(5), 1, true)),
            (wish(Some(5), 1, true), vec![wish(Some(9), 0, false)], wish(Some(9), 1, false)),
            (wish(Some(5), 1, true), vec![wish(Some(3), 7, true)], wish(Some(5), 7, true)),
            (
                wish(Some(5), 0, false),
                vec![wish(None, -3, true), wish(Some(8), 0, true)],
                wish(None, 0, false),
            ),
        ] {
            assert_eq!(together(mine, &others), expected, "{mine:?} {others:?}");
        }
    }

    #[test]
    fn only_differences_are_told() {
        use Change::{Deadline, Priority, Revive, Suspend};
        let failed = JobState::Failed { why: "late".into() };
        for (state, wish, expected) in [
            (JobState::Proving, CALM, vec![]),
            (JobState::Proving, Wish { priority: 3, ..CALM }, vec![Priority(3)]),
            (JobState::Proving, Wish { suspended: true, ..CALM }, vec![Suspend(true)]),
            (failed.clone(), Wish { deadline: Some(7), ..CALM }, vec![Deadline(Some(7)), Revive]),
            (failed, Wish { deadline: Some(6), ..CALM }, vec![Deadline(Some(6))]),
            (JobState::Cancelled, CALM, vec![Revive]),
            (JobState::Complete, Wish { deadline: Some(7), priority: 1, suspended: true }, vec![]),
        ] {
            let mut job = view();
            job.state = state.clone();
            assert_eq!(changes(&job, wish, 6), expected, "{state:?} {wish:?}");
        }
    }

    #[test]
    fn an_edit_gives_quarantined_proofs_new_attempts() {
        let mut job = view();
        job.counts[0].failed = 1;
        assert_eq!(changes(&job, CALM, 0), []);
        let resumed = Wish { suspended: true, ..CALM };
        assert_eq!(changes(&job, resumed, 0), [Change::Suspend(true), Change::Revive]);
    }
}
