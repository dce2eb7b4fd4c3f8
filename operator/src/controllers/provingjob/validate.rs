//! Step 2: from a raw spec to checked types.

use super::deadline;
use crate::api::conditions::reason;
use crate::api::{ConfigMapSource, ProvingJob, ReportTarget, Source, SyntheticSource, UriSource};
use crate::intake::{REMOTE, check_url, parse_sha256};
use arborist_circuits::{MAX_CALLS, Prover};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use std::time::Duration;
use url::Url;

/// With real circuits the operator makes the private proofs of a synthetic block, 5 CPU seconds each.
pub(super) const MAX_MADE: u32 = 16;
/// The most transactions of a synthetic block without proofs of its senders.
const MAX_SYNTHETIC: u32 = 61_440;

/// What the operator serves, as far as a job must fit it.
#[derive(Debug, Clone)]
pub(super) struct Served<'a> {
    pub circuits: &'a str,
    pub backend: &'a str,
}

/// A job that can be worked on.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Validated {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub generation: i64,
    pub chain_id: u64,
    pub block_number: u64,
    pub prover: Prover,
    pub source: CheckedSource,
    pub deadline: Option<Timestamp>,
    pub priority: i32,
    pub suspended: bool,
    pub ttl: Option<Duration>,
    pub targets: Vec<ReportTarget>,
}

impl Validated {
    /// Namespace and name.
    pub(super) fn full_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// What is being done to get the block, for people.
pub(super) fn what_is_fetched(source: &CheckedSource) -> String {
    match source {
        CheckedSource::Uri { url, .. } => format!("fetching {}", crate::egress::shown(url)),
        CheckedSource::ConfigMap { name, key } => format!("reading `{key}` of ConfigMap {name}"),
        CheckedSource::Synthetic { calls, .. } => {
            format!("making up a block of {} transactions", calls.len())
        }
        CheckedSource::Made { calls, .. } => {
            format!("making {} private proofs, about 5 CPU seconds each", calls.len())
        }
    }
}

/// Where a block comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CheckedSource {
    /// A file somewhere.
    Uri { url: Url, sha256: [u8; 32] },
    /// A key of a ConfigMap.
    ConfigMap { name: String, key: String },
    /// Made up; nothing is proven for its senders.
    Synthetic { calls: Vec<u8>, seed: u64 },
    /// Made up, with private proofs that the operator makes first.
    Made { calls: Vec<u8>, seed: u64 },
}

/// Why a job can't be worked on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Invalid {
    pub reason: &'static str,
    pub message: String,
}

fn invalid(message: impl Into<String>) -> Invalid {
    Invalid { reason: reason::INVALID_SPEC, message: message.into() }
}

/// Checks a job's spec. What the schema checks already is checked again where a wrong value would do harm.
pub(super) fn validate(job: &ProvingJob, served: &Served<'_>) -> Result<Validated, Invalid> {
    let spec = &job.spec;
    if spec.circuit_profile != served.circuits {
        let message = format!(
            "circuitProfile is `{}`, this operator proves `{}`: make a job for that, or run an operator for this",
            spec.circuit_profile, served.circuits
        );
        return Err(Invalid { reason: reason::UNKNOWN_PROFILE, message });
    }
    let number = |field: &str, value: i64| {
        u64::try_from(value).map_err(|_| invalid(format!("{field} is {value}, allowed is 0 and above")))
    };
    Ok(Validated {
        namespace: job.namespace().ok_or_else(|| invalid("the job has no namespace"))?,
        name: job.name_any(),
        uid: job.uid().ok_or_else(|| invalid("the job has no UID"))?,
        generation: job.metadata.generation.unwrap_or_default(),
        chain_id: number("chainId", spec.chain_id)?,
        block_number: number("blockNumber", spec.block_number)?,
        prover: spec.prover_id.parse().map_err(|e| invalid(format!("proverId: {e}")))?,
        source: source(&spec.source, served)?,
        deadline: deadline::of(job).map_err(invalid)?,
        priority: spec.priority,
        suspended: spec.suspend,
        ttl: match spec.ttl_seconds_after_finished {
            Some(seconds) => Some(Duration::from_secs(number("ttlSecondsAfterFinished", seconds)?)),
            None => None,
        },
        targets: spec.report_to.clone(),
    })
}

fn source(source: &Source, served: &Served<'_>) -> Result<CheckedSource, Invalid> {
    match source {
        Source { uri: Some(uri), config_map: None, synthetic: None } => checked_uri(uri),
        Source { uri: None, config_map: Some(ConfigMapSource { name, key }), synthetic: None } => {
            Ok(CheckedSource::ConfigMap { name: name.clone(), key: key.clone() })
        }
        Source { uri: None, config_map: None, synthetic: Some(synthetic) } => {
            checked_synthetic(synthetic, served)
        }
        _ => Err(invalid("source: exactly one of uri, configMap and synthetic must be set")),
    }
}

fn checked_uri(uri: &UriSource) -> Result<CheckedSource, Invalid> {
    let url = check_url(&uri.url, &REMOTE).map_err(|e| invalid(format!("source.uri.url: {e}")))?;
    let sha256 = parse_sha256(&uri.sha256).map_err(|e| invalid(format!("source.uri.sha256: {e}")))?;
    Ok(CheckedSource::Uri { url, sha256 })
}

