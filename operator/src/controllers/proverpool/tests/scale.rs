use super::fixtures::*;
use crate::controllers::proverpool::fleet::Fleet;
use crate::controllers::proverpool::validate::PoolKey;
use crate::kubernetes::pods::PodBook;
use arborist_core::circuit::Kind;
use arborist_core::engine::WorkerState;
use serde_json::json;
use std::sync::Arc;

/// How a plan over ten thousand pods scales: run it with `--ignored --nocapture` to see the time of each.
#[test]
#[ignore = "a measurement, not a test: docs/performance.md"]
fn time_of_a_plan() {
    for pods in [1_000_u32, 10_000] {
        let pool = pool("vm", json!({"scaling": {"max": 10000}}));
        let hash = template_of(&pool);
        let (fleet, book, force) = (Fleet::default(), PodBook::default(), FakeForce::default());
        for number in 0..pods {
            let name = format!("vm-{number}");
            book.tell_of(super::fixtures::pod("vm", &name, &hash, on_node(), running()));
            force.lock().workers.push(worker(&name, WorkerState::Live, 1, None));
        }
        force.lock().demand = vec![demand(Kind::Vm, VM, pods, 0)];
        let pools: Vec<(PoolKey, _)> = vec![(key("vm"), Arc::new(pool))];
        fleet.plan(&pools, &force, &book, &settings(), at(0));
        let began = std::time::Instant::now();
        for second in 1..=20 {
            fleet.plan(&pools, &force, &book, &settings(), at(second));
        }
        println!("{pods} pods: {:.2} ms a plan", began.elapsed().as_secs_f64() * 1000.0 / 20.0);
    }
}
