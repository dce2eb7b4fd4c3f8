//! `arborist prove`: a whole block on this machine, by the same dispatcher, journal, store and workers as in a cluster.

mod args;
mod finish;
mod levels;
mod machine;
mod source;
mod summary;
mod watch;
mod workers;

pub use args::{Args, parse_duration, parse_prover};

use self::source::Subject;
use self::watch::Outcome;
use self::workers::{WorkerPlan, Workers, make_folder};
use super::CliError;
use super::logging;
use super::serve::{Plan, Served, WorkerStore};
use super::signals::Signals;
use super::submit::now_millis;
use super::tenants::TenantArgs;
use super::worker_program;
use crate::dispatch::{Dispatcher, Progress};
use crate::tls::{CA_FILE, TOKEN_FILE};
use arborist_core::engine::{JobId, JobState};
use arborist_core::profile::Profile;
use arborist_system::{errln, outln};
use axum::Router;
use std::net::SocketAddr;

/// Any free port of this machine.
const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// Proves a block and leaves its root proof, published inputs and report in the output folder.
///
/// # Errors
/// Wrong input, deadline passed, stopped by a signal, or a proof that nobody could make.
pub fn run(args: &Args) -> Result<(), CliError> {
    args.check()?;
    make_folder(&args.logs())?;
    logging::to_file(&args.log, &args.logs().join("operator.log"))?;
    let program = worker_program::find()?;
    let subject = Subject::find(args)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| CliError::failed("start the runtime", e))?;
    let summary = runtime.block_on(prove(args, &subject, program))?;
    outln!("\n{summary}\nroot proof: {}", args.out.join(super::outputs::ROOT_PROOF).display());
    Ok(())
}

async fn prove(args: &Args, subject: &Subject, program: std::path::PathBuf) -> Result<String, CliError> {
    let mut signals = Signals::listen()?;
    let profile = args.profile();
    let served = Served::start(&args.plan(&profile), |_| Router::new()).await?;
    let result = with_dispatcher(args, subject, program, &profile, &served.dispatcher, &mut signals).await;
    tokio::select! {
        () = served.shutdown() => result,
        _ = signals.next() => Err(CliError::Stopped("at once, by a second signal".into())),
    }
}

async fn with_dispatcher(
    args: &Args,
    subject: &Subject,
    program: std::path::PathBuf,
    profile: &Profile,
    dispatcher: &Dispatcher,
    signals: &mut Signals,
) -> Result<String, CliError> {
    let job = submit(args, subject, dispatcher).await?;
    tell_start(subject, dispatcher, job);
    let finished = dispatcher.job(job).is_some_and(|view| view.state == JobState::Complete);
    if !finished {
        let mut workers = Workers::start(&args.workers(program, profile, dispatcher)?)?;
        let outcome = watch::watch(dispatcher, job, &mut workers, signals).await;
        drain(workers, &outcome, signals).await;
        let outcome = last_look(dispatcher, job, outcome);
        outcome.into_result(dispatcher, job)?;
    }
    finish::finish(args, subject, profile, dispatcher, job).await
}

/// The block may have been finished by what the workers handed in while they left.
fn last_look(dispatcher: &Dispatcher, job: JobId, outcome: Outcome) -> Outcome {
    match (dispatcher.job(job).map(|view| view.state), outcome) {
        (Some(JobState::Complete), Outcome::Signal(_)) => Outcome::Complete,
        (_, outcome) => outcome,
    }
}

async fn drain(workers: Workers, outcome: &Outcome, signals: &mut Signals) {
    if let Outcome::Signal(name) = outcome {
        errln!("{name}: letting the workers finish or hand back what they do; once more ends at once");
    }
    tokio::select! {
        () = workers.drain() => {}
        // dropped workers are killed
        _ = signals.next() => {}
    }
}

/// Submits the block; a deadline given now counts from now. Blocks left unfinished by other runs over this state don't
/// take the workers' time: they are cancelled, and taken up again when they are asked for.
async fn submit(args: &Args, subject: &Subject, dispatcher: &Dispatcher) -> Result<JobId, CliError> {
    let mut request = subject.request.clone();
    request.deadline = args.deadline.map(|d| now_millis() + d.as_millis() as u64);
    let deadline = request.deadline;
    let failed = |e: &dyn std::fmt::Display| CliError::failed("submit the block", e);
    let mut progress = dispatcher.subscribe();
    let job = dispatcher.submit(request).await.map_err(|e| failed(&e))?;
    while let Ok(news) = progress.try_recv() {
        if let Progress::RootLost(_, why) = news {
            arborist_system::errln!("the root proof made before is made again: {why}");
        }
    }
    for other in dispatcher.jobs() {
        let open = matches!(other.state, JobState::Proving | JobState::Checking);
        if other.spec.id != job && open {
            dispatcher.cancel(other.spec.id).await.map_err(|e| failed(&e))?;
        }
    }
    if dispatcher.job(job).is_some_and(|view| view.state == JobState::Proving) {
        dispatcher.deadline(job, deadline).await.map_err(|e| failed(&e))?;
    }
    Ok(job)
}

fn tell_start(subject: &Subject, dispatcher: &Dispatcher, job: JobId) {
    let Some(view) = dispatcher.job(job) else { return };
    let total: u32 = view.counts.iter().map(|counts| counts.total).sum();
    let done: u32 = view.counts.iter().map(|counts| counts.done).sum();
    let calls: usize = subject.calls.iter().map(|n| usize::from(*n)).sum();
    errln!(
        "block {} of chain {}: {} transactions, {calls} public calls, {total} proofs{}",
        subject.request.block_number,
        subject.request.chain_id,
        subject.calls.len(),
        if done > 0 { format!("; {done} of them are there already") } else { String::new() },
    );
}

impl Args {
    fn logs(&self) -> std::path::PathBuf {
        self.out.join("logs")
    }

    fn plan(&self, profile: &Profile) -> Plan {
        Plan {
            state: self.state(),
            store: self.store.clone(),
            // they are this user's processes
            worker_store: WorkerStore::Direct,
            listen: ANY_PORT,
            store_listen: ANY_PORT,
            hosts: vec![],
            http: self.http,
            backend: self.backend,
            plugin: self.plugin.clone(),
            profile: profile.clone(),
            lease: None,
            max_attempts: None,
            larger_machines: false,
            tenants: TenantArgs::default(),
            login: None,
            authority: None,
            operator_key: None,
            key_file: None,
        }
    }

    fn workers(
        &self,
        program: std::path::PathBuf,
        profile: &Profile,
        dispatcher: &Dispatcher,
    ) -> Result<WorkerPlan, CliError> {
        let state = self.state();
        let state =
            state.canonicalize().map_err(|e| CliError::failed(format!("find {}", state.display()), e))?;
        let mut common = self.backend_args();
        common.extend([
            format!("--connect={}", dispatcher.address()),
            format!("--ca-cert={}", state.join(CA_FILE).display()),
            format!("--token-file={}", state.join(TOKEN_FILE).display()),
            format!("--cores={}", self.cores_of_each()),
            format!("--memory-mib={}", self.memory_of_each(profile)),
            // one task waits at the worker while another is proven; more would wait behind a slow one
            "--prefetch=1".to_owned(),
            format!("--grace={}", self.grace.as_secs().max(1)),
        ]);
        Ok(WorkerPlan {
            program,
            count: self.workers,
            common,
            grace: self.grace,
            logs: self.logs(),
            prefix: "worker".into(),
        })
    }
}
