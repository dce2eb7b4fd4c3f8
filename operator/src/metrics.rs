//! What the dispatcher counts, for Prometheus, and its routes for health.
//!
//! Labels are bounded: kinds of proof, reasons and causes from fixed lists, never a name or a text.

use crate::dispatch::Dispatcher;
use arborist_core::circuit::Kind;
use arborist_core::engine::{Counts, Reason};
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus::core::Collector;
use prometheus::{
    Encoder, Gauge, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};
use std::cell::RefCell;

/// All counters of one dispatcher.
pub struct Metrics {
    registry: Registry,
    /// The names of all of them, as Prometheus reads them.
    pub names: Vec<String>,
    /// Tasks by kind and state, over all jobs that are not over.
    pub tasks: IntGaugeVec,
    /// Jobs by state.
    pub jobs: IntGaugeVec,
    /// Proofs counted, by kind and whether they were made or found.
    pub completions: IntCounterVec,
    /// Attempts that failed, by reason.
    pub failures: IntCounterVec,
    /// Failures counted against a task, by reason; those of workers that were killed for lack of memory too.
    pub charges: IntCounterVec,
    /// Leases lost: expired, or their worker is gone.
    pub leases_lost: IntCounter,
    /// Results that came for a lease that was lost, by whether they counted.
    pub late_results: IntCounterVec,
    /// Backup copies started.
    pub backups: IntCounter,
    /// Proofs moved aside because they were bad.
    pub quarantined: IntCounter,
    /// Checks of root proofs, by result.
    pub root_checks: IntCounterVec,
    /// Looks at proofs that workers reported or complained about, by what was found.
    pub proof_checks: IntCounterVec,
    /// Workers logged in.
    pub workers: IntGauge,
    /// Open connections, logged in or not.
    pub connections: IntGauge,
    /// Connections ended, by cause.
    pub ended: IntCounterVec,
    /// Logins refused, by cause.
    pub refused: IntCounterVec,
    /// Frames received.
    pub frames_in: IntCounter,
    /// Frames sent.
    pub frames_out: IntCounter,
    /// Bytes received, TLS included.
    pub bytes_in: IntCounter,
    /// Bytes sent, TLS included.
    pub bytes_out: IntCounter,
    /// Leases sent.
    pub leases: IntCounter,
    /// Bytes of block files that are held, or reserved for those to come.
    pub intake: IntGauge,
    /// Bytes of the journal that are not durable yet.
    pub journal_lag: IntGauge,
    /// Seconds that the oldest record which is not durable has been waiting for the journal's store.
    pub journal_stall: Gauge,
    /// Objects in the journal's folder that are none of an operator's.
    pub journal_foreign: IntGauge,
    /// Records appended to the journal.
    pub journal_records: IntCounter,
    /// Snapshots written.
    pub snapshots: IntCounter,
    /// Seconds from a job's submit to its first lease, of the last job.
    pub first_dispatch: Gauge,
    /// Seconds from the start of the process to serving, recovery included.
    pub recovery: Gauge,
    /// Proofs found in the store at start or submit instead of being made again.
    pub recovered: IntCounter,
    /// Jobs that a start left out of the books, as their blocks are lost.
    pub left_out: IntCounter,
}

/// A registry, and the names in it: it tells only of metrics that have a value.
#[derive(Default)]
pub(crate) struct Register {
    registry: Registry,
    names: RefCell<Vec<String>>,
}

