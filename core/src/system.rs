//! Proof systems: what makes a proof is a part of what it is.

use crate::ids::ArtifactHash;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// The backend of the embedded circuits.
pub const PLONKY2: &str = "plonky2";
/// The backend of plug-ins.
pub const PROCESS: &str = "process";
/// The backend whose proofs prove nothing.
pub const FAKE: &str = "fake";

/// What makes the proofs of a tree. The proofs of one system never stand for those of another: it is in every task's
/// id, jobs are of one system, and durations are learned for each.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProofSystem {
    /// The backend: `plonky2`, `process` or `fake`.
    pub backend: String,
    /// Name with version of the circuits, e.g. `mini-rollup-v1`. The embedded ones have their keys pinned under it.
    pub circuits: String,
    /// For a plug-in: see [`plugin_keys`].
    pub keys: Option<ArtifactHash>,
}

impl ProofSystem {
    /// Whether its jobs need inputs: all but the fake backend prove something.
    pub fn needs_inputs(&self) -> bool {
        self.backend != FAKE
    }

    /// All of it in one line, by which what is learned of it is kept.
    pub fn name(&self) -> String {
        let keys = self.keys.map(|keys| format!(" {keys}")).unwrap_or_default();
        format!("{} {}{keys}", self.backend, self.circuits)
    }

    /// Its parts as bytes that no other system has.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![];
        for part in [self.backend.as_bytes(), self.circuits.as_bytes()] {
            out.extend_from_slice(&(part.len() as u64).to_le_bytes());
            out.extend_from_slice(part);
        }
        out.extend(self.keys.iter().flat_map(|keys| keys.0));
        out
    }
}

/// For people: `plonky2 (mini-rollup-v1)`, `process (mini-rollup-v1, keys 5f3a…)`.
impl fmt::Display for ProofSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.keys {
            Some(keys) => write!(f, "{} ({}, keys {})", self.backend, self.circuits, keys.short()),
            None => write!(f, "{} ({})", self.backend, self.circuits),
        }
    }
}

/// What a plug-in's proofs are bound to: its name and the verification keys that are pinned for it, by circuit. Where none
/// are pinned nobody knows whether another version makes the same proofs, so its version stands for them.
pub fn plugin_keys(name: &str, version: &str, keys: &BTreeMap<String, [u8; 32]>) -> ArtifactHash {
    let mut hasher = blake3::Hasher::new_derive_key("arborist plug-in keys v1");
    let mut add = |part: &[u8]| {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    };
    add(name.as_bytes());
    if keys.is_empty() {
        add(version.as_bytes());
    }
    for (circuit, hash) in keys {
        add(circuit.as_bytes());
        add(hash);
    }
    ArtifactHash(*hasher.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system(backend: &str, circuits: &str, keys: Option<[u8; 32]>) -> ProofSystem {
        ProofSystem { backend: backend.into(), circuits: circuits.into(), keys: keys.map(ArtifactHash) }
    }

    #[test]
    fn systems_that_differ_have_other_bytes() {
        let all = [
            system(PLONKY2, "c-v1", None),
            system(FAKE, "c-v1", None),
            system(PROCESS, "c-v1", None),
            system(PROCESS, "c-v1", Some([1; 32])),
            system(PROCESS, "c-v1", Some([2; 32])),
            system(PLONKY2, "c-v2", None),
            system("plonky", "2c-v1", None),
        ];
        let bytes: std::collections::BTreeSet<_> = all.iter().map(ProofSystem::to_bytes).collect();
        assert_eq!(bytes.len(), all.len());
    }

    #[test]
    fn a_plugin_is_its_keys_and_without_them_its_version() {
        let keys = |hash| BTreeMap::from([("vm".to_owned(), [hash; 32])]);
        let none = BTreeMap::new();
        assert_eq!(plugin_keys("p", "1", &keys(1)), plugin_keys("p", "2", &keys(1)), "the keys say it all");
        let differ = [
            plugin_keys("p", "1", &keys(1)),
            plugin_keys("p", "1", &keys(2)),
            plugin_keys("q", "1", &keys(1)),
            plugin_keys("p", "1", &none),
            plugin_keys("p", "2", &none),
        ];
        let distinct: std::collections::BTreeSet<_> = differ.iter().collect();
        assert_eq!(distinct.len(), differ.len());
    }
}
