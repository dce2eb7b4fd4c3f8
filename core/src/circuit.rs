//! The kinds of proof and the circuits that make them.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The five kinds of proof of a block's tree, from its leaves to its root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Execution of one public call.
    Vm,
    /// One step of a transaction: verifies a call's `vm` proof and the step before.
    Kernel,
    /// One whole transaction: verifies its last kernel (or, without calls, its private proof).
    Base,
    /// Two neighbouring ranges of transactions joined.
    Merge,
    /// The block: the last join, bound to block number, chain and prover.
    Root,
}

impl Kind {
    /// All kinds, leaves first.
    pub const ALL: [Kind; 5] = [Kind::Vm, Kind::Kernel, Kind::Base, Kind::Merge, Kind::Root];

    /// The kind's name as users and metrics see it.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Vm => "vm",
            Kind::Kernel => "kernel",
            Kind::Base => "base",
            Kind::Merge => "merge",
            Kind::Root => "root",
        }
    }

    /// A stable small number, as in [`Kind::ALL`] and on the wire.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The kind with this [`Kind::index`].
    pub fn from_index(index: usize) -> Option<Self> {
        Self::ALL.get(index).copied()
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Some of the kinds, as a worker takes them. Sets of fewer kinds are less than sets of more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KindSet(u8);

impl KindSet {
    /// No kind.
    pub const NONE: Self = Self(0);
    /// All kinds.
    pub const ALL: Self = Self((1 << Kind::ALL.len()) - 1);

    /// One kind alone.
    pub const fn of(kind: Kind) -> Self {
        Self(1 << kind.index())
    }

    /// Its bits: that of a kind is the one at its [`Kind::index`].
    pub const fn bits(self) -> u32 {
        self.0 as u32
    }

    /// The set with these [`KindSet::bits`]; `None` if there are others than those of kinds.
    pub const fn from_bits(bits: u32) -> Option<Self> {
        if bits > Self::ALL.0 as u32 { None } else { Some(Self(bits as u8)) }
    }

    /// Whether the kind is one of them.
    pub const fn contains(self, kind: Kind) -> bool {
        self.0 & Self::of(kind).0 != 0
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The kinds of either set.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The kinds of both sets.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The kinds of this set that the other has not.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The kinds, leaves first.
    pub fn iter(self) -> impl Iterator<Item = Kind> {
        Kind::ALL.into_iter().filter(move |kind| self.contains(*kind))
    }
}

impl Default for KindSet {
    fn default() -> Self {
        Self::ALL
    }
}

impl Ord for KindSet {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0.count_ones(), self.0).cmp(&(other.0.count_ones(), other.0))
    }
}

impl PartialOrd for KindSet {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl FromIterator<Kind> for KindSet {
    fn from_iter<I: IntoIterator<Item = Kind>>(kinds: I) -> Self {
        kinds.into_iter().fold(Self::NONE, |set, kind| set.or(Self::of(kind)))
    }
}

/// Written `vm,kernel`.
impl fmt::Display for KindSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.iter().map(Kind::name).collect::<Vec<_>>().join(","))
    }
}

/// Why a text is no list of kinds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no kind of proof: expected one or several of vm, kernel, base, merge and root, with commas between them"
)]
pub struct BadKinds(String);

impl FromStr for KindSet {
    type Err = BadKinds;
    fn from_str(text: &str) -> Result<Self, BadKinds> {
        let kind = |name: &str| {
            let name = name.trim();
            let found = Kind::ALL.into_iter().find(|kind| kind.name() == name);
            found.ok_or_else(|| BadKinds(name.chars().take(40).collect()))
        };
        text.split(',').map(kind).collect()
    }
}

/// One circuit of the profile, with its own verification key.
///
/// Written `vm`, `kernel/K` (K-th call of its transaction, from 1), `base`, `merge/H`, `root/H`
/// where H is the height of the range it proves: ceil(log2(transactions)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Circuit {
    /// One public call.
    Vm,
    /// The `position`-th call of its transaction, from 1.
    Kernel {
        /// 1 ≤ position ≤ the profile's maximum of calls.
        position: u8,
    },
    /// One transaction.
    Base,
    /// A range of transactions of this height, from 1.
    Merge {
        /// ceil(log2(transactions of the range)).
        height: u8,
    },
    /// The whole block; height 0 is a block of one transaction.
    Root {
        /// ceil(log2(transactions of the block)).
        height: u8,
    },
}

