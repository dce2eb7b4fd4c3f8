//! Leading: the dispatcher serves workers, its address is published, the controllers run.

use super::process::{Keys, Process};
use crate::api::MANAGER;
use crate::cli::CliError;
use crate::cli::serve::{Plan, Served};
use crate::controllers::{Context, proverpool, provingjob};
use crate::kubernetes::login::TokenReviewLogin;
use crate::kubernetes::patience::Patience;
use crate::kubernetes::report_key;
use arborist_system::watchdog::Watchdog;
use axum::Router;
use ed25519_dalek::SigningKey;
use kube::runtime::events::{Recorder, Reporter};
use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

/// A leader whose dispatcher does not start lets another one try after so long.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// Controllers may finish what they do for so long.
const STOP_TIME: Duration = Duration::from_secs(5);
/// A part that shows nothing of itself for so long is stuck.
const STUCK: Duration = Duration::from_secs(120);
/// A leader whose journal can't be written for so long lets another one try: its disk or network may be to blame.
const JOURNAL_PATIENCE: Duration = Duration::from_secs(60);
/// How often the journal is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// The address for workers is taken out within this time, or left.
const WITHDRAW_TIME: Duration = Duration::from_secs(2);

/// A process that leads.
pub struct Leading<'a> {
    pub process: &'a Process,
    pub keys: &'a Keys,
    /// Cancelled when the process is asked to stop.
    pub asked: &'a CancellationToken,
    /// To be cancelled when another has taken the journal.
    pub fenced: &'a CancellationToken,
}

impl Leading<'_> {
    /// Leads until asked to stop; then all is written when it returns.
    ///
    /// # Errors
    /// [`CliError::NotNow`] when the dispatcher can't start as things are and nothing was begun; others when it can't
    /// start at all, or a part that has to run ended.
    pub async fn run(&self) -> Result<(), CliError> {
        let Process { args, clients, .. } = self.process;
        let report_key = report_key::refreshed(&clients.open, &args.namespace, &self.keys.report);
        let started = futures::future::join(self.start_dispatcher(), report_key);
        let Some((served, report_key)) = self.asked.run_until_cancelled(started).await else {
            return Ok(());
        };
        let served = served?;
        let dispatcher = &served.dispatcher;
        self.process.health.leads(dispatcher.clone());
        let stop = CancellationToken::new();
        let mut parts = self.start_parts(&served, report_key, &stop);
        let result = tokio::select! {
            () = self.asked.cancelled() => Ok(()),
            ended = parts.first_end() => Err(CliError::Failed(format!("{ended} ended; the operator starts anew"))),
            fenced = dispatcher.stopped() => {
                if fenced.is_some() {
                    self.fenced.cancel();
                    // the election ends this process now
                    std::future::pending::<()>().await;
                }
                Err(CliError::Failed("the dispatcher has stopped".into()))
            }
            stall = stalled(|| dispatcher.journal_stall()) => Err(CliError::NotNow(format!(
                "the journal can't be written for {} s", stall.as_secs()
            ))),
        };
        stop.cancel();
        parts.end().await;
        self.withdraw().await;
        match &result {
            // what could not be written until now holds nothing up
            Err(CliError::NotNow(_)) => {
                self.process.health.follows();
                served.abandon().await;
            }
            _ => {
                if let Err(error) = served.shutdown().await {
                    tracing::warn!(%error, "leaving all the same");
                }
            }
        }
        result
    }

    /// The dispatcher takes the journal over: whoever led before is fenced when this returns.
    async fn start_dispatcher(&self) -> Result<Served, CliError> {
        let Process { args, health, clients, metrics, book, .. } = self.process;
        if let Err(error) = self.keys.authority.refresh().await {
            tracing::warn!(%error, "the certificate authority is the one of this operator's start");
        }
        let login = TokenReviewLogin::new(clients.open.clone(), args.scopes(), book.clone(), metrics.clone());
        let plan = Plan {
            login: Some(Arc::new(login)),
            authority: Some(self.keys.authority.authority().clone()),
            operator_key: Some(self.keys.operator.clone()),
            ..args.plan()
        };
        let (began, mut patience) = (Instant::now(), Patience::default());
        loop {
            health.wait("dispatcher", Some("starting".into()));
            let started = Served::start(&plan, |_| Router::new()).await;
            match started {
                Ok(served) => {
                    health.wait("dispatcher", None);
                    return Ok(served);
                }
                Err(error) if began.elapsed() > START_PATIENCE => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, "the dispatcher does not start");
                    health.wait("dispatcher", Some(error.to_string()));
                }
            }
            patience.pause().await;
        }
    }

    /// Everything that runs while this process leads; none of it may end before `stop`.
    fn start_parts(&self, served: &Served, report_key: Arc<SigningKey>, stop: &CancellationToken) -> Parts {
        let Process { args, clients, metrics, gate, .. } = self.process;
        let client = clients.gated.clone();
        let reporter = Reporter { controller: MANAGER.into(), instance: Some(args.pod_name.clone()) };
        let watchdog = self.process.health.watchdog().clone();
        let context = Context::new(
            client.clone(),
            served.dispatcher.clone(),
            args.settings(),
            Recorder::new(client.clone(), reporter),
            report_key,
            self.keys.authority.trust().clone(),
            metrics.clone(),
        );
        let context = Arc::new(Context { watchdog: watchdog.clone(), ..context });
        let mut parts = Parts::until(stop, watchdog);
        parts.spawn("the leader's address", until(stop.clone(), args.address().keep(client)));
        let authority = self.keys.authority.clone();
        parts.spawn("the certificate authority", until(stop.clone(), async move { authority.keep().await }));
        let book = self.process.book.clone();
        let pools = proverpool::run(context.clone(), book, gate.clone(), stop.clone());
        parts.spawn("the controller of ProverPools", pools);
        for scope in args.scopes() {
            parts.spawn(
                "the controller of ProvingJobs",
                provingjob::run(context.clone(), scope, stop.clone()),
            );
        }
        parts
    }

    /// Workers are refused at once, until the next leader has published its address.
    async fn withdraw(&self) {
        let address = self.process.args.address();
        match timeout(WITHDRAW_TIME, address.withdraw(&self.process.clients.gated)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the address for workers stays published"),
            Err(_) => tracing::warn!("the address for workers stays published: no answer"),
        }
    }
}

