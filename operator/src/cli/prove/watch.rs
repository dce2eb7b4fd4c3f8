//! Watching a block until it is over, one way or another.

use super::eta::Eta;
use super::levels::LevelProgress;
use super::workers::{Hopeless, Workers};
use crate::cli::CliError;
use crate::cli::screen::Screen;
use crate::cli::signals::Signals;
use crate::dispatch::{Dispatcher, JobError, Progress};
use arborist_core::engine::{JobId, JobState, JobView, Notice};
use arborist_core::text::one_line;
use std::time::{Duration, Instant};
use tokio::sync::broadcast::Receiver;

/// How often counts are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A task that failed is tried again after a minute at the latest; the engine's longest backoff.
const LONGEST_BACKOFF: Duration = Duration::from_secs(65);

/// How watching ended.
#[derive(Debug)]
pub enum Outcome {
    /// Proven and checked.
    Complete,
    /// The deadline passed; what was missing.
    Late(String),
    /// Somebody cancelled the job.
    Cancelled,
    /// The user asked to stop, by this signal.
    Signal(&'static str),
    /// A task that nobody could prove, and nothing else is left to do.
    GaveUp(String),
    /// No worker can run.
    Workers(Hopeless),
    /// The dispatcher stopped; `Some` is the epoch of the operator that took over.
    Stopped(Option<u64>),
}

impl Outcome {
    /// `Ok` when the block is proven.
    ///
    /// # Errors
    /// The line for the user, with the exit code.
    pub fn into_result(self, dispatcher: &Dispatcher, job: JobId) -> Result<(), CliError> {
        match self {
            Self::Complete => Ok(()),
            Self::Late(why) => Err(CliError::Deadline(why)),
            Self::Cancelled => Err(CliError::Failed("the job was cancelled".into())),
            Self::Signal(name) => {
                let (done, total) = dispatcher.job(job).map_or((0, 0), |view| sums(&view));
                Err(CliError::Stopped(format!(
                    "by {name} with {done} of {total} proofs made; the same command goes on from there"
                )))
            }
            Self::GaveUp(why) => Err(CliError::Failed(why)),
            Self::Workers(Hopeless { why, usage: true }) => Err(CliError::Options(why)),
            Self::Workers(Hopeless { why, usage: false }) => Err(CliError::Failed(why)),
            Self::Stopped(Some(epoch)) => {
                Err(CliError::Failed(format!("another operator has taken over the journal (epoch {epoch})")))
            }
            Self::Stopped(None) => Err(CliError::Failed("the dispatcher has stopped".into())),
        }
    }
}

fn sums(view: &JobView) -> (u32, u32) {
    view.counts.iter().fold((0, 0), |(done, total), c| (done + c.done, total + c.total))
}

/// Shows progress until the job is over, a signal comes, or it can't go on.
pub async fn watch(
    dispatcher: &Dispatcher,
    job: JobId,
    workers: &mut Workers,
    signals: &mut Signals,
    (screen, eta): (&Screen, &Eta<'_>),
) -> Outcome {
    let mut shown = LevelProgress::start(screen);
    // of a store that does not work nobody knows when it will
    let left = |view: &JobView| match dispatcher.store().trouble() {
        None => eta.left(&view.counts, &dispatcher.learned()),
        Some(_) => None,
    };
    let mut notices = dispatcher.subscribe();
    let (mut given_up, mut still_since) = (Vec::new(), None);
    let mut look = tokio::time::interval(LOOK_EVERY);
    let over = dispatcher.wait(job);
    tokio::pin!(over);
    let outcome = loop {
        tokio::select! {
            over = &mut over => break ended(dispatcher, over),
            name = signals.next() => break Outcome::Signal(name),
            why = workers.hopeless() => break Outcome::Workers(why),
            _ = look.tick() => {
                collect(&mut notices, job, &mut given_up, screen);
                let Some(view) = dispatcher.job(job) else { continue };
                shown.show(&view.counts, left(&view), false);
                let since = *still_since.get_or_insert_with(Instant::now);
                match stuck(&view, &given_up) {
                    None => still_since = None,
                    Some(why) if since.elapsed() > LONGEST_BACKOFF => break Outcome::GaveUp(why),
                    Some(_) => {}
                }
            }
        }
    };
    if let Some(view) = dispatcher.job(job) {
        shown.show(&view.counts, left(&view), true);
    }
    shown.done();
    outcome
}

fn ended(dispatcher: &Dispatcher, over: Result<JobState, JobError>) -> Outcome {
    match over {
        Ok(JobState::Failed { why }) => Outcome::Late(why),
        Ok(JobState::Cancelled) => Outcome::Cancelled,
        Ok(_) => Outcome::Complete,
        Err(_) => Outcome::Stopped(dispatcher.fenced()),
    }
}

/// Remembers which tasks gave up, and tells of it.
fn collect(notices: &mut Receiver<Progress>, job: JobId, given_up: &mut Vec<String>, screen: &Screen) {
    while let Ok(progress) = notices.try_recv() {
        match progress {
            Progress::Notice(Notice::Quarantined { task, circuit, job: of, attempts, why }) if of == job => {
                let text = format!("{circuit} {} gave up after {attempts} attempts: {why}", task.short());
                // a worker said why
                let text = one_line(&text);
                screen.tell(&text);
                given_up.push(text);
            }
            Progress::Notice(Notice::AtRisk(of, true)) if of == job => {
                screen.tell("at this speed the deadline will be missed");
            }
            Progress::Notice(Notice::NoFittingWorker { kind, needs, ready, .. }) => screen.tell(&format!(
                "{ready} {kind} proofs wait: none of the workers that take them has {} cores and {} MiB",
                needs.cores, needs.memory_mib
            )),
            _ => {}
        }
    }
}

/// Whether nothing happens and tasks have given up: then all that is left waits for those, or for a backoff to end.
fn stuck(view: &JobView, given_up: &[String]) -> Option<String> {
    let failed: u32 = view.counts.iter().map(|c| c.failed).sum();
    let moving = view.counts.iter().any(|c| c.running + c.ready > 0);
    if failed == 0 || moving {
        return None;
    }
    let first = given_up.first().map_or("in an earlier run; see its log", String::as_str);
    let more = if failed > 1 { format!(" (and {} more)", failed - 1) } else { String::new() };
    Some(format!("{failed} proofs could not be made: {first}{more}"))
}
