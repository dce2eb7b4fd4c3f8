//! `arborist prove`: a whole block on this machine, by the same dispatcher, journal, store and workers as in a cluster.

mod args;
mod eta;
mod finish;
mod levels;
mod machine;
mod source;
mod summary;
mod watch;
mod workers;

pub use args::{Args, parse_duration};

use self::eta::Eta;
use self::source::{Found, Subject};
use self::watch::Outcome;
use self::workers::{WorkerPlan, Workers, make_folder};
use super::CliError;
use super::logging;
use super::outputs::Files;
use super::screen::Screen;
use super::serve::{Intake, LEAVE, Plan, Served, WorkerStore};
use super::signals::Signals;
use super::state_folder::StateFolder;
use super::store_watch;
use super::submit::{now_millis, refused};
use super::tenants::TenantArgs;
use super::worker_program;
use crate::dispatch::{Dispatcher, JobError, Progress, SubmitRequest};
use crate::tls::{CA_FILE, TOKEN_FILE};
use arborist_artifacts::ArtifactStore;
use arborist_core::engine::{JobId, JobState};
use arborist_core::profile::Profile;
use arborist_system::outln;
use arborist_system::private;
use axum::Router;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Any free port of this machine.
const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// How much longer than the workers' grace period and the dispatcher's end leaving may take.
const SLACK: Duration = Duration::from_secs(10);

/// Proves a block and leaves its root proof, published inputs and report in the output folder.
///
/// # Errors
/// Wrong input, deadline passed, stopped by a signal, or a proof that nobody could make.
pub fn run(args: &Args) -> Result<(), CliError> {
    args.check()?;
    private::keep_others_out();
    let until = args.deadline.map(|deadline| Instant::now() + deadline);
    let _folder = prepare_folders(args)?;
    logging::to_file(&args.log, &args.logs().join("operator.log"))?;
    let program = worker_program::find()?;
    let block = Found::find(args)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| CliError::failed("start the runtime", e))?;
    let result = runtime.block_on(prove(args, block, program, until));
    // what a disk or a plug-in that hangs holds up does not hold the process
    runtime.shutdown_timeout(Duration::from_secs(2));
    outln!("\n{}\nroot proof: {}", result?, args.out.join(super::outputs::ROOT_PROOF).display());
    Ok(())
}

/// Makes the folders for the owner alone. One that is there and given as `--out` may be needed by others: only what is
/// made in it is private.
fn prepare_folders(args: &Args) -> Result<StateFolder, CliError> {
    make_folder(&args.logs())?;
    let folder = StateFolder::open(&args.state())?;
    if folder.alone {
        Files::in_folder(&args.out).remove_unfinished();
    }
    Ok(folder)
}

async fn prove(
    args: &Args,
    block: Found,
    program: std::path::PathBuf,
    until: Option<Instant>,
) -> Result<String, CliError> {
    let mut signals = Signals::listen()?;
    signals.leave_within(args.grace + LEAVE + SLACK);
    let (profile, screen) = (args.profile(), Screen::new());
    let plan = args.plan(&profile);
    let place = format!("the state folder {}", args.state().display());
    let opening = store_watch::told_if_late(&place, |text| screen.tell(text), plan.open_store());
    let store = tokio::select! {
        store = opening => store?,
        name = signals.next() => return Err(stopped_early(name)),
    };
    let above = screen.clone();
    let _watch = store_watch::watch(store.clone(), move |text| above.tell(text));
    let tell = screen.clone();
    let subject = tokio::select! {
        subject = block.fetch(args, move |why| tell.tell(&why)) => subject?,
        early = ended_early(&mut signals, until, &store) => return Err(early),
    };
    let served = tokio::select! {
        served = Served::start_over(&plan, store.clone(), |_| Router::new()) => served?,
        early = ended_early(&mut signals, until, &store) => return Err(early),
    };
    let running = Running {
        args,
        subject: &subject,
        profile: &profile,
        screen: &screen,
        dispatcher: &served.dispatcher,
    };
    let result = running.to_its_end(program, &mut signals, until).await;
    if let Err(error) = &result {
        signals.leaving(LEAVE, error.exit_code());
    }
    let left = tokio::select! {
        left = served.shutdown() => left,
        _ = signals.next() => Err(CliError::Stopped("at once, by a second signal".into())),
    };
    match (result, left) {
        (Ok(summary), Err(late)) => {
            screen.tell(&late.one_line());
            Ok(summary)
        }
        (result, _) => result,
    }
}

