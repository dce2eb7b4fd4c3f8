//! How the store does, seen from what is asked of it anyway: nothing is sent to find out.

use crate::backend::{Answer, Backend, Created, Entry, Opened};
use crate::error::StoreError;
use bytes::Bytes;
use futures::stream::BoxStream;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A call that takes longer is one that is not answered.
const SILENCE: Duration = Duration::from_secs(5);
/// One call in a while that gets no answer is usual on a network; calls that get none for so long are trouble.
const PASSING: Duration = Duration::from_secs(2);
/// A failure is over when nothing has failed for so long: those who try again pause no longer than 5 s.
const OVER: Duration = Duration::from_secs(15);

/// Why a store can't be worked with now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// No space is left.
    Full(StoreError),
    /// Calls fail.
    Failing(StoreError),
    /// A call has not been answered for so long.
    Silent {
        /// Verb, key and store.
        action: String,
        /// How long it has waited.
        waited: Duration,
    },
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(error) | Self::Failing(error) => error.fmt(f),
            Self::Silent { action, waited } => {
                write!(f, "the artifact store has not answered for {} s ({action})", waited.as_secs())
            }
        }
    }
}

/// What fails of one sort of calls.
#[derive(Debug)]
struct Failure {
    error: StoreError,
    since: Instant,
    last: Instant,
    /// Size of what could not be written: a full disk may have room for less.
    bytes: usize,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// Calls under way, oldest first.
    running: BTreeMap<u64, (Instant, String)>,
    writes: Option<Failure>,
    reads: Option<Failure>,
}

/// What is known of a store from the calls made to it.
#[derive(Debug, Default)]
pub(crate) struct Health(Mutex<State>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    Read,
    /// Of so many bytes.
    Write(usize),
}

impl Health {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn trouble(&self, now: Instant) -> Option<Trouble> {
        let state = self.lock();
        let failing = [&state.writes, &state.reads].into_iter().flatten().find(|failure| {
            let passing = matches!(failure.error, StoreError::Unavailable { .. });
            now.duration_since(failure.last) < OVER
                && (!passing || now.duration_since(failure.since) >= PASSING)
        });
        if let Some(failure) = failing {
            let error = failure.error.clone();
            return Some(match error {
                StoreError::Full { .. } => Trouble::Full(error),
                _ => Trouble::Failing(error),
            });
        }
        let (began, action) = state.running.values().next()?;
        let waited = now.duration_since(*began);
        (waited >= SILENCE).then(|| Trouble::Silent { action: action.clone(), waited })
    }

    fn begin(&self, action: String) -> u64 {
        let mut state = self.lock();
        state.next += 1;
        let number = state.next;
        state.running.insert(number, (Instant::now(), action));
        number
    }

    fn ended<T>(&self, sort: Sort, result: &Result<T, StoreError>, now: Instant) {
        let mut state = self.lock();
        let (failure, bytes) = match sort {
            Sort::Read => (&mut state.reads, 0),
            Sort::Write(bytes) => (&mut state.writes, bytes),
        };
        match result {
            // of one object only
            Err(StoreError::Corrupt { .. } | StoreError::TooLarge { .. }) => {}
            Err(error) => {
                let before = failure.take().filter(|failure| now.duration_since(failure.last) < OVER);
                let since = before.map_or(now, |failure| failure.since);
                *failure = Some(Failure { error: error.clone(), since, last: now, bytes });
            }
            Ok(_) => {
                let still_full = |failure: &Failure| {
                    matches!(failure.error, StoreError::Full { .. }) && bytes < failure.bytes
                };
                if !failure.as_ref().is_some_and(still_full) {
                    *failure = None;
                }
            }
        }
    }
}

/// A call under way; one that is given up is over, too.
struct Running<'a> {
    health: &'a Health,
    number: u64,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.health.lock().running.remove(&self.number);
    }
}

/// A backend whose calls are watched.
pub(crate) struct Watched {
    pub(crate) inner: Arc<dyn Backend>,
    pub(crate) health: Arc<Health>,
    /// The store, for messages.
    pub(crate) name: Arc<str>,
}

