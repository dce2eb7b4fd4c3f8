//! Pools and jobs as the stories apply them: a plain one, and what a story wants otherwise.

use serde_json::{Value, json};

/// Label of the nodes that the stories' workers run on.
pub const NODE_LABEL: &str = "arborist.dev/worker-class";

/// `over` laid over `base`: objects are merged, everything else is replaced, null removes.
pub fn laid_over(mut base: Value, over: Value) -> Value {
    match (&mut base, over) {
        (Value::Object(below), Value::Object(above)) => {
            for (key, value) in above {
                let merged = match below.remove(&key) {
                    _ if value.is_null() => continue,
                    Some(old) => laid_over(old, value),
                    None => value,
                };
                below.insert(key, merged);
            }
            base
        }
        (_, over) => over,
    }
}

/// A pool of one-core workers with the fake backend, up to four, on the nodes for large workers.
pub fn pool(name: &str, spec: Value) -> Value {
    let plain = json!({
        "backend": {"type": "Fake", "fake": {"millis": "400"}},
        "template": {
            "resources": {"cpu": "1", "memory": "1Gi"},
            "nodeSelector": {NODE_LABEL: "vm"},
            "env": [{"name": "RUST_LOG", "value": "info,arborist_worker=debug"}],
            "terminationGracePeriodSeconds": 10,
        },
        "scaling": {"min": 0, "max": 4, "startupEstimate": "5s", "scaleDownDelay": "3s"},
    });
    json!({
        "apiVersion": "arborist.dev/v1alpha1", "kind": "ProverPool",
        "metadata": {"name": name}, "spec": laid_over(plain, spec),
    })
}

/// A pool with so many one-core workers whatever there is to do.
pub fn fixed_pool(name: &str, replicas: i32, spec: Value) -> Value {
    let fixed = json!({"scaling": {"mode": "Fixed", "replicas": replicas}});
    pool(name, laid_over(fixed, spec))
}

/// A job with a made-up block of `transactions` with two calls each. Blocks of one seed share their proofs.
pub fn job(name: &str, transactions: u32, seed: u64, spec: Value) -> Value {
    let plain = json!({
        "chainId": 1, "blockNumber": 1, "proverId": "e2e",
        "source": {"synthetic": {"transactions": transactions, "callsPerTransaction": 2, "seed": seed}},
    });
    json!({
        "apiVersion": "arborist.dev/v1alpha1", "kind": "ProvingJob",
        "metadata": {"name": name}, "spec": laid_over(plain, spec),
    })
}

/// Proofs of a block of `transactions` with two calls each.
pub const fn proofs(transactions: u64) -> u64 {
    // a block of one transaction has a root of its own over its base
    if transactions == 1 { 6 } else { transactions * 6 - 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_merged_and_the_rest_is_replaced() {
        let base = json!({"a": {"b": 1, "c": [1]}, "d": 2});
        let found = laid_over(base, json!({"a": {"b": 3, "c": [2, 3]}, "d": null}));
        assert_eq!(found, json!({"a": {"b": 3, "c": [2, 3]}}));
    }

    #[test]
    fn a_fixed_pool_keeps_the_other_settings() {
        let pool = fixed_pool("p", 2, json!({"scaling": {"scaleDownDelay": "9s"}}));
        assert_eq!(pool["spec"]["scaling"]["replicas"], 2);
        assert_eq!(pool["spec"]["scaling"]["scaleDownDelay"], "9s");
        assert_eq!(pool["spec"]["template"]["resources"]["cpu"], "1");
    }
}
