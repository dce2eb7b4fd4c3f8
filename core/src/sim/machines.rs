//! Machines with room for several proofs: which takes the next one.

use super::pools::{Classes, Pool};
use crate::circuit::KindSet;
use crate::profile::Needs;
use std::collections::HashMap;

/// Number of a machine, pool by pool.
pub(super) type MachineId = u32;

/// What runs on a machine: its pool and the number of proofs of each class.
type Load = (u16, [u16; 5]);

/// All machines with the same pool and load.
#[derive(Debug, Clone)]
struct Group {
    load: Load,
    members: Vec<MachineId>,
    /// The group after one more or one less proof of a class, once known.
    more: [u32; 5],
    less: [u32; 5],
}

const UNKNOWN: u32 = u32::MAX;

/// Machines by what runs on them. A proof goes to the smallest machine that has room for it, among
/// equal ones to one that takes the fewest kinds, among these to the fullest.
#[derive(Debug, Clone)]
pub(super) struct Machines {
    pools: Vec<Pool>,
    classes: Classes,
    groups: Vec<Group>,
    by_load: HashMap<Load, u32>,
    /// For each class the groups that have room for it, in the order they are asked.
    open: Vec<Vec<u32>>,
    /// For each machine its group and its place among the members.
    at: Vec<(u32, u32)>,
}

impl Machines {
    pub(super) fn new(pools: &[Pool], classes: &Classes) -> Self {
        let open = vec![vec![]; classes.needs.len()];
        let mut all = Self {
            pools: pools.to_vec(),
            classes: classes.clone(),
            groups: vec![],
            by_load: HashMap::new(),
            open,
            at: vec![],
        };
        for (number, pool) in pools.iter().enumerate() {
            let group = all.group((number as u16, [0; 5]));
            for place in 0..pool.count {
                all.groups[group as usize].members.push(all.at.len() as u32);
                all.at.push((group, place));
            }
        }
        all
    }

    /// Takes room for a proof of this class, if any machine has it.
    pub(super) fn take(&mut self, class: usize) -> Option<MachineId> {
        let groups = &self.groups;
        let group = *self.open[class].iter().find(|g| !groups[**g as usize].members.is_empty())?;
        let machine = *self.groups[group as usize].members.last()?;
        let mut next = self.groups[group as usize].more[class];
        if next == UNKNOWN {
            let mut load = self.groups[group as usize].load;
            load.1[class] += 1;
            next = self.group(load);
            self.groups[group as usize].more[class] = next;
        }
        self.move_to(machine, next);
        Some(machine)
    }

    /// Gives the room of a proof of this class back.
    pub(super) fn give_back(&mut self, machine: MachineId, class: usize) {
        let group = self.at[machine as usize].0;
        let mut next = self.groups[group as usize].less[class];
        if next == UNKNOWN {
            let mut load = self.groups[group as usize].load;
            load.1[class] -= 1;
            next = self.group(load);
            self.groups[group as usize].less[class] = next;
        }
        self.move_to(machine, next);
    }

    fn move_to(&mut self, machine: MachineId, group: u32) {
        let (from, place) = self.at[machine as usize];
        let members = &mut self.groups[from as usize].members;
        members.swap_remove(place as usize);
        if let Some(moved) = members.get(place as usize) {
            self.at[*moved as usize].1 = place;
        }
        let members = &mut self.groups[group as usize].members;
        self.at[machine as usize] = (group, members.len() as u32);
        members.push(machine);
    }

    /// The group of a load, made when it is first seen.
    fn group(&mut self, load: Load) -> u32 {
        if let Some(group) = self.by_load.get(&load) {
            return *group;
        }
        let number = self.groups.len() as u32;
        self.groups.push(Group { load, members: vec![], more: [UNKNOWN; 5], less: [UNKNOWN; 5] });
        self.by_load.insert(load, number);
        for class in 0..self.classes.needs.len() {
            if self.has_room(&load, class) {
                let rank = self.preference(number);
                let place = self.open[class].partition_point(|other| self.preference(*other) < rank);
                self.open[class].insert(place, number);
            }
        }
        number
    }

