//! How much a namespace may have in the books at once.

use super::core::Core;
use super::submit::SubmitError;
use arborist_core::engine::{Counts, JobId, JobState};
use std::collections::BTreeMap;

/// What one namespace may have in the books at once; `None` bounds nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quota {
    /// Jobs that are not over.
    pub jobs: Option<u64>,
    /// Tasks of these jobs, which is what they take of the operator's memory: some 70 bytes each.
    pub tasks: Option<u64>,
}

/// The quotas of all namespaces.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Quotas {
    /// Of each that is not named below.
    pub each: Quota,
    /// By namespace.
    pub of: BTreeMap<String, Quota>,
}

impl Quotas {
    fn quota(&self, namespace: &str) -> Quota {
        self.of.get(namespace).copied().unwrap_or(self.each)
    }

    /// Whether a namespace may have one more job of so many tasks.
    ///
    /// # Errors
    /// The limit that it would pass.
    pub(super) fn check(&self, core: &Core, namespace: &str, tasks: u64) -> Result<(), SubmitError> {
        let quota = self.quota(namespace);
        if quota == Quota::default() {
            return Ok(());
        }
        let (mut open, mut had) = (0, 0);
        for id in core.engine.jobs() {
            if let Some((counts, JobState::Proving | JobState::Checking)) = core.engine.counts(id)
                && core.engine.namespace(id) == Some(namespace)
            {
                open += 1;
                had += tasks_of(&counts);
            }
        }
        allow("open jobs", quota.jobs, open, 1, namespace)?;
        allow("tasks of open jobs", quota.tasks, had, tasks, namespace)
    }

    /// Whether a job that is over may go on.
    ///
    /// # Errors
    /// The limit that it would pass.
    pub(super) fn check_again(&self, core: &Core, job: JobId) -> Result<(), SubmitError> {
        let (counts, namespace) = (core.engine.counts(job), core.engine.namespace(job));
        let tasks = counts.map_or(0, |(counts, _)| tasks_of(&counts));
        self.check(core, namespace.unwrap_or_default(), tasks)
    }
}

fn tasks_of(counts: &[Counts; 5]) -> u64 {
    counts.iter().map(|kind| u64::from(kind.total)).sum()
}

fn allow(
    limit: &'static str,
    allowed: Option<u64>,
    has: u64,
    more: u64,
    namespace: &str,
) -> Result<(), SubmitError> {
    match allowed {
        Some(allowed) if has.saturating_add(more) > allowed => {
            Err(SubmitError::Quota { limit, namespace: namespace.to_owned(), allowed, has, more })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_says_what_it_is() {
        for (allowed, has, more, refused) in [
            (None, 1_000, 1, false),
            (Some(3), 2, 1, false),
            (Some(3), 3, 1, true),
            (Some(0), 0, 1, true),
            (Some(u64::MAX), u64::MAX, 1, false),
        ] {
            let found = allow("open jobs", allowed, has, more, "a");
            assert_eq!(found.is_err(), refused, "{allowed:?} {has} {more}");
        }
        let error = allow("open jobs", Some(3), 3, 1, "a").unwrap_err();
        assert_eq!(
            error.to_string(),
            "quota: namespace a has 3 open jobs, with 1 more it is over the 3 that it may have"
        );
        let error = allow("open jobs", Some(3), 3, 1, "").unwrap_err();
        assert!(error.to_string().starts_with("quota: no namespace has 3 open jobs"), "{error}");
    }

    #[test]
    fn a_namespace_that_is_named_has_its_own_quota() {
        let quota = |jobs| Quota { jobs, tasks: None };
        let quotas = Quotas { each: quota(Some(1)), of: [("a".to_owned(), quota(None))].into() };
        assert_eq!((quotas.quota("a"), quotas.quota("b")), (quota(None), quota(Some(1))));
    }
}
