//! `root/H`: the block. The last join, bound to block number, chain and prover.

use crate::field::{self, Data, F, InnerProof, VerifierKey};
use crate::keys::{KeyError, Keys, Shape};
use crate::layout::{RangeInputs, RootInputs};
use crate::merge::{self, JoinTargets};
use crate::recursion::{self, ProofTarget};
use arborist_core::circuit::Circuit;
use plonky2::iop::target::Target;
use plonky2::iop::witness::{PartialWitness, WitnessWrite};

/// The greatest height of a block: 65,536 transactions.
pub const MAX_HEIGHT: u8 = 16;

/// The circuit's witness.
pub(crate) struct RootTargets {
    parts: Parts,
    block_number: Target,
    chain_id: Target,
    prover_id: [Target; 4],
}

enum Parts {
    One(Box<ProofTarget>),
    Two(Box<JoinTargets>),
}

/// What a root verifies.
pub(crate) enum RootParts<'a> {
    /// `root/0`: the only transaction's base.
    One(&'a InnerProof),
    /// The left and the right part, and the right one's height with its key.
    Two { left: &'a InnerProof, right: &'a InnerProof, right_height: u8, right_key: &'a VerifierKey },
}

/// Builds `root/height`, padded to the roots' shape if that is known.
pub(crate) fn build(keys: &Keys, height: u8) -> Result<(Data, RootTargets), KeyError> {
    let mut b = recursion::new_builder();
    let (parts, range) = if height == 0 {
        let base = recursion::verify_fixed(&mut b, keys.shape(Shape::Range)?, keys.key(Circuit::Base)?);
        let range =
            RangeInputs::read(&base.public_inputs).ok_or(KeyError::Layout(Circuit::Root { height }))?;
        (Parts::One(Box::new(base)), range)
    } else {
        let (join, range) = merge::add_join(&mut b, keys, height)?;
        (Parts::Two(Box::new(join)), range)
    };
    // Nothing inside the circuit depends on these three: being public inputs binds them to the proof.
    let (block_number, chain_id) = (b.add_virtual_target(), b.add_virtual_target());
    let prover_id = field::virtual_word(&mut b);
    b.register_public_inputs(&RootInputs { block_number, chain_id, range, prover_id }.to_vec());
    let targets = RootTargets { parts, block_number, chain_id, prover_id };
    Ok((recursion::finish(b, keys.shape(Shape::Root).ok()), targets))
}

impl RootTargets {
    /// Fills in the parts and what the proof is bound to.
    pub(crate) fn assign(
        &self,
        w: &mut PartialWitness<F>,
        parts: &RootParts,
        bound: &RootInputs<F>,
    ) -> anyhow::Result<()> {
        w.set_target(self.block_number, bound.block_number)?;
        w.set_target(self.chain_id, bound.chain_id)?;
        w.set_target_arr(&self.prover_id, &bound.prover_id)?;
        match (&self.parts, parts) {
            (Parts::One(target), RootParts::One(base)) => w.set_proof_with_pis_target(target, base),
            (Parts::Two(target), RootParts::Two { left, right, right_height, right_key }) => {
                target.assign(w, left, right, *right_height, right_key)
            }
            _ => anyhow::bail!("root/0 takes one proof, every other root two"),
        }
    }
}
