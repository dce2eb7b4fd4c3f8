//! The fixed blocks and machines that schedules are judged by.

use super::pools::{Costs, Pool};
use super::rng::Rng;
use crate::profile::{Needs, Profile};

/// A block on machines.
#[derive(Debug, Clone)]
pub struct Case {
    /// Transactions, calls, machines.
    pub name: String,
    /// Number of public calls of each transaction.
    pub calls: Vec<u8>,
    /// The machines.
    pub pools: Vec<Pool>,
    /// Needs and durations.
    pub costs: Costs,
}

/// Sizes that are in the grid whatever the seed: (transactions, `vm` machines, small machines), with
/// two calls each. The first is balanced and as large as a block gets.
const FIXED: [(usize, u32, u32); 10] = [
    (61_440, 1_024, 2_048),
    (61_440, 4_096, 8_192),
    (61_440, 2_048, 8_192),
    (61_440, 1_024, 1_024),
    (61_440, 8_192, 8_192),
    (16_384, 1_024, 2_048),
    (10_000, 500, 1_000),
    (4_096, 256, 512),
    (1_024, 128, 256),
    (1_024, 64, 128),
];

const SEED: u64 = 1;

/// The grid: 220 cases, every proof one unit of time. Half of them have machines that can stand in
/// for each other (a large one runs four small proofs), half have not.
pub fn grid() -> Vec<Case> {
    let fixed = FIXED.iter().flat_map(|(transactions, vm, small)| {
        needs().map(|(label, costs)| case(label, vec![2; *transactions], *vm, *small, costs))
    });
    fixed.chain(random_grid(SEED, 100)).collect()
}

/// 64 to 2,000 transactions of up to 6 calls (every fourth case: different ones) on 8 to 600
/// machines of a class, twice `pairs` cases.
pub fn random_grid(seed: u64, pairs: u32) -> Vec<Case> {
    let mut rng = Rng::new(seed);
    let mut cases = vec![];
    for pair in 0..pairs {
        for (label, costs) in needs() {
            let transactions = rng.log_between(64, 2_000);
            let most = rng.between(1, 6);
            let (vm, small) = (rng.log_between(8, 600) as u32, rng.log_between(8, 600) as u32);
            let mut call = || if pair % 4 == 3 { rng.between(0, most) } else { most } as u8;
            let calls = (0..transactions).map(|_| call()).collect();
            cases.push(case(label, calls, vm, small, costs));
        }
    }
    cases
}

/// The random cases again, with durations that differ by kind.
pub fn uneven_grid() -> Vec<Case> {
    let mut rng = Rng::new(SEED);
    let mut cases = random_grid(SEED + 1, 50);
    for case in &mut cases {
        let vm = rng.between(20, 60) as u32;
        let mut small = || rng.between(10, 40) as u32;
        case.costs.millis = [vm, small(), small(), small(), small()];
    }
    cases
}

/// Machines that can stand in for each other, and such that can't.
fn needs() -> [(&'static str, Costs); 2] {
    let shared = Costs::from(&Profile::rfp()).in_proofs();
    let small = shared.needs[1];
    let vm = Needs { cores: 4, memory_mib: 64 << 10 };
    [("shared", shared), ("apart", Costs { needs: [vm, small, small, small, small], ..shared })]
}

fn case(label: &str, calls: Vec<u8>, vm: u32, small: u32, costs: Costs) -> Case {
    let (least, most) = (calls.iter().min().unwrap_or(&0), calls.iter().max().unwrap_or(&0));
    let range = if least == most { most.to_string() } else { format!("{least}-{most}") };
    let name = format!("{label}: {} x {range} calls on {vm} vm + {small} small", calls.len());
    let pools = vec![Pool::of_all_kinds(vm, costs.needs[0]), Pool::of_all_kinds(small, costs.needs[1])];
    Case { name, calls, pools, costs }
}
