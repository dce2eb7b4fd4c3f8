//! What the backend refuses, and whom it blames.

use super::fixture::{BLOCK, Node, blamed, child, private, proof};
use crate::{MAX_PROOF_BYTES, Plonky2, keys};
use arborist_core::backend::{Backend, Proof, ProveError, ProveRequest, VerifyError};
use arborist_core::block::Word;
use arborist_core::circuit::Circuit;

type Change = fn(&mut ProveRequest);

/// Name, what is proven, what is changed, who is blamed (100 + n: input n; none: nobody), part of the text.
type Case = (&'static str, Node, Change, Option<usize>, &'static str);

fn call_input(tx: usize, call: usize) -> Vec<u8> {
    BLOCK.transactions[tx].calls[call].to_input()
}

fn check(cases: &[Case]) {
    for (name, node, change, blame, text) in cases {
        let mut request = node.request();
        change(&mut request);
        let error = Plonky2::new().prove(&request).expect_err(name);
        assert_eq!(blamed(&error), *blame, "{name}: {error}");
        assert!(error.to_string().contains(text), "{name}: `{error}` does not say `{text}`");
    }
}

#[test]
fn bad_calls_are_refused() {
    let cases: [Case; 6] = [
        ("order of calls", Node::Vm(2, 0), |r| r.inputs[0] = call_input(2, 1), Some(100), "state before is"),
        ("no call", Node::Vm(2, 0), |r| r.inputs[0] = b"{}".to_vec(), Some(100), "call"),
        (
            "arguments",
            Node::Vm(2, 0),
            |r| {
                let mut call = BLOCK.transactions[2].calls[0].clone();
                call.args = Word([3; 32]);
                r.inputs[0] = call.to_input();
            },
            Some(100),
            "call.state_after",
        ),
        (
            "Merkle path",
            Node::Vm(2, 0),
            |r| {
                let mut call = BLOCK.transactions[2].calls[0].clone();
                call.siblings[9] = Word([3; 32]);
                r.inputs[0] = call.to_input();
            },
            Some(100),
            "call.state_before",
        ),
        ("missing input", Node::Vm(2, 0), |r| r.inputs.clear(), None, "vm takes 0 children and 1 inputs"),
        ("state asked for", Node::Vm(2, 0), |r| r.public_inputs[0] ^= 1, Some(100), "asked for is"),
    ];
    check(&cases);
}

#[test]
fn bad_children_of_kernels_are_refused() {
    let cases: [Case; 7] = [
        (
            "proof byte",
            Node::Kernel(2, 2),
            |r| r.children[1].proof.bytes[5000] ^= 1,
            Some(1),
            "does not verify",
        ),
        (
            "public input",
            Node::Kernel(2, 2),
            |r| r.children[0].proof.public_inputs[9] ^= 1,
            Some(0),
            "verify",
        ),
        ("state root", Node::Kernel(2, 2), |r| r.children[1].proof.public_inputs[4] += 1, Some(1), "verify"),
        (
            "count of calls",
            Node::Kernel(2, 2),
            |r| r.children[0].proof.public_inputs[20] = 0,
            Some(0),
            "verify",
        ),
        (
            "call of another place",
            Node::Kernel(2, 2),
            |r| r.children[1] = child(Node::Vm(2, 2)),
            Some(1),
            "state",
        ),
        (
            "another's kernel",
            Node::Kernel(2, 2),
            |r| r.children[0] = child(Node::Kernel(3, 1)),
            Some(0),
            "state",
        ),
        ("swapped", Node::Kernel(2, 2), |r| r.children.swap(0, 1), Some(0), "takes here kernel/1"),
    ];
    check(&cases);
}

#[test]
fn bad_private_proofs_and_bases_are_refused() {
    let cases: [Case; 4] = [
        (
            "another's private proof",
            Node::Kernel(2, 1),
            |r| r.inputs[0] = private(3),
            Some(100),
            "transaction hash is",
        ),
        (
            "another's private proof, no calls",
            Node::Range(1, 1),
            |r| r.inputs[0] = private(3),
            Some(100),
            "transactions' commitment is",
        ),
        (
            "relabelled private proof",
            Node::Kernel(2, 1),
            |r| r.inputs[0][..32].copy_from_slice(&BLOCK.transactions[3].hash.0),
            Some(100),
            "does not verify",
        ),
        (
            "not all calls executed",
            Node::Range(2, 1),
            |r| {
                r.children[0] = child(Node::Kernel(2, 2));
                r.public_inputs.clear();
            },
            Some(0),
            "not those that the transaction asks for",
        ),
    ];
    check(&cases);
}