fn checked_synthetic(source: &SyntheticSource, served: &Served<'_>) -> Result<CheckedSource, Invalid> {
    let made = served.backend != "fake";
    let most = if made { MAX_MADE } else { MAX_SYNTHETIC };
    let transactions = u32::try_from(source.transactions).ok().filter(|n| (1..=most).contains(n));
    let transactions = transactions.ok_or_else(|| {
        let why = if made {
            "with real circuits the operator makes their private proofs itself"
        } else {
            "a block's limit"
        };
        invalid(format!(
            "source.synthetic.transactions is {}, allowed are 1 to {most}: {why}",
            source.transactions
        ))
    })?;
    let calls = u8::try_from(source.calls_per_transaction).ok().filter(|n| *n <= MAX_CALLS);
    let calls = calls.ok_or_else(|| {
        invalid(format!("source.synthetic.callsPerTransaction: allowed are 0 to {MAX_CALLS}"))
    })?;
    let seed =
        u64::try_from(source.seed).map_err(|_| invalid("source.synthetic.seed: allowed is 0 and above"))?;
    let calls = vec![calls; transactions as usize];
    Ok(if made { CheckedSource::Made { calls, seed } } else { CheckedSource::Synthetic { calls, seed } })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::provingjob::fixtures::job;
    use arborist_circuits::prover_word;
    use arborist_core::block::Word;
    use serde_json::{Value, json};

    const PLONKY2: Served<'_> = Served { circuits: "mini-rollup-v1", backend: "plonky2" };
    const FAKE: Served<'_> = Served { circuits: "mini-rollup-v1", backend: "fake" };

    fn with(field: &str, value: Value) -> ProvingJob {
        let mut spec = json!({
            "chainId": 5, "blockNumber": 9, "proverId": "alice",
            "source": {"configMap": {"name": "block"}},
        });
        spec[field] = value;
        job(spec)
    }

    #[test]
    fn what_can_be_worked_on_passes() {
        let found = validate(&with("priority", json!(3)), &PLONKY2).unwrap();
        assert_eq!((found.chain_id, found.block_number, found.priority), (5, 9, 3));
        assert_eq!(found.prover, Prover { word: prover_word("alice"), name: Some("alice".into()) });
        let map = CheckedSource::ConfigMap { name: "block".into(), key: "block.json".into() };
        assert_eq!(found.source, map);

        let word = "01".repeat(32);
        let found = validate(&with("proverId", json!(format!("0x{word}"))), &PLONKY2).unwrap();
        assert_eq!(found.prover, Prover { word: Word([1; 32]), name: None });

        let synthetic = json!({"synthetic": {"transactions": 3, "callsPerTransaction": 2, "seed": 7}});
        let calls = vec![2, 2, 2];
        let made = validate(&with("source", synthetic.clone()), &PLONKY2).unwrap().source;
        assert_eq!(made, CheckedSource::Made { calls: calls.clone(), seed: 7 });
        let fake = validate(&with("source", synthetic), &FAKE).unwrap().source;
        assert_eq!(fake, CheckedSource::Synthetic { calls, seed: 7 });
    }

    #[test]
    fn what_can_not_is_refused_by_field() {
        let uri = |url: &str| json!({"uri": {"url": url, "sha256": "0".repeat(64)}});
        let synthetic = |transactions: i32, calls: i32, seed: i64| json!({"synthetic": {"transactions": transactions, "callsPerTransaction": calls, "seed": seed}});
        for (field, value, said) in [
            ("circuitProfile", json!("mini-rollup-v2"), "circuitProfile is `mini-rollup-v2`"),
            ("chainId", json!(-1), "chainId is -1"),
            ("blockNumber", json!(-1), "blockNumber is -1"),
            ("proverId", json!("Bj\u{f6}rn"), "proverId: a name has 1 to 128 printable ASCII characters"),
            ("proverId", json!("0x12"), "proverId: it begins with 0x"),
            ("proverId", json!(format!("0x{}", "f".repeat(64))), "the order of the circuits' field"),
            ("source", json!({}), "exactly one of"),
            ("source", uri("file:///etc/passwd"), "allowed are http://"),
            ("source", uri("s3:///key"), "bucket's name"),
            ("source", json!({"uri": {"url": "https://h/b", "sha256": "xyz"}}), "64 hexadecimal digits"),
            ("source", synthetic(17, 2, 0), "allowed are 1 to 16"),
            ("source", synthetic(0, 2, 0), "allowed are 1 to 16"),
            ("source", synthetic(1, 8, 0), "allowed are 0 to 7"),
            ("source", synthetic(1, 1, -1), "seed"),
            ("ttlSecondsAfterFinished", json!(-1), "ttlSecondsAfterFinished is -1"),
        ] {
            let found = validate(&with(field, value.clone()), &PLONKY2).unwrap_err();
            assert!(found.message.contains(said), "{field} {value}: {}", found.message);
            let expected =
                if field == "circuitProfile" { reason::UNKNOWN_PROFILE } else { reason::INVALID_SPEC };
            assert_eq!(found.reason, expected, "{field}");
        }
        assert!(validate(&with("source", synthetic(61_440, 2, 0)), &FAKE).is_ok());
        assert!(validate(&with("source", synthetic(61_441, 2, 0)), &FAKE).is_err());
    }
}
