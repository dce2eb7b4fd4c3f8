//! `kernel/K`: one step of a transaction, and `kernel/0`, the private proof that its sender makes.

use crate::field::{self, Builder, Data, Domain, F, InnerProof};
use crate::keys::{KeyError, Keys, Shape};
use crate::layout::{KernelInputs, VmInputs};
use crate::link::Broken;
use crate::recursion::{self, ProofTarget};
use arborist_core::circuit::Circuit;
use plonky2::field::types::Field;
use plonky2::iop::target::Target;
use plonky2::iop::witness::{PartialWitness, WitnessWrite};

/// The most calls of a transaction.
pub const MAX_CALLS: u8 = 7;

/// The private proof's circuit. It has the kernels' shape, so that a base can take either.
pub(crate) const PRIVATE: Circuit = Circuit::Kernel { position: 0 };

/// The running hash over calls, one call further; it starts from zero.
pub(crate) fn add_call(acc: [F; 4], call_hash: [F; 4]) -> [F; 4] {
    field::hash(Domain::Calls, &[&acc, &call_hash])
}

/// What only the sender knows, and what its transaction asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Order {
    /// The sender's secret.
    pub secret: [F; 4],
    /// Makes two equal orders two transactions.
    pub nonce: F,
    /// Running hash over the calls.
    pub calls_commit: [F; 4],
}

impl Order {
    /// The transaction's hash.
    pub(crate) fn tx_hash(&self) -> [F; 4] {
        let key = field::hash(Domain::Key, &[&self.secret]);
        field::hash(Domain::Transaction, &[&key, &[self.nonce], &self.calls_commit])
    }
}

/// What a private proof states: no state yet, no call executed yet.
pub(crate) fn private_inputs(tx_hash: [F; 4], calls_commit: [F; 4]) -> KernelInputs<F> {
    let zero = [F::ZERO; 4];
    KernelInputs { before: zero, after: zero, tx_hash, calls_commit, acc: zero, count: F::ZERO }
}

/// What `kernel/position` states of these two, and the rule they break, if any.
pub(crate) fn join(
    prev: &KernelInputs<F>,
    vm: &VmInputs<F>,
    position: u8,
) -> (KernelInputs<F>, Result<(), Broken>) {
    let first = position == 1;
    let inputs = KernelInputs {
        before: if first { vm.before } else { prev.before },
        after: vm.after,
        tx_hash: prev.tx_hash,
        calls_commit: prev.calls_commit,
        acc: add_call(prev.acc, vm.call_hash),
        count: F::from_canonical_u8(position),
    };
    let linked = if first || prev.after == vm.before {
        Ok(())
    } else {
        Err(Broken::states(1, vm.before, 0, prev.after))
    };
    (inputs, linked)
}

/// Witness of the private proof.
pub(crate) struct PrivateTargets {
    secret: [Target; 4],
    nonce: Target,
    calls_commit: [Target; 4],
}

/// Witness of a kernel.
pub(crate) struct KernelTargets {
    prev: ProofTarget,
    vm: ProofTarget,
}

/// Builds the private proof's circuit, padded to the kernels' shape if that is known.
pub(crate) fn build_private(keys: &Keys) -> (Data, PrivateTargets) {
    let mut b = recursion::new_builder();
    let (secret, calls_commit) = (field::virtual_word(&mut b), field::virtual_word(&mut b));
    let nonce = b.add_virtual_target();
    let key = field::hash_targets(&mut b, Domain::Key, &[&secret]);
    let tx_hash = field::hash_targets(&mut b, Domain::Transaction, &[&key, &[nonce], &calls_commit]);
    let count = b.zero();
    let zero = [count; 4];
    let inputs = KernelInputs { before: zero, after: zero, tx_hash, calls_commit, acc: zero, count };
    b.register_public_inputs(&inputs.to_vec());
    (recursion::finish(b, keys.shape(Shape::Kernel).ok()), PrivateTargets { secret, nonce, calls_commit })
}

/// Builds `kernel/position`.
pub(crate) fn build(keys: &Keys, position: u8) -> Result<(Data, KernelTargets), KeyError> {
    let shape = keys.shape(Shape::Kernel)?;
    let prev_key = keys.key(Circuit::Kernel { position: position.saturating_sub(1) })?;
    let mut b = recursion::new_builder();
    let prev = recursion::verify_fixed(&mut b, shape, prev_key);
    let vm = recursion::verify_fixed(&mut b, keys.shape(Shape::Vm)?, keys.key(Circuit::Vm)?);
    constrain(&mut b, &prev, &vm, position)?;
    Ok((recursion::finish(b, Some(shape)), KernelTargets { prev, vm }))
}

fn constrain(b: &mut Builder, prev: &ProofTarget, vm: &ProofTarget, position: u8) -> Result<(), KeyError> {
    let prev =
        KernelInputs::read(&prev.public_inputs).ok_or(KeyError::Layout(Circuit::Kernel { position }))?;
    let vm = VmInputs::read(&vm.public_inputs).ok_or(KeyError::Layout(Circuit::Vm))?;
    if position > 1 {
        b.connect_array(prev.after, vm.before);
    }
    let inputs = KernelInputs {
        before: if position > 1 { prev.before } else { vm.before },
        after: vm.after,
        tx_hash: prev.tx_hash,
        calls_commit: prev.calls_commit,
        acc: field::hash_targets(b, Domain::Calls, &[&prev.acc, &vm.call_hash]),
        count: recursion::number(b, u64::from(position)),
    };
    b.register_public_inputs(&inputs.to_vec());
    Ok(())
}

impl PrivateTargets {
    /// Fills in an order.
    pub(crate) fn assign(&self, w: &mut PartialWitness<F>, order: &Order) -> anyhow::Result<()> {
        w.set_target_arr(&self.secret, &order.secret)?;
        w.set_target(self.nonce, order.nonce)?;
        w.set_target_arr(&self.calls_commit, &order.calls_commit)
    }
}

impl KernelTargets {
    /// Fills in the two children.
    pub(crate) fn assign(
        &self,
        w: &mut PartialWitness<F>,
        prev: &InnerProof,
        vm: &InnerProof,
    ) -> anyhow::Result<()> {
        w.set_proof_with_pis_target(&self.prev, prev)?;
        w.set_proof_with_pis_target(&self.vm, vm)
    }
}
