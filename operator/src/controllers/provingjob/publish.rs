//! What a proven block leaves in the cluster: its root proof with what is published beside it, and the report that
//! its targets are sent. Pure.

use super::deadline::time;
use super::validate::Validated;
use crate::api::{Attribution, LABEL_MANAGED_BY, MANAGER, ProvingJob, RootProof};
use crate::cli::outputs::{PUBLIC_JSON, PublicFile, ROOT_PROOF};
use crate::report::{self, Body, JobName, KindCount, MAX_INLINE_PROOF, Proof, REPORT_VERSION};
use arborist_core::circuit::Kind;
use arborist_core::engine::JobView;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Resource;
use kube::api::ObjectMeta;
use sha2::{Digest, Sha256};

/// A ConfigMap holds 1 MiB at most.
const MAX_PROOF_IN_MAP: usize = 900_000;
/// The report's key in its ConfigMap.
pub(super) const REPORT_JSON: &str = "report.json";
/// The longest name that is made, so that it takes little of a status.
const MAX_NAME: usize = 48;

/// What a proven tree leaves, as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Evidence {
    /// Where the root proof lies in the artifact store.
    pub uri: String,
    /// The proof object.
    pub proof: Bytes,
    /// What is published beside it.
    pub public: PublicFile,
    /// Who made how many proofs, in how many CPU milliseconds.
    pub shares: Vec<(String, u32, u64)>,
}

/// What is to be written down.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Publication {
    /// `root.proof` and `public.json`.
    pub proof: ConfigMap,
    /// `report.json`, if anybody is to be told: every attempt, after a restart too, sends these very bytes.
    pub report: Option<ConfigMap>,
    pub root_proof: RootProof,
    pub attribution: Attribution,
}

/// The name of a job's ConfigMap; a long one is cut and told apart by a hash.
pub(super) fn map_name(job: &str, what: &str) -> String {
    let whole = format!("{job}-{what}");
    if whole.len() <= MAX_NAME {
        return whole;
    }
    let hash = blake3::hash(job.as_bytes()).to_hex();
    let cut = &job[..MAX_NAME - what.len() - 10];
    format!("{}-{}-{what}", cut.trim_end_matches(['-', '.']), &hash[..8])
}

/// Builds what a proven block leaves.
///
/// # Errors
/// What is published can't be written as JSON.
pub(super) fn publication(
    object: &ProvingJob,
    job: &Validated,
    view: &JobView,
    evidence: &Evidence,
) -> Result<Publication, serde_json::Error> {
    let sha256 = hex::encode(Sha256::digest(&evidence.proof));
    let root_proof = RootProof {
        uri: evidence.uri.clone(),
        config_map: map_name(&job.name, "proof"),
        sha256,
        bytes: evidence.proof.len().try_into().unwrap_or(i64::MAX),
    };
    let made = report::attribution(evidence.shares.clone());
    let attribution = Attribution {
        workers: made.workers.try_into().unwrap_or(i64::MAX),
        core_seconds: (made.cpu_millis / 1_000).try_into().unwrap_or(i64::MAX),
    };
    let public = serde_json::to_string_pretty(&evidence.public)?;
    let mut proof = map(object, &root_proof.config_map);
    proof.data = Some([(PUBLIC_JSON.to_owned(), public)].into());
    if evidence.proof.len() <= MAX_PROOF_IN_MAP {
        proof.binary_data = Some([(ROOT_PROOF.to_owned(), ByteString(evidence.proof.to_vec()))].into());
    }
    let report = if job.targets.is_empty() {
        None
    } else {
        let mut report = map(object, &map_name(&job.name, "report"));
        let body = serde_json::to_string(&body(job, view, evidence, &root_proof, made))?;
        report.data = Some([(REPORT_JSON.to_owned(), body)].into());
        Some(report)
    };
    Ok(Publication { proof, report, root_proof, attribution })
}

/// Whether the root proof is in the ConfigMap.
pub(super) const fn is_in_map(root_proof: &RootProof) -> bool {
    root_proof.bytes <= MAX_PROOF_IN_MAP as i64
}

