//! All jobs: those with their trees by slot, those that are over by number.

use super::past::Past;
use super::table::{At, Job};
use super::{JobId, JobState};
use crate::ids::TaskId;
use hashbrown::HashMap;
use std::collections::BTreeMap;
use std::ops::{Index, IndexMut};

/// Jobs by slot; slots of jobs whose trees went are used again.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    slots: Vec<Option<Box<Job>>>,
    vacant: Vec<u32>,
    pub(super) by_id: BTreeMap<JobId, u32>,
    /// Jobs that are over and have no tree any more; they have no slot.
    past: BTreeMap<JobId, Past>,
    /// All jobs by the task of their root, oldest first.
    roots: HashMap<TaskId, Vec<JobId>>,
    /// Jobs that lease, highest priority first, then by id.
    pub(super) ranked: Vec<u32>,
}

impl Index<u32> for Jobs {
    type Output = Job;
    /// Slots come from this table and are dropped with their job, so there is always one.
    fn index(&self, slot: u32) -> &Job {
        self.slots[slot as usize].as_deref().expect("a job's slot is used while it has its tree")
    }
}

impl IndexMut<u32> for Jobs {
    fn index_mut(&mut self, slot: u32) -> &mut Job {
        self.slots[slot as usize].as_deref_mut().expect("a job's slot is used while it has its tree")
    }
}

impl Jobs {
    /// The slot of a job that has its tree.
    pub(crate) fn slot(&self, id: JobId) -> Option<u32> {
        self.by_id.get(&id).copied()
    }

    /// The job in a slot that may have been left since.
    pub(crate) fn get(&self, slot: u32) -> Option<&Job> {
        self.slots.get(slot as usize)?.as_deref()
    }

    pub(crate) fn past(&self, id: JobId) -> Option<&Past> {
        self.past.get(&id)
    }

    pub(crate) fn past_mut(&mut self, id: JobId) -> Option<&mut Past> {
        self.past.get_mut(&id)
    }

    /// Jobs without trees by number.
    pub(crate) fn all_past(&self) -> impl ExactSizeIterator<Item = &Past> {
        self.past.values()
    }

    /// Whether a job is in the books, with its tree or without.
    pub(crate) fn knows(&self, id: JobId) -> bool {
        self.by_id.contains_key(&id) || self.past.contains_key(&id)
    }

    /// Numbers of all jobs, ascending.
    pub(crate) fn ids(&self) -> Vec<JobId> {
        let mut ids: Vec<JobId> = self.by_id.keys().chain(self.past.keys()).copied().collect();
        ids.sort_unstable();
        ids
    }

    /// Jobs with this task as their root, oldest first.
    pub(crate) fn of_root(&self, root: &TaskId) -> &[JobId] {
        self.roots.get(root).map_or(&[], Vec::as_slice)
    }

    /// All jobs with their trees by id.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (u32, &Job)> {
        self.by_id.values().map(|slot| (*slot, &self[*slot]))
    }

    pub(crate) fn ranked(&self) -> &[u32] {
        &self.ranked
    }

    /// Puts a job with its tree into a slot.
    pub(crate) fn insert(&mut self, job: Box<Job>) -> u32 {
        let (id, root) = (job.spec.id, job.root_id());
        let slot = self.vacant.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() as u32 - 1
        });
        self.slots[slot as usize] = Some(job);
        self.by_id.insert(id, slot);
        self.name_root(root, id);
        slot
    }

    /// Adds a job without a tree.
    pub(crate) fn insert_past(&mut self, past: Past) {
        let (id, root) = (past.view.spec.id, past.root);
        self.past.insert(id, past);
        self.name_root(root, id);
    }

    /// Takes a job with its tree out.
    pub(crate) fn remove(&mut self, slot: u32) -> Option<Box<Job>> {
        let job = self.slots.get_mut(slot as usize)?.take()?;
        self.vacant.push(slot);
        self.by_id.remove(&job.spec.id);
        self.ranked.retain(|ranked| *ranked != slot);
        self.forget_root(&job.root_id(), job.spec.id);
        Some(job)
    }

    /// Takes a job without a tree out.
    pub(crate) fn remove_past(&mut self, id: JobId) -> Option<Past> {
        let past = self.past.remove(&id)?;
        self.forget_root(&past.root, id);
        Some(past)
    }

    fn name_root(&mut self, root: TaskId, id: JobId) {
        let jobs = self.roots.entry(root).or_default();
        if let Err(place) = jobs.binary_search(&id) {
            jobs.insert(place, id);
        }
    }

    fn forget_root(&mut self, root: &TaskId, id: JobId) {
        if let Some(jobs) = self.roots.get_mut(root) {
            jobs.retain(|other| *other != id);
            if jobs.is_empty() {
                self.roots.remove(root);
            }
        }
    }
}

/// Whether a job is over.
pub(crate) fn is_over(state: &JobState) -> bool {
    match state {
        JobState::Proving | JobState::Checking => false,
        JobState::Complete | JobState::Failed { .. } | JobState::Cancelled => true,
    }
}

/// The places where a task's id stands.
pub(crate) enum Copies {
    /// In one job, once.
    One([At; 1]),
    /// Any number.
    Many(Vec<At>),
}

impl Copies {
    pub(crate) fn as_slice(&self) -> &[At] {
        match self {
            Self::One(at) => at,
            Self::Many(all) => all,
        }
    }
}
