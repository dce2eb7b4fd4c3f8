//! Leaves in a wavefront, all else by longest path: small machines are fed evenly and never make a
//! proof that could wait before one that can't.

use super::{longest_path, wavefront};
use crate::circuit::Kind;
use crate::tree::{NodeId, Shape};

/// `vm` proofs as in [`wavefront::key`], the others as in [`longest_path::key`]. Between the two
/// kinds leaves go first: they need the rarer machines.
pub fn key<const SHARE: u32>(shape: &Shape, node: NodeId) -> u32 {
    match shape.kind(node) {
        Kind::Vm => wavefront::key::<SHARE>(shape, node),
        _ => longest_path::key(shape, node),
    }
}
