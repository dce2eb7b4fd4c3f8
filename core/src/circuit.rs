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
}
