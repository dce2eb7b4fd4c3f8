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
use crate::kubernetes::{Gate, Metrics, crds, operator_key, report_key};
use crate::operator_key::OperatorKey;
use crate::tls_serve;
use arborist_system::descriptors::Shares;
use ed25519_dalek::SigningKey;
use std::error::Error;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
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
    pub operator: OperatorKey,
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
        let most = Shares::now().http;
        tasks.spawn(tls_serve::serve_at_most(most, listener, None, health.router(), stop.clone()));
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
        let Some(keys) = asked.run_until_cancelled(self.prepare()).await else { return Ok(()) };
        let trouble = |trouble| self.health.wait("dispatcher", trouble);
        take_turns(asked, self.args.leader_lease / 2, trouble, || self.take_turn(&keys, asked)).await
    }

    /// Stands by until this process leads, and leads.
    async fn take_turn(&self, keys: &Keys, asked: &CancellationToken) -> Result<(), CliError> {
        let mut election = self.election();
        let stand_by = election.acquire(|trouble| self.health.wait("leader election", trouble));
        let result = match asked.run_until_cancelled(stand_by).await {
            None => Ok(()),
            Some(()) => {
                let fenced = CancellationToken::new();
                let leading = Leading { process: self, keys, asked, fenced: &fenced };
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
        let end = &self.metrics.authority_end;
        let authority =
            self.insist("certificate authority", || Keeper::open(open, gated, namespace, end)).await;
        let report = self.insist("report key", || report_key::open(open, namespace)).await;
        let operator = self.insist("operator key", || operator_key::open(open, namespace)).await;
        self.health.wait("worker pods", Some("not all are known yet".into()));
        self.book.synced(self.args.scopes().len()).await;
        self.health.wait("worker pods", None);
        self.health.wait("start", None);
        Keys { authority: Arc::new(authority), report: Arc::new(report), operator }
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

/// Turns at leading, until one ends otherwise than by what passes. In between the others, who may reach what this
/// process does not, have theirs: the Lease is theirs for `pause`. A process that ended instead would come back ever
/// later, the kubelet's pauses grow to minutes.
async fn take_turns<F: Future<Output = Result<(), CliError>>>(
    asked: &CancellationToken,
    pause: Duration,
    trouble: impl Fn(Option<String>),
    turn: impl Fn() -> F,
) -> Result<(), CliError> {
    loop {
        let why = match turn().await {
            Err(CliError::NotNow(why)) => why,
            ended => return ended,
        };
        tracing::warn!(error = why, "this operator can't lead now: it gives the Lease up and stands by");
        trouble(Some(why));
        if asked.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return Ok(());
        }
        trouble(None);
    }
}

fn followed(stopped: &Stopped) -> CliError {
    CliError::Failed(format!("{stopped}; this operator writes nothing more and starts anew, as a standby"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use tokio::time::Instant;

    const PAUSE: Duration = Duration::from_secs(5);

    /// Ends of turns, one after the other: the process's end, how often it tried, what it said meanwhile.
    async fn turns(
        ends: Vec<Result<(), CliError>>,
        asked: &CancellationToken,
    ) -> (Result<(), CliError>, usize, Vec<Option<String>>) {
        let (ends, said) = (RefCell::new(ends.into_iter()), RefCell::new(vec![]));
        let turn = async || ends.borrow_mut().next().expect("no more turns");
        let ended = take_turns(asked, PAUSE, |trouble| said.borrow_mut().push(trouble), turn).await;
        let left = ends.borrow().len();
        (ended, left, said.into_inner())
    }

    fn not_now() -> Result<(), CliError> {
        Err(CliError::NotNow("the store is silent".into()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_is_away_costs_turns_and_not_the_process() {
        let (asked, began) = (CancellationToken::new(), Instant::now());
        let (ended, left, said) = turns(vec![not_now(), not_now(), Ok(())], &asked).await;
        assert!(ended.is_ok() && left == 0, "{ended:?}");
        let silent = Some("the store is silent".to_owned());
        assert_eq!(said, [silent.clone(), None, silent, None], "not ready in between, as /readyz says");
        assert!(began.elapsed() >= 2 * PAUSE, "the others have their turns");
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_pass_ends_the_process() {
        let ends = vec![not_now(), Err(CliError::Failed("the bucket is unfit".into())), Ok(())];
        let (ended, left, _) = turns(ends, &CancellationToken::new()).await;
        assert!(matches!(ended, Err(CliError::Failed(_))) && left == 1, "{ended:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_asked_to_stop_takes_no_other_turn() {
        let asked = CancellationToken::new();
        asked.cancel();
        let (ended, left, _) = turns(vec![not_now(), not_now()], &asked).await;
        assert!(ended.is_ok() && left == 1, "{ended:?}");
    }
}
