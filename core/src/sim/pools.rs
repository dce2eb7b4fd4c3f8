//! What a simulation is told about machines and proofs.

use crate::circuit::Kind;
use crate::profile::{Needs, Profile};

/// A number of equal machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    /// How many machines.
    pub count: u32,
    /// What each has.
    pub capacity: Needs,
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

/// Kinds grouped by equal needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Classes {
    /// The class of each kind, by [`Kind::index`].
    pub of_kind: [u8; 5],
    /// What a proof of each class needs, ascending.
    pub needs: Vec<Needs>,
}

impl Classes {
    /// Groups the kinds.
    pub fn new(needs: &[Needs; 5]) -> Self {
        let mut classes = needs.to_vec();
        classes.sort_unstable();
        classes.dedup();
        Self { of_kind: needs.map(|own| classes.partition_point(|c| *c < own) as u8), needs: classes }
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