impl Watched {
    fn follow<'a, T: Send + 'a>(
        &'a self,
        verb: &'static str,
        key: &'a str,
        sort: Sort,
        call: Answer<'a, T>,
    ) -> Answer<'a, T> {
        Box::pin(async move {
            let number = self.health.begin(format!("{verb} {key} in {}", self.name));
            let _running = Running { health: &self.health, number };
            let result = call.await;
            self.health.ended(sort, &result, Instant::now());
            result
        })
    }
}

impl Backend for Watched {
    fn create<'a>(&'a self, key: &'a str, bytes: Bytes) -> Answer<'a, Created> {
        let sort = Sort::Write(bytes.len());
        self.follow("create", key, sort, self.inner.create(key, bytes))
    }

    fn open<'a>(&'a self, key: &'a str, max_bytes: u64) -> Answer<'a, Option<Opened>> {
        self.follow("get", key, Sort::Read, self.inner.open(key, max_bytes))
    }

    fn head<'a>(&'a self, key: &'a str) -> Answer<'a, Option<u64>> {
        self.follow("look up", key, Sort::Read, self.inner.head(key))
    }

    fn delete(&self, keys: Vec<String>) -> Answer<'_, ()> {
        // what a full disk does last is fail to delete: it says nothing about room
        self.follow("delete", "objects", Sort::Read, self.inner.delete(keys))
    }

    fn list(&self, prefix: &str, after: Option<&str>) -> BoxStream<'static, Result<Entry, StoreError>> {
        self.inner.list(prefix, after)
    }

    fn check(&self) -> Answer<'_, ()> {
        self.follow("check", "the place", Sort::Read, self.inner.check())
    }

    fn set_token(&self, token: String) {
        self.inner.set_token(token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(full: bool) -> Result<(), StoreError> {
        let (action, reason) = ("create k".to_owned(), "said so".to_owned());
        Err(if full {
            StoreError::Full { action, reason }
        } else {
            StoreError::Unavailable { action, reason }
        })
    }

    fn later(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn a_full_disk_is_told_at_once_and_until_as_much_as_failed_goes_in() {
        let (health, start) = (Health::default(), Instant::now());
        assert_eq!(health.trouble(start), None);
        health.ended(Sort::Write(100), &error(true), start);
        assert!(matches!(health.trouble(start), Some(Trouble::Full(_))));
        health.ended(Sort::Write(10), &Ok(()), start);
        health.ended(Sort::Read, &Ok(()), start);
        assert!(health.trouble(start).is_some(), "there is room for less");
        health.ended(Sort::Write(100), &Ok(()), start);
        assert_eq!(health.trouble(start), None);
    }

    #[test]
    fn one_lost_call_is_no_trouble_and_calls_lost_for_a_while_are() {
        let (health, start) = (Health::default(), Instant::now());
        health.ended(Sort::Read, &error(false), start);
        assert_eq!(health.trouble(start), None);
        health.ended(Sort::Read, &error(false), later(start, 2));
        assert!(matches!(health.trouble(later(start, 2)), Some(Trouble::Failing(_))));
        assert_eq!(health.trouble(later(start, 20)), None, "nothing has failed since");
        health.ended(Sort::Read, &error(false), later(start, 60));
        assert_eq!(health.trouble(later(start, 60)), None, "another failure begins anew");
    }

    #[test]
    fn a_call_without_an_answer_is_told_until_it_is_given_up() {
        let health = Health::default();
        let number = health.begin("get k in s".into());
        let running = Running { health: &health, number };
        assert_eq!(health.trouble(Instant::now()), None);
        let trouble = health.trouble(later(Instant::now(), 6)).expect("trouble");
        let text = trouble.to_string();
        assert!(text.starts_with("the artifact store has not answered for "), "{text}");
        assert!(text.ends_with("s (get k in s)"), "{text}");
        drop(running);
        assert_eq!(health.trouble(later(Instant::now(), 6)), None);
    }
}
