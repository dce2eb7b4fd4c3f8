//! What the operator counts of its life in a cluster: leadership, requests to the API server, reconciles.
//!
//! Labels are bounded: verbs, resources, outcomes and states from fixed lists, never a name or a text.

use crate::controllers::Outcome;
use crate::metrics::Register;
use kube::Resource;
use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};
use std::time::Duration;

/// Seconds that a request or a reconcile takes: from a cached read to an API server in trouble.
const SECONDS: [f64; 10] = [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 4.0, 15.0];

/// All counters of one operator; the dispatcher's are its own.
pub struct Metrics {
    registry: Registry,
    /// The names of all of them, as Prometheus reads them.
    pub names: Vec<String>,
    /// 1 while this process leads and may write.
    pub leader: IntGauge,
    /// How often this process became the leader.
    pub elected: IntCounter,
    /// Renewals of the Lease, by result: `renewed`, `failed`, `lost`.
    pub renewals: IntCounterVec,
    /// Answers of the API server, by verb, resource and code. Each try counts.
    pub api_requests: IntCounterVec,
    /// How long the API server took, by verb; without watches.
    pub api_seconds: HistogramVec,
    /// Reconciles by controller and outcome: `applied`, `waiting`, `settled`, `failed`.
    pub reconciles: IntCounterVec,
    /// How long they took.
    pub reconcile_seconds: HistogramVec,
    /// Worker pods of all pools, by state.
    pub pods: IntGaugeVec,
    /// Worker pods wanted by all pools.
    pub pods_wanted: IntGauge,
    /// Workers whose process was killed for lack of memory.
    pub memory_kills: IntCounter,
    /// ProverPools by the conditions that are True; one pool may have several, or none.
    pub pools: IntGaugeVec,
    /// ProvingJobs by state.
    pub jobs: IntGaugeVec,
    /// Tries to deliver a report, by result.
    pub reports: IntCounterVec,
    /// When the certificate authority that signs ends, in seconds since 1970.
    pub authority_end: IntGauge,
    /// Reviews of workers' tokens by where the answer came from: `api`, `cache`, `stale`.
    pub token_reviews: IntCounterVec,
}

impl Metrics {
    /// A registry of its own with everything at zero.
    ///
    /// # Errors
    /// Never with the names in this file.
    pub fn new() -> Result<Self, prometheus::Error> {
        let r = Register::default();
        let name = |name: &str| format!("arborist_{name}");
        let counter = |n: &str, help: &str| r.add(IntCounter::new(name(n), help)?);
        let gauge = |n: &str, help: &str| r.add(IntGauge::new(name(n), help)?);
        let counters = |n: &str, help: &str, labels: &[&str]| {
            r.add(IntCounterVec::new(Opts::new(name(n), help), labels)?)
        };
        let gauges =
            |n: &str, help: &str, labels: &[&str]| r.add(IntGaugeVec::new(Opts::new(name(n), help), labels)?);
        let seconds = |n: &str, help: &str, labels: &[&str]| {
            let opts = HistogramOpts::new(name(n), help).buckets(SECONDS.to_vec());
            r.add(HistogramVec::new(opts, labels)?)
        };
        let metrics = Self {
            leader: gauge("leader", "1 while this operator leads and may write")?,
            elected: counter("elected_total", "Times this operator became the leader")?,
            renewals: counters("leader_renewals_total", "Renewals of the Lease", &["result"])?,
            api_requests: counters(
                "api_requests_total",
                "Requests to the API server, each try",
                &["verb", "resource", "code"],
            )?,
            api_seconds: seconds("api_request_seconds", "Time of the API server's answers", &["verb"])?,
            reconciles: counters("reconciles_total", "Reconciles", &["controller", "outcome"])?,
            reconcile_seconds: seconds("reconcile_seconds", "Time of a reconcile", &["controller"])?,
            pods: gauges("worker_pods", "Worker pods", &["state"])?,
            pods_wanted: gauge("worker_pods_wanted", "Worker pods wanted")?,
            memory_kills: counter(
                "workers_out_of_memory_total",
                "Workers killed for using more memory than they have",
            )?,
            pools: gauges("pools", "ProverPools by the conditions that are True", &["condition"])?,
            jobs: gauges("proving_jobs", "ProvingJobs", &["state"])?,
            reports: counters("reports_total", "Tries to deliver a report", &["result"])?,
            authority_end: gauge(
                "certificate_authority_end_seconds",
                "End of the certificate authority that signs, in seconds since 1970",
            )?,
            token_reviews: counters("token_reviews_total", "Workers' tokens checked", &["source"])?,
            registry: Registry::default(),
            names: vec![],
        };
        let (registry, names) = r.into_parts();
        Ok(Self { registry, names, ..metrics })
    }

