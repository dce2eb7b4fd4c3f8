use super::fixture::{BLOCK, CALLS, Node, PROVER, levels, prefix, private, proof};
use crate::keys::{self, Keys};
use crate::{MAX_PROOF_BYTES, Plonky2, Published, check_block, verify_root};
use arborist_core::backend::{Backend, ProveError};

#[test]
fn every_proof_states_what_the_block_says_and_verifies() {
    for node in levels().into_iter().flatten() {
        let proof = proof(node);
        assert_eq!(proof.public_inputs, node.statement(), "{node:?}");
        assert_eq!(Some(proof.vk_hash), keys::vk_hash(node.circuit()), "{node:?}");
        assert!(proof.bytes.len() <= MAX_PROOF_BYTES, "{node:?}");
        Plonky2::new().verify(node.circuit(), &proof).unwrap();
    }
}

#[test]
fn blocks_of_one_to_four_transactions_verify_from_what_is_published() {
    for count in 1..=CALLS.len() {
        let published = Published::of(&prefix(count), PROVER).unwrap();
        verify_root(&published, &proof(Node::Root(count))).unwrap();
    }
}

#[test]
fn a_sample_is_a_valid_block_and_reads_back() {
    check_block(&BLOCK, |t| Ok(private(t))).unwrap();
    let json = serde_json::to_vec(&*BLOCK).unwrap();
    assert_eq!(arborist_core::block::Block::parse(&json, 7).unwrap(), *BLOCK);
}

#[test]
fn without_a_statement_a_proof_states_what_its_children_say() {
    let mut request = Node::Vm(0, 0).request();
    request.public_inputs.clear();
    let proof = Plonky2::new().prove(&request).unwrap();
    assert_eq!(proof.public_inputs, Node::Vm(0, 0).statement());
}

#[test]
fn a_cancelled_request_is_not_proven() {
    for node in [Node::Vm(0, 0), Node::Root(4)] {
        let request = node.request();
        request.cancel.cancel();
        assert_eq!(Plonky2::new().prove(&request), Err(ProveError::Cancelled));
    }
}

#[test]
fn proofs_at_the_same_time_do_not_disturb_each_other() {
    std::thread::scope(|scope| {
        let runs: Vec<_> = [1, 1, 2]
            .into_iter()
            .map(|threads| {
                scope.spawn(move || {
                    let request =
                        arborist_core::backend::ProveRequest { threads, ..Node::Vm(2, 1).request() };
                    Plonky2::new().prove(&request).unwrap()
                })
            })
            .collect();
        for run in runs {
            let proof = run.join().unwrap();
            assert_eq!(proof.public_inputs, Node::Vm(2, 1).statement());
            Plonky2::new().verify(Node::Vm(2, 1).circuit(), &proof).unwrap();
        }
    });
}

#[test]
fn the_key_file_has_a_different_key_for_every_circuit() {
    let hashes: std::collections::HashSet<_> =
        keys::circuits().into_iter().map(|c| Keys::pinned().hash(c).unwrap()).collect();
    assert_eq!(hashes.len(), keys::circuits().len());
    assert_eq!(hashes.len(), 42);
}