#[test]
fn ranges_that_are_no_neighbours_are_refused() {
    let cases: [Case; 3] = [
        ("order of transactions", Node::Range(0, 2), |r| r.children.swap(0, 1), Some(0), "state before"),
        (
            "order, nothing asked for",
            Node::Range(0, 2),
            |r| {
                r.children.swap(0, 1);
                r.public_inputs.clear();
            },
            Some(1),
            "starts at state",
        ),
        ("a gap", Node::Range(0, 2), |r| r.children[1] = child(Node::Range(2, 1)), Some(1), "state after"),
    ];
    check(&cases);
}

#[test]
fn bad_children_of_roots_are_refused() {
    let cases: [Case; 7] = [
        ("proof byte", Node::Root(4), |r| r.children[0].proof.bytes[70_000] ^= 1, Some(0), "verify"),
        ("count", Node::Root(4), |r| r.children[1].proof.public_inputs[12] = 1, Some(1), "does not verify"),
        (
            "fewer transactions",
            Node::Root(4),
            |r| r.children[1] = child(Node::Range(2, 1)),
            Some(1),
            "state after",
        ),
        (
            "key",
            Node::Root(4),
            |r| r.children[1].proof.vk_hash = keys::vk_hash(Circuit::Base).unwrap(),
            Some(1),
            "not the pinned one",
        ),
        (
            "child of another circuit",
            Node::Root(4),
            |r| {
                r.children[1].proof = proof(Node::Range(2, 1));
                r.children[1].proof.vk_hash = keys::vk_hash(Circuit::Merge { height: 1 }).unwrap();
            },
            Some(1),
            "does not verify",
        ),
        (
            "circuit that may not stand there",
            Node::Root(4),
            |r| r.children[0] = child(Node::Range(0, 1)),
            Some(0),
            "takes here merge/1",
        ),
        (
            "nothing asked for",
            Node::Root(4),
            |r| r.public_inputs.clear(),
            None,
            "can't be proven without its public inputs",
        ),
    ];
    check(&cases);
}

#[test]
fn statements_that_the_children_do_not_bear_out_are_refused() {
    let cases: [Case; 6] = [
        ("commitment", Node::Root(4), |r| r.public_inputs[11] ^= 1, None, "transactions' commitment is"),
        ("count", Node::Root(4), |r| r.public_inputs[14] = 3, Some(1), "count of transactions is 4"),
        ("state after", Node::Root(4), |r| r.public_inputs[6] ^= 1, Some(1), "state after is"),
        (
            "too few",
            Node::Range(0, 2),
            |r| r.public_inputs.truncate(12),
            None,
            "12 public inputs are asked for",
        ),
        ("no such circuit", Node::Root(4), |r| r.circuit = Circuit::Root { height: 17 }, None, "root/17"),
        ("no element", Node::Root(4), |r| r.public_inputs[0] = u64::MAX, None, "without its public inputs"),
    ];
    check(&cases);
}

#[test]
fn a_private_proof_is_no_task() {
    let mut request = Node::Vm(0, 0).request();
    request.circuit = Circuit::Kernel { position: 0 };
    let error = Plonky2::new().prove(&request).unwrap_err();
    assert!(matches!(error, ProveError::Failed(_)), "{error}");
}

#[test]
fn changed_proofs_do_not_verify() {
    let node = Node::Vm(0, 0);
    let good = proof(node);
    let refused = |proof: &Proof| Plonky2::new().verify(node.circuit(), proof).unwrap_err();
    for place in (0..good.bytes.len()).step_by(good.bytes.len() / 37) {
        let mut bad = good.clone();
        bad.bytes[place] ^= 4;
        refused(&bad);
    }
    for place in 0..good.public_inputs.len() {
        let mut bad = good.clone();
        bad.public_inputs[place] ^= 1;
        assert!(matches!(refused(&bad), VerifyError::Invalid { .. }), "public input {place}");
    }
}

#[test]
fn what_is_no_proof_is_malformed() {
    let node = Node::Vm(0, 0);
    type Change = fn(&mut Proof);
    let changes: [(&str, Change); 7] = [
        ("empty", |p| p.bytes.clear()),
        ("cut off", |p| p.bytes.truncate(p.bytes.len() - 1)),
        ("longer", |p| p.bytes.push(0)),
        ("too large", |p| p.bytes.resize(MAX_PROOF_BYTES + 1, 0)),
        ("not canonical", |p| p.bytes[..8].fill(255)),
        ("public inputs", |p| p.public_inputs.push(0)),
        ("public input not canonical", |p| p.public_inputs[3] = u64::MAX),
    ];
    for (name, change) in changes {
        let mut bad = proof(node);
        change(&mut bad);
        let error = Plonky2::new().verify(node.circuit(), &bad).unwrap_err();
        assert!(matches!(error, VerifyError::Malformed { .. }), "{name}: {error}");
    }
}
