//! `vm`: one public call. It reads a slot of the state, runs on its arguments, writes the slot.

use crate::field::{self, Builder, Data, Domain, F};
use crate::layout::VmInputs;
use crate::recursion;
use arborist_core::block::{BlockError, Call, STATE_DEPTH, Word};
use plonky2::field::types::Field;
use plonky2::hash::hash_types::HashOutTarget;
use plonky2::hash::hashing::PlonkyPermutation;
use plonky2::hash::poseidon::PoseidonHash;
use plonky2::iop::target::{BoolTarget, Target};
use plonky2::iop::witness::{PartialWitness, WitnessWrite};
use plonky2::plonk::config::AlgebraicHasher;

/// Steps of the call's program: each hashes the value with the arguments. Chosen so that the circuit has 2^10 rows.
pub(crate) const STEPS: usize = 900;

/// The circuit's witness.
pub(crate) struct VmTargets {
    slot: Target,
    args: [Target; 4],
    old: [Target; 4],
    siblings: Vec<HashOutTarget>,
}

/// A call whose words are all valid field elements.
pub(crate) struct CheckedCall {
    slot: u16,
    args: [F; 4],
    old: [F; 4],
    siblings: Vec<[F; 4]>,
}

fn wrong(field: impl Into<String>, problem: impl Into<String>) -> BlockError {
    BlockError { field: field.into(), problem: problem.into() }
}

/// The word's field elements, or what is wrong with it.
pub(crate) fn elements(field: impl Into<String>, word: &Word) -> Result<[F; 4], BlockError> {
    field::from_word(word).ok_or_else(|| {
        wrong(field, format!("{word}; each 8 bytes, little endian, must be below 2^64 - 2^32 + 1"))
    })
}

/// Whether what a call reads from the state is field elements; what it makes of them costs a thousand times as much.
pub(crate) fn check_elements(field: &str, call: &Call) -> Result<(), BlockError> {
    let bad = |word: &Word| field::from_word(word).is_none();
    if bad(&call.old_value) {
        elements(format!("{field}.old_value"), &call.old_value)?;
    }
    match call.siblings.iter().position(bad) {
        Some(i) => elements(format!("{field}.siblings[{i}]"), &call.siblings[i]).map(drop),
        None => Ok(()),
    }
}

/// What a call's program makes of the slot's value.
pub(crate) fn run(old: [F; 4], args: [F; 4]) -> [F; 4] {
    (0..STEPS).fold(old, |value, _| field::parent(value, args))
}

/// The hash that stands for a call: of its slot and arguments.
pub(crate) fn call_hash(slot: u16, args: [F; 4]) -> [F; 4] {
    field::hash(Domain::Call, &[&[F::from_canonical_u16(slot)], &args])
}

/// The state root that a slot's value and its siblings give.
pub(crate) fn root(slot: u16, value: [F; 4], siblings: &[[F; 4]]) -> [F; 4] {
    siblings.iter().enumerate().fold(field::leaf(value), |node, (level, sibling)| match (slot >> level) & 1 {
        0 => field::parent(node, *sibling),
        _ => field::parent(*sibling, node),
    })
}

/// Executes a call and checks that it does what it says; `field` names the call in errors.
///
/// # Errors
/// The first field that is no valid element or does not follow from the others.
pub(crate) fn execute(field: &str, call: &Call) -> Result<(CheckedCall, VmInputs<F>), BlockError> {
    if call.siblings.len() != STATE_DEPTH {
        let problem = format!("{} of them, allowed are {STATE_DEPTH}", call.siblings.len());
        return Err(wrong(format!("{field}.siblings"), problem));
    }
    let siblings = call.siblings.iter().enumerate();
    let checked = CheckedCall {
        slot: call.slot,
        args: elements(format!("{field}.args"), &call.args)?,
        old: elements(format!("{field}.old_value"), &call.old_value)?,
        siblings: siblings
            .map(|(i, word)| elements(format!("{field}.siblings[{i}]"), word))
            .collect::<Result<_, _>>()?,
    };
    let before = elements(format!("{field}.state_before"), &call.state_before)?;
    let after = elements(format!("{field}.state_after"), &call.state_after)?;
    let found = root(checked.slot, checked.old, &checked.siblings);
    if found != before {
        let problem = format!(
            "{}, but slot, old_value and siblings give the root {}",
            call.state_before,
            field::to_word(found)
        );
        return Err(wrong(format!("{field}.state_before"), problem));
    }
    let found = root(checked.slot, run(checked.old, checked.args), &checked.siblings);
    if found != after {
        let problem = format!("{}, but the call leaves {}", call.state_after, field::to_word(found));
        return Err(wrong(format!("{field}.state_after"), problem));
    }
    let call_hash = call_hash(checked.slot, checked.args);
    Ok((checked, VmInputs { before, after, call_hash }))
}

fn root_target(
    b: &mut Builder,
    value: [Target; 4],
    bits: &[BoolTarget],
    siblings: &[HashOutTarget],
) -> [Target; 4] {
    let mut node = field::leaf_target(b, value).elements;
    for (bit, sibling) in bits.iter().zip(siblings) {
        node = parent_target(b, node, sibling.elements, *bit);
    }
    node
}

/// The parent of two nodes; `swap` puts the second to the left.
fn parent_target(b: &mut Builder, node: [Target; 4], sibling: [Target; 4], swap: BoolTarget) -> [Target; 4] {
    type Permutation = <PoseidonHash as AlgebraicHasher<F>>::AlgebraicPermutation;
    let zero = b.zero();
    let inputs = node.into_iter().chain(sibling).chain(std::iter::repeat(zero));
    let out = PoseidonHash::permute_swapped(Permutation::new(inputs), swap, b);
    let out = out.squeeze();
    [out[0], out[1], out[2], out[3]]
}

/// Builds the circuit.
pub(crate) fn build() -> (Data, VmTargets) {
    let mut b = recursion::new_builder();
    let slot = b.add_virtual_target();
    let (args, old) = (field::virtual_word(&mut b), field::virtual_word(&mut b));
    let siblings = b.add_virtual_hashes(STATE_DEPTH);
    let bits = b.split_le(slot, STATE_DEPTH);
    let before = root_target(&mut b, old, &bits, &siblings);
    let keep_order = b._false();
    let mut value = old;
    for _ in 0..STEPS {
        value = parent_target(&mut b, value, args, keep_order);
    }
    let after = root_target(&mut b, value, &bits, &siblings);
    let call_hash = field::hash_targets(&mut b, Domain::Call, &[&[slot], &args]);
    b.register_public_inputs(&VmInputs { before, after, call_hash }.to_vec());
    (recursion::finish(b, None), VmTargets { slot, args, old, siblings })
}

impl VmTargets {
    /// Fills in a call.
    pub(crate) fn assign(&self, w: &mut PartialWitness<F>, call: &CheckedCall) -> anyhow::Result<()> {
        w.set_target(self.slot, F::from_canonical_u16(call.slot))?;
        w.set_target_arr(&self.args, &call.args)?;
        w.set_target_arr(&self.old, &call.old)?;
        for (target, sibling) in self.siblings.iter().zip(&call.siblings) {
            w.set_target_arr(&target.elements, sibling)?;
        }
        Ok(())
    }
}
