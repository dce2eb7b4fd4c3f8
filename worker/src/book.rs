//! What the worker holds and what it still has to say: leases by fence, finished results until they
//! are acknowledged. Shared by the connection's thread and the tasks; knows no clock and no socket.

use arborist_core::backend::Cancel;
use arborist_core::ids::TaskId;
use arborist_core::wire::{Completed, Draining, Failed, FromWorker, Heartbeat, Held, Reason};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// The most results one frame carries: with texts of full length it stays below the frame limit.
const MAX_RESULTS_PER_FRAME: usize = 500;

/// The longest text of a failure, in characters.
pub const MAX_TEXT_CHARS: usize = 1_000;

/// How a lease ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// With a proof in the artifact store.
    Done(Completed),
    /// Without one.
    Failed(Failed),
}

impl Outcome {
    /// A failure, its text cut to what the wire allows.
    pub fn failed(fence: u64, task: TaskId, reason: Reason, text: &str, child: Option<TaskId>) -> Self {
        Self::Failed(Failed {
            fence,
            task: task.0.to_vec(),
            reason: reason.into(),
            text: text.chars().take(MAX_TEXT_CHARS).collect(),
            child: child.map(|c| c.0.to_vec()).unwrap_or_default(),
        })
    }

    /// The lease's fence.
    pub fn fence(&self) -> u64 {
        match self {
            Self::Done(done) => done.fence,
            Self::Failed(failed) => failed.fence,
        }
    }

    fn task(&self) -> &[u8] {
        match self {
            Self::Done(done) => &done.task,
            Self::Failed(failed) => &failed.task,
        }
    }
}

/// Stops a lease: its proof through the flag, its waits through the token.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// Looked at by the backend.
    pub flag: Cancel,
    /// Awaited by the lease's own task.
    pub token: CancellationToken,
}

impl Stop {
    /// Stops the lease; can't be taken back.
    pub fn stop(&self) {
        self.flag.cancel();
        self.token.cancel();
    }
}

struct Entry {
    task: TaskId,
    started: Option<Instant>,
    stop: Stop,
}

#[derive(Default)]
struct State {
    held: BTreeMap<u64, Entry>,
    /// What came with leases that are held or not acknowledged, to be shown at the next login.
    macs: BTreeMap<u64, Vec<u8>>,
    ready: VecDeque<Outcome>,
    sent: VecDeque<(u64, Vec<Outcome>)>,
    last_seq: u64,
    draining: bool,
    draining_said: bool,
}

impl State {
    fn hand_back(&mut self, fence: u64, text: &str) {
        if let Some(entry) = self.held.remove(&fence) {
            entry.stop.stop();
            self.ready.push_back(Outcome::failed(fence, entry.task, Reason::HandedBack, text, None));
        }
    }

    /// Forgets the codes of leases that are not answered for any more.
    fn forget_macs(&mut self) {
        let mut kept: BTreeSet<u64> = self.unacknowledged().map(Outcome::fence).collect();
        kept.extend(self.held.keys());
        self.macs.retain(|fence, _| kept.contains(fence));
    }

    fn mac(&self, fence: u64) -> Vec<u8> {
        self.macs.get(&fence).cloned().unwrap_or_default()
    }

    fn unacknowledged(&self) -> impl Iterator<Item = &Outcome> {
        self.sent.iter().flat_map(|(_, outcomes)| outcomes).chain(&self.ready)
    }
}

/// The worker's leases and results.
#[derive(Default)]
pub struct Book {
    state: Mutex<State>,
    to_say: Notify,
    settled: Notify,
}

impl Book {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a lease in. `None` when there is nothing to do for it: its fence is known already, or the
    /// worker is draining and has handed it back. `mac` is shown when the worker logs in with it.
    pub fn add(&self, fence: u64, task: TaskId, mac: &[u8]) -> Option<Stop> {
        let mut state = self.state();
        let known = state.held.contains_key(&fence) || state.unacknowledged().any(|o| o.fence() == fence);
        if known {
            return None;
        }
        let stop = Stop::default();
        state.held.insert(fence, Entry { task, started: None, stop: stop.clone() });
        state.macs.insert(fence, mac.to_vec());
        if state.draining {
            state.hand_back(fence, "the worker leaves");
            self.to_say.notify_one();
            return None;
        }
        Some(stop)
    }

    /// Notes that a lease runs now; false when it is no longer the worker's.
    pub fn start(&self, fence: u64, now: Instant) -> bool {
        match self.state().held.get_mut(&fence) {
            Some(entry) => {
                entry.started = Some(now);
                true
            }
            None => false,
        }
    }

    /// Notes how a lease ended. A lease that is no longer the worker's is not reported: false.
    pub fn finish(&self, outcome: Outcome) -> bool {
        let mut state = self.state();
        if state.held.remove(&outcome.fence()).is_none() {
            return false;
        }
        state.ready.push_back(outcome);
        self.to_say.notify_one();
        self.settled.notify_waiters();
        true
    }

