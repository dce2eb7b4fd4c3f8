use super::*;
use crate::block::{Block, Call, Transaction, Word};
use crate::circuit::Kind;
use crate::ids::ArtifactHash;
use crate::system::ProofSystem;
use proptest::prelude::*;
use std::collections::HashSet;

fn shape(calls: &[u8]) -> Shape {
    Shape::new(calls, 7).unwrap()
}

#[test]
fn a_block_has_t_times_2n_plus_2_minus_1_tasks() {
    for (t, n) in [(2u32, 0u8), (2, 1), (3, 2), (4, 2), (7, 3), (1_024, 2), (61_440, 2)] {
        let shape = shape(&vec![n; t as usize]);
        assert_eq!(shape.total(), t * (2 * u32::from(n) + 2) - 1, "T={t} N={n}");
    }
    assert_eq!(shape(&vec![2; 61_440]).total(), 368_639);
    // The root over a lone base is a proof of its own.
    assert_eq!(shape(&[2]).total(), 6);
    assert_eq!(shape(&[0]).total(), 2);
}

#[test]
fn the_longest_path_is_1_plus_n_plus_1_plus_log_t() {
    for (t, n, path) in [(61_440, 2, 20), (1_024, 2, 14), (3, 1, 5), (1, 2, 5)] {
        let shape = shape(&vec![n; t]);
        let longest = shape.nodes().map(|id| shape.remaining(id)).max().unwrap();
        assert_eq!(longest, path, "T={t} N={n}");
        assert_eq!(shape.head(shape.root()) + 1, path);
    }
}

#[test]
fn bad_shapes_name_what_is_allowed() {
    assert_eq!(Shape::new(&[], 7).unwrap_err().to_string(), "transactions: 0, allowed are 1 to 65536");
    assert_eq!(
        Shape::new(&[1, 8], 7).unwrap_err().to_string(),
        "transactions[1].calls: 8, the profile allows at most 7"
    );
    assert!(Shape::new(&vec![0; 65_537], 7).is_err());
}

proptest! {
    #[test]
    fn parents_children_levels_and_ranges_agree(calls in prop::collection::vec(0u8..=7, 1..300)) {
        let shape = shape(&calls);
        let mut seen = 0u32;
        for id in shape.nodes() {
            let children = shape.children(id);
            for (place, child) in children.as_slice().iter().enumerate() {
                prop_assert!(*child < id);
                prop_assert_eq!(shape.parent(*child), Some(id), "child {:?} of {:?}", child, id);
                prop_assert_eq!(shape.remaining(*child), shape.remaining(id) + 1);
                let _ = place;
                seen += 1;
            }
            let below: u32 = children.as_slice().iter().map(|c| shape.head(*c) + 1).max().unwrap_or(0);
            prop_assert_eq!(shape.head(id), below);
            if let [left, right] = children.as_slice()
                && matches!(shape.kind(id), Kind::Merge | Kind::Root) {
                let (l, r) = (shape.range(*left), shape.range(*right));
                prop_assert_eq!(l.0 + l.1, r.0);
                prop_assert_eq!(shape.range(id), (l.0, l.1 + r.1));
                prop_assert!(l.1.is_power_of_two() && r.1 <= l.1);
                prop_assert_eq!(shape.circuit(id).param(), shape.circuit(*left).param() + 1);
            }
            prop_assert_eq!(shape.circuit(id).kind(), shape.kind(id));
        }
        prop_assert_eq!(seen + 1, shape.total(), "all but the root have one parent");
        prop_assert_eq!(shape.range(shape.root()), (0, shape.transactions()));
    }
}

fn system(circuits: &str) -> ProofSystem {
    ProofSystem { backend: "fake".into(), circuits: circuits.into(), keys: None }
}

const BINDING: RootBinding = RootBinding { chain_id: 1, block_number: 2, prover_id: [3; 32] };

