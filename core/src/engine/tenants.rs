//! Tenants: the namespaces of the jobs in the books.

use super::table::At;
use super::workers::Want;
use super::{Engine, Takers};
use crate::circuit::Kind;
use crate::profile::Needs;
use std::collections::BTreeMap;

/// A queue's lane: what is taken by the same workers.
pub(crate) type Lane = (u32, Kind);

/// Namespaces that have jobs in the books, by number; numbers are used again.
#[derive(Debug, Default)]
pub(crate) struct Tenants {
    /// Numbers, and how many jobs there are.
    by_name: BTreeMap<String, (u32, u32)>,
    names: Vec<String>,
    vacant: Vec<u32>,
}

impl Tenants {
    /// A job of this namespace came; the namespace's number.
    pub(crate) fn enter(&mut self, name: &str) -> u32 {
        if let Some((number, jobs)) = self.by_name.get_mut(name) {
            *jobs += 1;
            return *number;
        }
        let number = self.vacant.pop().unwrap_or(self.names.len() as u32);
        if number as usize == self.names.len() {
            self.names.push(String::new());
        }
        name.clone_into(&mut self.names[number as usize]);
        self.by_name.insert(name.to_owned(), (number, 1));
        number
    }

    /// A job of this namespace left the books.
    pub(crate) fn leave(&mut self, name: &str) {
        let Some((number, jobs)) = self.by_name.get_mut(name) else { return };
        *jobs -= 1;
        if *jobs == 0 {
            self.vacant.push(*number);
            self.by_name.remove(name);
        }
    }

    pub(crate) fn name(&self, number: u32) -> &str {
        &self.names[number as usize]
    }
}

impl Engine {
    /// Takes a job out of the books.
    pub(crate) fn drop_job(&mut self, slot: u32) {
        if let Some(job) = self.jobs.slots[slot as usize].take() {
            self.jobs.by_id.remove(&job.spec.id);
            self.tenants.leave(&job.spec.namespace);
        }
    }

    /// What a worker has to take to be given a task.
    pub(crate) fn want(&self, at: At) -> Want<'_> {
        let job = &self.jobs[at.job];
        (job.kind(at.node), &job.spec.namespace)
    }

    /// The lane of a task.
    pub(crate) fn lane(&self, at: At) -> Lane {
        let job = &self.jobs[at.job];
        (job.tenant, job.kind(at.node))
    }

    /// Whether a worker could run a task of a lane with these needs now.
    pub(crate) fn is_free_for(&self, needs: Needs, (tenant, kind): Lane) -> bool {
        let free = |takers: &Takers| takers.free_for(needs).next().is_some();
        self.workers.takers_of(kind, self.tenants.name(tenant)).any(free)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_keeps_its_number_while_it_has_jobs() {
        let mut tenants = Tenants::default();
        assert_eq!(["a", "b", "a", ""].map(|name| tenants.enter(name)), [0, 1, 0, 2]);
        tenants.leave("a");
        assert_eq!((tenants.enter("c"), tenants.name(0)), (3, "a"), "a has another job");
        tenants.leave("a");
        tenants.leave("a");
        assert_eq!((tenants.enter("d"), tenants.name(0)), (0, "d"));
    }
}
