//! The proofs that the tests share.

use crate::{Plonky2, Sample, Statements, prover_word, sample_block, verify};
use arborist_core::backend::{Backend, Cancel, Child, Proof, ProveError, ProveRequest, PublicInputs};
use arborist_core::block::Block;
use arborist_core::circuit::Circuit;
use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};

pub(super) const PROVER: &str = "prover of the tests";

/// Calls of the shared block's transactions.
pub(super) const CALLS: [u8; 4] = [1, 0, 3, 2];

/// A proof of the shared block, or of the block of its first `n` transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Node {
    Vm(usize, usize),
    Kernel(usize, u8),
    Range(usize, usize),
    Root(usize),
}

pub(super) static SAMPLE: LazyLock<Sample> =
    LazyLock::new(|| sample_block(&CALLS, 31_337, 77, 1, |_| ()).unwrap());

pub(super) static BLOCK: LazyLock<Block> = LazyLock::new(|| SAMPLE.block.clone());

/// The private proof of a transaction of the shared block.
pub(super) fn private(transaction: usize) -> Vec<u8> {
    SAMPLE.private_proofs[transaction].clone()
}

/// The block of the shared one's first transactions.
pub(super) fn prefix(transactions: usize) -> Block {
    let mut block = BLOCK.clone();
    block.transactions.truncate(transactions);
    block.state_after = block.transaction_states()[transactions - 1].1;
    block
}

pub(super) fn statements(transactions: usize) -> Statements {
    Statements::new(&prefix(transactions), prover_word(PROVER)).unwrap()
}

fn split(count: usize) -> usize {
    count.next_power_of_two() / 2
}

impl Node {
    pub(super) fn circuit(self) -> Circuit {
        match self {
            Node::Vm(..) => Circuit::Vm,
            Node::Kernel(_, position) => Circuit::Kernel { position },
            Node::Range(_, 1) => Circuit::Base,
            Node::Range(_, count) => Circuit::Merge { height: verify::height(count as u64) },
            Node::Root(count) => Circuit::Root { height: verify::height(count as u64) },
        }
    }

    pub(super) fn statement(self) -> PublicInputs {
        let all = statements(CALLS.len());
        match self {
            Node::Vm(tx, call) => all.vm(tx, call).unwrap(),
            Node::Kernel(tx, position) => all.kernel(tx, position).unwrap(),
            Node::Range(first, count) => all.range(first, count).unwrap(),
            Node::Root(count) => statements(count).root(),
        }
    }

    fn children(self) -> Vec<Node> {
        match self {
            Node::Vm(..) => vec![],
            Node::Kernel(tx, 1) => vec![Node::Vm(tx, 0)],
            Node::Kernel(tx, k) => vec![Node::Kernel(tx, k - 1), Node::Vm(tx, usize::from(k) - 1)],
            Node::Range(tx, 1) if CALLS[tx] == 0 => vec![],
            Node::Range(tx, 1) => vec![Node::Kernel(tx, CALLS[tx])],
            Node::Root(1) => vec![Node::Range(0, 1)],
            Node::Range(first, count) => {
                let left = split(count);
                vec![Node::Range(first, left), Node::Range(first + left, count - left)]
            }
            Node::Root(count) => Node::Range(0, count).children(),
        }
    }

    fn inputs(self) -> Vec<Vec<u8>> {
        match self {
            Node::Vm(tx, call) => vec![BLOCK.transactions[tx].calls[call].to_input()],
            Node::Kernel(tx, 1) => vec![private(tx)],
            Node::Range(tx, 1) if CALLS[tx] == 0 => vec![private(tx)],
            _ => vec![],
        }
    }

    /// The request that proves it, with good children.
    pub(super) fn request(self) -> ProveRequest {
        ProveRequest {
            circuit: self.circuit(),
            public_inputs: self.statement(),
            inputs: self.inputs(),
            children: self.children().into_iter().map(child).collect(),
            threads: 2,
            cancel: Cancel::default(),
        }
    }
}

/// A good proof with its circuit.
pub(super) fn child(node: Node) -> Child {
    Child { circuit: node.circuit(), proof: proof(node) }
}

/// A good proof, made at first use.
pub(super) fn proof(node: Node) -> Proof {
    static PROOFS: LazyLock<Mutex<HashMap<Node, Proof>>> = LazyLock::new(|| {
        let mut made = HashMap::new();
        for level in levels() {
            for node in level {
                let request = request_from(node, &made);
                made.insert(node, Plonky2::new().prove(&request).unwrap());
            }
        }
        Mutex::new(made)
    });
    PROOFS.lock().unwrap()[&node].clone()
}

fn request_from(node: Node, made: &HashMap<Node, Proof>) -> ProveRequest {
    let children = node.children().into_iter();
    ProveRequest {
        circuit: node.circuit(),
        public_inputs: node.statement(),
        inputs: node.inputs(),
        children: children.map(|n| Child { circuit: n.circuit(), proof: made[&n].clone() }).collect(),
        threads: 2,
        cancel: Cancel::default(),
    }
}

/// All proofs, circuit by circuit, so that each is built once.
pub(super) fn levels() -> Vec<Vec<Node>> {
    let calls = |t: usize| 0..usize::from(CALLS[t]);
    let mut all = vec![(0..4).flat_map(|t| calls(t).map(move |c| Node::Vm(t, c))).collect()];
    for k in 1..=3 {
        all.push((0..4).filter(|t| CALLS[*t] >= k).map(|t| Node::Kernel(t, k)).collect());
    }
    all.push((0..4).map(|t| Node::Range(t, 1)).collect());
    all.push(vec![Node::Range(0, 2), Node::Range(2, 2)]);
    all.push(vec![Node::Range(0, 3)]);
    all.push((1..=4).map(Node::Root).collect());
    all
}

/// The child that an error blames, or the input (as 100 + its index).
pub(super) fn blamed(error: &ProveError) -> Option<usize> {
    match error {
        ProveError::BadChild { index, .. } => Some(*index),
        ProveError::BadInput { index, .. } => Some(100 + index),
        _ => None,
    }
}
