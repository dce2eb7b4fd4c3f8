use super::fixtures::*;
use crate::controllers::proverpool::validate;
use arborist_core::circuit::{Kind, KindSet};
use arborist_core::plan::Scaling;
use serde_json::{Value, json};
use std::time::Duration;

#[test]
fn the_samples_are_valid() {
    let vm = valid(&pool("vm", json!({})));
    assert_eq!((vm.kinds, vm.capacity), (KindSet::of(Kind::Vm), VM));
    assert_eq!(vm.scaling, Scaling::Deadline { min: 0, max: 100, budget: None });
    assert_eq!((vm.startup, vm.scale_down_delay), (Duration::from_secs(120), Duration::from_secs(60)));
    let small = json!({
        "circuits": [], "pricePerHour": "0.25", "priority": 3,
        "template": {"resources": {"cpu": "8", "memory": "16Gi"}},
        "scaling": {"min": 1, "max": 9, "budgetPerHour": "1.1"},
    });
    let rollup = valid(&pool("rollup", small));
    assert_eq!((rollup.kinds, rollup.capacity, rollup.priority), (KindSet::ALL, SMALL, 3));
    assert_eq!(rollup.scaling, Scaling::Deadline { min: 1, max: 9, budget: Some(4) });
    let fixed = valid(&pool("vm", json!({"scaling": {"mode": "Fixed", "replicas": 5}})));
    assert_eq!(fixed.scaling, Scaling::Fixed(5));
    assert_eq!(valid(&pool("vm", json!({"scaling": {"mode": "Fixed"}}))).scaling, Scaling::Fixed(0));
}

#[test]
fn what_can_not_be_built_is_refused_with_what_is_allowed() {
    let small = json!({"cpu": "8", "memory": "16Gi"});
    let cases: [(Value, &str); 14] = [
        (
            json!({"circuits": ["kernel", "vm"], "template": {"resources": small}}),
            "spec.circuits: vm needs 32 cores and 64Gi, the pool's pods have 8 cores and 16Gi",
        ),
        (
            json!({"circuits": [], "template": {"resources": {"cpu": "2", "memory": "4Gi"}}}),
            "spec.template.resources: 2 cores and 4Gi are too small for every circuit; the least is 8 cores and 16Gi",
        ),
        (
            json!({"backend": {"type": "Fake"}}),
            "spec.backend.type: fake, but this operator serves backend plonky2",
        ),
        (
            json!({"template": {"resources": {"cpu": "0.5"}}}),
            "spec.template.resources.cpu: `0.5`: allowed is",
        ),
        (json!({"template": {"resources": {"memory": "64G"}}}), "spec.template.resources.memory: `64G`"),
        (json!({"pricePerHour": "1,5"}), "spec.pricePerHour: `1,5`"),
        (json!({"scaling": {"startupEstimate": "1d"}}), "spec.scaling.startupEstimate: `1d`"),
        (json!({"scaling": {"scaleDownDelay": "x"}}), "spec.scaling.scaleDownDelay: `x`"),
        (
            json!({"scaling": {"budgetPerHour": "5"}}),
            "spec.scaling.budgetPerHour: needs spec.pricePerHour above 0",
        ),
        (
            json!({"pricePerHour": "2", "scaling": {"budgetPerHour": "5", "min": 3}}),
            "spec.scaling: the budget pays for 2 pods, fewer than min 3",
        ),
        (json!({"scaling": {"min": 7, "max": 6}}), "spec.scaling: min 7 is above max 6"),
        (
            json!({"template": {"env": [{"name": "ARBORIST_CORES", "value": "1"}]}}),
            "spec.template.env: ARBORIST_CORES is the operator's own",
        ),
        (
            json!({"template": {"labels": {"arborist.dev/pool": "other"}}}),
            "spec.template.labels: arborist.dev/pool is the operator's own",
        ),
        (
            json!({"template": {"volumeMounts": [{"name": "x", "mountPath": "/var/run/arborist/token"}]}}),
            "spec.template.volumeMounts: /var/run/arborist/token is the operator's own",
        ),
    ];
    for (spec, text) in cases {
        let error = validate::run(&pool("vm", spec.clone()), &settings()).unwrap_err().to_string();
        assert!(error.starts_with(text), "{spec}: {error}");
    }
    let long = validate::run(&pool(&"p".repeat(58), json!({})), &settings()).unwrap_err().to_string();
    assert!(long.starts_with("metadata.name: 58 characters, at most 57"), "{long}");
}
