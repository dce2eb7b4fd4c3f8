//! What a report says. Its JSON schema is docs/report.schema.json.

use crate::api::conditions::cut;
use crate::cli::outputs::PublicFile;
use arborist_core::ids::TaskId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The version of the report that this code writes. A field more is no new version; a change of meaning is.
pub const REPORT_VERSION: u32 = 1;

/// Larger root proofs are not in the report, only where they lie and what they hash to. In bytes.
pub const MAX_INLINE_PROOF: usize = 256 << 10;

/// The most workers named; what the others did is summed up.
pub const MAX_SHARES: usize = 2_000;

/// The most bytes of a worker's name.
const MAX_NAME: usize = 128;

/// A block's completion as it is reported.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Body {
    /// Version of this format: 1.
    pub version: u32,
    /// The ProvingJob.
    pub job: JobName,
    /// Chain of the block.
    pub chain_id: u64,
    /// Number of the block.
    pub block_number: u64,
    /// Transactions of the block.
    pub transactions: u64,
    /// Who is to be credited, as the root proof states it: 64 hex digits.
    #[schemars(length(min = 64, max = 64))]
    pub prover_id: String,
    /// The root's task: 64 hex digits. The same block proven for the same prover has the same.
    #[schemars(length(min = 64, max = 64))]
    pub root_task: String,
    /// The root proof.
    pub root_proof: Proof,
    /// What is published beside it, as in `public.json` (docs/outputs.md): with the root proof all that a verifier needs.
    #[schemars(with = "serde_json::Value")]
    pub public: Public,
    /// Proofs of the tree by kind.
    pub proofs: Vec<KindCount>,
    /// Who made them.
    pub attribution: Attribution,
    /// When the tree was taken in, RFC 3339.
    pub started_at: String,
    /// When the root proof was verified, RFC 3339.
    pub finished_at: String,
    /// When it had to be, RFC 3339; `null` without a deadline.
    pub deadline: Option<String>,
}

/// What is published beside a root proof.
pub type Public = PublicFile;

/// A ProvingJob by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID: another job of the same name has another.
    pub uid: String,
}

/// The root proof.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Proof {
    /// Where it lies in the artifact store.
    pub uri: String,
    /// SHA-256 of the proof object, 64 hex digits.
    #[schemars(length(min = 64, max = 64))]
    pub sha256: String,
    /// Its size.
    pub bytes: u64,
    /// The proof object itself, base64, as in `root.proof`; `null` when it has more than 262,144 bytes.
    pub content: Option<String>,
}

/// Proofs of a kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KindCount {
    /// `vm`, `kernel`, `base`, `merge` or `root`.
    pub kind: String,
    /// How many the tree has.
    pub count: u32,
}

/// Who made the proofs that count.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Attribution {
    /// Workers in all.
    pub workers: u64,
    /// CPU milliseconds in all.
    pub cpu_millis: u64,
    /// By worker, most proofs first; at most 2,000.
    #[schemars(length(max = 2_000))]
    pub shares: Vec<Share>,
    /// The workers beyond these, summed up; `null` when all are named.
    pub others: Option<Rest>,
}

/// What a worker made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Share {
    /// The worker: its pod.
    pub worker: String,
    /// Proofs that count.
    pub proofs: u32,
    /// CPU milliseconds of them.
    pub cpu_millis: u64,
}

/// What workers that are not named made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rest {
    /// How many they are.
    pub workers: u64,
    /// Proofs that count.
    pub proofs: u64,
    /// CPU milliseconds of them.
    pub cpu_millis: u64,
}

/// The record of who made the proofs, from all (worker, proofs, CPU milliseconds), bounded in size.
pub fn attribution(mut all: Vec<(String, u32, u64)>) -> Attribution {
    all.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let (workers, cpu_millis) = (all.len() as u64, all.iter().map(|(.., cpu)| cpu).sum());
    let unnamed = all.split_off(all.len().min(MAX_SHARES));
    let others = (!unnamed.is_empty()).then(|| Rest {
        workers: unnamed.len() as u64,
        proofs: unnamed.iter().map(|(_, proofs, _)| u64::from(*proofs)).sum(),
        cpu_millis: unnamed.iter().map(|(.., cpu)| cpu).sum(),
    });
    let share = |(worker, proofs, cpu_millis): (String, u32, u64)| Share {
        worker: cut(&worker, MAX_NAME),
        proofs,
        cpu_millis,
    };
    Attribution { workers, cpu_millis, shares: all.into_iter().map(share).collect(), others }
}

impl Body {
    /// The task in it; `None` when the bytes are no report of this version.
    pub fn task_of(bytes: &[u8]) -> Option<TaskId> {
        let body: Self = serde_json::from_slice(bytes).ok()?;
        (body.version == REPORT_VERSION).then_some(())?;
        body.root_task.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_are_named_and_the_others_summed() {
        let few = attribution(vec![("b".into(), 1, 10), ("a".into(), 1, 20), ("c".into(), 5, 1)]);
        let names: Vec<_> = few.shares.iter().map(|s| s.worker.as_str()).collect();
        assert_eq!((names, few.workers, few.cpu_millis, few.others), (vec!["c", "a", "b"], 3, 31, None));

        let many =
            (0..MAX_SHARES as u32 + 3).map(|n| (format!("w{n:05}{}", "x".repeat(300)), 10, 7)).collect();
        let found = attribution(many);
        assert_eq!(found.shares.len(), MAX_SHARES);
        assert_eq!(found.others, Some(Rest { workers: 3, proofs: 30, cpu_millis: 21 }));
        assert_eq!((found.workers, found.cpu_millis), (2_003, 14_021));
        let bytes = serde_json::to_vec(&found).unwrap().len();
        assert!(bytes < 400_000, "{bytes}");
    }

    #[test]
    fn the_committed_schema_is_that_of_the_code() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/report.schema.json");
        let now = serde_json::to_string_pretty(&schemars::schema_for!(Body)).unwrap() + "\n";
        if std::env::var_os("UPDATE_SCHEMA").is_some() {
            std::fs::write(&path, &now).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap();
        assert_eq!(now, committed, "run this test with UPDATE_SCHEMA=1 and look at the difference");
    }
}
