//! The worker's cores and memory, given out in the order of arrival to whoever fits: just as the
//! engine counts it, or its books and the machine would differ.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// An amount of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Processor cores.
    pub cores: u32,
    /// Memory in MiB.
    pub memory_mib: u32,
}

impl Share {
    fn fits(self, free: Share) -> bool {
        self.cores <= free.cores && self.memory_mib <= free.memory_mib
    }
}

struct State {
    free: Share,
    next_place: u64,
    waiting: BTreeMap<u64, (Share, oneshot::Sender<()>)>,
}

impl State {
    /// In order; who does not fit yet is passed over.
    fn grant(&mut self) {
        let places: Vec<u64> = self.waiting.keys().copied().collect();
        for place in places {
            let Some((share, sender)) = self.waiting.remove(&place) else { continue };
            if !sender.is_closed() && !share.fits(self.free) {
                self.waiting.insert(place, (share, sender));
            } else if sender.send(()).is_ok() {
                self.free.cores -= share.cores;
                self.free.memory_mib -= share.memory_mib;
            }
        }
    }
}

/// The machine's capacity.
pub struct Slots {
    total: Share,
    state: Mutex<State>,
}

impl Slots {
    /// All of `total` is free.
    pub fn new(total: Share) -> Arc<Self> {
        let state = State { free: total, next_place: 0, waiting: BTreeMap::new() };
        Arc::new(Self { total, state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place in the queue, to be taken when a lease arrives.
    pub fn place(&self) -> u64 {
        let mut state = self.state();
        state.next_place += 1;
        state.next_place
    }

    /// Waits for `wanted` (or the whole machine, if that is less); earlier places are served first if
    /// what they want is free.
    pub async fn acquire(self: &Arc<Self>, place: u64, wanted: Share) -> Slot {
        let share = Share {
            cores: wanted.cores.clamp(1, self.total.cores.max(1)).min(self.total.cores),
            memory_mib: wanted.memory_mib.min(self.total.memory_mib),
        };
        let (sender, granted) = oneshot::channel();
        let mut waiting = Waiting { slots: self.clone(), granted, place, share, taken: false };
        {
            let mut state = self.state();
            state.waiting.insert(place, (share, sender));
            state.grant();
        }
        // the sender lives in the queue until it is used
        waiting.taken = (&mut waiting.granted).await.is_ok();
        Slot { slots: self.clone(), share }
    }
}

/// Gives up the place, or the share that came too late, when the wait is dropped.
struct Waiting {
    slots: Arc<Slots>,
    granted: oneshot::Receiver<()>,
    place: u64,
    share: Share,
    taken: bool,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.taken {
            return;
        }
        let mut state = self.slots.state();
        state.waiting.remove(&self.place);
        self.granted.close();
        if self.granted.try_recv().is_ok() {
            state.free.cores += self.share.cores;
            state.free.memory_mib += self.share.memory_mib;
        }
        state.grant();
    }
}

/// A share of the machine; given back when dropped.
pub struct Slot {
    slots: Arc<Slots>,
    share: Share,
}

impl Slot {
    /// What was given.
    pub fn share(&self) -> Share {
        self.share
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.slots.state();
        state.free.cores += self.share.cores;
        state.free.memory_mib += self.share.memory_mib;
        state.grant();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn share(cores: u32, memory_mib: u32) -> Share {
        Share { cores, memory_mib }
    }

    #[tokio::test]
    async fn cores_and_memory_both_limit() {
        let slots = Slots::new(share(4, 100));
        let first = slots.acquire(slots.place(), share(1, 90)).await;
        let second = slots.place();
        let mut waiting = Box::pin(slots.acquire(second, share(1, 20)));
        assert!(futures::poll!(&mut waiting).is_pending());
        drop(first);
        let second = waiting.await;
        let place = slots.place();
        assert!(slots.acquire(place, share(4, 1)).now_or_never().is_none());
        drop(second);
        assert_eq!(slots.acquire(slots.place(), share(4, 100)).await.share(), share(4, 100));
    }

    #[tokio::test]
    async fn the_first_that_fits_is_served() {
        let slots = Slots::new(share(4, 100));
        let small = slots.acquire(slots.place(), share(1, 1)).await;
        let mut large = Box::pin(slots.acquire(slots.place(), share(4, 1)));
        assert!(futures::poll!(&mut large).is_pending());
        let late = slots.acquire(slots.place(), share(1, 1)).await;
        drop(small);
        assert!(futures::poll!(&mut large).is_pending());
        let mut last = Box::pin(slots.acquire(slots.place(), share(4, 1)));
        assert!(futures::poll!(&mut last).is_pending());
        drop(late);
        let large = large.await;
        assert!(futures::poll!(&mut last).is_pending(), "both fit, the earlier is served");
        drop(large);
        last.await;
    }

    #[tokio::test]
    async fn a_dropped_wait_frees_its_place() {
        let slots = Slots::new(share(2, 2));
        let first = slots.acquire(slots.place(), share(2, 2)).await;
        let mut dropped = Box::pin(slots.acquire(slots.place(), share(2, 2)));
        assert!(futures::poll!(&mut dropped).is_pending());
        let mut granted_unseen = Box::pin(slots.acquire(slots.place(), share(2, 2)));
        assert!(futures::poll!(&mut granted_unseen).is_pending());
        drop(dropped);
        drop(first);
        drop(granted_unseen);
        slots.acquire(slots.place(), share(2, 2)).await;
    }

    #[tokio::test]
    async fn more_than_the_machine_has_runs_alone() {
        let slots = Slots::new(share(2, 10));
        let whole = slots.acquire(slots.place(), share(32, 999)).await;
        assert_eq!(whole.share(), share(2, 10));
        assert_eq!(Slots::new(share(2, 10)).acquire(1, share(0, 0)).await.share(), share(1, 0));
    }
}
