//! A journal of small records over an artifact store that several operators may reach at once.
//!
//! **The log is the lock.** Records are written in segments, `segment-<number>`, and each number can be
//! created once. Whoever opens the journal claims the next number with a higher epoch; the writer before
//! it finds that number taken when it writes next, and stops. A writer has one segment on its way at a
//! time, so numbers have no holes, and the first segment an old writer could still write is just the one
//! its successor has claimed. Claims are therefore kept far longer than the other segments.
//!
//! Snapshots, `snapshot-<number>`, hold the caller's state after the segment of that number, so opening
//! reads one snapshot and the segments since, however long the history is.
//!
//! A record is acknowledged ([`JournalHandle::flush`]) once its segment is in the store. All objects are
//! written whole or not at all, and are never changed, so a crash at any point leaves a journal that opens.
//!
//! **Only what an operator wrote counts.** All operators of an installation share a key. Every object's
//! content is sealed with it, and its name holds a tag of it: others can neither write what is believed nor
//! take the name of what comes next. Whatever else they put into the folder is left alone and told of.

mod block;
mod clean;
mod open;
mod writer;

#[cfg(test)]
mod tests;

pub use clean::Cleaned;
pub use open::{Damage, Journal, Recovered};
pub use writer::{Cut, JournalHandle};

use arborist_artifacts::StoreError;
use std::fmt;
use std::time::Duration;

/// What the journal's objects are named and sealed with: secret, and the same for all operators that may
/// follow each other.
#[derive(Clone)]
pub struct JournalKey([u8; 32]);

impl JournalKey {
    /// The key in these bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for JournalKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JournalKey")
    }
}

/// How a journal is kept. All have sound defaults.
#[derive(Debug, Clone)]
pub struct JournalOptions {
    /// The folder in the store.
    pub prefix: String,
    /// How long a record may wait for others to share its segment.
    pub interval: Duration,
    /// A segment of this many bytes is written at once.
    pub segment_bytes: usize,
    /// Records are refused while this many bytes wait for the store.
    pub max_lag_bytes: usize,
    /// How long opening and snapshots wait for a store that does not answer. Segments wait for ever.
    pub patience: Duration,
    /// Segments and snapshots that a newer snapshot has made needless are kept this long.
    pub retention: Duration,
    /// Claims are kept this long: a writer that was out of touch for less is sure to notice its successor.
    pub claim_retention: Duration,
}

impl Default for JournalOptions {
    fn default() -> Self {
        Self {
            prefix: "journal".into(),
            interval: Duration::from_millis(50),
            segment_bytes: 1 << 20,
            max_lag_bytes: 64 << 20,
            patience: Duration::from_secs(60),
            retention: Duration::from_secs(3600),
            claim_retention: Duration::from_secs(30 * 24 * 3600),
        }
    }
}

/// Why the journal could not do as told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another operator has opened the journal since: this one must stop.
    #[error("another operator has taken over the journal (epoch {by})")]
    Fenced {
        /// The other's epoch.
        by: u64,
    },
    /// The store is too slow or not there, and the buffer is full.
    #[error("{lag_bytes} bytes wait for the journal's store and at most {max_bytes} may")]
    Backlog {
        /// What waits already.
        lag_bytes: usize,
        /// The limit.
        max_bytes: usize,
    },
    /// A record or snapshot is empty or too large.
    #[error("{bytes} bytes are no record or snapshot: 1 to {max_bytes} are allowed")]
    Size {
        /// Its size.
        bytes: usize,
        /// The limit.
        max_bytes: usize,
    },
    /// Segments are gone that no snapshot stands for.
    #[error(
        "the journal {prefix} has lost its beginning: {reason}. Proofs are not affected; move the folder \
         away to start from them alone"
    )]
    MissingHistory {
        /// The journal's folder and store.
        prefix: String,
        /// What is missing.
        reason: String,
    },
    /// It was written with another key.
    #[error(
        "the journal {prefix} was written with another operator key. Start with that key, or move the folder away to \
         start from the proofs alone"
    )]
    OtherKey {
        /// The journal's folder and store.
        prefix: String,
    },
    /// Others open the journal all the time.
    #[error("the journal could not be claimed in {tries} tries: other operators are opening it too")]
    Contended {
        /// How often it was tried.
        tries: u32,
    },
    /// The handle was closed.
    #[error("the journal is closed")]
    Closed,
}
