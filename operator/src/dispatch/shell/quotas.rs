//! How much a namespace may have in the books at once.

use super::core::Core;
use arborist_core::engine::{Counts, JobId, JobState, PreparedJob};
use std::collections::BTreeMap;

/// What one namespace may have in the books at once; `None` bounds nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quota {
    /// Jobs that are not over.
    pub jobs: Option<u64>,
    /// Tasks of these jobs, which is what they take of the operator's memory: some 70 bytes each.
    pub tasks: Option<u64>,
    /// Bytes of these jobs' inputs in the artifact store: block files and private proofs.
    pub bytes: Option<u64>,
}

/// The quotas of all namespaces.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Quotas {
    /// Of each that is not named below.
    pub each: Quota,
    /// By namespace.
    pub of: BTreeMap<String, Quota>,
}

/// A namespace has as much in the books as it may have: later it may have more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("quota: {} has {has} {limit}, with {more} more it is over the {allowed} that it may have", shown(.namespace))]
pub struct OverQuota {
    /// What is limited.
    pub limit: &'static str,
    /// Whose it is.
    pub namespace: String,
    /// So many it may have.
    pub allowed: u64,
    /// So many it has.
    pub has: u64,
    /// So many came.
    pub more: u64,
}

/// A namespace in a sentence.
fn shown(namespace: &str) -> String {
    if namespace.is_empty() { "no namespace".into() } else { format!("namespace {namespace}") }
}

/// What one job takes of its namespace's quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Takes {
    pub tasks: u64,
    pub bytes: u64,
}

impl Takes {
    /// What a job takes whose inputs have so many bytes.
    pub(super) fn of(job: &PreparedJob, bytes: u64) -> Self {
        Self { tasks: job.ids.len() as u64, bytes }
    }
}

impl Quotas {
    fn quota(&self, namespace: &str) -> Quota {
        self.of.get(namespace).copied().unwrap_or(self.each)
    }

    /// Whether the bytes of a namespace's inputs are bounded: else nobody counts them.
    pub(super) fn bounds_bytes(&self, namespace: &str) -> bool {
        self.quota(namespace).bytes.is_some()
    }

    /// Whether a namespace may have one more job, that takes so much.
    ///
    /// # Errors
    /// The limit that it would pass.
    pub(super) fn check(&self, core: &Core, namespace: &str, takes: Takes) -> Result<(), OverQuota> {
        let quota = self.quota(namespace);
        if quota == Quota::default() {
            return Ok(());
        }
        let (mut open, mut had) = (0, Takes::default());
        for id in core.engine.jobs() {
            if let Some((counts, JobState::Proving | JobState::Checking)) = core.engine.counts(id)
                && core.engine.namespace(id) == Some(namespace)
            {
                open += 1;
                had.tasks += tasks_of(&counts);
                had.bytes = had.bytes.saturating_add(bytes_of(core, id));
            }
        }
        allow("open jobs", quota.jobs, open, 1, namespace)?;
        allow("tasks of open jobs", quota.tasks, had.tasks, takes.tasks, namespace)?;
        allow("bytes of inputs of open jobs", quota.bytes, had.bytes, takes.bytes, namespace)
    }

    /// Whether a job may go on: one that is over needs the room of a new one.
    ///
    /// # Errors
    /// The limit that it would pass.
    pub(super) fn check_again(&self, core: &Core, job: JobId) -> Result<(), OverQuota> {
        match core.engine.counts(job) {
            Some((counts, JobState::Complete | JobState::Failed { .. } | JobState::Cancelled)) => {
                let takes = Takes { tasks: tasks_of(&counts), bytes: bytes_of(core, job) };
                self.check(core, core.engine.namespace(job).unwrap_or_default(), takes)
            }
            _ => Ok(()),
        }
    }
}

fn tasks_of(counts: &[Counts; 5]) -> u64 {
    counts.iter().map(|kind| u64::from(kind.total)).sum()
}

fn bytes_of(core: &Core, job: JobId) -> u64 {
    core.jobs.get(&job).and_then(|entry| entry.input_bytes).unwrap_or(0)
}

fn allow(
    limit: &'static str,
    allowed: Option<u64>,
    has: u64,
    more: u64,
    namespace: &str,
) -> Result<(), OverQuota> {
    match allowed {
        Some(allowed) if more > 0 && has.saturating_add(more) > allowed => {
            Err(OverQuota { limit, namespace: namespace.to_owned(), allowed, has, more })
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
            (Some(3), 4, 0, false),
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
        let quota = |jobs| Quota { jobs, ..Quota::default() };
        let quotas = Quotas { each: quota(Some(1)), of: [("a".to_owned(), quota(None))].into() };
        assert_eq!((quotas.quota("a"), quotas.quota("b")), (quota(None), quota(Some(1))));
    }
}
