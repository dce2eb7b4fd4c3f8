//! Snapshots: a restart reads the newest one and the records since.

use super::Inner;
use crate::store::journal::JournalError;
use bytes::Bytes;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often a look is taken at whether a snapshot is due.
const LOOK: Duration = Duration::from_millis(500);

impl Inner {
    /// Writes the engine's state beside the journal.
    ///
    /// # Errors
    /// The journal's; it is as good as before.
    pub(super) async fn snapshot(&self) -> Result<(), JournalError> {
        let began = Instant::now();
        let (cut, state, torn) = self.room.tend(|core| {
            let cut = self.journal.cut();
            let torn = core.journal_torn;
            (cut, core.engine.snapshot(), torn)
        });
        let (held, bytes) = (began.elapsed(), state.len());
        self.journal.snapshot_at(cut, Bytes::from(state)).await?;
        self.metrics.snapshots.inc();
        self.room.tend(|core| {
            core.since_snapshot = 0;
            // records refused since are not in it: it stays torn if it was torn only after the cut
            core.journal_torn &= !torn;
        });
        tracing::info!(bytes, held_micros = held.as_micros() as u64, "snapshot written");
        Ok(())
    }

    /// Waits until everything so far is durable.
    ///
    /// # Errors
    /// The journal's: then it may or may not be.
    pub(super) async fn durable(&self) -> Result<(), JournalError> {
        self.journal.flush().await?;
        if self.room.look(|core| core.journal_torn) {
            // records were refused while the store did not answer: only a snapshot has them
            self.snapshot().await?;
        }
        Ok(())
    }

    /// Writes snapshots when they are due and deletes what they have made needless.
    pub(super) async fn keep_snapshots(self: Arc<Self>) {
        let mut last = Instant::now();
        loop {
            tokio::time::sleep(LOOK).await;
            let (since, torn) = self.room.look(|core| (core.since_snapshot, core.journal_torn));
            let due = since >= self.options.snapshot_records
                || since > 0 && last.elapsed() >= self.options.snapshot_interval;
            if !due && !torn {
                continue;
            }
            match self.snapshot().await {
                Ok(()) => last = Instant::now(),
                Err(error) => {
                    tracing::warn!(%error, "a snapshot can't be written");
                    continue;
                }
            }
            if let Err(error) = self.journal.clean().await {
                tracing::warn!(%error, "the journal can't be cleaned up");
            }
        }
    }

    /// Makes sure now and then that no other operator has taken over: one that has nothing to write would
    /// not notice.
    pub(super) async fn keep_claim(self: Arc<Self>) {
        loop {
            tokio::time::sleep(self.options.lease).await;
            if self.journal.confirm().await.is_err() {
                // the task that watches for it stops the dispatcher
                return;
            }
            self.room.tend(|core| core.since_snapshot += 1);
        }
    }
}
