//! Which trees nobody wants any more.

use super::JOB_PREFIX;
use arborist_core::engine::{JobId, JobState};
use arborist_core::ids::TaskId;
use std::collections::HashSet;

/// A tree in the engine's books.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tree {
    pub id: JobId,
    pub name: String,
    pub namespace: String,
    pub root: TaskId,
    pub block: Block,
    pub state: JobState,
}

/// What a tree proves, before its root's task is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Block {
    pub chain_id: u64,
    pub number: u64,
    pub prover: [u8; 32],
}

/// What the jobs of all scopes want.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Root tasks of jobs that go on, in their status or submitted by this process, with the jobs' namespaces.
    pub roots: HashSet<(String, TaskId)>,
    /// Blocks of jobs that go on and whose root task is not known. The operator may have died between the submit
    /// and the write of the status: such a tree is about to be found again.
    pub blocks: HashSet<(String, Block)>,
}

/// Trees to cancel: being proven, submitted for a ProvingJob, and wanted by none. What was submitted by other ways
/// (over HTTP, at the program's start) is not the controller's.
pub(super) fn orphans(trees: &[Tree], wanted: &Wanted) -> Vec<JobId> {
    trees
        .iter()
        .filter(|tree| matches!(tree.state, JobState::Proving | JobState::Checking))
        .filter(|tree| tree.name.starts_with(JOB_PREFIX))
        .filter(|tree| {
            let namespace = || tree.namespace.clone();
            let by_root = wanted.roots.contains(&(namespace(), tree.root));
            !by_root && !wanted.blocks.contains(&(namespace(), tree.block))
        })
        .map(|tree| tree.id)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_runs_for_nobody_is_cancelled() {
        let block = Block { chain_id: 1, number: 2, prover: [3; 32] };
        let other = Block { number: 3, ..block };
        let root = TaskId([1; 32]);
        let named = |name: &str, state| Tree {
            id: JobId(7),
            name: name.into(),
            namespace: "ns".into(),
            root,
            block,
            state,
        };
        let ours = |state| named(&format!("{JOB_PREFIX}ns/name"), state);
        let wanted = |roots: &[TaskId], blocks: &[Block]| Wanted {
            roots: roots.iter().map(|root| ("ns".into(), *root)).collect(),
            blocks: blocks.iter().map(|block| ("ns".into(), *block)).collect(),
        };
        let others =
            Wanted { roots: [("other".into(), root)].into(), blocks: [("other".into(), block)].into() };
        for (case, tree, wanted, orphan) in [
            ("nobody wants it", ours(JobState::Proving), wanted(&[], &[]), true),
            ("its root is being checked", ours(JobState::Checking), wanted(&[], &[]), true),
            ("a job wants its root", ours(JobState::Proving), wanted(&[root], &[]), false),
            ("a job wants another", ours(JobState::Proving), wanted(&[TaskId([2; 32])], &[other]), true),
            ("a job may be about to claim it", ours(JobState::Proving), wanted(&[], &[block]), false),
            ("another namespace wants its root", ours(JobState::Proving), others, true),
            ("it is over", ours(JobState::Complete), wanted(&[], &[]), false),
            ("it is over", ours(JobState::Cancelled), wanted(&[], &[]), false),
            ("it came over HTTP", named("block 2 of chain 1", JobState::Proving), wanted(&[], &[]), false),
        ] {
            let expected = if orphan { vec![JobId(7)] } else { vec![] };
            assert_eq!(orphans(&[tree], &wanted), expected, "{case}");
        }
    }
}
