//! A lease as the worker gets it: the engine's assignment with the inputs and statements of its tree.

use arborist_circuits::statement::Statements;
use arborist_core::backend::PublicInputs;
use arborist_core::engine::{Assignment, PreparedJob};
use arborist_core::tree::{Node, NodeId, Shape};
use arborist_core::wire::{Child, Lease};

/// Fills in what the engine does not know.
pub(super) fn fill(job: &PreparedJob, statements: Option<&Statements>, given: &Assignment) -> Lease {
    let shape = &job.shape;
    let stated = |node| statements.map_or_else(PublicInputs::new, |s| stated(s, shape, node));
    let children = shape.children(given.node);
    let children = children.as_slice().iter().map(|&child| {
        let circuit = shape.circuit(child);
        Child {
            task: job.ids[child.index()].0.to_vec(),
            kind: circuit.kind().index() as u32,
            param: circuit.param().into(),
            public_inputs: stated(child),
        }
    });
    Lease {
        fence: given.fence.0,
        task: given.task.0.to_vec(),
        kind: given.circuit.kind().index() as u32,
        param: given.circuit.param().into(),
        inputs: job.leaves.inputs(shape, given.node).into_iter().map(|hash| hash.0.to_vec()).collect(),
        children: children.collect(),
        public_inputs: stated(given.node),
        cores: given.needs.cores.into(),
        memory_mib: given.needs.memory_mib,
        limit_millis: given.limit.try_into().unwrap_or(u32::MAX),
        seed: seed(&given.task.0),
        mac: given.mac.0.to_vec(),
    }
}

/// What a node's proof has to state. Every node of the shape stands in the statements of its block.
pub(super) fn stated(statements: &Statements, shape: &Shape, node: NodeId) -> PublicInputs {
    let inputs = match shape.node(node) {
        Node::Vm { tx, call } => statements.vm(tx as usize, call.into()),
        Node::Kernel { tx, position } => statements.kernel(tx as usize, position),
        Node::Base { tx } => statements.base(tx as usize),
        Node::Merge { first, count } => statements.range(first as usize, count as usize),
        Node::Root { .. } => Some(statements.root()),
    };
    inputs.unwrap_or_default()
}

/// The same task behaves alike at every try of the fake backend.
fn seed(task: &[u8; 32]) -> u64 {
    task.first_chunk().map_or(0, |head| u64::from_le_bytes(*head))
}
