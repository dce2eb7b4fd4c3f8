//! The order a job follows: every policy is simulated on the machines there are.

use super::{Between, POLICIES};
use crate::bound::lower_bound;
use crate::circuit::Kind;
use crate::sim::{Costs, Plan, Pool};
use crate::tree::Shape;

/// The best order for a job on given machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// Index into [`POLICIES`].
    pub policy: usize,
    /// How long the job takes in this order, in milliseconds, without faults and stragglers.
    pub makespan: u64,
    /// How long it takes at least in any order, in milliseconds.
    pub bound: u64,
}

/// Simulates the policies until one reaches the lower bound, and takes the best; of equal ones the
/// first. `None` when some task fits no machine that takes it.
///
/// A block of 61,440 transactions takes some 30 ms for each policy that is tried.
pub fn choose(shape: &Shape, pools: &[Pool], costs: &Costs) -> Option<Choice> {
    let bound = lower_bound(shape, pools, costs)?;
    let plan = Plan::new(shape, pools, costs);
    let mut best: Option<Choice> = None;
    let shared = any_shared(pools, costs);
    for (policy, order) in POLICIES.iter().enumerate() {
        if order.between == Between::ByKey && !shared {
            continue;
        }
        let limit = best.map_or(u64::MAX, |b| b.makespan - 1);
        if let Some(schedule) = plan.run(order, limit) {
            best = Some(Choice { policy, makespan: schedule.makespan, bound });
        }
        if best.is_some_and(|b| b.makespan <= bound) {
            break;
        }
    }
    best
}

/// Whether some machine runs proofs of different needs.
fn any_shared(pools: &[Pool], costs: &Costs) -> bool {
    pools.iter().any(|pool| {
        let own = Kind::ALL.map(|kind| (kind, costs.needs[kind.index()]));
        let mut run = own.iter().filter(|(kind, needs)| pool.runs(*kind, needs)).map(|(_, needs)| needs);
        let first = run.next();
        run.any(|needs| Some(needs) != first)
    })
}