fn map(object: &ProvingJob, name: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: object.metadata.namespace.clone(),
            labels: Some([(LABEL_MANAGED_BY.to_owned(), MANAGER.to_owned())].into()),
            owner_references: object.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        ..ConfigMap::default()
    }
}

fn body(
    job: &Validated,
    view: &JobView,
    evidence: &Evidence,
    root_proof: &RootProof,
    attribution: report::Attribution,
) -> Body {
    let inline = evidence.proof.len() <= MAX_INLINE_PROOF;
    Body {
        version: REPORT_VERSION,
        job: JobName { namespace: job.namespace.clone(), name: job.name.clone(), uid: job.uid.clone() },
        chain_id: job.chain_id,
        block_number: job.block_number,
        transactions: view.counts[Kind::Base.index()].total.into(),
        prover_id: job.prover.word.to_string(),
        root_task: evidence.public.task.to_string(),
        root_proof: Proof {
            uri: root_proof.uri.clone(),
            sha256: root_proof.sha256.clone(),
            bytes: evidence.proof.len() as u64,
            content: inline.then(|| STANDARD.encode(&evidence.proof)),
        },
        public: evidence.public.clone(),
        proofs: Kind::ALL
            .iter()
            .map(|kind| KindCount { kind: kind.name().to_owned(), count: view.counts[kind.index()].total })
            .collect(),
        attribution,
        started_at: time(view.submitted).to_string(),
        finished_at: time(view.ended.unwrap_or(view.submitted)).to_string(),
        deadline: job.deadline.map(|deadline| deadline.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::provingjob::fixtures::{evidence, job, spec, validated, view};
    use serde_json::json;

    fn made(proof: usize, targets: bool) -> Publication {
        let more = if targets { json!({"reportTo": [{"name": "a", "secretName": "s"}]}) } else { json!({}) };
        let object = job(spec(more));
        publication(&object, &validated(&object), &view(), &evidence(proof)).unwrap()
    }

    #[test]
    fn a_small_proof_is_in_map_and_report_and_a_large_one_only_where_it_lies() {
        for (bytes, in_map, in_report) in
            [(1_000, true, true), (262_144, true, true), (262_145, true, false), (900_001, false, false)]
        {
            let found = made(bytes, true);
            let has = found.proof.binary_data.is_some_and(|data| data[ROOT_PROOF].0.len() == bytes);
            assert_eq!((has, is_in_map(&found.root_proof)), (in_map, in_map), "{bytes}");
            let report = found.report.unwrap().data.unwrap().remove(REPORT_JSON).unwrap();
            let body: Body = serde_json::from_str(&report).unwrap();
            assert_eq!(body.root_proof.content.is_some(), in_report, "{bytes}");
            assert_eq!(
                (body.root_proof.bytes, body.root_proof.sha256),
                (bytes as u64, found.root_proof.sha256)
            );
            assert!(report.len() < 1_000_000, "{}", report.len());
        }
    }

    #[test]
    fn a_report_is_written_down_only_for_somebody() {
        assert_eq!(made(10, false).report, None);
        let map = made(10, true).report.unwrap();
        let owner = &map.metadata.owner_references.unwrap()[0];
        assert_eq!((owner.kind.as_str(), owner.controller), ("ProvingJob", Some(true)));
    }

    #[test]
    fn names_are_bounded_and_differ() {
        assert_eq!(map_name("block-7", "proof"), "block-7-proof");
        let (a, b) = (format!("{}a", "x".repeat(200)), format!("{}b", "x".repeat(200)));
        let found = [map_name(&a, "proof"), map_name(&b, "proof"), map_name(&a, "report")];
        assert!(found.iter().all(|name| name.len() <= MAX_NAME), "{found:?}");
        assert!(found[0] != found[1] && found[0].ends_with("-proof"));
        let dotted = format!("{}.{}", "x".repeat(32), "y".repeat(100));
        assert!(!map_name(&dotted, "proof").contains(".-"));
    }

    #[test]
    fn the_report_is_golden() {
        let report = made(12, true).report.unwrap().data.unwrap().remove(REPORT_JSON).unwrap();
        let body: serde_json::Value = serde_json::from_str(&report).unwrap();
        insta::assert_json_snapshot!(body);
    }
}
