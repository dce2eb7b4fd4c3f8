//! Schedule quality in virtual time: makespan against the lower bound over a fixed grid of blocks
//! and machines, for every order and for the one that is chosen. Only the run time printed at the
//! end depends on the machine it runs on.

use anyhow::{Context, Result};
use arborist_core::bound::lower_bound;
use arborist_core::order::{POLICIES, choose};
use arborist_core::sim::Plan;
use arborist_core::sim::grid::{Case, grid, random_grid, uneven_grid};
use arborist_core::tree::Shape;
use std::time::Instant;

/// Ratios to the bound of all cases in one order.
#[derive(Default, Clone)]
struct Ratios {
    all: Vec<f64>,
    worst_case: String,
}

impl Ratios {
    fn add(&mut self, ratio: f64, case: &Case) {
        if self.all.iter().all(|other| ratio > *other) {
            self.worst_case.clone_from(&case.name);
        }
        self.all.push(ratio);
    }

    fn mean(&self) -> f64 {
        self.all.iter().sum::<f64>() / self.all.len() as f64
    }

    fn worst(&self) -> f64 {
        self.all.iter().copied().fold(0.0, f64::max)
    }

    fn row(&self, name: &str) {
        let optimal = self.all.iter().filter(|r| **r <= 1.0).count();
        let (mean, worst) = (self.mean(), self.worst());
        println!("{name:22} {mean:8.4} {worst:8.4} {optimal:6} of {}", self.all.len());
    }
}

fn main() -> Result<()> {
    let start = Instant::now();
    println!("makespan / lower bound, virtual time, no faults");
    let cases = grid();
    let chosen = table("every proof takes the same time", &cases)?;
    target("mean", chosen.mean(), 1.01, 1.002);
    target("worst", chosen.worst(), 1.08, 1.02);
    println!("worst case: {}", chosen.worst_case);
    for seed in 2..=8 {
        others(seed)?;
    }
    let uneven = table("durations differ by kind (no target)", &uneven_grid())?;
    println!("worst case: {}", uneven.worst_case);
    largest()?;
    println!("\nrun time {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}

fn table(title: &str, cases: &[Case]) -> Result<Ratios> {
    let mut by_policy = vec![Ratios::default(); POLICIES.len()];
    let mut chosen = Ratios::default();
    for case in cases {
        let shape = Shape::new(&case.calls, 7)?;
        let choice = choose(&shape, &case.pools, &case.costs).context("a task fits no machine")?;
        let ratio = |makespan: u64| makespan as f64 / choice.bound as f64;
        chosen.add(ratio(choice.makespan), case);
        let plan = Plan::new(&shape, &case.pools, &case.costs);
        for (policy, ratios) in POLICIES.iter().zip(&mut by_policy) {
            let run = plan.run(policy, u64::MAX).context("a task fits no machine")?;
            ratios.add(ratio(run.makespan), case);
        }
    }
    println!("\n{} blocks and pools, {title}", cases.len());
    println!("{:22} {:>8} {:>8} {:>6}", "order", "mean", "worst", "at the bound");
    for (policy, ratios) in POLICIES.iter().zip(&by_policy) {
        ratios.row(policy.name);
    }
    chosen.row("chosen by simulation");
    Ok(chosen)
}

/// The choice alone on other random blocks and machines than the grid's: were the orders made for it?
fn others(seed: u64) -> Result<()> {
    let mut chosen = Ratios::default();
    for case in random_grid(seed, 100) {
        let shape = Shape::new(&case.calls, 7)?;
        let choice = choose(&shape, &case.pools, &case.costs).context("a task fits no machine")?;
        chosen.add(choice.makespan as f64 / choice.bound as f64, &case);
    }
    chosen.row(&format!("chosen, other seed {seed}"));
    Ok(())
}

/// One line: what was reached against what has to be and what is wanted. Ratios are of the part
/// above the bound.
fn target(what: &str, reached: f64, floor: f64, wanted: f64) {
    let part = |limit: f64| (reached - 1.0) / (limit - 1.0);
    let verdict = match reached {
        r if r <= wanted => "wanted figure reached",
        r if r <= floor => "reached",
        _ => "MISSED",
    };
    println!(
        "{what}: {reached:.4}, target {floor} (x{:.2} of it), wanted {wanted} (x{:.2}): {verdict}",
        part(floor),
        part(wanted)
    );
}

/// How long choosing takes for the largest block.
fn largest() -> Result<()> {
    println!("\n61,440 transactions x 2 calls, 368,639 tasks, on this machine");
    for case in grid().iter().filter(|case| case.calls.len() == 61_440) {
        let shape = Shape::new(&case.calls, 7)?;
        let start = Instant::now();
        lower_bound(&shape, &case.pools, &case.costs).context("a task fits no machine")?;
        let bound = start.elapsed();
        let start = Instant::now();
        let choice = choose(&shape, &case.pools, &case.costs).context("a task fits no machine")?;
        let (name, tried) = (POLICIES[choice.policy].name, start.elapsed());
        println!(
            "{}: bound {:.1} ms, choice {:.0} ms: {name}, {} / {}",
            case.name,
            bound.as_secs_f64() * 1e3,
            tried.as_secs_f64() * 1e3,
            choice.makespan,
            choice.bound
        );
    }
    Ok(())
}
