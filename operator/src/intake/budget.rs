//! How many bytes of block files are held at once, over all jobs.

use arborist_core::block::MAX_BLOCK_BYTES;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The default: one block file of the largest size, or several smaller ones. While it is taken in a file takes some
/// 1.7 times its length: its text, and what was read from it.
pub const DEFAULT_BYTES: u64 = MAX_BLOCK_BYTES;

/// What is reserved is counted in so many bytes.
const UNIT: u64 = 1 << 10;

/// A budget of bytes. Who asks first is served first, so that a large file is not overtaken for ever by small ones.
#[derive(Debug, Clone)]
pub struct Budget {
    free: Arc<Semaphore>,
    units: u32,
    /// In bytes. What the semaphore sets aside for the next in turn is not used.
    used: Arc<AtomicU64>,
}

/// A file that is larger than all of the budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a block file of {bytes} bytes; this operator holds at most {budget} bytes of block files (--intake-memory)"
)]
pub struct DoesNotFit {
    /// The file's length.
    pub bytes: u64,
    /// The budget.
    pub budget: u64,
}

impl Budget {
    /// A budget of so many bytes, rounded up to a KiB.
    pub fn new(bytes: u64) -> Self {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX >> 3);
        Self { free: Arc::new(Semaphore::new(units as usize)), units, used: Arc::default() }
    }

    /// All of it, in bytes.
    pub fn bytes(&self) -> u64 {
        u64::from(self.units) * UNIT
    }

    /// What is reserved now, in bytes.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// What has to be reserved for a file whose length nobody says.
    pub fn unknown(&self) -> u64 {
        self.bytes().min(MAX_BLOCK_BYTES)
    }

    /// Reserves so many bytes if they are free and nobody waits for them.
    ///
    /// # Errors
    /// See [`DoesNotFit`].
    pub fn reserve_now(&self, bytes: u64) -> Result<Option<Reserved>, DoesNotFit> {
        let permits = self.free.clone().try_acquire_many_owned(self.units_of(bytes)?);
        Ok(permits.ok().map(|permits| self.reserved(permits, bytes)))
    }

    /// Waits for its turn and reserves so many bytes.
    ///
    /// # Errors
    /// See [`DoesNotFit`].
    pub async fn reserve(&self, bytes: u64) -> Result<Reserved, DoesNotFit> {
        let permits = self.free.clone().acquire_many_owned(self.units_of(bytes)?).await;
        // the semaphore is never closed
        permits.map(|permits| self.reserved(permits, bytes)).map_err(|_| self.does_not_fit(bytes))
    }

    fn reserved(&self, permits: OwnedSemaphorePermit, bytes: u64) -> Reserved {
        self.used.fetch_add(bytes, Ordering::Relaxed);
        Reserved { permits, bytes, used: self.used.clone() }
    }

    /// Why who asks for so many bytes has to wait.
    pub fn why_waiting(&self, bytes: u64) -> String {
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        format!(
            "waiting for memory: a block file of {} MiB is to be taken in, block files of {} MiB are being, and {} MiB \
             are allowed at once",
            mib(bytes),
            mib(self.used()),
            mib(self.bytes())
        )
    }

    fn units_of(&self, bytes: u64) -> Result<u32, DoesNotFit> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).ok().filter(|units| *units <= self.units);
        units.ok_or_else(|| self.does_not_fit(bytes))
    }

    fn does_not_fit(&self, bytes: u64) -> DoesNotFit {
        DoesNotFit { bytes, budget: self.bytes() }
    }
}

/// Bytes that are reserved until this is dropped.
#[derive(Debug)]
pub struct Reserved {
    permits: OwnedSemaphorePermit,
    bytes: u64,
    used: Arc<AtomicU64>,
}

impl Reserved {
    /// How many.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Gives back all but so many.
    pub fn shrink(&mut self, bytes: u64) {
        let surplus = (self.permits.num_permits() as u64).saturating_sub(bytes.div_ceil(UNIT));
        drop(self.permits.split(surplus as usize));
        let kept = self.bytes.min(bytes);
        self.used.fetch_sub(self.bytes - kept, Ordering::Relaxed);
        self.bytes = kept;
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    const MIB: u64 = 1 << 20;

    #[test]
    fn four_blocks_of_240_mib_are_held_two_at_a_time_in_the_order_they_asked() {
        let budget = Budget::new(DEFAULT_BYTES);
        let mut asking: Vec<_> = (0..4).map(|_| Box::pin(budget.reserve(240 * MIB))).collect();
        let mut held = vec![];
        for (turn, expected) in [(0, true), (1, true), (2, false), (3, false)] {
            let got = asking[turn].as_mut().now_or_never();
            assert_eq!(got.is_some(), expected, "{turn}");
            held.extend(got.map(Result::unwrap));
        }
        assert_eq!(budget.used(), 480 * MIB);
        assert!(budget.reserve_now(MIB).unwrap().is_none(), "a small one does not overtake those who wait");
        let why = budget.why_waiting(240 * MIB);
        assert!(why.contains("240 MiB is to be taken in") && why.contains("512 MiB are allowed"), "{why}");
        drop(held.remove(0));
        assert!(asking[3].as_mut().now_or_never().is_none(), "not before the third");
        held.push(asking[2].as_mut().now_or_never().unwrap().unwrap());
        drop(held);
        assert!(asking[3].as_mut().now_or_never().is_some());
    }

    #[test]
    fn what_never_fits_is_refused_and_what_is_not_needed_is_given_back() {
        let budget = Budget::new(10 * MIB);
        let too_large = DoesNotFit { bytes: 10 * MIB + 1, budget: 10 * MIB };
        assert_eq!(budget.reserve_now(10 * MIB + 1).unwrap_err(), too_large);
        assert_eq!(budget.reserve(u64::MAX).now_or_never().unwrap().unwrap_err().bytes, u64::MAX);
        assert_eq!((budget.unknown(), Budget::new(u64::MAX).unknown()), (10 * MIB, MAX_BLOCK_BYTES));
        let mut reserved = budget.reserve_now(budget.unknown()).unwrap().unwrap();
        reserved.shrink(MIB);
        assert_eq!((reserved.bytes(), budget.used()), (MIB, MIB));
        drop(reserved);
        assert_eq!(budget.used(), 0);
    }
}
