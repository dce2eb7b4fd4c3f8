//! A job with its tree, ready to be put into the books.

use super::JobSpec;
use super::index::in_order;
use crate::ids::TaskId;
use crate::profile::Profile;
use crate::system::ProofSystem;
use crate::tree::{BadShape, Leaves, RootBinding, Shape, task_ids};

/// A job whose tree is built: made outside the engine's lock.
#[derive(Debug, Clone)]
pub struct PreparedJob {
    /// The request.
    pub spec: JobSpec,
    /// What makes its proofs: no proof of another system is one of its tasks'.
    pub system: ProofSystem,
    /// Its tree.
    pub shape: Shape,
    /// What its leaves are made from.
    pub leaves: Leaves,
    /// Ids by node number.
    pub ids: Vec<TaskId>,
    /// Nodes in the order in which they are entered into the table of places; none once they are.
    pub(crate) sorted: Vec<u32>,
}

impl PreparedJob {
    /// Builds the tree: 32 bytes a task, and 4 until it is in the books.
    ///
    /// # Errors
    /// The block's shape is not allowed by the profile.
    pub fn new(spec: JobSpec, calls: &[u8], leaves: Leaves, profile: &Profile) -> Result<Self, BadShape> {
        Self::of_system(spec, calls, leaves, profile.max_calls, profile.system())
    }

    /// As [`PreparedJob::new`], for the proof system that the job was submitted under.
    pub fn of_system(
        spec: JobSpec,
        calls: &[u8],
        leaves: Leaves,
        max_calls: u8,
        system: ProofSystem,
    ) -> Result<Self, BadShape> {
        let shape = Shape::new(calls, max_calls)?;
        let binding = RootBinding {
            chain_id: spec.chain_id,
            block_number: spec.block_number,
            prover_id: spec.prover_id,
        };
        let ids = task_ids(&shape, &leaves, &system, &binding);
        let sorted = in_order(&ids);
        Ok(Self { spec, system, shape, leaves, ids, sorted })
    }
}
