//! Content ids: a leaf's from its inputs, an inner node's from its children's ids.

use super::shape::{Node, NodeId, Shape};
use crate::block::{Block, Call, Transaction, Word};
use crate::ids::{ArtifactHash, TaskId};
use crate::system::ProofSystem;

/// What the leaves of a tree are made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leaves {
    /// A block's inputs in the artifact store.
    Block {
        /// The input of each call, in block order.
        calls: Vec<ArtifactHash>,
        /// The private proof of each transaction.
        private_proofs: Vec<ArtifactHash>,
        /// What each transaction states whatever is proven of it: BLAKE3 of its hash, of what its sender commits to
        /// (slot and arguments of each call) and of the state before it.
        states: Vec<[u8; 32]>,
    },
    /// No inputs: a block made up from a seed, for the fake backend.
    Synthetic {
        /// Blocks of one seed share their tasks.
        seed: u64,
    },
}

impl Leaves {
    /// The leaves of a block. What they name has to be in the artifact store, each under its hash.
    pub fn of_block(block: &Block) -> Self {
        let calls = block.transactions.iter().flat_map(|t| &t.calls).map(Call::input_hash).collect();
        let private_proofs = block.transactions.iter().map(|t| t.private_proof).collect();
        let states = block.transactions.iter().zip(block.transaction_states());
        let states = states.map(|(transaction, (before, _))| stated(transaction, &before)).collect();
        Self::Block { calls, private_proofs, states }
    }

    /// Hashes of the inputs that are no proofs of the tree, in the circuit's order; see
    /// [`ProveRequest::inputs`](crate::backend::ProveRequest::inputs).
    pub fn inputs(&self, shape: &Shape, id: NodeId) -> Option<ArtifactHash> {
        let Self::Block { calls, private_proofs, .. } = self else { return None };
        match shape.node(id) {
            Node::Vm { .. } => calls.get(id.index()).copied(),
            Node::Kernel { tx, position: 1 } => private_proofs.get(tx as usize).copied(),
            Node::Base { tx } if shape.calls(tx) == 0 => private_proofs.get(tx as usize).copied(),
            _ => None,
        }
    }
}

/// The root's binding: the same block proven for another prover is another root task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RootBinding {
    /// Chain.
    pub chain_id: u64,
    /// Block number.
    pub block_number: u64,
    /// The prover's id, hashed or padded to 32 bytes.
    pub prover_id: [u8; 32],
}

/// A digest of what a transaction states. It does not rest on a check of the private proof: two blocks that say different
/// things of one private proof have no task of it in common.
fn stated(transaction: &Transaction, before: &Word) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("arborist transaction v1");
    hasher.update(&transaction.hash.0).update(&before.0);
    for call in &transaction.calls {
        hasher.update(&call.slot.to_le_bytes()).update(&call.args.0);
    }
    *hasher.finalize().as_bytes()
}

/// The ids of all tasks of a tree, by node number.
///
/// Source of the rule: an id names what a proof states and by which proof system, and never how or where it was made, so
/// a retry, a restart or a reorg finds the proofs that exist. One BLAKE3 compression for nearly every task.
pub fn task_ids(shape: &Shape, leaves: &Leaves, system: &ProofSystem, binding: &RootBinding) -> Vec<TaskId> {
    let keys = Keys::new(system);
    let mut ids: Vec<TaskId> = Vec::with_capacity(shape.total() as usize);
    for call in 0..shape.total_calls() {
        ids.push(TaskId(match leaves {
            Leaves::Block { calls, .. } => hash(&keys.vm, &calls[call as usize].0, &[]),
            Leaves::Synthetic { seed } => hash(&keys.vm, &seed.to_le_bytes(), &call.to_le_bytes()),
        }));
    }
    for tx in 0..shape.transactions() {
        let mut before = keys.sender(leaves, tx);
        for call in 0..shape.calls(tx) {
            let vm = ids[shape.vm(tx, call).index()];
            before = hash(&keys.kernel[usize::from(call)], &before, &vm.0);
            ids.push(TaskId(before));
        }
    }
    for tx in 0..shape.transactions() {
        let below = match shape.calls(tx) {
            0 => keys.sender(leaves, tx),
            n => ids[shape.kernel(tx, n).index()].0,
        };
        ids.push(TaskId(hash(&keys.base, &below, &[])));
    }
    for id in shape.nodes().skip(ids.len()) {
        let children = shape.children(id);
        let below = children.as_slice();
        let (left, right) = (ids[below[0].index()].0, ids[below[below.len() - 1].index()].0);
        let joined = hash(&keys.merge, &left, &right);
        let is_root = id == shape.root();
        ids.push(TaskId(if is_root { keys.root(&joined, binding) } else { joined }));
    }
    ids
}

/// BLAKE3 keys, one for each kind of id: domain separation without a longer input.
struct Keys {
    vm: [u8; 32],
    kernel: Vec<[u8; 32]>,
    sender: [u8; 32],
    base: [u8; 32],
    merge: [u8; 32],
    root: [u8; 32],
}

impl Keys {
    fn new(system: &ProofSystem) -> Self {
        let system = system.to_bytes();
        let key = |kind: &str| blake3::derive_key(&format!("arborist task id v2 {kind}"), &system);
        let kernel = (1..=u8::MAX).map(|position| key(&format!("kernel/{position}"))).collect();
        Self {
            vm: key("vm"),
            kernel,
            sender: key("sender"),
            base: key("base"),
            merge: key("merge"),
            root: key("root"),
        }
    }

    /// What the sender of a transaction contributes.
    fn sender(&self, leaves: &Leaves, tx: u32) -> [u8; 32] {
        let place = tx as usize;
        match leaves {
            Leaves::Block { private_proofs, states, .. } => {
                hash(&self.sender, &private_proofs[place].0, &states[place])
            }
            Leaves::Synthetic { seed } => hash(&self.sender, &seed.to_le_bytes(), &tx.to_le_bytes()),
        }
    }

    fn root(&self, joined: &[u8; 32], binding: &RootBinding) -> [u8; 32] {
        let mut context = [0; 48];
        context[..8].copy_from_slice(&binding.chain_id.to_le_bytes());
        context[8..16].copy_from_slice(&binding.block_number.to_le_bytes());
        context[16..].copy_from_slice(&binding.prover_id);
        hash(&self.root, joined, &context)
    }
}

fn hash(key: &[u8; 32], a: &[u8], b: &[u8]) -> [u8; 32] {
    let mut input = [0; 80];
    input[..a.len()].copy_from_slice(a);
    input[a.len()..a.len() + b.len()].copy_from_slice(b);
    *blake3::keyed_hash(key, &input[..a.len() + b.len()]).as_bytes()
}
