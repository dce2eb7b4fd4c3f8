//! Blocks and statements, mostly without proofs.

use super::fixture::{BLOCK, private};
use crate::field::{self, F};
use crate::layout::RangeInputs;
use crate::state::StateTree;
use crate::{SampleError, Statements, check_block, made_up_block, merge, prover_word, sample_block, vm};
use arborist_core::block::{Block, BlockError, Call, Transaction, Word};
use arborist_core::ids::ArtifactHash;
use plonky2::field::types::Field;

fn word(n: u64) -> Word {
    field::to_word([F::from_canonical_u64(n), F::ZERO, F::ZERO, F::ONE])
}

/// A block whose states, hashes and calls only have to differ.
fn made_up(transactions: usize) -> Block {
    let mut block = BLOCK.clone();
    block.state_before = word(1_000_000);
    let mut before = block.state_before;
    block.transactions = (0..transactions)
        .map(|t| {
            let calls = (0..t % 3).map(|c| {
                let after = word((10 * t + c) as u64);
                let state_before = std::mem::replace(&mut before, after);
                Call {
                    slot: c as u16,
                    args: word(t as u64),
                    old_value: word(0),
                    siblings: vec![],
                    state_before,
                    state_after: after,
                }
            });
            Transaction { hash: word(t as u64), private_proof: ArtifactHash([0; 32]), calls: calls.collect() }
        })
        .collect();
    block
}

/// RFC 6962's recursion, read off the text.
fn commitment(hashes: &[[F; 4]]) -> [F; 4] {
    match hashes {
        [one] => *one,
        _ => {
            let split = (1..hashes.len()).filter(|k| k.is_power_of_two()).max().unwrap();
            merge::commit(commitment(&hashes[..split]), commitment(&hashes[split..]))
        }
    }
}

#[test]
fn ranges_state_what_the_rfc_says_for_every_size() {
    for transactions in 1..=21 {
        let block = made_up(transactions);
        let statements = Statements::new(&block, prover_word("p")).unwrap();
        let hashes: Vec<_> = block.transactions.iter().map(|t| field::from_word(&t.hash).unwrap()).collect();
        let states = block.transaction_states();
        for first in 0..transactions {
            for count in 1..=transactions - first {
                let found = statements.range(first, count).unwrap();
                let found = RangeInputs::read(&field::to_elements(&found).unwrap()).unwrap();
                let range = first..first + count;
                assert_eq!(found.commitment, commitment(&hashes[range]), "{first}+{count} of {transactions}");
                assert_eq!(field::to_word(found.before), states[first].0);
                assert_eq!(field::to_word(found.after), states[first + count - 1].1);
                assert_eq!(found.count, F::from_canonical_usize(count));
            }
        }
        assert_eq!(statements.range(0, transactions + 1), None);
        assert_eq!(statements.range(transactions, 1), None);
        assert_eq!(statements.range(0, 0), None);
        assert_eq!(statements.base(0), statements.range(0, 1));
    }
}

#[test]
fn statements_of_calls_chain_and_end_where_the_transaction_does() {
    let statements = Statements::new(&made_up(6), prover_word("p")).unwrap();
    assert_eq!(statements.transactions(), 6);
    let (first, second) = (statements.vm(5, 0).unwrap(), statements.vm(5, 1).unwrap());
    assert_eq!(first[4..8], second[..4]);
    let (one, two) = (statements.kernel(5, 1).unwrap(), statements.kernel(5, 2).unwrap());
    assert_eq!((&one[..4], &one[4..8]), (&first[..4], &first[4..8]));
    assert_eq!((&two[..4], &two[4..8]), (&first[..4], &second[4..8]));
    assert_eq!(two[12..16], two[16..20], "the last kernel has executed all calls");
    assert_ne!(one[12..16], one[16..20]);
    assert_eq!(statements.vm(5, 2), None);
    assert_eq!(statements.kernel(5, 3), None);
    assert_eq!(statements.kernel(5, 0), None);
    assert_eq!(statements.vm(3, 0), None, "transaction 3 has no calls");
    assert_eq!(statements.vm(6, 0), None);
}

