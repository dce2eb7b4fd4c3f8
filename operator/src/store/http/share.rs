//! What a session may use of the store at once, and what all may use together.

use super::{Limits, Refusal};
use axum::http::StatusCode;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

const KIB: u64 = 1 << 10;
/// Sessions that are gone are swept out when there are more entries than this, and twice those that live.
const LEAST_SWEEP: usize = 1024;

/// All sessions' shares.
pub(super) struct Shares {
    limits: Limits,
    /// KiB of memory for all.
    memory: Arc<Semaphore>,
    /// One request at a time may go beyond that: else all could wait for each other with half of their bodies.
    beyond: Arc<Semaphore>,
    sessions: Mutex<Sessions>,
}

#[derive(Default)]
struct Sessions {
    by_token: HashMap<blake3::Hash, Weak<Share>>,
    sweep_at: usize,
}

/// What one session has.
struct Share {
    requests: Arc<Semaphore>,
    /// In KiB.
    memory: Arc<Semaphore>,
    /// Places for requests that wait or are served.
    places: Arc<Semaphore>,
}

/// A session's request that is being served.
pub(super) struct Turn {
    share: Arc<Share>,
    memory: Arc<Semaphore>,
    beyond: Arc<Semaphore>,
    wait: Duration,
    _request: OwnedSemaphorePermit,
    _place: OwnedSemaphorePermit,
}

/// Memory of a request. Its session's is taken for all of it at once, so that requests of one session don't
/// wait for each other with half of it; of what all share only what is there to be kept.
pub(super) struct Memory {
    turn: Turn,
    _session: OwnedSemaphorePermit,
    taken: Option<OwnedSemaphorePermit>,
    taken_kib: u32,
    /// It is the one that needs no more.
    beyond: Option<OwnedSemaphorePermit>,
}

fn kib(bytes: u64) -> u32 {
    u32::try_from(bytes / KIB + 1).unwrap_or(u32::MAX)
}

/// A semaphore of so many KiB.
fn semaphore(bytes: u64) -> Arc<Semaphore> {
    let most = Semaphore::MAX_PERMITS.min(u32::MAX as usize);
    Arc::new(Semaphore::new((kib(bytes) as usize).min(most)))
}

impl Shares {
    pub(super) fn new(limits: Limits) -> Self {
        let memory = semaphore(limits.memory_bytes.max(limits.max_object_bytes));
        Self { limits, memory, beyond: Arc::new(Semaphore::new(1)), sessions: Mutex::default() }
    }

    /// Waits until the session may have one more request served.
    pub(super) async fn enter(&self, token: &str) -> Result<Turn, Refusal> {
        let share = self.share(token);
        let place = share.places.clone().try_acquire_owned();
        let place = place.map_err(|_full| Refusal::too_many("of this session's requests wait"))?;
        let request = acquire(&share.requests, 1, self.limits.request_time).await?;
        let (memory, beyond, wait) = (self.memory.clone(), self.beyond.clone(), self.limits.request_time);
        Ok(Turn { share, memory, beyond, wait, _request: request, _place: place })
    }

    fn share(&self, token: &str) -> Arc<Share> {
        let token = blake3::hash(token.as_bytes());
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = sessions.by_token.get(&token).and_then(Weak::upgrade) {
            return share;
        }
        if sessions.by_token.len() >= sessions.sweep_at.max(LEAST_SWEEP) {
            sessions.by_token.retain(|_, share| share.strong_count() > 0);
            sessions.sweep_at = 2 * sessions.by_token.len();
        }
        let share = Arc::new(Share {
            requests: Arc::new(Semaphore::new(self.limits.session_requests)),
            memory: semaphore(self.limits.session_bytes.max(self.limits.max_object_bytes)),
            places: Arc::new(Semaphore::new(self.limits.session_requests + self.limits.session_waiting)),
        });
        sessions.by_token.insert(token, Arc::downgrade(&share));
        share
    }
}

impl Turn {
    /// Waits until the session may hold so many bytes more.
    pub(super) async fn reserve(self, bytes: u64) -> Result<Memory, Refusal> {
        let session = acquire(&self.share.memory, kib(bytes), self.wait).await?;
        Ok(Memory { turn: self, _session: session, taken: None, taken_kib: 0, beyond: None })
    }
}

impl Memory {
    /// Waits until there is memory for so many bytes in all; for how long it did.
    pub(super) async fn grow_to(&mut self, bytes: u64) -> Result<Duration, Refusal> {
        let more = kib(bytes).saturating_sub(self.taken_kib);
        if more == 0 || self.beyond.is_some() {
            return Ok(Duration::ZERO);
        }
        let began = Instant::now();
        tokio::select! {
            biased;
            taken = acquire(&self.turn.memory, more, self.turn.wait) => {
                self.taken_kib += more;
                match &mut self.taken {
                    Some(before) => before.merge(taken?),
                    none => *none = Some(taken?),
                }
            }
            beyond = acquire(&self.turn.beyond, 1, self.turn.wait) => self.beyond = Some(beyond?),
        }
        Ok(began.elapsed())
    }
}

async fn acquire(of: &Arc<Semaphore>, count: u32, wait: Duration) -> Result<OwnedSemaphorePermit, Refusal> {
    match timeout(wait, of.clone().acquire_many_owned(count)).await {
        Ok(Ok(permit)) => Ok(permit),
        _ => Err(Refusal::too_many("requests at once")),
    }
}

impl Refusal {
    fn too_many(what: &str) -> Self {
        Refusal(StatusCode::SERVICE_UNAVAILABLE, format!("too many {what}: try again"))
    }
}
