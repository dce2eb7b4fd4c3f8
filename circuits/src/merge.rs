//! `merge/H`: two neighbouring ranges of transactions joined.
//!
//! A range of n transactions is split as in RFC 6962 (Certificate Transparency): the left part has the
//! largest power of two below n, the right part the rest. So n − 1 joins and no padding; at height
//! H = ceil(log2 n) the left part is always `merge/H−1` (or `base`), the right one of any height below H.
//! The circuit demands that the left part is full, so the count alone fixes the shape of the whole tree.

use crate::field::{self, Builder, C, Data, Domain, F, InnerProof, VerifierKey};
use crate::keys::{KeyError, Keys, Shape};
use crate::layout::RangeInputs;
use crate::link::Broken;
use crate::recursion::{self, ProofTarget};
use arborist_core::circuit::Circuit;
use plonky2::field::types::Field;
use plonky2::iop::target::Target;
use plonky2::iop::witness::{PartialWitness, WitnessWrite};
use plonky2::plonk::circuit_data::VerifierCircuitTarget;

/// The greatest height of a merge: the block of 65,536 transactions has a root of height 16.
pub const MAX_HEIGHT: u8 = 15;

/// The circuit of a range of this height that is not the whole block.
pub(crate) const fn range_circuit(height: u8) -> Circuit {
    if height == 0 { Circuit::Base } else { Circuit::Merge { height } }
}

/// The height of what a `base` or `merge` proves; `None` for other circuits.
pub(crate) const fn range_height(circuit: Circuit) -> Option<u8> {
    match circuit {
        Circuit::Base => Some(0),
        Circuit::Merge { height } => Some(height),
        _ => None,
    }
}

/// The commitment to two neighbouring ranges.
pub(crate) fn commit(left: [F; 4], right: [F; 4]) -> [F; 4] {
    field::hash(Domain::Commitment, &[&left, &right])
}

/// What the join of these two at height `height` states, and the rule they break, if any.
pub(crate) fn join(
    left: &RangeInputs<F>,
    right: &RangeInputs<F>,
    height: u8,
) -> (RangeInputs<F>, Result<(), Broken>) {
    let inputs = RangeInputs {
        before: left.before,
        after: right.after,
        commitment: commit(left.commitment, right.commitment),
        count: left.count + right.count,
    };
    let full = F::from_canonical_u64(1 << (height - 1));
    let linked = if left.count != full {
        let reason = format!("has {} transactions, the left of height {height} has {full}", left.count);
        Err(Broken { child: 0, reason })
    } else if left.after != right.before {
        Err(Broken::states(1, right.before, 0, left.after))
    } else {
        Ok(())
    };
    (inputs, linked)
}

/// Witness of a join.
pub(crate) struct JoinTargets {
    left: ProofTarget,
    right: ProofTarget,
    right_key: VerifierCircuitTarget,
    /// The right part's height: which of the allowed keys it has.
    right_height: Target,
}

/// Adds the verification of both parts of a range of this height, from 1, and their join.
pub(crate) fn add_join(
    b: &mut Builder,
    keys: &Keys,
    height: u8,
) -> Result<(JoinTargets, RangeInputs<Target>), KeyError> {
    let common = keys.shape(Shape::Range)?;
    let left = recursion::verify_fixed(b, common, keys.key(range_circuit(height - 1))?);
    let allowed =
        (0..height).map(|h| keys.key(range_circuit(h))).collect::<Result<Vec<&VerifierKey>, _>>()?;
    let right_height = b.add_virtual_target();
    let right_key = recursion::pick_key(b, right_height, &allowed);
    let right = b.add_virtual_proof_with_pis(common);
    b.verify_proof::<C>(&right, &right_key, common);

    let layout = || KeyError::Layout(range_circuit(height));
    let l = RangeInputs::read(&left.public_inputs).ok_or_else(layout)?;
    let r = RangeInputs::read(&right.public_inputs).ok_or_else(layout)?;
    b.connect_array(l.after, r.before);
    let full = recursion::number(b, 1 << (height - 1));
    b.connect(l.count, full);
    let joined = RangeInputs {
        before: l.before,
        after: r.after,
        commitment: field::hash_targets(b, Domain::Commitment, &[&l.commitment, &r.commitment]),
        count: b.add(l.count, r.count),
    };
    Ok((JoinTargets { left, right, right_key, right_height }, joined))
}

/// Builds `merge/height`.
pub(crate) fn build(keys: &Keys, height: u8) -> Result<(Data, JoinTargets), KeyError> {
    let mut b = recursion::new_builder();
    let (targets, joined) = add_join(&mut b, keys, height)?;
    b.register_public_inputs(&joined.to_vec());
    Ok((recursion::finish(b, Some(keys.shape(Shape::Range)?)), targets))
}

impl JoinTargets {
    /// Fills in both parts, and the right one's height with its key.
    pub(crate) fn assign(
        &self,
        w: &mut PartialWitness<F>,
        left: &InnerProof,
        right: &InnerProof,
        right_height: u8,
        right_key: &VerifierKey,
    ) -> anyhow::Result<()> {
        w.set_proof_with_pis_target(&self.left, left)?;
        w.set_proof_with_pis_target(&self.right, right)?;
        w.set_verifier_data_target(&self.right_key, right_key)?;
        w.set_target(self.right_height, F::from_canonical_u8(right_height))
    }
}
