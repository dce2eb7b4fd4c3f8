//! Processes of workers that ended. That one was killed for its memory is told by others, mostly
//! later, when its successor may have logged in under the same name; what it ran when it ended is
//! remembered for so long.

use super::leases::Tell;
use super::{Engine, Millis, Reason, TaskState, WorkerState};
use crate::ids::TaskId;
use hashbrown::{HashMap, HashSet};
use std::collections::VecDeque;

/// How long the end of a process is remembered, in milliseconds.
const REMEMBERED: Millis = 120_000;

/// How long a told end waits for the connection to end, in milliseconds: longer than it takes to
/// notice that a machine is silent.
const ANNOUNCED: Millis = 30_000;

/// The most ends, and incidents, remembered.
const MOST: usize = 65_536;

/// The last end of a worker's process.
#[derive(Debug)]
struct End {
    at: Millis,
    maker: u32,
    /// What it ran, with the class of machine that each asked for then.
    tasks: Vec<(TaskId, u8)>,
}

/// What is known of processes that ended.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    last: HashMap<String, End>,
    /// Oldest first; may be stale.
    order: VecDeque<(Millis, String)>,
    /// Workers whose process was killed for its memory, as was told before their session ended, and
    /// until when that is believed.
    announced: HashMap<String, Millis>,
    /// Incidents that were dealt with, by hash; in their order.
    incidents: HashSet<u64>,
    incident_order: VecDeque<u64>,
}

impl Ends {
    /// Whether an incident is new; from now on it is not.
    fn is_new(&mut self, worker: &str, incident: &str) -> bool {
        let hash = blake3::Hasher::new()
            .update(&(worker.len() as u64).to_le_bytes())
            .update(worker.as_bytes())
            .update(incident.as_bytes())
            .finalize();
        let head = u64::from_le_bytes(std::array::from_fn(|place| hash.as_bytes()[place]));
        if !self.incidents.insert(head) {
            return false;
        }
        self.incident_order.push_back(head);
        if self.incident_order.len() > MOST
            && let Some(oldest) = self.incident_order.pop_front()
        {
            self.incidents.remove(&oldest);
        }
        true
    }

    /// Workers that may yet be charged with what they ran.
    pub(crate) fn makers(&self) -> impl Iterator<Item = u32> {
        self.last.values().filter(|end| !end.tasks.is_empty()).map(|end| end.maker)
    }

    /// An end at which nothing ran does not hide one before.
    fn remember(&mut self, name: String, end: End) {
        if end.tasks.is_empty() && self.last.contains_key(&name) {
            return;
        }
        self.order.push_back((end.at, name.clone()));
        self.last.insert(name, end);
    }

    fn forget_old(&mut self, now: Millis) {
        while let Some((at, name)) = self.order.front()
            && (at + REMEMBERED < now || self.order.len() > MOST)
        {
            if self.last.get(name).is_some_and(|end| end.at == *at) {
                self.last.remove(name);
            }
            self.order.pop_front();
        }
        if !self.announced.is_empty() {
            self.announced.retain(|_, until| *until >= now);
        }
    }
}

impl Engine {
    /// What a worker runs, queued leases aside, with the class of machine that each asked for.
    pub(crate) fn running_at(&self, worker: u32) -> Vec<(TaskId, u8)> {
        let leases = self.workers[worker].running.iter().map(|slot| &self.leases[*slot]);
        leases.map(|lease| (self.id(lease.at), lease.class)).collect()
    }

    /// A worker's process ended, or seems to have: it ran these tasks.
    pub(crate) fn process_ended(&mut self, name: String, maker: u32, tasks: Vec<(TaskId, u8)>) {
        let end = End { at: self.now, maker, tasks };
        self.ends.forget_old(self.now);
        match self.ends.announced.remove(&name) {
            Some(_) => self.charge_out_of_memory(&end),
            None => self.ends.remember(name, end),
        }
    }

    /// Whether it was told that the worker's process was killed, and its session is still there.
    pub(crate) fn is_announced(&self, worker: u32) -> bool {
        let until = self.ends.announced.get(&self.workers[worker].name);
        until.is_some_and(|until| *until >= self.now)
    }

    /// A worker's process goes on, so it did not end before.
    pub(crate) fn process_lives(&mut self, name: &str) {
        self.ends.last.remove(name);
    }

    /// A worker's process was killed for its memory. What it ran is charged: at its last end, or at the
    /// one that follows shortly. A session that does not end is not touched: it is of the process
    /// that came after, or what is told is old.
    pub(crate) fn out_of_memory(&mut self, name: &str, incident: &str) {
        if !self.ends.is_new(name, incident) {
            return;
        }
        self.ends.forget_old(self.now);
        let worker = self.workers.by_name(name);
        let gone = worker.filter(|worker| self.workers[*worker].state == WorkerState::Disconnected);
        if let Some(worker) = gone {
            self.ends.announced.insert(name.to_owned(), self.now);
            return self.drop_worker(worker, "its process ran out of memory");
        }
        match self.ends.last.remove(name) {
            Some(end) => self.charge_out_of_memory(&end),
            None if worker.is_some() => {
                self.ends.announced.insert(name.to_owned(), self.now + ANNOUNCED);
            }
            None => {}
        }
    }

    /// Which of them was too large is not known: all of them ask for the next larger class.
    fn charge_out_of_memory(&mut self, end: &End) {
        for (task, class) in &end.tasks {
            let Some(at) = self.open_place(task) else { continue };
            if self.asks_for_more(at, *class) {
                self.end_too_small(at, end.at);
                continue;
            }
            let machine = self.machine_of(end.maker);
            self.jobs[at.job].extra_mut(at.node).forget_lost(machine);
            let quarantined = self.jobs[at.job].state_of(at.node) == TaskState::Failed;
            let goes_on = quarantined || self.jobs[at.job].state_of(at.node) == TaskState::Leased;
            let text = "its worker's process was killed".to_owned();
            self.charge_and_settle(at, Reason::OutOfMemory, end.maker, text, goes_on);
            self.end_too_small(at, end.at);
        }
    }

    /// Whether a task asks for a larger class than this one by now: that it ran out of memory there as well says
    /// nothing new.
    pub(crate) fn asks_for_more(&self, at: super::At, class: u8) -> bool {
        let now = self.jobs[at.job].class(at.node);
        self.classes[usize::from(now)].memory_mib > self.classes[usize::from(class)].memory_mib
    }

    /// Ends leases given out since that are of a smaller class than their task asks for now: they
    /// would end as the one before.
    fn end_too_small(&mut self, at: super::At, since: Millis) {
        let class = self.jobs[at.job].class(at.node);
        let needs = self.classes[usize::from(class)];
        let leases: Vec<u32> = self.leases_of(at).collect();
        for slot in leases {
            let lease = self.leases[slot];
            let small = self.classes[usize::from(lease.class)].memory_mib < needs.memory_mib;
            if small && lease.assigned >= since && !self.take_back(slot, Tell::Stop) {
                self.set_open(at, TaskState::Ready);
            }
        }
    }
}