impl Circuit {
    /// The kind of proof this circuit makes.
    pub const fn kind(self) -> Kind {
        match self {
            Circuit::Vm => Kind::Vm,
            Circuit::Kernel { .. } => Kind::Kernel,
            Circuit::Base => Kind::Base,
            Circuit::Merge { .. } => Kind::Merge,
            Circuit::Root { .. } => Kind::Root,
        }
    }

    /// The number after the slash: a kernel's position or a height; 0 for `vm` and `base`.
    pub const fn param(self) -> u8 {
        match self {
            Circuit::Vm | Circuit::Base => 0,
            Circuit::Kernel { position } => position,
            Circuit::Merge { height } | Circuit::Root { height } => height,
        }
    }

    /// The circuit of a kind and its [`Circuit::param`].
    pub const fn new(kind: Kind, param: u8) -> Self {
        match kind {
            Kind::Vm => Circuit::Vm,
            Kind::Kernel => Circuit::Kernel { position: param },
            Kind::Base => Circuit::Base,
            Kind::Merge => Circuit::Merge { height: param },
            Kind::Root => Circuit::Root { height: param },
        }
    }
}

impl fmt::Display for Circuit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Circuit::Vm | Circuit::Base => f.pad(self.kind().name()),
            _ => f.pad(&format!("{}/{}", self.kind().name(), self.param())),
        }
    }
}

/// Why a text names no circuit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no circuit: expected vm, kernel/K, base, merge/H or root/H")]
pub struct BadCircuit(String);

impl FromStr for Circuit {
    type Err = BadCircuit;
    fn from_str(text: &str) -> Result<Self, BadCircuit> {
        let bad = || BadCircuit(text.chars().take(40).collect());
        let (name, param) = match text.split_once('/') {
            Some((name, param)) => (name, Some(param.parse::<u8>().map_err(|_| bad())?)),
            None => (text, None),
        };
        match (name, param) {
            ("vm", None) => Ok(Circuit::Vm),
            ("base", None) => Ok(Circuit::Base),
            ("kernel", Some(position)) if position > 0 => Ok(Circuit::Kernel { position }),
            ("merge", Some(height)) if height > 0 => Ok(Circuit::Merge { height }),
            ("root", Some(height)) => Ok(Circuit::Root { height }),
            _ => Err(bad()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn circuits_are_written_and_read_back() {
        for text in ["vm", "kernel/1", "kernel/7", "base", "merge/1", "root/0", "root/16"] {
            let circuit: Circuit = text.parse().unwrap();
            assert_eq!(circuit.to_string(), text);
            assert_eq!(Circuit::new(circuit.kind(), circuit.param()), circuit);
        }
        for text in ["", "vm/1", "kernel", "kernel/0", "merge/0", "merge/999", "tree/1"] {
            assert!(text.parse::<Circuit>().is_err(), "{text}");
        }
    }

    #[test]
    fn sets_of_kinds_are_written_and_read_back() {
        for (text, bits) in [("vm", 1), ("kernel", 2), ("vm,root", 17), ("vm,kernel,base,merge,root", 31)] {
            let set: KindSet = text.parse().unwrap();
            assert_eq!((set.to_string().as_str(), set.bits()), (text, bits));
            assert_eq!(KindSet::from_bits(bits), Some(set));
            assert_eq!(set.iter().collect::<KindSet>(), set);
            assert!(Kind::ALL.into_iter().all(|kind| set.contains(kind) == (bits >> kind.index() & 1 == 1)));
        }
        assert_eq!("root, vm".parse(), KindSet::from_bits(17).ok_or(BadKinds(String::new())));
        for text in ["", "vm,", "tree", "vm kernel"] {
            assert!(text.parse::<KindSet>().is_err(), "{text}");
        }
        assert_eq!((KindSet::from_bits(0), KindSet::from_bits(32)), (Some(KindSet::NONE), None));
        assert_eq!(KindSet::default(), KindSet::ALL);
        let sets = ["root", "vm,kernel", "kernel,base,merge"].map(|text| text.parse::<KindSet>().unwrap());
        assert!(sets.is_sorted() && sets.iter().all(|set| *set < KindSet::ALL), "fewer kinds first");
    }
}
