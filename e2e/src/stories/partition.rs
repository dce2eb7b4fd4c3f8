//! A node is cut off from the network with its workers, and comes back. Its tasks are made elsewhere meanwhile; what the
//! cut-off workers made counts once at most, also when they hand it in late.

use crate::lab::Scene;
use crate::lab::books::{Counted, backups, lost_leases};
use crate::lab::objects::{fixed_pool, job, laid_over, proofs};
use crate::lab::scene::node_of;
use crate::lab::wait::secs;
use crate::stories::drain::{spread, worker_node};
use crate::stories::kubelet_down::settled;
use anyhow::{Result, ensure};
use kube::ResourceExt;
use serde_json::json;

const TRANSACTIONS: u32 = 24;

pub async fn tell(scene: &Scene<'_>) -> Result<()> {
    let slow = laid_over(spread(), json!({"backend": {"fake": {"millis": "900"}}}));
    let leader = scene.lab.leader().await?.name_any();
    let before = scene.lab.counted(&leader).await?;
    scene.apply(&[fixed_pool("workers", 4, slow), job("work", TRANSACTIONS, scene.seed, json!({}))]).await?;
    scene.all_busy("workers", 4, secs(60)).await?;
    let node = worker_node(scene, "workers").await?;
    let workers = scene.workers("workers").await?;
    let there = workers.iter().filter(|pod| node_of(pod) == Some(&node));
    let cut: Vec<String> = there.map(|pod| format!("{}/{}", scene.namespace, pod.name_any())).collect();
    scene.lab.cluster(&["node", "cut", &node]).await?;
    let told = cut_off(scene, &node, &leader, &cut).await;
    scene.lab.cluster(&["node", "heal", &node]).await?;
    scene.lab.node_ready(&node, true).await?;
    let complete = told?;
    settled(scene).await?;
    scene.lab.whole_again(scene).await?;
    let now = scene.lab.leader().await?.name_any();
    ensure!(now == leader, "the operator's pod was {leader}, is {now}: its counters tell nothing");
    counted_once(before, complete, scene.lab.counted(&leader).await?)
}

/// Waits for the job while the node is cut off; what was counted by then.
async fn cut_off(scene: &Scene<'_>, node: &str, leader: &str, cut: &[String]) -> Result<Counted> {
    scene.lab.node_ready(node, false).await?;
    scene.complete("work", secs(180)).await?;
    // that they were busy is why the job could not be complete without others for their tasks
    let log = scene.lab.operator_log(leader).await?;
    let lost: Vec<String> = cut.iter().flat_map(|worker| lost_leases(&log, worker)).collect();
    let copied: usize = cut.iter().map(|worker| backups(&log, worker)).sum();
    println!("   {} workers cut off: leases lost {lost:?}, {copied} tasks copied", cut.len());
    ensure!(!lost.is_empty() || copied > 0, "no task of {cut:?} was given to another worker");
    scene.lab.counted(leader).await
}

/// Checks that no proof was counted more than once: neither while the node was cut off nor when it came back.
fn counted_once(before: Counted, complete: Counted, after: Counted) -> Result<()> {
    let all = proofs(TRANSACTIONS.into());
    // a process that started anew in between has counted less than before, which is told below
    let made = after.made.saturating_sub(before.made);
    let found = after.found.saturating_sub(before.found);
    let late = after.late_dropped.saturating_sub(before.late_dropped);
    println!("   {made} proofs made, {found} found; {late} late results were dropped");
    // what a cut-off worker left in the store and could not tell of is found there by the next
    ensure!(made + found == all, "{made} proofs made and {found} found, of {all} tasks");
    ensure!(
        (after.made, after.found, after.late_counted)
            == (complete.made, complete.found, complete.late_counted),
        "counted after the job was complete: {complete:?} became {after:?}"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_that_counts_twice_is_noticed() {
        let at =
            |made, found, late_counted, late_dropped| Counted { made, found, late_counted, late_dropped };
        let start = at(10, 1, 0, 0);
        for (complete, after, good) in [
            (at(153, 1, 0, 0), at(153, 1, 0, 2), true),
            (at(151, 3, 1, 0), at(151, 3, 1, 0), true),
            (at(152, 3, 0, 0), at(152, 3, 0, 0), false),
            (at(154, 1, 1, 0), at(154, 1, 1, 0), false),
            (at(152, 1, 0, 0), at(152, 1, 0, 0), false),
            (at(151, 2, 0, 0), at(152, 2, 0, 0), false),
            (at(152, 1, 0, 0), at(152, 2, 0, 0), false),
            (at(153, 1, 0, 0), at(153, 1, 1, 0), false),
            (at(3, 0, 0, 0), at(3, 0, 0, 0), false),
        ] {
            assert_eq!(counted_once(start, complete, after).is_ok(), good, "{complete:?} {after:?}");
        }
    }
}
