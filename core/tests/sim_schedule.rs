//! The orders reach their targets over the fixed grid.

use arborist_core::order::choose;
use arborist_core::sim::grid::{Case, grid, uneven_grid};
use arborist_core::tree::Shape;

/// Makespan of the chosen order over the lower bound: mean and worst.
fn ratios(cases: &[Case]) -> (f64, f64) {
    let ratio = |case: &Case| {
        let shape = Shape::new(&case.calls, 7).unwrap();
        let choice = choose(&shape, &case.pools, &case.costs).unwrap();
        choice.makespan as f64 / choice.bound as f64
    };
    let all: Vec<f64> = cases.iter().map(ratio).collect();
    (all.iter().sum::<f64>() / all.len() as f64, all.iter().copied().fold(0.0, f64::max))
}

#[test]
fn the_grid_is_proven_close_to_its_lower_bound() {
    let cases = grid();
    assert!(cases.len() >= 200);
    let (mean, worst) = ratios(&cases);
    assert!(mean <= 1.002 && worst <= 1.02, "mean {mean}, worst {worst}");
}

#[test]
fn durations_that_differ_cost_little() {
    let (mean, worst) = ratios(&uneven_grid());
    assert!(mean <= 1.01 && worst <= 1.08, "mean {mean}, worst {worst}");
}