#[test]
fn a_changed_block_is_refused_by_field() {
    let at = "transactions[2].calls[1]";
    type Change = fn(&mut Block);
    let cases: [(&str, Change); 11] = [
        ("profile", |b| b.profile = "another".into()),
        ("chain_id", |b| b.chain_id = u64::MAX),
        ("block_number", |b| b.block_number = u64::MAX - 1),
        (".state_after", |b| b.transactions[2].calls[1].args = word(9)),
        (".args", |b| b.transactions[2].calls[1].args = Word([255; 32])),
        (".old_value", |b| b.transactions[2].calls[1].old_value = Word([255; 32])),
        (".state_before", |b| b.transactions[2].calls[1].old_value = word(9)),
        (".state_before", |b| b.transactions[2].calls[1].slot ^= 1 << 15),
        (".siblings[7]", |b| b.transactions[2].calls[1].siblings[7] = Word([255; 32])),
        ("transactions[1].private_proof", |b| b.transactions[1].hash = word(9)),
        ("transactions[0].private_proof", |b| {
            b.transactions[0].private_proof = b.transactions[1].private_proof;
        }),
    ];
    for (field, change) in cases {
        let mut block = BLOCK.clone();
        change(&mut block);
        let wanted = if field.starts_with('.') { format!("{at}{field}") } else { field.to_owned() };
        let error = check_block(&block, |t| Ok(private(t))).unwrap_err();
        assert_eq!(error.field, wanted, "{error}");
    }
}

#[test]
fn a_transaction_cannot_be_given_fewer_calls_than_its_sender_asked_for() {
    let mut block = BLOCK.clone();
    block.transactions[3].calls.pop();
    block.state_after = block.transactions[3].calls[0].state_after;
    let error = check_block(&block, |t| Ok(private(t))).unwrap_err();
    assert_eq!(error.field, "transactions[3].private_proof");
    assert!(error.problem.contains("other calls"), "{error}");
}

#[test]
fn a_private_proof_that_is_another_or_damaged_is_refused() {
    let mut of_another = BLOCK.clone();
    of_another.transactions[0].private_proof = ArtifactHash::of(&private(1));
    let damaged = |t: usize| {
        let mut proof = private(t);
        proof[900] ^= u8::from(t == 3);
        proof
    };
    let mut damaged_and_named = BLOCK.clone();
    damaged_and_named.transactions[3].private_proof = ArtifactHash::of(&damaged(3));
    let swapped = |t: usize| private(if t == 0 { 1 } else { t });
    let missing = |t: usize| BlockError { field: format!("of {t}"), problem: "not there".into() };
    for (field, said, error) in [
        (
            "transactions[0].private_proof",
            "it is of transaction",
            check_block(&of_another, |t| Ok(swapped(t))),
        ),
        ("transactions[0].private_proof", "the object has the hash", check_block(&BLOCK, |t| Ok(swapped(t)))),
        ("transactions[3].private_proof", "", check_block(&damaged_and_named, |t| Ok(damaged(t)))),
        ("of 0", "not there", check_block(&BLOCK, |t| Err(missing(t)))),
    ] {
        let error = error.unwrap_err();
        assert_eq!(error.field, field, "{error}");
        assert!(error.problem.contains(said), "{error}");
    }
}

#[test]
fn a_made_up_block_has_the_right_form_and_chains() {
    let hash = |t: usize| ArtifactHash::of(&t.to_le_bytes());
    let block = made_up_block(&[2, 0, 7], 5, 9, 3, |t| Ok(hash(t))).unwrap();
    let json = serde_json::to_vec(&block).unwrap();
    assert_eq!(Block::parse(&json, 7).unwrap(), block);
    Statements::new(&block, prover_word("p")).unwrap();
    assert_eq!(block.transactions[1].private_proof, hash(1));
}

#[test]
fn samples_that_no_block_allows_are_refused() {
    let refused = |calls: &[u8], chain| sample_block(calls, chain, 1, 1, |_| ()).unwrap_err();
    assert_eq!(refused(&[], 1), SampleError::Transactions(0));
    assert_eq!(refused(&[0, 8], 1), SampleError::Calls { transaction: 1, calls: 8 });
    assert!(matches!(refused(&[0], u64::MAX), SampleError::Number(e) if e.field == "chain_id"));
}

#[test]
fn a_state_tree_and_its_paths_agree() {
    let mut tree = StateTree::new();
    let (a, b) = ([F::ONE; 4], [F::TWO; 4]);
    for (slot, value) in [(0, a), (65_535, b), (40_000, a), (0, b)] {
        assert_eq!(vm::root(slot, tree.value(slot), &tree.siblings(slot)), tree.root());
        let siblings = tree.siblings(slot);
        tree.set(slot, value);
        assert_eq!(tree.value(slot), value);
        assert_eq!(tree.siblings(slot), siblings);
        assert_eq!(vm::root(slot, value, &siblings), tree.root());
    }
}

#[test]
fn prover_words_differ_and_are_valid_elements() {
    let names = ["", "a", "b", "prover of the tests"];
    let words: std::collections::HashSet<_> = names.map(prover_word).into_iter().collect();
    assert_eq!(words.len(), names.len());
    assert!(words.iter().all(|w| field::from_word(w).is_some()));
}
