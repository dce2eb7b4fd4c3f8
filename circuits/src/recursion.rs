//! Verifying proofs inside circuits, and giving circuits one shape.

use crate::field::{Builder, C, Common, D, Data, F, VerifierKey};
use plonky2::field::types::Field;
use plonky2::gates::constant::ConstantGate;
use plonky2::gates::gate::GateRef;
use plonky2::gates::noop::NoopGate;
use plonky2::hash::hash_types::{HashOut, HashOutTarget};
use plonky2::hash::poseidon::PoseidonHash;
use plonky2::iop::target::Target;
use plonky2::plonk::circuit_data::{CircuitConfig, VerifierCircuitTarget};
use plonky2::plonk::config::Hasher;
use plonky2::plonk::proof::ProofWithPublicInputsTarget;

/// A child proof's targets.
pub(crate) type ProofTarget = ProofWithPublicInputsTarget<D>;

/// How many keys a child may be picked from: base and merge/1 to merge/15. Always the same, so that all
/// circuits use the same random access gate, the one that the verification of a proof needs anyway.
const KEY_SET: usize = 16;

/// The configuration of every circuit: 100 bits of conjectured security, no zero knowledge.
pub(crate) fn new_builder() -> Builder {
    Builder::new(CircuitConfig::standard_recursion_config())
}

/// Adds a child proof that satisfies one fixed key.
pub(crate) fn verify_fixed(b: &mut Builder, common: &Common, key: &VerifierKey) -> ProofTarget {
    let proof = b.add_virtual_proof_with_pis(common);
    let key = b.constant_verifier_data(key);
    b.verify_proof::<C>(&proof, &key, common);
    proof
}

/// Binds a key given as a witness to the `index`-th of a constant set (at most 16; spare places
/// repeat the last) and returns its targets.
///
/// Only the keys' digests are constants: choosing among whole keys would cost 17 times the constants.
pub(crate) fn pick_key(b: &mut Builder, index: Target, set: &[&VerifierKey]) -> VerifierCircuitTarget {
    let key = b.add_virtual_verifier_data(b.config.fri_config.cap_height);
    let mut elements: Vec<Target> = key.constants_sigmas_cap.0.iter().flat_map(|h| h.elements).collect();
    elements.extend(key.circuit_digest.elements);
    let digest = b.hash_n_to_hash_no_pad::<PoseidonHash>(elements);
    let mut digests: Vec<HashOutTarget> = set.iter().map(|k| b.constant_hash(key_digest(k))).collect();
    if let Some(last) = digests.last().copied() {
        digests.resize(KEY_SET, last);
    }
    let wanted = b.random_access_hash(index, digests);
    b.connect_hashes(digest, wanted);
    key
}

/// The digest that [`pick_key`] compares.
fn key_digest(key: &VerifierKey) -> HashOut<F> {
    let mut elements: Vec<F> = key.constants_sigmas_cap.0.iter().flat_map(|h| h.elements).collect();
    elements.extend(key.circuit_digest.elements);
    PoseidonHash::hash_no_pad(&elements)
}

/// Builds a circuit, padded to the gates and rows of `shape`. The caller checks that the shape came out.
pub(crate) fn finish(mut b: Builder, shape: Option<&Common>) -> Data {
    // A large circuit hides its constants in spare slots of other gates and then lacks this gate,
    // which a small one needs: without it their shapes differ.
    b.add_gate_to_gate_set(GateRef::new(ConstantGate::new(b.config.num_constants)));
    if let Some(shape) = shape {
        for gate in &shape.gates {
            b.add_gate_to_gate_set(gate.clone());
        }
        while b.num_gates() <= 1 << (shape.degree_bits().max(1) - 1) {
            b.add_gate(NoopGate, vec![]);
        }
    }
    b.build::<C>()
}

/// A constant small number.
pub(crate) fn number(b: &mut Builder, value: u64) -> Target {
    b.constant(F::from_canonical_u64(value))
}
