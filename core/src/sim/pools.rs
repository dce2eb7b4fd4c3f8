//! What a simulation is told about machines and proofs.

use crate::circuit::{Kind, KindSet};
use crate::profile::{Needs, Profile};

/// A number of equal machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    /// How many machines.
    pub count: u32,
    /// What each has.
    pub capacity: Needs,
    /// Kinds that each takes.
    pub kinds: KindSet,
}

impl Pool {
    /// Machines that take all kinds.
    pub const fn of_all_kinds(count: u32, capacity: Needs) -> Self {
        Self { count, capacity, kinds: KindSet::ALL }
    }

    /// Whether these machines run proofs of a kind that needs this.
    pub fn runs(&self, kind: Kind, needs: &Needs) -> bool {
        self.count > 0 && self.kinds.contains(kind) && needs.fit_into(&self.capacity) > 0
    }
}

/// What a proof of each kind takes, by [`Kind::index`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Costs {
    /// Of a machine.
    pub needs: [Needs; 5],
    /// Of time, in milliseconds (or any other unit: only sums are made of it).
    pub millis: [u32; 5],
}

impl From<&Profile> for Costs {
    fn from(profile: &Profile) -> Self {
        Self { needs: profile.needs, millis: profile.first_millis }
    }
}

impl Costs {
    /// The same needs, with every proof taking one unit of time.
    pub fn in_proofs(self) -> Self {
        Self { millis: [1; 5], ..self }
    }

    /// How long a proof of this kind takes.
    pub const fn millis_of(&self, kind: Kind) -> u64 {
        self.millis[kind.index()] as u64
    }
}

/// Kinds grouped by equal needs and by who takes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Classes {
    /// The class of each kind, by [`Kind::index`].
    pub of_kind: [u8; 5],
    /// What a proof of each class needs, ascending; equal where different machines take them.
    pub needs: Vec<Needs>,
    /// The kinds of each class.
    kinds: Vec<KindSet>,
}

impl Classes {
    /// Groups the kinds as these machines tell them apart.
    pub fn new(needs: &[Needs; 5], pools: &[Pool]) -> Self {
        let key = |kind: Kind| {
            let own = needs[kind.index()];
            (own, pools.iter().map(|pool| pool.runs(kind, &own)).collect::<Vec<_>>())
        };
        let keys = Kind::ALL.map(key);
        let mut classes = keys.to_vec();
        classes.sort_unstable();
        classes.dedup();
        let of_kind = keys.map(|own| classes.partition_point(|c| *c < own) as u8);
        let kinds_of =
            |class| Kind::ALL.into_iter().filter(|k| usize::from(of_kind[k.index()]) == class).collect();
        let kinds = (0..classes.len()).map(kinds_of).collect();
        Self { of_kind, needs: classes.into_iter().map(|(needs, _)| needs).collect(), kinds }
    }

    /// Whether no two classes have the same needs.
    pub fn differ_in_needs(&self) -> bool {
        self.needs.windows(2).all(|two| two[0] != two[1])
    }

    /// Whether these machines run proofs of a class: if they run one of its kinds they run all.
    pub fn run_on(&self, class: usize, pool: &Pool) -> bool {
        self.kinds[class].iter().any(|kind| pool.runs(kind, &self.needs[class]))
    }

    /// The class of a kind.
    pub const fn of(&self, kind: Kind) -> usize {
        self.of_kind[kind.index()] as usize
    }
}

impl Needs {
    /// How many proofs with these needs a machine of this capacity runs at once.
    pub fn fit_into(&self, capacity: &Needs) -> u32 {
        let cores = u32::from(capacity.cores).checked_div(self.cores.into()).unwrap_or(u32::MAX);
        let memory = capacity.memory_mib.checked_div(self.memory_mib).unwrap_or(u32::MAX);
        // Without any needs there is no natural limit; one that keeps sums small serves as well.
        cores.min(memory).min(u32::from(u16::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_that_the_same_machines_run_are_one_class() {
        let needs = Profile::rfp().needs;
        let pool =
            |kinds: &str, capacity| Pool { kinds: kinds.parse().unwrap(), ..Pool::of_all_kinds(1, capacity) };
        let (small, large) = (needs[1], needs[0]);
        let all = Pool::of_all_kinds(3, small);
        for (pools, classes) in [
            (vec![], [1, 0, 0, 0, 0]),
            (vec![all], [1, 0, 0, 0, 0]),
            (vec![all, Pool { count: 0, ..pool("base", small) }], [1, 0, 0, 0, 0]),
            (vec![pool("vm", large), pool("kernel,base,merge,root", small)], [1, 0, 0, 0, 0]),
            // `vm` alone tells nothing apart where no vm fits
            (vec![all, pool("vm", small)], [1, 0, 0, 0, 0]),
            (vec![all, pool("vm,root", large)], [2, 0, 0, 0, 1]),
            (vec![pool("kernel", small), pool("base,merge", small), all], [3, 2, 1, 1, 0]),
        ] {
            assert_eq!(Classes::new(&needs, &pools).of_kind, classes, "{pools:?}");
        }
    }
}
