use super::fixtures::*;
use crate::controllers::Settings;
use crate::controllers::proverpool::pod::{Template, random_name};
use crate::controllers::proverpool::validate;
use serde_json::json;
use std::collections::HashSet;

#[test]
fn a_pod_of_the_sample_pool() {
    let template = Template::new(&valid(&pool("vm", json!({}))), &settings());
    insta::assert_json_snapshot!(template.named("vm-abcde"));
}

#[test]
fn a_pod_with_everything() {
    let spec = json!({
        "circuits": [],
        "capacityType": "Spot",
        "backend": {"type": "Process", "process": {
            "plugin": "/plugins/prover", "args": ["--fast", "-v"], "keys": "/plugins/keys.json"
        }},
        "template": {
            "image": "registry.example/mine:7",
            "imagePullPolicy": "Never",
            "imagePullSecrets": [{"name": "mine"}, {"name": "installed"}],
            "tolerations": [{"key": "spot", "operator": "Exists", "effect": "NoSchedule"}],
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a", "b"]}]}
            ]}}},
            "topologySpreadConstraints": [
                {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"},
                {"maxSkew": 2, "topologyKey": "host", "whenUnsatisfiable": "DoNotSchedule", "nodeTaintsPolicy": "Ignore",
                 "labelSelector": {"matchLabels": {"app": "x"}}},
            ],
            "priorityClassName": "high",
            "serviceAccountName": "bucket-reader",
            "volumes": [{"name": "plugins", "configMap": {"name": "plugins"}}],
            "volumeMounts": [{"name": "plugins", "mountPath": "/plugins"}, {"name": "scratch", "mountPath": "/tmp/"}],
            "env": [{"name": "RUST_LOG", "value": "debug"}],
            "labels": {"team": "proving"},
            "annotations": {"karpenter.sh/do-not-disrupt": "false", "note": "x"},
            "terminationGracePeriodSeconds": 110,
        },
    });
    let settings = Settings {
        backend: "process".into(),
        worker_image_pull_policy: Some("IfNotPresent".into()),
        worker_image_pull_secrets: vec!["installed".into()],
        store_credentials_secret: Some("bucket".into()),
        ..settings()
    };
    let valid = validate::run(&pool("spot", spec), &settings).unwrap();
    insta::assert_json_snapshot!(Template::new(&valid, &settings).named("spot-abcde"));
}

#[test]
fn the_fake_backend_gets_its_settings() {
    let spec = json!({"backend": {"type": "Fake", "fake": {"millis": "vm=30", "faults": "oom=1"}}});
    let settings = Settings { backend: "fake".into(), ..settings() };
    let pod = Template::new(&validate::run(&pool("vm", spec), &settings).unwrap(), &settings).named("x");
    let env = pod.spec.unwrap().containers.remove(0).env.unwrap();
    let value = |name: &str| env.iter().find(|env| env.name == name).and_then(|env| env.value.clone());
    let found = ["ARBORIST_BACKEND", "ARBORIST_FAKE_MILLIS", "ARBORIST_FAKE_FAULTS"].map(value);
    assert_eq!(found, [Some("fake".into()), Some("vm=30".into()), Some("oom=1".into())]);
}

#[test]
fn workers_are_told_the_kinds_to_take() {
    let told = |circuits: &[&str]| {
        let pod = Template::new(&valid(&pool("vm", json!({"circuits": circuits}))), &settings()).named("x");
        let env = pod.spec.unwrap().containers.remove(0).env.unwrap();
        env.into_iter().find(|env| env.name == "ARBORIST_KINDS").and_then(|env| env.value)
    };
    for (circuits, kinds) in [
        (&["vm"][..], Some("vm")),
        (&["root", "kernel"], Some("kernel,root")),
        (&["vm", "kernel", "base", "merge", "root"], None),
        (&[], None),
    ] {
        assert_eq!(told(circuits).as_deref(), kinds, "{circuits:?}");
    }
}

/// What PodSecurity's profile `restricted` asks for.
#[test]
fn pods_are_restricted() {
    let pod = Template::new(&valid(&pool("vm", json!({}))), &settings()).named("x");
    let spec = pod.spec.unwrap();
    let pod_context = spec.security_context.unwrap();
    assert_eq!(pod_context.run_as_non_root, Some(true));
    assert_eq!(pod_context.seccomp_profile.unwrap().type_, "RuntimeDefault");
    assert_eq!(spec.automount_service_account_token, Some(false));
    let context = spec.containers[0].security_context.clone().unwrap();
    assert_eq!(
        (context.allow_privilege_escalation, context.read_only_root_filesystem),
        (Some(false), Some(true))
    );
    assert_eq!(context.capabilities.unwrap().drop.unwrap(), ["ALL"]);
    let allowed = |volume: &k8s_openapi::api::core::v1::Volume| {
        volume.projected.is_some() || volume.empty_dir.is_some()
    };
    assert!(spec.volumes.unwrap().iter().all(allowed));
}

#[test]
fn the_hash_differs_exactly_when_pods_do() {
    let hash = |spec| template_of(&pool("vm", spec));
    let plain = hash(json!({}));
    assert_eq!(plain, hash(json!({"scaling": {"max": 7}, "priority": 5, "pricePerHour": "1"})));
    for spec in [
        json!({"template": {"image": "other"}}),
        json!({"template": {"resources": {"memory": "65Gi"}}}),
        json!({"template": {"annotations": {"a": "b"}}}),
        json!({"template": {"env": [{"name": "A", "value": "b"}]}}),
        json!({"circuits": ["vm", "kernel"]}),
        json!({"circuits": []}),
    ] {
        assert_ne!(plain, hash(spec.clone()), "{spec}");
    }
}

#[test]
fn names_are_the_pools_and_differ() {
    let names: HashSet<String> = (0..100).map(|_| random_name(&key("vm"))).collect();
    assert!(names.len() >= 99);
    let good = |name: &String| name.len() == 8 && name.starts_with("vm-");
    assert!(names.iter().all(good), "{names:?}");
}
