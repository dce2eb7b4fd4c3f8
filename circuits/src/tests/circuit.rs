//! What the circuits themselves refuse: the native checks are left out, as a cheating prover would.

use super::fixture::{Node, proof};
use crate::compile::{Targets, compiled};
use crate::field::{F, InnerProof, VerifierKey};
use crate::keys::Keys;
use crate::verify;
use arborist_core::circuit::Circuit;
use plonky2::field::types::Field;
use plonky2::iop::generator::generate_partial_witness;
use plonky2::iop::witness::PartialWitness;
use std::panic::{AssertUnwindSafe, catch_unwind};

fn inner(node: Node) -> InnerProof {
    verify::open(node.circuit(), &proof(node)).unwrap()
}

fn key(circuit: Circuit) -> &'static VerifierKey {
    Keys::pinned().key(circuit).unwrap()
}

/// Whether the circuit has a witness that is filled in like this; if not, what the library says.
fn satisfiable(circuit: Circuit, fill: impl FnOnce(&Targets, &mut PartialWitness<F>)) -> Result<(), String> {
    let compiled = compiled(circuit).unwrap();
    let mut witness = PartialWitness::new();
    fill(&compiled.targets, &mut witness);
    let (prover, common) = (&compiled.data.prover_only, &compiled.data.common);
    let run = || generate_partial_witness(witness, prover, common).map(drop);
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result.map_err(|e| e.to_string()),
        Err(_) => Err("panicked".to_owned()),
    }
}

fn kernel(position: u8, prev: &InnerProof, vm: &InnerProof) -> bool {
    satisfiable(Circuit::Kernel { position }, |targets, w| match targets {
        Targets::Kernel(t) => t.assign(w, prev, vm).unwrap(),
        _ => panic!(),
    })
    .is_ok()
}

fn base(proof: &InnerProof, key: &VerifierKey) -> bool {
    satisfiable(Circuit::Base, |targets, w| match targets {
        Targets::Base(t) => t.assign(w, proof, key, [F::ONE; 4]).unwrap(),
        _ => panic!(),
    })
    .is_ok()
}

/// `merge/height` of these two, the right one of this height and with this key.
fn join(
    height: u8,
    left: &InnerProof,
    right: &InnerProof,
    right_height: u8,
    right_key: &VerifierKey,
) -> Result<(), String> {
    satisfiable(Circuit::Merge { height }, |targets, w| match targets {
        Targets::Merge(t) => t.assign(w, left, right, right_height, right_key).unwrap(),
        _ => panic!(),
    })
}

fn merge(left: &InnerProof, right: &InnerProof, height: u8, key: &VerifierKey) -> bool {
    join(1, left, right, height, key).is_ok()
}

#[test]
fn kernels_take_only_the_next_call_of_their_state() {
    let (prev, vm) = (inner(Node::Kernel(2, 1)), inner(Node::Vm(2, 1)));
    assert!(kernel(2, &prev, &vm));
    assert!(!kernel(2, &prev, &inner(Node::Vm(2, 2))), "a later call");
    assert!(!kernel(2, &prev, &inner(Node::Vm(2, 0))), "the same call again");
    assert!(!kernel(2, &inner(Node::Kernel(2, 2)), &inner(Node::Vm(2, 2))), "another position");
    let mut lying = prev.clone();
    lying.public_inputs[16] += F::ONE;
    assert!(!kernel(2, &lying, &vm), "a changed public input");
}

#[test]
fn bases_take_only_whole_transactions_under_their_own_key() {
    let position = |position| key(Circuit::Kernel { position });
    let whole = inner(Node::Kernel(2, 3));
    assert!(base(&whole, position(3)));
    assert!(!base(&inner(Node::Kernel(2, 2)), position(2)), "not all calls");
    assert!(!base(&whole, position(2)), "key of another position");
    assert!(!base(&whole, key(Circuit::Base)), "key of another circuit");
    let mut lying = whole.clone();
    lying.public_inputs[20] = F::TWO;
    assert!(!base(&lying, position(2)), "another count");
    assert!(!base(&lying, position(3)), "another count, the right key");
}

#[test]
fn merges_take_only_neighbours_under_their_own_keys() {
    let (left, right) = (inner(Node::Range(0, 1)), inner(Node::Range(1, 1)));
    let base = key(Circuit::Base);
    assert!(merge(&left, &right, 0, base));
    assert!(!merge(&right, &left, 0, base), "the other order");
    assert!(!merge(&right, &inner(Node::Range(3, 1)), 0, base), "a gap");
    assert!(!merge(&left, &left, 0, base), "the same twice");
    assert!(!merge(&left, &right, 0, key(Circuit::Merge { height: 1 })), "another key");
    assert!(
        !merge(&left, &inner(Node::Range(2, 2)), 1, key(Circuit::Merge { height: 1 })),
        "too high a right part"
    );
    assert!(
        !merge(&inner(Node::Range(0, 2)), &inner(Node::Range(2, 1)), 0, base),
        "a merge as the left base"
    );
}

#[test]
fn the_left_part_of_a_merge_is_full() {
    let (three, last) = (inner(Node::Range(0, 3)), inner(Node::Range(3, 1)));
    let error = join(3, &three, &last, 0, key(Circuit::Base)).unwrap_err();
    assert!(error.contains("3 != 4") || error.contains("4 != 3"), "{error}");
}
