//! What the operator counts of its life in a cluster: leadership, requests to the API server, reconciles.
//!
//! Labels are bounded: verbs, resources, outcomes and states from fixed lists, never a name or a text.

use crate::controllers::Outcome;
use prometheus::core::Collector;
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
    /// ProvingJobs by state.
    pub jobs: IntGaugeVec,
    /// Tries to deliver a report, by result.
    pub reports: IntCounterVec,
    /// Reviews of workers' tokens by where the answer came from: `api`, `cache`, `stale`.
    pub token_reviews: IntCounterVec,
}

impl Metrics {
    /// A registry of its own with everything at zero.
    ///
    /// # Errors
    /// Never with the names in this file.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let r = &registry;
        let name = |name: &str| format!("arborist_{name}");
        let counter = |n: &str, help: &str| add(r, IntCounter::new(name(n), help)?);
        let gauge = |n: &str, help: &str| add(r, IntGauge::new(name(n), help)?);
        let counters = |n: &str, help: &str, labels: &[&str]| {
            add(r, IntCounterVec::new(Opts::new(name(n), help), labels)?)
        };
        let gauges = |n: &str, help: &str, labels: &[&str]| {
            add(r, IntGaugeVec::new(Opts::new(name(n), help), labels)?)
        };
        let seconds = |n: &str, help: &str, labels: &[&str]| {
            let opts = HistogramOpts::new(name(n), help).buckets(SECONDS.to_vec());
            add(r, HistogramVec::new(opts, labels)?)
        };
        Ok(Self {
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
            jobs: gauges("proving_jobs", "ProvingJobs", &["state"])?,
            reports: counters("reports_total", "Tries to deliver a report", &["result"])?,
            token_reviews: counters("token_reviews_total", "Workers' tokens checked", &["source"])?,
            registry,
        })
    }

    /// Counts a reconcile of a controller that took `took`.
    pub fn reconciled<E>(&self, controller: &'static str, took: Duration, ended: &Result<Outcome, E>) {
        let outcome = match ended {
            Ok(Outcome::Applied(_)) => "applied",
            Ok(Outcome::Waiting { .. }) => "waiting",
            Ok(Outcome::Settled) => "settled",
            Err(_) => "failed",
        };
        self.reconciles.with_label_values(&[controller, outcome]).inc();
        self.reconcile_seconds.with_label_values(&[controller]).observe(took.as_secs_f64());
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

fn add<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> Result<C, prometheus::Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_their_own_and_differ_from_the_dispatchers() {
        let metrics = Metrics::new().unwrap();
        let applied: Result<_, ()> = Ok(Outcome::Applied(None));
        metrics.reconciled("pool", Duration::from_millis(3), &applied);
        metrics.reconciled::<()>("pool", Duration::from_millis(3), &Err(()));
        let text = metrics.text();
        for line in [
            "arborist_reconciles_total{controller=\"pool\",outcome=\"applied\"} 1",
            "arborist_reconciles_total{controller=\"pool\",outcome=\"failed\"} 1",
            "arborist_reconcile_seconds_count{controller=\"pool\"} 2",
            "arborist_leader 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
        }
        let dispatcher = crate::metrics::Metrics::new().unwrap();
        dispatcher.set_tasks(&[Default::default(); 5]);
        let names = |text: &str| -> Vec<String> {
            text.lines()
                .filter_map(|l| l.strip_prefix("# TYPE ")?.split(' ').next().map(str::to_owned))
                .collect()
        };
        let theirs = names(&dispatcher.text());
        assert!(names(&text).iter().all(|name| !theirs.contains(name)));
    }
}