    /// Drops leases that the dispatcher took back, with what was to be said of them.
    pub fn revoke(&self, fences: &[u64]) {
        let mut state = self.state();
        for fence in fences {
            if let Some(entry) = state.held.remove(fence) {
                entry.stop.stop();
            }
        }
        // A proof that is made and stored is reported all the same: a late result counts.
        let keep =
            |outcome: &Outcome| matches!(outcome, Outcome::Done(_)) || !fences.contains(&outcome.fence());
        state.ready.retain(keep);
        for (_, outcomes) in &mut state.sent {
            outcomes.retain(keep);
        }
        state.forget_macs();
        self.settled.notify_waiters();
    }

    /// Leases the worker still answers for: queued, running, or finished and not acknowledged.
    pub fn held(&self, now: Instant) -> Vec<Held> {
        let state = self.state();
        let finished = state.unacknowledged().map(|o| Held {
            task: o.task().to_vec(),
            fence: o.fence(),
            running_millis: 0,
            mac: state.mac(o.fence()),
        });
        let open = state.held.iter().map(|(&fence, entry)| {
            let millis = entry.started.map_or(0, |s| now.saturating_duration_since(s).as_millis().max(1));
            Held {
                task: entry.task.0.to_vec(),
                fence,
                running_millis: u32::try_from(millis).unwrap_or(u32::MAX),
                mac: state.mac(fence),
            }
        });
        open.chain(finished).collect()
    }

    /// The next frame to send, if there is anything to say. `beat`: with a heartbeat. Results in it
    /// are kept until [`Book::acknowledge`].
    pub fn next_frame(&self, beat: bool) -> Option<FromWorker> {
        let mut state = self.state();
        let mut frame = FromWorker::default();
        if state.draining && !state.draining_said {
            state.draining_said = true;
            frame.draining = Some(Draining::default());
        }
        // said alone and first: a lease handed back in the same breath could come right back
        let silent = frame.draining.is_some();
        let count = if silent { 0 } else { state.ready.len().min(MAX_RESULTS_PER_FRAME) };
        if count > 0 {
            let outcomes: Vec<Outcome> = state.ready.drain(..count).collect();
            for outcome in &outcomes {
                match outcome {
                    Outcome::Done(done) => frame.completed.push(done.clone()),
                    Outcome::Failed(failed) => frame.failed.push(failed.clone()),
                }
            }
            state.last_seq += 1;
            frame.seq = state.last_seq;
            state.sent.push_back((frame.seq, outcomes));
        }
        if beat {
            // a finished lease that this frame has no room for must not look lost
            let waiting = state.ready.iter().map(Outcome::fence);
            frame.heartbeat = Some(Heartbeat { fences: state.held.keys().copied().chain(waiting).collect() });
        }
        (frame != FromWorker::default()).then_some(frame)
    }

    /// The dispatcher has dealt with all frames up to this one.
    pub fn acknowledge(&self, seq: u64) {
        let mut state = self.state();
        while state.sent.front().is_some_and(|(sent, _)| *sent <= seq)
            && let Some((_, outcomes)) = state.sent.pop_front()
        {
            outcomes.iter().for_each(|outcome| _ = state.macs.remove(&outcome.fence()));
        }
        self.settled.notify_waiters();
    }

    /// The connection is gone: what was not acknowledged will be said again on the next one.
    pub fn connection_lost(&self) {
        let mut state = self.state();
        let again: Vec<Outcome> = state.sent.drain(..).flat_map(|(_, outcomes)| outcomes).collect();
        for outcome in again.into_iter().rev() {
            state.ready.push_front(outcome);
        }
        state.draining_said = false;
    }

    /// From now on nothing new: leases that were not started are handed back.
    pub fn drain(&self) {
        let mut state = self.state();
        state.draining = true;
        let unstarted: Vec<u64> =
            state.held.iter().filter(|(_, e)| e.started.is_none()).map(|(&fence, _)| fence).collect();
        for fence in unstarted {
            state.hand_back(fence, "the worker leaves");
        }
        self.to_say.notify_one();
        self.settled.notify_waiters();
    }

    /// Whether the worker leaves.
    pub fn is_draining(&self) -> bool {
        self.state().draining
    }

    /// Hands back whatever is not finished.
    pub fn hand_back_rest(&self) {
        let mut state = self.state();
        let rest: Vec<u64> = state.held.keys().copied().collect();
        for fence in rest {
            state.hand_back(fence, "not finished when the worker had to leave");
        }
        self.to_say.notify_one();
    }

    /// Stops every lease without a word: the process ends.
    pub fn stop_all(&self) {
        let mut state = self.state();
        for (_, entry) in std::mem::take(&mut state.held) {
            entry.stop.stop();
        }
    }

    /// Waits until there may be something to say.
    pub async fn something_to_say(&self) {
        self.to_say.notified().await;
    }

    /// Waits until no lease is open.
    pub async fn no_lease_open(&self) {
        self.until(|state| state.held.is_empty()).await;
    }

    /// Waits until no lease is open and every result is acknowledged.
    pub async fn all_said(&self) {
        self.until(|state| state.held.is_empty() && state.unacknowledged().next().is_none()).await;
    }

    async fn until(&self, reached: impl Fn(&State) -> bool) {
        loop {
            let settled = self.settled.notified();
            tokio::pin!(settled);
            // registered before looking: a change in between is not missed
            settled.as_mut().enable();
            if reached(&self.state()) {
                return;
            }
            settled.await;
        }
    }
}

#[cfg(test)]
mod tests;
