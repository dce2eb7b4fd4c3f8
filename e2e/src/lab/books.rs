//! What the operator says of proofs and leases: what its process has counted, and what it has logged.

use super::Lab;
use super::install::sum;
use anyhow::{Context, Result};
use kube::api::LogParams;
use serde_json::Value;

/// How far back an operator's log is read: longer than any story that looks at it takes.
const LOG_SECONDS: i64 = 1_800;

/// Counters of one operator's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// Proofs that workers made.
    pub made: u64,
    /// Proofs that were found in the store.
    pub found: u64,
    /// Results for leases that were lost, which counted because the task was still open.
    pub late_counted: u64,
    /// Results for leases that were lost, of tasks that were done.
    pub late_dropped: u64,
}

impl Lab {
    /// What an operator's pod has counted since its process started.
    ///
    /// # Errors
    /// The pod does not answer.
    pub async fn counted(&self, pod: &str) -> Result<Counted> {
        Ok(counted(&self.metrics(pod).await?))
    }

    /// What an operator's pod has logged lately.
    ///
    /// # Errors
    /// The API server does not answer.
    pub async fn operator_log(&self, pod: &str) -> Result<String> {
        let params = LogParams { since_seconds: Some(LOG_SECONDS), ..LogParams::default() };
        self.operator_pods().logs(pod, &params).await.with_context(|| format!("the log of {pod}"))
    }
}

fn counted(metrics: &str) -> Counted {
    // a series that is not there has counted nothing yet
    let count = |name: &str, label: &str| sum(metrics, name, &[label]).unwrap_or(0.0) as u64;
    Counted {
        made: count("arborist_completions_total", "origin=\"made\""),
        found: count("arborist_completions_total", "origin=\"found\""),
        late_counted: count("arborist_late_results_total", "counted=\"yes\""),
        late_dropped: count("arborist_late_results_total", "counted=\"no\""),
    }
}

/// The fields of all lines of a log with this message.
pub fn said(log: &str, message: &str) -> Vec<Value> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let fields = lines.filter_map(|mut line| Some(line.get_mut("fields")?.take()));
    fields.filter(|fields| fields["message"] == message).collect()
}

/// Why a worker, `NAMESPACE/POD`, lost leases: one reason for each.
pub fn lost_leases(log: &str, worker: &str) -> Vec<String> {
    let ours = said(log, "a lease was lost").into_iter().filter(|fields| fields["worker"] == worker);
    ours.map(|fields| fields["why"].as_str().unwrap_or_default().to_owned()).collect()
}

/// How many tasks of a worker, `NAMESPACE/POD`, were given to another as well because it was slow.
pub fn backups(log: &str, worker: &str) -> usize {
    said(log, "a backup copy was started").iter().filter(|fields| fields["slow"] == worker).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = r#"
{"level":"INFO","fields":{"message":"a lease was lost","task":"aa","worker":"e2e/w-1","why":"worker is dead"}}
{"level":"INFO","fields":{"message":"a lease was lost","task":"bb","worker":"e2e/w-2","why":"expired"}}
{"level":"INFO","fields":{"message":"a lease was lost","task":"cc","worker":"e2e/w-1","why":"expired"}}
{"level":"INFO","fields":{"message":"a backup copy was started","task":"dd","slow":"e2e/w-2","copy":"e2e/w-1"}}
a lease was lost
"#;

    #[test]
    fn leases_are_told_of_by_worker() {
        for (worker, lost, slow) in [
            ("e2e/w-1", &["worker is dead", "expired"][..], 0),
            ("e2e/w-2", &["expired"], 1),
            ("e2e/w", &[], 0),
            ("other/w-1", &[], 0),
        ] {
            assert_eq!(lost_leases(LOG, worker), lost, "{worker}");
            assert_eq!(backups(LOG, worker), slow, "{worker}");
        }
    }

    #[test]
    fn proofs_are_counted_by_where_they_come_from() {
        let metrics = "arborist_completions_total{kind=\"vm\",origin=\"made\"} 4\n\
                       arborist_completions_total{kind=\"base\",origin=\"made\"} 3\n\
                       arborist_completions_total{kind=\"vm\",origin=\"found\"} 2\n\
                       arborist_late_results_total{counted=\"no\"} 1\n";
        let expected = Counted { made: 7, found: 2, late_counted: 0, late_dropped: 1 };
        assert_eq!(counted(metrics), expected);
    }
}
