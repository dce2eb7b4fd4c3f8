//! `base`: one whole transaction. It verifies its last kernel, or, without calls, its private proof.

use crate::field::{self, Data, F, InnerProof, VerifierKey};
use crate::kernel::MAX_CALLS;
use crate::keys::{KeyError, Keys, Shape};
use crate::layout::{KernelInputs, RangeInputs};
use crate::link::Broken;
use crate::recursion::{self, ProofTarget};
use arborist_core::circuit::Circuit;
use plonky2::field::types::Field;
use plonky2::iop::target::Target;
use plonky2::iop::witness::{PartialWitness, WitnessWrite};
use plonky2::plonk::circuit_data::VerifierCircuitTarget;

/// The circuit's witness.
pub(crate) struct BaseTargets {
    kernel: ProofTarget,
    key: VerifierCircuitTarget,
    /// The state that a transaction without calls leaves as it is.
    state: [Target; 4],
}

/// What `base` states of a kernel, and the rule it breaks, if any. A transaction without calls takes the
/// `state` it stands at.
pub(crate) fn of(kernel: &KernelInputs<F>, state: [F; 4]) -> (RangeInputs<F>, Result<(), Broken>) {
    let (before, after) =
        if kernel.count == F::ZERO { (state, state) } else { (kernel.before, kernel.after) };
    let complete = if kernel.acc == kernel.calls_commit {
        Ok(())
    } else {
        let reason = format!("its {} calls are not those that the transaction asks for", kernel.count);
        Err(Broken { child: 0, reason })
    };
    (RangeInputs { before, after, commitment: kernel.tx_hash, count: F::ONE }, complete)
}

/// Builds the circuit, padded to the shape of base and merge if that is known.
pub(crate) fn build(keys: &Keys) -> Result<(Data, BaseTargets), KeyError> {
    let common = keys.shape(Shape::Kernel)?;
    let set = (0..=MAX_CALLS)
        .map(|position| keys.key(Circuit::Kernel { position }))
        .collect::<Result<Vec<&VerifierKey>, _>>()?;
    let mut b = recursion::new_builder();
    let proof = b.add_virtual_proof_with_pis(common);
    let kernel = KernelInputs::read(&proof.public_inputs).ok_or(KeyError::Layout(Circuit::Base))?;
    // kernel/K states the count K, so the count picks the only key that it can be valid for.
    let key = recursion::pick_key(&mut b, kernel.count, &set);
    b.verify_proof::<field::C>(&proof, &key, common);
    b.connect_array(kernel.acc, kernel.calls_commit);
    let zero = b.zero();
    let no_calls = b.is_equal(kernel.count, zero);
    let state = field::virtual_word(&mut b);
    let before = std::array::from_fn(|i| b.select(no_calls, state[i], kernel.before[i]));
    let after = std::array::from_fn(|i| b.select(no_calls, state[i], kernel.after[i]));
    let count = b.one();
    let inputs = RangeInputs { before, after, commitment: kernel.tx_hash, count };
    b.register_public_inputs(&inputs.to_vec());
    Ok((recursion::finish(b, keys.shape(Shape::Range).ok()), BaseTargets { kernel: proof, key, state }))
}

impl BaseTargets {
    /// Fills in the kernel with its key.
    pub(crate) fn assign(
        &self,
        w: &mut PartialWitness<F>,
        kernel: &InnerProof,
        key: &VerifierKey,
        state: [F; 4],
    ) -> anyhow::Result<()> {
        w.set_proof_with_pis_target(&self.kernel, kernel)?;
        w.set_verifier_data_target(&self.key, key)?;
        w.set_target_arr(&self.state, &state)
    }
}
