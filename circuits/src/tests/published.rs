use super::fixture::{Node, PROVER, prefix, proof};
use crate::{Published, RootError, prover_word, verify_root};
use arborist_core::backend::VerifyError;
use arborist_core::block::Word;

fn good() -> Published {
    Published::of(&prefix(4), PROVER).unwrap()
}

#[test]
fn every_changed_published_value_is_refused_by_name() {
    let one = Word([1; 32]);
    type Change = fn(&mut Published, Word);
    let changes: [(&str, Change); 7] = [
        ("chain id", |p, _| p.chain_id += 1),
        ("block number", |p, _| p.block_number += 1),
        ("state before", |p, w| p.state_before = w),
        ("state after", |p, w| p.state_after = w),
        ("transactions' commitment", |p, w| p.transactions_commitment = w),
        ("count of transactions", |p, _| p.transactions = 3),
        ("prover id", |p, _| p.prover_id = prover_word("a thief")),
    ];
    for (name, change) in changes {
        let mut published = good();
        change(&mut published, one);
        match verify_root(&published, &proof(Node::Root(4))) {
            Err(RootError::Differs { field, .. }) => assert_eq!(field, name),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn counts_and_values_that_no_block_has_are_refused() {
    for transactions in [0, 65_537, u64::MAX] {
        let published = Published { transactions, ..good() };
        let refused = verify_root(&published, &proof(Node::Root(4)));
        assert_eq!(refused, Err(RootError::Count(transactions)));
    }
    let published = Published { state_after: Word([255; 32]), ..good() };
    let refused = verify_root(&published, &proof(Node::Root(4)));
    assert_eq!(refused, Err(RootError::NotAnElement("state after")));
    let published = Published { chain_id: u64::MAX, ..good() };
    let refused = verify_root(&published, &proof(Node::Root(4)));
    assert_eq!(refused, Err(RootError::NotAnElement("chain id")));
}

#[test]
fn a_proof_that_claims_other_public_inputs_is_invalid() {
    for place in 0..19 {
        let mut proof = proof(Node::Root(4));
        proof.public_inputs[place] ^= 1;
        let mut published = good();
        // What is published goes along with the lie.
        match place {
            0 => published.block_number ^= 1,
            1 => published.chain_id ^= 1,
            2..6 => published.state_before.0[8 * (place - 2)] ^= 1,
            6..10 => published.state_after.0[8 * (place - 6)] ^= 1,
            10..14 => published.transactions_commitment.0[8 * (place - 10)] ^= 1,
            14 => published.transactions ^= 1,
            _ => published.prover_id.0[8 * (place - 15)] ^= 1,
        }
        match verify_root(&published, &proof) {
            Err(RootError::Proof(VerifyError::Invalid { .. } | VerifyError::WrongKey { .. })) => {}
            other => panic!("public input {place}: {other:?}"),
        }
    }
}

#[test]
fn a_proof_of_another_block_or_circuit_is_refused() {
    let shorter = verify_root(&Published::of(&prefix(2), PROVER).unwrap(), &proof(Node::Root(4)));
    assert!(matches!(shorter, Err(RootError::Differs { .. })), "{shorter:?}");
    let mut relabelled = proof(Node::Root(2));
    relabelled.public_inputs = proof(Node::Root(4)).public_inputs;
    let wrong_key = verify_root(&good(), &relabelled);
    assert!(matches!(wrong_key, Err(RootError::Proof(VerifyError::WrongKey { .. }))), "{wrong_key:?}");
    relabelled.vk_hash = proof(Node::Root(4)).vk_hash;
    let invalid = verify_root(&good(), &relabelled);
    assert!(matches!(invalid, Err(RootError::Proof(VerifyError::Invalid { .. }))), "{invalid:?}");
}
