//! The embedded circuits through the whole worker.

use crate::support::*;
use arborist_circuits::{Plonky2, Statements, sample_block};
use arborist_core::backend::Backend;
use arborist_core::circuit::Circuit;
use arborist_core::proof_object::ProofObject;
use arborist_core::wire::{self, Reason};

#[test]
fn a_call_is_proven_for_real_and_a_statement_that_is_not_true_is_not() {
    let block = sample_block(&[1], 1, 1, 7, |_| {}).unwrap().block;
    let statements = Statements::new(&block, block.state_before).unwrap();
    let public_inputs = statements.vm(0, 0).unwrap();
    let dispatcher = Dispatcher::start();
    let _worker = dispatcher.worker(&["--backend", "plonky2"]);
    assert_eq!(dispatcher.hello().backend, "plonky2");
    let input = dispatcher.put_input(&block.transactions[0].calls[0].to_input());
    let vm = |fence: u64, public_inputs: &[u64]| wire::Lease {
        inputs: vec![input.0.to_vec()],
        public_inputs: public_inputs.to_vec(),
        ..lease(fence, Circuit::Vm, task(fence as u8))
    };
    dispatcher.lease([vm(1, &public_inputs)]);
    let done = dispatcher.result(1).unwrap();
    assert!(done.cpu_millis > 0 && done.peak_mib > 0 && done.proof_bytes > 50_000, "{done:?}");
    let object = ProofObject::open(&task(1), &dispatcher.stored(task(1)).unwrap()).unwrap();
    assert_eq!(Plonky2::new().verify(Circuit::Vm, &object.proof), Ok(()));
    let mut untrue = public_inputs;
    untrue[0] ^= 1;
    dispatcher.lease([vm(2, &untrue)]);
    let failed = dispatcher.failure(2);
    assert_ne!(reason(&failed), Reason::BadChild, "{}", failed.text);
    assert!(dispatcher.stored(task(2)).is_none());
}