impl Register {
    /// Registers a metric.
    ///
    /// # Errors
    /// The name is taken.
    pub(crate) fn add<C: Collector + Clone + 'static>(&self, collector: C) -> Result<C, prometheus::Error> {
        self.names.borrow_mut().extend(collector.desc().into_iter().map(|desc| desc.fq_name.clone()));
        self.registry.register(Box::new(collector.clone()))?;
        Ok(collector)
    }

    pub(crate) fn into_parts(self) -> (Registry, Vec<String>) {
        (self.registry, self.names.into_inner())
    }
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
        let seconds = |n: &str, help: &str| r.add(Gauge::new(name(n), help)?);
        let counters = |n: &str, help: &str, labels: &[&str]| {
            r.add(IntCounterVec::new(Opts::new(name(n), help), labels)?)
        };
        let gauges =
            |n: &str, help: &str, labels: &[&str]| r.add(IntGaugeVec::new(Opts::new(name(n), help), labels)?);
        let metrics = Self {
            tasks: gauges("tasks", "Tasks of jobs that are not over", &["kind", "state"])?,
            jobs: gauges("jobs", "Jobs in the books", &["state"])?,
            completions: counters("completions_total", "Results counted", &["kind", "origin"])?,
            failures: counters("failures_total", "Attempts that failed", &["reason"])?,
            charges: counters("charges_total", "Failures counted against a task", &["reason"])?,
            leases_lost: counter("leases_lost_total", "Leases that expired or whose worker is gone")?,
            late_results: counters("late_results_total", "Results for lost leases", &["counted"])?,
            backups: counter("backups_total", "Second copies of slow tasks")?,
            quarantined: counter("quarantined_total", "Proofs moved aside as bad")?,
            root_checks: counters("root_checks_total", "Root proofs checked", &["result"])?,
            proof_checks: counters(
                "proof_checks_total",
                "Looks at proofs that workers reported or complained about",
                &["result"],
            )?,
            workers: gauge("workers_connected", "Workers logged in")?,
            connections: gauge("connections", "Open connections")?,
            ended: counters("connections_ended_total", "Connections ended", &["cause"])?,
            refused: counters("logins_refused_total", "Logins refused", &["cause"])?,
            frames_in: counter("frames_received_total", "Frames received")?,
            frames_out: counter("frames_sent_total", "Frames sent")?,
            bytes_in: counter("bytes_received_total", "Bytes received, TLS included")?,
            bytes_out: counter("bytes_sent_total", "Bytes sent, TLS included")?,
            leases: counter("leases_total", "Leases sent")?,
            intake: gauge("intake_bytes", "Block files being taken in: bytes held or reserved")?,
            journal_lag: gauge("journal_lag_bytes", "Journal not durable yet")?,
            journal_stall: seconds("journal_stalled_seconds", "Oldest record not durable yet")?,
            journal_foreign: gauge(
                "journal_foreign_objects",
                "Objects in the journal's folder that no operator wrote",
            )?,
            journal_records: counter("journal_records_total", "Records appended to the journal")?,
            snapshots: counter("journal_snapshots_total", "Snapshots written")?,
            first_dispatch: seconds("first_dispatch_seconds", "Last job: submit to first lease")?,
            recovery: seconds("recovery_seconds", "Start to serving")?,
            recovered: counter("proofs_found_total", "Proofs found in the store")?,
            left_out: counter("jobs_left_out_total", "Jobs left out at the start: their blocks are lost")?,
            registry: Registry::default(),
            names: vec![],
        };
        let (registry, names) = r.into_parts();
        Ok(Self { registry, names, ..metrics })
    }

    /// Everything in Prometheus' text format.
    pub fn text(&self) -> String {
        let mut out = vec![];
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut out) {
            tracing::error!(%error, "metrics can't be written");
        }
        String::from_utf8_lossy(&out).into_owned()
    }

    /// Sets the gauges of tasks from the counts of all jobs, by [`Kind::index`].
    pub(crate) fn set_tasks(&self, counts: &[Counts; 5]) {
        for (kind, c) in Kind::ALL.into_iter().zip(counts) {
            let waiting = c.total.saturating_sub(c.done + c.running + c.ready + c.failed);
            let states = [
                ("waiting", waiting),
                ("ready", c.ready),
                ("running", c.running),
                ("done", c.done),
                ("failed", c.failed),
            ];
            for (state, count) in states {
                self.tasks.with_label_values(&[kind.name(), state]).set(i64::from(count));
            }
        }
    }
}

/// A reason's name as a label.
pub(crate) fn reason_label(reason: &Reason) -> &'static str {
    match reason {
        Reason::Error => "error",
        Reason::OutOfMemory => "out_of_memory",
        Reason::TimedOut => "timed_out",
        Reason::BadChild(_) => "bad_child",
        Reason::MissingChild(_) => "missing_child",
        Reason::BadInput => "bad_input",
        Reason::BadProof => "bad_proof",
        Reason::Oversize => "oversize",
        Reason::StoreUnavailable => "store_unavailable",
        Reason::HandedBack => "handed_back",
    }
}

/// `/metrics`, `/healthz` and `/readyz`.
pub fn router(dispatcher: Dispatcher) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(dispatcher)
}

async fn metrics(State(dispatcher): State<Dispatcher>) -> Response {
    dispatcher.refresh_metrics();
    let text = dispatcher.metrics().text();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

async fn healthz(State(dispatcher): State<Dispatcher>) -> Response {
    verdict(&dispatcher.stuck())
}

async fn readyz(State(dispatcher): State<Dispatcher>) -> Response {
    verdict(&dispatcher.pending())
}

/// The answer to a probe: what is wrong, one line each, or that nothing is.
pub(crate) fn verdict(troubles: &[String]) -> Response {
    if troubles.is_empty() {
        return "ok\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, troubles.join("\n") + "\n").into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_a_good_name_of_its_own() {
        let metrics = Metrics::new().unwrap();
        metrics.set_tasks(&[Counts { total: 5, done: 1, running: 1, ready: 1, failed: 1 }; 5]);
        metrics.leases.inc();
        let text = metrics.text();
        for line in [
            "arborist_tasks{kind=\"vm\",state=\"waiting\"} 1",
            "arborist_leases_total 1",
            "arborist_journal_lag_bytes 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
        }
        assert_eq!(text.matches("# TYPE arborist_connections gauge").count(), 1);
    }
}