#[test]
fn ids_are_distinct_stable_and_shared_by_what_is_equal() {
    let ids =
        |calls: &[u8], seed| task_ids(&shape(calls), &Leaves::Synthetic { seed }, &system("c-v1"), &BINDING);
    let a = ids(&[0, 1, 2, 3, 1], 1);
    assert_eq!(a, ids(&[0, 1, 2, 3, 1], 1));
    assert_eq!(a.iter().collect::<HashSet<_>>().len(), a.len());
    assert!(a.iter().all(|id| !ids(&[0, 1, 2, 3, 1], 2).contains(id)));
    // A reorg that replaces the last transaction keeps the first four's tree.
    let b: HashSet<_> = ids(&[0, 1, 2, 3, 2], 1).into_iter().collect();
    let kept = a.iter().filter(|id| b.contains(id)).count();
    assert!(kept >= 6 + 6 + 4 + 3, "kept {kept}");
}

#[test]
fn only_the_root_depends_on_prover_chain_and_number() {
    let shape = shape(&[1, 0, 2]);
    let ids = |binding| task_ids(&shape, &Leaves::Synthetic { seed: 1 }, &system("c-v1"), &binding);
    let a = ids(BINDING);
    for other in [
        RootBinding { chain_id: 9, ..BINDING },
        RootBinding { block_number: 9, ..BINDING },
        RootBinding { prover_id: [9; 32], ..BINDING },
    ] {
        let b = ids(other);
        let (last, rest) = (a.len() - 1, a.len() - 1);
        assert_eq!(a[..rest], b[..rest]);
        assert_ne!(a[last], b[last]);
    }
}

#[test]
fn proof_systems_have_no_task_in_common() {
    let shape = shape(&[1, 0, 2]);
    let keys = |hash| ProofSystem { keys: Some(crate::ids::ArtifactHash([hash; 32])), ..system("c-v1") };
    let other = ProofSystem { backend: "plonky2".into(), ..system("c-v1") };
    let mut all = HashSet::new();
    for system in [system("c-v1"), system("c-v2"), other, keys(1), keys(2)] {
        for id in task_ids(&shape, &Leaves::Synthetic { seed: 1 }, &system, &BINDING) {
            assert!(all.insert(id), "{system}");
        }
    }
}

/// A block of one transaction with two calls and one without.
fn block() -> Block {
    let word = |n| Word([n; 32]);
    let call = |slot, before, after| Call {
        slot,
        args: word(9),
        old_value: word(0),
        siblings: vec![word(0); 16],
        state_before: word(before),
        state_after: word(after),
    };
    let transaction =
        |hash, calls| Transaction { hash: word(hash), private_proof: ArtifactHash([7; 32]), calls };
    Block {
        version: 2,
        profile: "c-v1".into(),
        chain_id: 1,
        block_number: 2,
        state_before: word(1),
        state_after: word(3),
        transactions: vec![transaction(7, vec![call(1, 1, 2), call(2, 2, 3)]), transaction(8, vec![])],
    }
}

#[test]
fn what_a_transaction_states_is_in_the_ids_of_all_that_is_proven_of_it() {
    type Change = fn(&mut Block);
    let cases: [(&str, Change, &[usize]); 3] = [
        ("the hash of one with calls", |b| b.transactions[0].hash.0[0] ^= 1, &[2, 3, 4, 6]),
        ("the hash of one without", |b| b.transactions[1].hash.0[0] ^= 1, &[5, 6]),
        ("its second call's arguments", |b| b.transactions[0].calls[1].args.0[0] ^= 1, &[1, 2, 3, 4, 6]),
    ];
    let ids = |block: &Block| {
        let leaves = Leaves::of_block(block);
        task_ids(&shape(&[2, 0]), &leaves, &system("c-v1"), &BINDING)
    };
    let before = ids(&block());
    for (case, change, wanted) in cases {
        let mut changed = block();
        change(&mut changed);
        let after = ids(&changed);
        let differ: Vec<usize> = (0..before.len()).filter(|n| before[*n] != after[*n]).collect();
        assert_eq!(differ, wanted, "{case}: vm 0 and 1, kernel 2 and 3, base 4 and 5, root 6");
    }
}
