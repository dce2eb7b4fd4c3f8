//! Tenants: the namespaces of the jobs in the books.

use super::shares::{Pace, Usage};
use super::table::At;
use super::workers::Want;
use super::{Engine, Lease, Millis};
use std::collections::BTreeMap;

/// Namespaces that have jobs in the books, by number; numbers are used again.
#[derive(Debug)]
pub(crate) struct Tenants {
    by_name: BTreeMap<String, u32>,
    slots: Vec<Tenant>,
    vacant: Vec<u32>,
    /// Those of which a job leases, by number.
    active: Vec<u32>,
    pace: Pace,
}

#[derive(Debug)]
struct Tenant {
    name: String,
    /// Jobs in the books.
    jobs: u32,
    usage: Usage,
    /// Jobs that lease, highest priority first, then by id.
    ranked: Vec<u32>,
}

impl Tenants {
    /// No namespaces yet; the largest task takes `most` cores.
    pub(crate) fn new(most: u16) -> Self {
        let pace = Pace::new(most);
        Self { by_name: BTreeMap::new(), slots: vec![], vacant: vec![], active: vec![], pace }
    }

    /// A job of this namespace came; the namespace's number. It has this weight if it is new.
    pub(crate) fn enter(&mut self, name: &str, weight: u32, now: Millis) -> u32 {
        if let Some(number) = self.by_name.get(name) {
            self.slots[*number as usize].jobs += 1;
            return *number;
        }
        let usage = Usage::new(weight, &self.pace, now);
        let tenant = Tenant { name: name.to_owned(), jobs: 1, usage, ranked: vec![] };
        let number = match self.vacant.pop() {
            Some(number) => {
                self.slots[number as usize] = tenant;
                number
            }
            None => {
                self.slots.push(tenant);
                self.slots.len() as u32 - 1
            }
        };
        self.by_name.insert(name.to_owned(), number);
        number
    }

    /// A job of this namespace, which has no leases and takes none, left the books.
    pub(crate) fn leave(&mut self, number: u32) {
        let tenant = &mut self.slots[number as usize];
        tenant.jobs -= 1;
        if tenant.jobs == 0 {
            self.by_name.remove(&tenant.name);
            self.vacant.push(number);
        }
    }

    pub(crate) fn name(&self, number: u32) -> &str {
        &self.slots[number as usize].name
    }

    /// Those that have jobs in the books.
    pub(crate) fn numbers(&self) -> Vec<u32> {
        self.by_name.values().copied().collect()
    }

    /// Those of which a job leases, by number.
    pub(crate) fn active(&self) -> &[u32] {
        &self.active
    }

    /// Jobs of a namespace that lease, highest priority first, then by id.
    pub(crate) fn ranked(&self, number: u32) -> &[u32] {
        &self.slots[number as usize].ranked
    }

    /// These are all jobs that lease, by namespace.
    pub(crate) fn set_ranked(&mut self, of: BTreeMap<u32, Vec<u32>>, now: Millis) {
        let before = std::mem::replace(&mut self.active, of.keys().copied().collect());
        before.iter().for_each(|tenant| self.slots[*tenant as usize].ranked = vec![]);
        let fresh = |tenant: &u32| !before.contains(tenant);
        self.begin(of.keys().copied().filter(fresh).collect(), now);
        for (tenant, ranked) in of {
            self.slots[tenant as usize].ranked = ranked;
        }
    }

    pub(crate) fn usage(&mut self, number: u32) -> (&mut Usage, &mut Pace) {
        (&mut self.slots[number as usize].usage, &mut self.pace)
    }

    /// The namespaces that want machines weigh so much together from now on.
    pub(crate) fn go_on_with(&mut self, weights: u64, now: Millis) {
        self.pace.go_on_with(weights, now);
    }

    pub(crate) fn remember(&mut self, memory: Millis) {
        self.pace.remember(memory);
    }

    pub(crate) fn level(&self, number: u32, now: Millis) -> f64 {
        self.slots[number as usize].usage.level(&self.pace, now)
    }

    /// Cores that a namespace's leases take, for the invariant checker.
    pub(crate) fn cores(&self, number: u32) -> u64 {
        self.slots[number as usize].usage.cores()
    }
}

impl Engine {
    /// Takes a job that has its tree out of the books.
    pub(crate) fn drop_job(&mut self, slot: u32) {
        if let Some(job) = self.jobs.remove(slot) {
            self.tenants.leave(job.tenant);
            self.queued.iter_mut().for_each(|queued| queued.forget(slot));
            self.hedges.forget(slot);
            self.places.leave(slot, job.tree);
        }
    }

    /// What a worker has to take to be given a task.
    pub(crate) fn want(&self, at: At) -> Want<'_> {
        let job = &self.jobs[at.job];
        (job.kind(at.node), &job.spec.namespace)
    }

    /// Jobs that lease, in the order in which they would get a machine: by turn of their namespaces, then highest
    /// priority first.
    pub(crate) fn jobs_in_turn(&self) -> Vec<u32> {
        let tenants = self.in_turn().into_iter();
        tenants.flat_map(|tenant| self.tenants.ranked(tenant).iter().copied()).collect()
    }

    /// A lease's cores, by the namespace of the job that it is for.
    pub(crate) fn share_of(&self, lease: &Lease) -> (u32, u16) {
        (self.jobs[lease.at.job].tenant, self.classes[usize::from(lease.class)].cores)
    }

    /// Makes a lease that of another place of its task.
    pub(crate) fn move_lease(&mut self, slot: u32, at: At) {
        let (tenant, cores) = self.share_of(&self.leases[slot]);
        self.tenants.give_back(tenant, cores, self.now);
        self.leases[slot].at = at;
        let lease = self.leases[slot];
        let (tenant, cores) = self.share_of(&lease);
        self.tenants.take(tenant, cores, self.now);
        if lease.started.is_none() {
            self.list_queued(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_keeps_its_number_while_it_has_jobs() {
        let mut tenants = Tenants::new(8);
        assert_eq!(["a", "b", "a", ""].map(|name| tenants.enter(name, 1, 0)), [0, 1, 0, 2]);
        tenants.leave(0);
        assert_eq!((tenants.enter("c", 1, 0), tenants.name(0)), (3, "a"), "a has another job");
        tenants.leave(0);
        assert_eq!((tenants.enter("d", 1, 0), tenants.name(0)), (0, "d"));
    }
}