/// Ends when the user wants it or the deadline passes before the block is in the books.
async fn ended_early(signals: &mut Signals, until: Option<Instant>, store: &ArtifactStore) -> CliError {
    let passed = async {
        match until {
            Some(until) => tokio::time::sleep_until(until.into()).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        name = signals.next() => stopped_early(name),
        () = passed => {
            let why = store.trouble().map(|trouble| format!(": {trouble}")).unwrap_or_default();
            CliError::Deadline(format!("the block was not even taken in{why}"))
        }
    }
}

fn stopped_early(signal: &str) -> CliError {
    CliError::Stopped(format!("by {signal} before the block was taken in; the same command starts again"))
}

/// A block on its way.
struct Running<'a> {
    args: &'a Args,
    subject: &'a Subject,
    profile: &'a Profile,
    screen: &'a Screen,
    dispatcher: &'a Dispatcher,
}

impl Running<'_> {
    async fn to_its_end(
        &self,
        program: std::path::PathBuf,
        signals: &mut Signals,
        until: Option<Instant>,
    ) -> Result<String, CliError> {
        let Running { args, subject, profile, screen, dispatcher } = *self;
        let job = tokio::select! {
            job = submit(subject, dispatcher, until, screen) => job?,
            early = ended_early(signals, until, dispatcher.store()) => return Err(early),
        };
        tell_start(subject, dispatcher, job, screen);
        let finished = dispatcher.job(job).is_some_and(|view| view.state == JobState::Complete);
        if !finished {
            let mut workers = Workers::start(&args.workers(program, profile, dispatcher)?, screen)?;
            let cores = f64::from(args.workers) * f64::from(args.cores_of_each());
            let eta = Eta { cores, profile, calls: &subject.calls };
            let outcome = watch::watch(dispatcher, job, &mut workers, signals, (screen, &eta)).await;
            drain(workers, &outcome, signals, screen).await;
            last_look(dispatcher, job, outcome).into_result(dispatcher, job)?;
        }
        tokio::select! {
            summary = finish::finish(args, subject, profile, dispatcher, job) => summary,
            name = signals.next() => Err(CliError::Stopped(format!(
                "by {name} before the proven block was written out; the same command writes it"
            ))),
        }
    }
}

/// The block may have been finished by what the workers handed in while they left.
fn last_look(dispatcher: &Dispatcher, job: JobId, outcome: Outcome) -> Outcome {
    match (dispatcher.job(job).map(|view| view.state), outcome) {
        (Some(JobState::Complete), Outcome::Signal(_)) => Outcome::Complete,
        (_, outcome) => outcome,
    }
}

async fn drain(workers: Workers, outcome: &Outcome, signals: &mut Signals, screen: &Screen) {
    let grace = matches!(outcome, Outcome::Signal(_));
    if let Outcome::Signal(name) = outcome {
        let text =
            format!("{name}: letting the workers finish or hand back what they do; once more ends at once");
        screen.tell(&text);
    }
    tokio::select! {
        () = workers.drain(grace) => {}
        // dropped workers are killed
        _ = signals.next() => {}
    }
}

/// Submits the block; a deadline given now counts from now. Blocks left unfinished by other runs over this state don't
/// take the workers' time: they are cancelled, and taken up again when they are asked for.
async fn submit(
    subject: &Subject,
    dispatcher: &Dispatcher,
    until: Option<Instant>,
    screen: &Screen,
) -> Result<JobId, CliError> {
    let left = |until: Instant| until.saturating_duration_since(Instant::now()).as_millis() as u64;
    let deadline = until.map(|until| now_millis() + left(until));
    let request = SubmitRequest { deadline, ..subject.request.clone() };
    let failed = |e: JobError| CliError::failed("submit the block", e);
    let mut progress = dispatcher.subscribe();
    let job = dispatcher.submit(request).await.map_err(refused)?;
    while let Ok(news) = progress.try_recv() {
        if let Progress::RootLost(_, why) = news {
            screen.tell(&format!("the root proof made before is made again: {why}"));
        }
    }
    for other in dispatcher.jobs() {
        let open = matches!(other.state, JobState::Proving | JobState::Checking);
        if other.spec.id != job && open {
            dispatcher.cancel(other.spec.id).await.map_err(failed)?;
        }
    }
    if dispatcher.job(job).is_some_and(|view| view.state == JobState::Proving) {
        dispatcher.deadline(job, deadline).await.map_err(failed)?;
    }
    Ok(job)
}

fn tell_start(subject: &Subject, dispatcher: &Dispatcher, job: JobId, screen: &Screen) {
    let Some(view) = dispatcher.job(job) else { return };
    let total: u32 = view.counts.iter().map(|counts| counts.total).sum();
    let done: u32 = view.counts.iter().map(|counts| counts.done).sum();
    let calls: usize = subject.calls.iter().map(|n| usize::from(*n)).sum();
    screen.tell(&format!(
        "block {} of chain {}: {} transactions, {calls} public calls, {total} proofs{}",
        subject.request.block_number,
        subject.request.chain_id,
        subject.calls.len(),
        if done > 0 { format!("; {done} of them are there already") } else { String::new() },
    ));
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
            intake: Intake::default(),
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
