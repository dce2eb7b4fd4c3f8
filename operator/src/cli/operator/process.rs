//! The life of the process: it starts, waits for what it needs, stands by, leads, and leaves.

use super::Args;
use super::lead::Leading;
use crate::cli::CliError;
use crate::cli::serve::bind;
use crate::cli::signals::Signals;
use crate::kubernetes::client::{Clients, causes};
use crate::kubernetes::health::Health;
use crate::kubernetes::leader::{Election, Identity, Stopped, Timing};
use crate::kubernetes::patience::Patience;
use crate::kubernetes::pods::{self, PodBook};
use crate::kubernetes::trust::Keeper;
use crate::kubernetes::{Gate, Metrics, crds, report_key};
use crate::tls_serve;
use ed25519_dalek::SigningKey;
use std::error::Error;
use std::future::Future;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What a process has before it leads, and a standby keeps warm: health and metrics are served, the API server is
/// connected, the keys are read, the worker pods are known.
pub struct Process {
    pub args: Args,
    pub metrics: Arc<Metrics>,
    pub health: Health,
    pub gate: Gate,
    pub clients: Clients,
    pub book: PodBook,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// The keys that outlive a process.
pub struct Keys {
    pub authority: Arc<Keeper>,
    pub report: Arc<SigningKey>,
}

impl Process {
    /// Serves health and metrics, and prepares the clients.
    ///
    /// # Errors
    /// The port can't be listened on, or there is no way to reach the API server.
    pub async fn start(args: &Args) -> Result<Self, CliError> {
        let metrics = Arc::new(Metrics::new().map_err(|e| CliError::failed("metrics", e))?);
        let (health, gate) = (Health::new(metrics.clone()), Gate::default());
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let (listener, address) = bind(args.http).await?;
        health.wait("start", Some("not ready to lead yet".into()));
        tasks.spawn(tls_serve::serve(listener, None, health.router(), stop.clone()));
        tracing::info!(%address, pod = args.pod_name, namespace = args.namespace, "serving health and metrics");
        let clients = Clients::new(&metrics, &gate).await.map_err(|e| CliError::failed("Kubernetes", e))?;
        let (args, book) = (args.clone(), PodBook::default());
        Ok(Self { args, metrics, health, gate, clients, book, stop, tasks })
    }

    /// Stands by and leads, until a signal or until this process must not lead any more.
    ///
    /// # Errors
    /// See [`super::run`].
    pub async fn live(self, mut signals: Signals) -> Result<(), CliError> {
        let (asked, hurry) = (CancellationToken::new(), CancellationToken::new());
        let listening = tokio::spawn({
            let (asked, hurry) = (asked.clone(), hurry.clone());
            async move {
                let name = signals.next().await;
                tracing::info!(signal = name, "asked to stop");
                asked.cancel();
                signals.next().await;
                hurry.cancel();
            }
        });
        let result = tokio::select! {
            result = self.stand_by_and_lead(&asked) => result,
            () = hurry.cancelled() => {
                tracing::warn!("leaving at once: the journal's last records are looked up at the next start");
                Ok(())
            }
        };
        listening.abort();
        self.stop.cancel();
        self.tasks.close();
        if result.is_ok() {
            self.tasks.wait().await;
        }
        result
    }

    async fn stand_by_and_lead(&self, asked: &CancellationToken) -> Result<(), CliError> {
        let mut election = self.election();
        let stand_by = async {
            let keys = self.prepare().await;
            election.acquire(|trouble| self.health.wait("leader election", trouble)).await;
            keys
        };
        let result = match asked.run_until_cancelled(stand_by).await {
            None => Ok(()),
            Some(keys) => {
                let fenced = CancellationToken::new();
                let leading = Leading { process: self, keys: &keys, asked, fenced: &fenced };
                // the Lease is renewed until everything is written
                tokio::select! {
                    stopped = election.keep(&fenced) => Err(followed(&stopped)),
                    result = leading.run() => result,
                }
            }
        };
        if let Err(error) = election.release().await {
            tracing::warn!(error, "the Lease was not given up: a standby waits for its end");
        }
        result
    }

    fn election(&self) -> Election {
        let us = Identity::new(&self.args.pod_name, rand::random());
        let timing = Timing { lease: self.args.leader_lease };
        let (client, namespace) = (self.clients.open.clone(), &self.args.namespace);
        Election::new(client, namespace, us, timing, self.gate.clone(), self.metrics.clone())
    }

    /// All that can be done before leading.
    async fn prepare(&self) -> Keys {
        let Clients { open, gated } = &self.clients;
        let namespace = &self.args.namespace;
        crds::served(open, |trouble| self.health.wait("CustomResourceDefinitions", trouble)).await;
        self.watch_pods();
        let authority = self.insist("certificate authority", || Keeper::open(open, gated, namespace)).await;
        let report = self.insist("report key", || report_key::open(open, namespace)).await;
        self.health.wait("worker pods", Some("not all are known yet".into()));
        self.book.synced(self.args.scopes().len()).await;
        self.health.wait("worker pods", None);
        self.health.wait("start", None);
        Keys { authority: Arc::new(authority), report: Arc::new(report) }
    }

    /// Tries until it works, and says meanwhile what is missing.
    async fn insist<T, E, F>(&self, what: &'static str, action: impl Fn() -> F) -> T
    where
        E: Error,
        F: Future<Output = Result<T, E>>,
    {
        let mut patience = Patience::default();
        loop {
            match action().await {
                Ok(done) => {
                    self.health.wait(what, None);
                    return done;
                }
                Err(error) => {
                    let text = causes(&error);
                    tracing::warn!(error = text, "waiting for the {what}");
                    self.health.wait(what, Some(text));
                }
            }
            patience.pause().await;
        }
    }

    /// A standby knows the pods too: after a failover thousands log in at once.
    fn watch_pods(&self) {
        for scope in self.args.scopes() {
            let (client, book) = (self.clients.open.clone(), self.book.clone());
            // whoever leads hears of them from the book
            self.tasks.spawn(pods::watch(client, scope, book, |_| {}, self.stop.clone()));
        }
    }
}

fn followed(stopped: &Stopped) -> CliError {
    CliError::Failed(format!("{stopped}; this operator writes nothing more and starts anew, as a standby"))
}
