//! Field elements, words and hashes, natively and in circuits.

use arborist_core::block::Word;
use plonky2::field::goldilocks_field::GoldilocksField;
use plonky2::field::types::{Field, Field64, PrimeField64};
use plonky2::hash::hash_types::{HashOut, HashOutTarget};
use plonky2::hash::poseidon::PoseidonHash;
use plonky2::iop::target::Target;
use plonky2::plonk::circuit_builder::CircuitBuilder;
use plonky2::plonk::circuit_data::{CircuitData, CommonCircuitData, VerifierOnlyCircuitData};
use plonky2::plonk::config::{Hasher, PoseidonGoldilocksConfig};
use plonky2::plonk::proof::ProofWithPublicInputs;

/// Degree of the field extension.
pub(crate) const D: usize = 2;
/// The field of all circuits: integers modulo 2^64 − 2^32 + 1.
pub(crate) type F = GoldilocksField;
/// The proof system's configuration.
pub(crate) type C = PoseidonGoldilocksConfig;
pub(crate) type Builder = CircuitBuilder<F, D>;
pub(crate) type Data = CircuitData<F, C, D>;
pub(crate) type Common = CommonCircuitData<F, D>;
pub(crate) type VerifierKey = VerifierOnlyCircuitData<C, D>;
pub(crate) type InnerProof = ProofWithPublicInputs<F, C, D>;

/// What a hash is of. Each use has a tag of its own, so that no digest of one can stand for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Domain {
    /// A public call: its slot and arguments.
    Call = 1,
    /// The running hash over a transaction's calls.
    Calls = 2,
    /// The public key of a sender: the hash of its secret.
    Key = 3,
    /// A transaction.
    Transaction = 4,
    /// An inner node of the transactions' commitment.
    Commitment = 5,
}

/// A number as a field element; `None` when it is not below the field's order.
pub(crate) fn element(value: u64) -> Option<F> {
    (value < F::ORDER).then(|| F::from_canonical_u64(value))
}

/// A word as four field elements; `None` when one is not below the field's order.
pub(crate) fn from_word(word: &Word) -> Option<[F; 4]> {
    let mut out = [F::ZERO; 4];
    for (slot, bytes) in out.iter_mut().zip(word.0.chunks_exact(8)) {
        *slot = element(u64::from_le_bytes(bytes.try_into().ok()?))?;
    }
    Some(out)
}

/// Four field elements as a word.
pub(crate) fn to_word(elements: [F; 4]) -> Word {
    let mut out = [0; 32];
    for (bytes, element) in out.chunks_exact_mut(8).zip(elements) {
        bytes.copy_from_slice(&element.to_canonical_u64().to_le_bytes());
    }
    Word(out)
}

/// Any 32 bytes as a word of valid field elements: each 8 bytes reduced modulo the field's order.
pub(crate) fn reduced(bytes: [u8; 32]) -> Word {
    let mut out = [F::ZERO; 4];
    for (slot, chunk) in out.iter_mut().zip(bytes.chunks_exact(8)) {
        let mut eight = [0; 8];
        eight.copy_from_slice(chunk);
        *slot = F::from_noncanonical_u64(u64::from_le_bytes(eight));
    }
    to_word(out)
}

/// The word that stands for a prover's name in public inputs: its BLAKE3 hash, reduced to field elements.
pub fn prover_word(name: &str) -> Word {
    reduced(*blake3::hash(name.as_bytes()).as_bytes())
}

/// The Poseidon hash of the parts under a domain's tag.
pub(crate) fn hash(domain: Domain, parts: &[&[F]]) -> [F; 4] {
    let mut input = vec![F::from_canonical_u64(domain as u64)];
    input.extend(parts.concat());
    PoseidonHash::hash_no_pad(&input).elements
}

/// [`hash`] in a circuit.
pub(crate) fn hash_targets(b: &mut Builder, domain: Domain, parts: &[&[Target]]) -> [Target; 4] {
    let mut input = vec![b.constant(F::from_canonical_u64(domain as u64))];
    input.extend(parts.concat());
    b.hash_n_to_hash_no_pad::<PoseidonHash>(input).elements
}

/// Four new targets.
pub(crate) fn virtual_word(b: &mut Builder) -> [Target; 4] {
    b.add_virtual_target_arr()
}

/// Two nodes' parent in the state tree.
pub(crate) fn parent(left: [F; 4], right: [F; 4]) -> [F; 4] {
    PoseidonHash::two_to_one(HashOut { elements: left }, HashOut { elements: right }).elements
}

/// A leaf of the state tree.
pub(crate) fn leaf(value: [F; 4]) -> [F; 4] {
    PoseidonHash::hash_leaf(&value).elements
}

/// [`leaf`] in a circuit.
pub(crate) fn leaf_target(b: &mut Builder, value: [Target; 4]) -> HashOutTarget {
    b.hash_leaf::<PoseidonHash>(value.to_vec())
}

/// Field elements as the integers of a backend's public inputs.
pub(crate) fn to_integers(elements: &[F]) -> Vec<u64> {
    elements.iter().map(PrimeField64::to_canonical_u64).collect()
}

/// The reverse of [`to_integers`]; `None` when one is not below the field's order.
pub(crate) fn to_elements(integers: &[u64]) -> Option<Vec<F>> {
    integers.iter().map(|i| element(*i)).collect()
}
