//! Which order each job follows: chosen by simulation on the machines there are, again when they change.

use super::Inner;
use crate::dispatch::net::SendBuffers;
use arborist_core::circuit::Kind;
use arborist_core::engine::{ClassView, Event, JobId, JobState, PreparedJob};
use arborist_core::order::choose;
use arborist_core::sim::{Costs, Pool};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How often a look is taken at the machines.
const LOOK: Duration = Duration::from_secs(2);
/// An order is chosen again when the number of some machines has changed by a quarter …
const CHANGE: u32 = 4;
/// … and less than this many percent of the job are done.
const WORTH_IT_PERCENT: u64 = 80;

/// A job whose order may be chosen: which it follows now, its tree, and the machines that serve it.
type Candidate = (JobId, usize, Arc<PreparedJob>, Vec<Pool>);

/// The machines that a job's order was chosen for.
struct Chosen {
    job: JobId,
    pools: Vec<Pool>,
}

impl Inner {
    /// Keeps the jobs' orders fitting until the dispatcher stops.
    pub(super) async fn keep_order(self: Arc<Self>) {
        let mut chosen: Vec<Chosen> = vec![];
        loop {
            // a new job, or time to look at the machines; which one makes no difference
            let _ = tokio::time::timeout(LOOK, self.reorder.notified()).await;
            let (costs, jobs) = self.machines_and_jobs();
            chosen.retain(|c| jobs.iter().any(|(id, ..)| *id == c.job));
            for (job, policy, tree, pools) in jobs {
                let before = chosen.iter().position(|c| c.job == job);
                if pools.is_empty() || before.is_some_and(|at| !differ(&chosen[at].pools, &pools)) {
                    continue;
                }
                let machines = pools.clone();
                let choice =
                    tokio::task::spawn_blocking(move || choose(&tree.shape, &machines, &costs)).await;
                let Ok(choice) = choice else { continue };
                before.into_iter().for_each(|at| _ = chosen.swap_remove(at));
                chosen.push(Chosen { job, pools });
                if let Some(choice) = choice
                    && choice.policy != policy
                {
                    tracing::info!(
                        job = job.0,
                        policy = choice.policy,
                        makespan = choice.makespan,
                        "order chosen"
                    );
                    self.room.drive(&mut SendBuffers::default(), |core, now| {
                        core.event(now, Event::Order { job, policy: choice.policy });
                    });
                }
            }
        }
    }

    fn machines_and_jobs(&self) -> (Costs, Vec<Candidate>) {
        let profile = &self.options.engine.profile;
        self.room.look(|core| {
            let pool = |c: &ClassView| Pool { count: c.workers, capacity: c.capacity, kinds: c.kinds };
            let mut of: BTreeMap<String, Vec<Pool>> = BTreeMap::new();
            let learned = core.engine.learned();
            let millis = Kind::ALL.map(|kind| learned.median(kind, 0).max(1));
            let mut jobs = vec![];
            for id in core.engine.jobs() {
                let Some((counts, JobState::Proving)) = core.engine.counts(id) else { continue };
                let sum = |of: fn(&arborist_core::engine::Counts) -> u32| -> u64 {
                    counts.iter().map(|c| u64::from(of(c))).sum()
                };
                let worth_it = 100 * sum(|c| c.done) < WORTH_IT_PERCENT * sum(|c| c.total);
                if let (true, Some(tree), Some(view)) =
                    (worth_it, core.engine.prepared_job(id), core.engine.job(id))
                {
                    let namespace = view.spec.namespace;
                    let classes = || core.engine.capacity_for(&namespace).iter().map(pool).collect();
                    let pools = of.entry(namespace.clone()).or_insert_with(classes).clone();
                    jobs.push((id, view.policy, tree.clone(), pools));
                }
            }
            (Costs { needs: profile.needs, millis }, jobs)
        })
    }
}

fn differ(before: &[Pool], now: &[Pool]) -> bool {
    let same = |a: &Pool, b: &Pool| {
        (a.capacity, a.kinds) == (b.capacity, b.kinds)
            && a.count.abs_diff(b.count).saturating_mul(CHANGE) < a.count.max(1)
    };
    before.len() != now.len() || before.iter().zip(now).any(|(a, b)| !same(a, b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arborist_core::circuit::KindSet;
    use arborist_core::profile::Needs;

    #[test]
    fn an_order_is_chosen_again_when_a_quarter_of_the_machines_changes() {
        let pool = |count, cores| Pool::of_all_kinds(count, Needs { cores, memory_mib: 1 });
        let of_vm = |pool| Pool { kinds: KindSet::of(Kind::Vm), ..pool };
        for (before, now, expected) in [
            (vec![pool(100, 8)], vec![pool(100, 8)], false),
            (vec![pool(100, 8)], vec![pool(124, 8)], false),
            (vec![pool(100, 8)], vec![pool(125, 8)], true),
            (vec![pool(1, 8)], vec![pool(2, 8)], true),
            (vec![pool(1, 8)], vec![pool(1, 16)], true),
            (vec![], vec![pool(1, 16)], true),
            (vec![of_vm(pool(8, 16))], vec![of_vm(pool(8, 16))], false),
            (vec![pool(8, 16)], vec![of_vm(pool(8, 16))], true),
        ] {
            assert_eq!(differ(&before, &now), expected, "{before:?} to {now:?}");
        }
    }
}
