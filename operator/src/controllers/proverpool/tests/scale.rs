//! Measurements, run by hand: `cargo test --release -p arborist-operator --lib proverpool::tests::scale -- --ignored
//! --nocapture --test-threads 1`.

use super::fixtures::*;
use super::rounds::Stage;
use crate::controllers::proverpool::fleet::Fleet;
use crate::controllers::proverpool::pod::{Template, random_name};
use crate::controllers::proverpool::validate::PoolKey;
use crate::kubernetes::pods::PodBook;
use arborist_core::circuit::Kind;
use arborist_core::engine::WorkerState;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::PostParams;
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Memory of this process, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
#[ignore = "a measurement"]
fn memory_of_the_book_and_time_of_a_plan() {
    for pods in [1_000_u32, 10_000] {
        let pool = pool("vm", json!({"scaling": {"max": 10000}}));
        let hash = template_of(&pool);
        let (fleet, book, force) = (Fleet::default(), PodBook::default(), FakeForce::default());
        let before = resident();
        for number in 0..pods {
            book.tell_of(pod("vm", &format!("vm-{number}"), &hash, on_node(), running()));
        }
        let bytes = (resident() - before) * 1024 / u64::from(pods);
        let busy = |number: u32| worker(&format!("vm-{number}"), WorkerState::Live, 1, None);
        force.lock().workers = (0..pods).map(busy).collect();
        force.lock().demand = vec![demand(Kind::Vm, VM, pods, 0)];
        let pools: Vec<(PoolKey, _)> = vec![(key("vm"), Arc::new(pool))];
        fleet.plan(&pools, &force, &book, &settings(), at(0));
        let began = Instant::now();
        for second in 1..=20 {
            fleet.plan(&pools, &force, &book, &settings(), at(second));
        }
        let millis = began.elapsed().as_secs_f64() * 1000.0 / 20.0;
        println!("{pods} pods: {millis:.2} ms a plan, {bytes} bytes a pod in the book");
    }
}

/// What the controller adds to a bare client that makes the same pods, 32 at once.
#[tokio::test]
#[ignore = "a measurement"]
async fn rate_of_creation() {
    const PODS: u32 = 2_000;
    for _ in 0..3 {
        let ours = {
            let stage = Stage::new(json!({"scaling": {"max": 10000}}));
            stage.demand(0, PODS);
            let began = Instant::now();
            stage.round().await;
            assert!(stage.made().len() >= PODS as usize - 10, "names that are taken come again");
            began.elapsed()
        };
        println!("{PODS} pods: {} ms, a bare client {} ms", ours.as_millis(), bare(PODS).await.as_millis());
    }
}

async fn bare(pods: u32) -> Duration {
    let bare = Stage::new(json!({}));
    let api: Api<Pod> = Api::namespaced(bare.shop.client.clone(), "prod");
    let template = Template::new(&valid(&bare.pool), &settings());
    let began = Instant::now();
    let create = |_| async {
        api.create(&PostParams::default(), &template.named(&random_name(&key("vm")))).await.unwrap();
    };
    futures::stream::iter(0..pods).for_each_concurrent(32, create).await;
    began.elapsed()
}
