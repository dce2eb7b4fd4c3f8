//! What will happen, by time; of things at the same time the one entered first.

use super::rng::Rng;
use super::scenario::Network;
use crate::engine::{Assignment, Done, Event, Fence, Held, Millis, Reason};
use crate::ids::TaskId;
use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// A message of a worker.
#[derive(Debug, Clone)]
pub(super) enum Up {
    Login(Vec<Held>),
    Beat(Vec<Fence>),
    Done(Done),
    Failed { task: TaskId, fence: Fence, reason: Reason },
}

/// A message to a worker.
#[derive(Debug, Clone, Copy)]
pub(super) enum Down {
    Assign(Assignment),
    Revoke(Fence),
    Acknowledge(Fence),
}

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    KillOperator,
    CrashWorker,
    Partition,
    Vanish,
}

/// Something that will happen.
#[derive(Debug, Clone)]
pub(super) enum What {
    ToOperator {
        worker: usize,
        session: u64,
        message: Up,
    },
    ToWorker {
        worker: usize,
        session: u64,
        message: Down,
    },
    ProofEnds {
        worker: usize,
        life: u32,
        fence: Fence,
        fails: bool,
    },
    Beat {
        worker: usize,
        life: u32,
    },
    Connect {
        worker: usize,
        life: u32,
    },
    Revives {
        worker: usize,
        life: u32,
    },
    /// The shell tells the engine, if this life of the operator lasts so long.
    Tell {
        operator_life: u32,
        event: Box<Event>,
    },
    /// The store tells the operator how a proof stands.
    CheckProof {
        operator_life: u32,
        task: TaskId,
    },
    OperatorUp,
    Segment,
    Tick,
    Fault(Fault),
}

struct Entry {
    at: Millis,
    number: u64,
    what: What,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    /// The earliest is the largest: the heap gives the largest first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

/// All that will happen.
#[derive(Default)]
pub(super) struct Queue {
    entries: BinaryHeap<Entry>,
    count: u64,
}

impl Queue {
    pub(super) fn add(&mut self, at: Millis, what: What) {
        self.count += 1;
        self.entries.push(Entry { at, number: self.count, what });
    }

    pub(super) fn next(&mut self) -> Option<(Millis, What)> {
        self.entries.pop().map(|entry| (entry.at, entry.what))
    }
}

/// When the messages of one worker's connection arrive.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Wire {
    last: [Millis; 2],
}

/// Direction of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Up,
    Down,
}

impl Wire {
    /// When a message sent now arrives; while the way is cut it waits.
    pub(super) fn arrival(
        &mut self,
        way: Way,
        now: Millis,
        cut_until: Millis,
        network: &Network,
        rng: &mut Rng,
    ) -> Millis {
        let at = now.max(cut_until) + rng.between(network.delay.0, network.delay.1);
        let last = &mut self.last[usize::from(way == Way::Down)];
        if network.reorder {
            return at.max(*last);
        }
        *last = at.max(*last);
        *last
    }

    /// Nothing sent after this arrives before it: a login.
    pub(super) fn barrier(&mut self, at: Millis) {
        self.last = [self.last[0].max(at), self.last[1].max(at)];
    }
}