    /// Counts a reconcile of the controller of `K` that took `took`. The controller is called as `kubectl` calls one
    /// such object.
    pub fn reconciled<K, E>(&self, took: Duration, ended: &Result<Outcome, E>)
    where
        K: Resource<DynamicType = ()>,
    {
        let controller = K::kind(&()).to_lowercase();
        let outcome = match ended {
            Ok(Outcome::Applied(_)) => "applied",
            Ok(Outcome::Waiting { .. }) => "waiting",
            Ok(Outcome::Settled) => "settled",
            Err(_) => "failed",
        };
        self.reconciles.with_label_values(&[controller.as_str(), outcome]).inc();
        self.reconcile_seconds.with_label_values(&[controller.as_str()]).observe(took.as_secs_f64());
    }

    /// Everything in Prometheus' text format.
    pub fn text(&self) -> String {
        let mut out = vec![];
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut out) {
            tracing::error!(%error, "metrics can't be written");
        }
        String::from_utf8_lossy(&out).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::conditions::pool;
    use crate::api::{ProverPool, ProvingJob};
    use std::collections::BTreeSet;

    #[test]
    fn names_are_their_own_and_differ_from_the_dispatchers() {
        let metrics = Metrics::new().unwrap();
        let applied: Result<_, ()> = Ok(Outcome::Applied(None));
        metrics.reconciled::<ProverPool, ()>(Duration::from_millis(3), &applied);
        metrics.reconciled::<ProverPool, ()>(Duration::from_millis(3), &Err(()));
        metrics.reconciled::<ProvingJob, ()>(Duration::from_millis(3), &Err(()));
        let text = metrics.text();
        for line in [
            "arborist_reconciles_total{controller=\"proverpool\",outcome=\"applied\"} 1",
            "arborist_reconciles_total{controller=\"proverpool\",outcome=\"failed\"} 1",
            "arborist_reconciles_total{controller=\"provingjob\",outcome=\"failed\"} 1",
            "arborist_reconcile_seconds_count{controller=\"proverpool\"} 2",
            "arborist_leader 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
        }
        let dispatchers = crate::metrics::Metrics::new().unwrap().names;
        assert!(metrics.names.iter().all(|name| !dispatchers.contains(name)));
    }

    /// All names, without `arborist_`.
    fn all() -> BTreeSet<String> {
        let (ours, dispatchers) =
            (Metrics::new().unwrap().names, crate::metrics::Metrics::new().unwrap().names);
        let plain = |name: String| name.strip_prefix("arborist_").unwrap().to_owned();
        ours.into_iter().chain(dispatchers).map(plain).collect()
    }

    fn file(path: &str) -> String {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        std::fs::read_to_string(root.join(path)).unwrap()
    }

    #[test]
    fn alerts_dashboard_and_guides_name_what_there_is() {
        let known = all();
        for path in [
            "charts/arborist/templates/prometheusrule.yaml",
            "charts/arborist/dashboards/arborist.json",
            "docs/operate.md",
            "docs/troubleshoot.md",
            "docs/security.md",
            "docs/install.md",
        ] {
            let text = file(path);
            let mut found = 0;
            for rest in text.split("arborist_").skip(1) {
                let name: String = rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
                let parts = ["_bucket", "_sum", "_count"];
                let family = parts.iter().find_map(|part| name.strip_suffix(part)).unwrap_or(&name);
                // the table's head is no name
                assert!(name.is_empty() || known.contains(family), "{path}: arborist_{name}");
                found += usize::from(!name.is_empty());
            }
            assert!(found > 0 || path.starts_with("docs/"), "{path} names no metric");
        }
    }

    #[test]
    fn the_dashboards_panels_have_places_of_their_own_and_show_what_the_guide_tells_to_watch() {
        let board: serde_json::Value =
            serde_json::from_str(&file("charts/arborist/dashboards/arborist.json")).unwrap();
        let panels = board["panels"].as_array().unwrap();
        let places: BTreeSet<_> = panels.iter().map(|panel| panel["gridPos"].to_string()).collect();
        let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64()).collect();
        assert_eq!((places.len(), ids.len()), (panels.len(), panels.len()));
        let shown = |panel: &serde_json::Value| panel["targets"].to_string();
        for metric in ["proof_checks_total", "root_checks_total", "quarantined_total"] {
            assert!(panels.iter().any(|panel| shown(panel).contains(metric)), "{metric}");
        }
    }

    #[test]
    fn alerts_ask_for_conditions_that_pools_have() {
        let rules = file("charts/arborist/templates/prometheusrule.yaml");
        let asked: Vec<_> =
            rules.split("condition=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
        assert!(asked.contains(&pool::STARVED), "{asked:?}");
        assert!(asked.iter().all(|type_| pool::ALL.contains(type_)), "{asked:?}");
    }

    #[test]
    fn every_metric_is_in_the_guides_table_and_nothing_else() {
        let guide = file("docs/operate.md");
        let table = guide.split("| metric (`arborist_…`)").nth(1).unwrap().split("\n\n").next().unwrap();
        let cells = table.lines().skip(2).map(|row| row.split('|').nth(1).unwrap());
        let described: Vec<_> =
            cells.flat_map(|cell| cell.split('`').skip(1).step_by(2).map(str::to_owned)).collect();
        let once: BTreeSet<_> = described.iter().cloned().collect();
        assert_eq!(once.len(), described.len(), "one is there twice");
        assert_eq!(once, all());
    }
}