    fn free(&self, load: &Load) -> (u32, u32) {
        let capacity = self.pools[usize::from(load.0)].capacity;
        let (mut cores, mut memory) = (u32::from(capacity.cores), capacity.memory_mib);
        for (count, needs) in load.1.iter().zip(&self.classes.needs) {
            cores -= u32::from(*count) * u32::from(needs.cores);
            memory -= u32::from(*count) * needs.memory_mib;
        }
        (cores, memory)
    }

    fn has_room(&self, load: &Load, class: usize) -> bool {
        if !self.classes.run_on(class, &self.pools[usize::from(load.0)]) {
            return false;
        }
        let (cores, memory) = self.free(load);
        let needs = self.classes.needs[class];
        u32::from(needs.cores) <= cores && needs.memory_mib <= memory && load.1[class] < u16::MAX
    }

    /// Smaller is asked first.
    fn preference(&self, group: u32) -> (Needs, KindSet, u32, u32, u32) {
        let load = &self.groups[group as usize].load;
        let Pool { capacity, kinds, .. } = self.pools[usize::from(load.0)];
        let (cores, memory) = self.free(load);
        (capacity, kinds, cores, memory, group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Profile;

    #[test]
    fn small_proofs_go_to_small_machines_first_and_fill_large_ones() {
        let profile = Profile::rfp();
        let small = Pool::of_all_kinds(1, profile.needs[1]);
        let large = Pool::of_all_kinds(2, profile.needs[0]);
        let classes = Classes::new(&profile.needs, &[large, small]);
        let (small_class, large_class) = (0, 1);
        let mut machines = Machines::new(&[large, small], &classes);
        assert_eq!(machines.take(small_class), Some(2), "the small machine");
        let first = machines.take(small_class).unwrap();
        for _ in 0..3 {
            assert_eq!(machines.take(small_class), Some(first), "fills the machine it opened");
        }
        let other = machines.take(large_class).unwrap();
        assert_ne!(first, other);
        assert_eq!((machines.take(large_class), machines.take(small_class)), (None, None));
        machines.give_back(first, small_class);
        assert_eq!(machines.take(large_class), None, "three quarters are no room for a large one");
        assert_eq!(machines.take(small_class), Some(first));
        machines.give_back(other, large_class);
        assert_eq!(machines.take(large_class), Some(other));
    }

    #[test]
    fn what_fits_nowhere_is_never_placed() {
        let profile = Profile::rfp();
        let tiny = [Pool::of_all_kinds(3, Needs { cores: 4, memory_mib: 1 << 20 })];
        let mut machines = Machines::new(&tiny, &Classes::new(&profile.needs, &tiny));
        assert_eq!((machines.take(0), machines.take(1)), (None, None));
    }

    #[test]
    fn proofs_go_to_those_that_take_their_kind_the_narrowest_first() {
        let needs = Profile::rfp().needs;
        let (small, large) = (needs[1], needs[0]);
        let pool =
            |kinds: &str, capacity| Pool { kinds: kinds.parse().unwrap(), ..Pool::of_all_kinds(1, capacity) };
        let pools =
            [Pool::of_all_kinds(1, small), pool("kernel", small), pool("vm", large), pool("root", large)];
        let classes = Classes::new(&needs, &pools);
        let [vm, kernel, base, _, root] = classes.of_kind.map(usize::from);
        let mut machines = Machines::new(&pools, &classes);
        assert_eq!([kernel, kernel, kernel].map(|c| machines.take(c)), [Some(1), Some(0), None]);
        assert_eq!([base, vm, vm].map(|c| machines.take(c)), [None, Some(2), None]);
        assert_eq!([root; 5].map(|c| machines.take(c)), [Some(3), Some(3), Some(3), Some(3), None]);
        machines.give_back(0, kernel);
        assert_eq!([base, base].map(|c| machines.take(c)), [Some(0), None]);
    }
}