/// Tasks that have to run all the time: there is no half an operator.
struct Parts {
    tasks: JoinSet<()>,
    names: HashMap<Id, &'static str>,
    watchdog: Watchdog,
    /// Without them nothing may go on that they set going: a leader that lost the Lease drops them as they are.
    _stop: DropGuard,
}

impl Parts {
    /// None yet. When they are dropped, `stop` is cancelled.
    fn until(stop: &CancellationToken, watchdog: Watchdog) -> Self {
        Self { tasks: JoinSet::new(), names: HashMap::new(), watchdog, _stop: stop.clone().drop_guard() }
    }

    fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let watchdog = self.watchdog.clone();
        let id = self.tasks.spawn(async move { watchdog.keep(name, STUCK, task).await }).id();
        self.names.insert(id, name);
    }

    /// Waits until one of them ends, or crashes; which.
    async fn first_end(&mut self) -> String {
        let (id, how) = match self.tasks.join_next_with_id().await {
            Some(Ok((id, ()))) => (id, String::new()),
            Some(Err(error)) => (error.id(), format!(" (crashed: {error})")),
            None => return "everything".into(),
        };
        format!("{}{how}", self.names.get(&id).copied().unwrap_or("a part"))
    }

    /// They may finish what they do, then all are ended.
    async fn end(mut self) {
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if timeout(STOP_TIME, all).await.is_err() {
            tracing::warn!(left = self.tasks.len(), "some controllers did not finish in time");
        }
        self.tasks.shutdown().await;
    }
}

/// Waits until the journal could not be written for too long; for how long.
async fn stalled(stall: impl Fn() -> Duration) -> Duration {
    loop {
        let stall = stall();
        if stall > JOURNAL_PATIENCE {
            return stall;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What goes on for ever, until the stop.
async fn until(stop: CancellationToken, task: impl Future<Output = ()> + Send) {
    stop.run_until_cancelled(task).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_part_that_ends_or_crashes_is_named() {
        let stop = CancellationToken::new();
        let mut parts = Parts::until(&stop, Watchdog::default());
        parts.spawn("the patient one", until(stop.clone(), std::future::pending()));
        parts.spawn("the short one", async {});
        assert_eq!(parts.first_end().await, "the short one");
        parts.spawn("the weak one", async { panic!("a bug") });
        let told = parts.first_end().await;
        assert!(told.starts_with("the weak one (crashed: ") && told.contains("a bug"), "{told}");
        stop.cancel();
        assert_eq!(parts.first_end().await, "the patient one");
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_bears_a_journal_that_stalls_for_a_minute() {
        let began = Instant::now();
        let hangs_from = |seconds| began + Duration::from_secs(seconds);
        // it works again once, and then no more
        let stall = || match began.elapsed().as_secs() {
            0..50 => began.elapsed(),
            50..100 => Duration::ZERO,
            _ => hangs_from(100).elapsed(),
        };
        let borne = stalled(stall).await;
        assert!(borne > JOURNAL_PATIENCE && borne < JOURNAL_PATIENCE + 3 * LOOK, "{borne:?}");
        assert!(began.elapsed() >= Duration::from_secs(160));
    }

    /// Reports on their way run beside the controllers: they hear of nothing else.
    #[tokio::test]
    async fn what_parts_set_going_ends_when_they_are_dropped() {
        let stop = CancellationToken::new();
        let beside = tokio::spawn({
            let stop = stop.clone();
            async move { stop.cancelled().await }
        });
        let mut parts = Parts::until(&stop, Watchdog::default());
        parts.spawn("a controller", std::future::pending());
        let leading = async move { parts.first_end().await };
        // as the Lease's loss does
        assert!(timeout(Duration::from_millis(1), leading).await.is_err());
        timeout(Duration::from_secs(10), beside).await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn at_the_end_parts_may_finish_and_the_deaf_are_ended() {
        let (finished, hears) = std::sync::mpsc::channel();
        let stop = CancellationToken::new();
        let mut parts = Parts::until(&stop, Watchdog::default());
        let heeds = stop.clone();
        parts.spawn("heeds", async move {
            heeds.cancelled().await;
            tokio::time::sleep(STOP_TIME / 2).await;
            finished.send("done").unwrap();
        });
        parts.spawn("deaf", std::future::pending());
        stop.cancel();
        parts.end().await;
        assert_eq!(hears.try_recv(), Ok("done"));
    }
}
