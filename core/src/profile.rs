//! Circuit profiles: which circuits a tree is made of and what one proof of each needs.

use crate::circuit::Kind;
use crate::ids::ArtifactHash;
use crate::system::{PLONKY2, ProofSystem};
use serde::{Deserialize, Serialize};

/// What one proof of a kind takes of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Needs {
    /// Processor cores.
    pub cores: u16,
    /// Memory in MiB.
    pub memory_mib: u32,
}

/// A versioned table: circuits by name, what they need, and a first guess of how long they take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// Name with version of the circuits, e.g. `mini-rollup-v1`; part of every task's id.
    pub circuits: String,
    /// What makes the proofs, `plonky2`, `process` or `fake`; part of every task's id.
    pub backend: String,
    /// The keys of a plug-in: see [`crate::system::plugin_keys`]; part of every task's id.
    pub keys: Option<ArtifactHash>,
    /// The most public calls a transaction may have.
    pub max_calls: u8,
    /// What a proof of each kind needs, by [`Kind::index`].
    pub needs: [Needs; 5],
    /// First guess of a proof's duration in milliseconds, by [`Kind::index`]; measured ones replace it.
    pub first_millis: [u32; 5],
}

/// The name of the embedded circuits.
pub const MINI_ROLLUP: &str = "mini-rollup-v1";

impl Profile {
    /// The machine classes of Aztec's request for proposals: `vm` on 32 cores / 64 GB, all else on
    /// 8 cores / 16 GB, about 30 s a proof.
    pub fn rfp() -> Self {
        let small = Needs { cores: 8, memory_mib: 16 << 10 };
        let vm = Needs { cores: 32, memory_mib: 64 << 10 };
        Self {
            circuits: MINI_ROLLUP.to_owned(),
            backend: PLONKY2.to_owned(),
            keys: None,
            max_calls: 7,
            needs: [vm, small, small, small, small],
            first_millis: [30_000; 5],
        }
    }

    /// As [`Profile::rfp`], with what a pod can have of such a machine: system and kubelet keep some, how much on which
    /// cloud says `docs/install.md`. Four small ones go on a machine for `vm`.
    pub fn rfp_pods() -> Self {
        let small = Needs { cores: 7, memory_mib: 12 << 10 };
        let vm = Needs { cores: 30, memory_mib: 52 << 10 };
        Self { needs: [vm, small, small, small, small], ..Self::rfp() }
    }

    /// The embedded circuits on one small machine: a core and 1 GiB a proof (measured: below 0.8 GiB).
    pub fn local() -> Self {
        Self {
            needs: [Needs { cores: 1, memory_mib: 1024 }; 5],
            first_millis: [1_000, 4_500, 4_500, 4_500, 4_500],
            ..Self::rfp()
        }
    }

    /// What makes the proofs of its trees.
    pub fn system(&self) -> ProofSystem {
        ProofSystem { backend: self.backend.clone(), circuits: self.circuits.clone(), keys: self.keys }
    }

    /// What a proof of this kind needs.
    pub const fn needs(&self, kind: Kind) -> Needs {
        self.needs[kind.index()]
    }
}
