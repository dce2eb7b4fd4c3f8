//! What takes too long: second copies of slow tasks, an end to endless ones.

use super::leases::Tell;
use super::{Command, Config, Engine, Millis, Notice, Reason};
use crate::circuit::Kind;
use crate::durations::{Durations, MIN_SAMPLES};
use std::collections::VecDeque;

/// Running leases of one kind on one class of machine in the order they started: what they may take
/// is the same for all, so only the first has to be looked at. Entries may be stale.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    backup: VecDeque<(Millis, u32, u64)>,
    limit: VecDeque<(Millis, u32, u64)>,
}

/// How long a proof runs before a second copy pays. The spread counts too, so that proofs that are
/// slow in the ordinary way are not copied.
fn patience(config: &Config, durations: &Durations, kind: Kind, cores: u16) -> Option<Millis> {
    if config.backup_percent == 0 || durations.samples(kind, 0) < MIN_SAMPLES {
        return None;
    }
    let median = Millis::from(durations.median(kind, cores));
    let spread = Millis::from(durations.p95(kind, cores)).min(2 * median);
    Some((median * Millis::from(config.backup_percent) / 100).max(spread))
}

impl Engine {
    /// Starts to watch a lease that runs since `started`.
    pub(crate) fn watch(&mut self, kind: Kind, cores: u16, started: Millis, slot: u32, fence: u64) {
        let leases = &self.leases;
        let watched = self.watched.entry((kind.index() as u8, cores)).or_default();
        for queue in [&mut watched.backup, &mut watched.limit] {
            if queue.len() > 2 * leases.len() + 64 {
                queue.retain(|(_, slot, fence)| leases.is(*slot, *fence));
            }
            // An adopted lease started before others that are here already.
            let later = queue.iter().rev().take_while(|(since, ..)| *since > started).count();
            queue.insert(queue.len() - later, (started, slot, fence));
        }
    }

    /// Longest a proof may run, in milliseconds.
    pub(crate) fn limit(&self, kind: Kind, cores: u16) -> Millis {
        let learned =
            Millis::from(self.durations.median(kind, cores)) * Millis::from(self.config.limit_factor);
        learned.max(self.config.limit_floor)
    }

    /// How long a proof runs before a second copy pays; `None` while too little is known.
    fn patience(&self, kind: Kind, cores: u16) -> Option<Millis> {
        patience(&self.config, &self.durations, kind, cores)
    }

    /// Looks for leases that run too long.
    pub(crate) fn check_running(&mut self) {
        let mut over = vec![];
        for (&(kind, cores), watched) in &mut self.watched {
            let Some(kind) = Kind::from_index(usize::from(kind)) else { continue };
            let leases = &self.leases;
            let due = |queue: &mut VecDeque<(Millis, u32, u64)>, after: Millis| {
                let (since, slot, fence) = *queue.front()?;
                let alive = leases.is(slot, fence);
                (!alive || since + after <= self.now).then(|| {
                    queue.pop_front();
                    (since, slot, fence, alive)
                })
            };
            let median = Millis::from(self.durations.median(kind, cores));
            let limit = (median * Millis::from(self.config.limit_factor)).max(self.config.limit_floor);
            while let Some((_, slot, fence, alive)) = due(&mut watched.limit, limit) {
                over.extend(alive.then_some((slot, fence)));
            }
            let patience = patience(&self.config, &self.durations, kind, cores);
            while let Some((since, slot, fence, alive)) = patience.and_then(|p| due(&mut watched.backup, p)) {
                if alive && !leases[slot].backed {
                    self.slow.insert((since, fence, slot));
                }
            }
        }
        for (slot, fence) in over {
            if self.leases.is(slot, fence) {
                self.over_limit(slot);
            }
        }
    }

    fn over_limit(&mut self, slot: u32) {
        let lease = self.leases[slot];
        let worker = &self.workers[lease.worker];
        let text = format!("ran longer than allowed on {}", worker.name);
        let maker = worker.maker;
        let goes_on = self.take_back(slot, Tell::Stop);
        self.charge_and_settle(lease.at, Reason::TimedOut, maker, text, goes_on);
    }

    /// When the next lease becomes slow or reaches its limit.
    pub(crate) fn next_slow(&self) -> Option<Millis> {
        let of = |(&(kind, cores), watched): (&(u8, u16), &Watched)| {
            let kind = Kind::from_index(usize::from(kind))?;
            let limit = watched.limit.front().map(|(since, ..)| since + self.limit(kind, cores));
            let first = watched.backup.front();
            let backup = first.and_then(|(since, ..)| Some(since + self.patience(kind, cores)?));
            limit.into_iter().chain(backup).min()
        };
        self.watched.iter().filter_map(of).min()
    }

    /// Starts a second copy of a lease's task at an idle worker: the first result wins.
    pub(crate) fn back_up(&mut self, slot: u32, worker: u32) {
        let lease = self.leases[slot];
        let copy = self.send(lease.at, worker, false);
        (self.leases[copy].twin, self.leases[copy].backed) = (Some(slot), true);
        (self.leases[slot].twin, self.leases[slot].backed) = (Some(copy), true);
        self.out.push(Command::Notice(Notice::Backup {
            task: self.id(lease.at),
            slow: self.workers[lease.worker].name.clone(),
            copy: self.workers[worker].name.clone(),
        }));
    }
}
