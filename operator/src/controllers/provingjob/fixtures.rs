//! What the tests share.

use super::publish::Evidence;
use super::validate::{Served, Validated, validate};
use crate::api::ProvingJob;
use crate::cli::outputs::{PUBLIC_VERSION, PublicFile};
use arborist_core::circuit::Kind;
use arborist_core::engine::{Counts, JobId, JobSpec, JobState, JobView, Source};
use arborist_core::ids::TaskId;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

pub const CREATED: &str = "2026-02-01T10:00:00Z";
pub const ROOT: TaskId = TaskId([0xab; 32]);

/// So many seconds after the jobs' creation.
pub fn at(seconds: i64) -> Timestamp {
    CREATED.parse::<Timestamp>().unwrap() + SignedDuration::from_secs(seconds)
}

/// A job of this spec as the API server has it at first.
pub fn job(spec: Value) -> ProvingJob {
    let object = json!({
        "apiVersion": "arborist.dev/v1alpha1", "kind": "ProvingJob",
        "metadata": {
            "name": "block-9", "namespace": "rollup", "uid": "5f3c", "generation": 1, "resourceVersion": "100",
            "creationTimestamp": CREATED,
        },
        "spec": spec,
    });
    serde_json::from_value(object).unwrap()
}

/// A spec with more fields than the least.
pub fn spec(mut more: Value) -> Value {
    let mut spec = json!({
        "chainId": 5, "blockNumber": 9, "proverId": "alice",
        "source": {"synthetic": {"transactions": 2, "callsPerTransaction": 2, "seed": 7}},
    });
    spec.as_object_mut().unwrap().append(more.as_object_mut().unwrap());
    spec
}

pub fn validated(object: &ProvingJob) -> Validated {
    validate(object, &Served { circuits: "mini-rollup-v1", backend: "fake" }).unwrap()
}

/// A tree of 2 transactions with 2 calls each, just submitted.
pub fn view() -> JobView {
    let mut counts = [4, 4, 2, 0, 1].map(|total| Counts { total, ..Counts::default() });
    counts[Kind::Vm.index()].ready = 4;
    JobView {
        spec: JobSpec {
            id: JobId(7),
            name: format!("{}rollup/block-9", super::JOB_PREFIX),
            namespace: "rollup".into(),
            source: Source::Synthetic { calls: vec![2, 2], seed: 7 },
            chain_id: 5,
            block_number: 9,
            prover_id: arborist_circuits::prover_word("alice").0,
            deadline: None,
            priority: 0,
            suspended: false,
        },
        state: JobState::Proving,
        counts,
        submitted: super::deadline::millis(at(1)),
        ended: None,
        policy: 0,
    }
}

/// The same tree, all proven at a time.
pub fn complete(ended: Timestamp) -> JobView {
    let mut view = view();
    view.counts.iter_mut().for_each(|c| *c = Counts { total: c.total, done: c.total, ..Counts::default() });
    (view.state, view.ended) = (JobState::Complete, Some(super::deadline::millis(ended)));
    view
}

pub fn evidence(bytes: usize) -> Evidence {
    Evidence {
        uri: format!("s3://proofs/main/proofs/{ROOT}"),
        proof: vec![7; bytes].into(),
        public: PublicFile {
            version: PUBLIC_VERSION,
            backend: "fake".into(),
            circuits: "mini-rollup-v1".into(),
            keys: None,
            task: ROOT,
            prover: Some("alice".into()),
            statement: None,
        },
        shares: vec![("vm-1".into(), 4, 90_000), ("rollup-1".into(), 7, 41_500)],
    }
}
