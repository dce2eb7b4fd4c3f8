//! How machines behave, whatever workers on them are called and however often they log in: which of them
//! rest, and which are suspected.

use super::leases::Tell;
use super::retries::{SUSPICIONS, backoff};
use super::table::At;
use super::{Command, Engine, Millis, Notice, Reason, Record, TaskState, Worker, WorkerState};
use hashbrown::HashMap;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A machine where so much failed in a row rests: one that fails at once is always idle, so it would get
/// every task there is, while those that work are busy.
const FAILURES: u8 = 3;

/// First and longest rest, in milliseconds; it doubles.
const REST: (Millis, Millis) = (1_000, 30_000);

/// Machines on record before those of which nothing is to be remembered any more are dropped.
const MOST: usize = 4_096;

/// What is on record of a machine.
#[derive(Debug, Default)]
struct Machine {
    /// Failures of its own since its last proof; those of leases from before a rest are not counted.
    failures: u8,
    /// Failures that may be nobody's fault since its last proof, and when the first was.
    soft: (u8, Millis),
    rests_until: Millis,
    /// How often its workers were suspected.
    suspected: u8,
    /// Machines that found its proofs bad: each counts once, or one that finds fault with everything would
    /// bar all others. Forgotten at a restart.
    blamers: Vec<u32>,
}

/// What is on record of machines, by number.
#[derive(Debug, Default)]
pub(crate) struct Machines {
    known: HashMap<u32, Machine>,
    /// When machines have rested; may be stale.
    resting: BinaryHeap<Reverse<(Millis, u32)>>,
    /// The last proof and machine, and the last of another machine.
    proofs: [Option<(Millis, u32)>; 2],
    /// Machines that were barred just now.
    barred: Vec<u32>,
}

impl Machines {
    fn entry(&mut self, node: u32, now: Millis) -> &mut Machine {
        if self.known.len() >= MOST && !self.known.contains_key(&node) {
            self.known.retain(|_, m| m.suspected > 0 || m.rests_until > now || m.failures >= FAILURES);
        }
        self.known.entry(node).or_default()
    }

    /// Machines that something is on record of.
    pub(crate) fn named(&self) -> impl Iterator<Item = u32> {
        let proofs = self.proofs.iter().flatten().map(|(_, node)| *node);
        let known = self.known.iter().flat_map(|(node, machine)| machine.blamers.iter().chain([node]));
        known.copied().chain(proofs)
    }

    /// Whether a machine rests.
    pub(crate) fn rests(&self, node: u32, now: Millis) -> bool {
        self.known.get(&node).is_some_and(|machine| machine.rests_until > now)
    }

    /// How often workers of a machine were suspected.
    pub(crate) fn suspected(&self, node: u32) -> u8 {
        self.known.get(&node).map_or(0, |machine| machine.suspected)
    }

    /// When the first of those that rest has rested.
    pub(crate) fn next_rest(&self) -> Option<Millis> {
        self.resting.peek().map(|Reverse((until, _))| *until)
    }

    /// Whether another machine has made a proof since.
    fn others_prove(&self, node: u32, since: Millis) -> bool {
        self.proofs.iter().flatten().any(|(at, by)| *by != node && *at >= since)
    }

    /// A machine made a proof.
    fn proved(&mut self, node: u32, now: Millis) {
        if self.proofs[0].is_some_and(|(_, by)| by != node) {
            self.proofs[1] = self.proofs[0];
        }
        self.proofs[0] = Some((now, node));
        if let Some(machine) = self.known.get_mut(&node) {
            (machine.failures, machine.soft) = (0, (0, 0));
        }
    }
}

impl Engine {
    /// A worker made a proof: nothing is counted against its machine any more.
    pub(crate) fn machine_proved(&mut self, node: u32) {
        self.machines.proved(node, self.now);
        self.workers.try_out(node, false);
    }

    /// Counts a failure against the machine. From the third in a row on it rests after each, longer every
    /// time, and what is queued there goes elsewhere. While it rests nothing is counted: what ran when
    /// the rest began says nothing new.
    pub(crate) fn count_failure(&mut self, worker: u32, reason: Reason) {
        let Worker { node, drains, .. } = self.workers[worker];
        match reason {
            // Counted once it is known who is wrong.
            Reason::BadChild(_) | Reason::MissingChild(_) => {}
            Reason::HandedBack if drains => {}
            Reason::OutOfMemory | Reason::StoreUnavailable | Reason::HandedBack => self.count_soft(node),
            _ => self.count_own(node),
        }
    }

    /// Counts a failure that is the machine's own.
    pub(crate) fn count_own(&mut self, node: u32) {
        if self.machines.rests(node, self.now) {
            return;
        }
        let machine = self.machines.entry(node, self.now);
        machine.failures = machine.failures.saturating_add(1);
        if let Some(times) = machine.failures.checked_sub(FAILURES) {
            self.workers.try_out(node, true);
            self.rest(node, times);
        }
    }

    /// Counts a failure that may be the store's or the task's: the machine rests only if others prove
    /// meanwhile.
    pub(crate) fn count_soft(&mut self, node: u32) {
        if self.machines.rests(node, self.now) {
            return;
        }
        let now = self.now;
        let (times, since) = &mut self.machines.entry(node, now).soft;
        if *times == 0 {
            *since = now;
        }
        *times = times.saturating_add(1);
        let (times, since) = (*times, *since);
        if let Some(times) = times.checked_sub(FAILURES)
            && self.machines.others_prove(node, since)
        {
            self.rest(node, times);
        }
    }

    fn rest(&mut self, node: u32, times: u8) {
        let until = self.now + backoff(REST, u32::from(times));
        self.machines.entry(node, self.now).rests_until = until;
        self.machines.resting.push(Reverse((until, node)));
        self.workers.set_rest(node, true);
        for worker in self.workers.on_node(node).to_vec() {
            self.empty_queue(worker);
        }
    }

    /// What is queued at a worker goes elsewhere.
    pub(crate) fn empty_queue(&mut self, worker: u32) {
        for slot in self.workers[worker].queue.clone() {
            let at = self.leases[slot].at;
            if self.leases[slot].started.is_none() && !self.take_back(slot, Tell::Stop) {
                self.set_open(at, TaskState::Ready);
            }
        }
    }

    /// Machines that have rested take leases again.
    pub(crate) fn end_rests(&mut self) {
        while let Some(&Reverse((until, node))) = self.machines.resting.peek()
            && until <= self.now
        {
            self.machines.resting.pop();
            if !self.machines.rests(node, self.now) {
                self.workers.set_rest(node, false);
            }
        }
    }

    /// A worker is found to have made a bad proof, or to have said what is not so; `by` another machine,
    /// which counts once, or by the operator itself. Says how often by now, if this counts.
    pub(crate) fn pay(&mut self, maker: u32, by: Option<u32>) -> Option<u8> {
        let made = self.makers.get(maker as usize)?;
        let (node, times) = (made.node, made.suspected.saturating_add(1));
        let machine = self.machines.entry(node, self.now);
        if by.is_some_and(|by| machine.blamers.contains(&by)) {
            return None;
        }
        machine.blamers.extend(by);
        self.suspect(maker, times);
        if self.machines.suspected(node) == SUSPICIONS {
            self.machines.barred.push(node);
        }
        Some(times)
    }

    /// What a machine that was barred just now reported, and nobody has seen in the store, is open again: others
    /// would stumble over it one by one. A proof that is there is found by the next worker.
    pub(crate) fn doubt_barred(&mut self) {
        while let Some(node) = self.machines.barred.pop() {
            let slots: Vec<u32> = self.jobs.iter().map(|(slot, _)| slot).collect();
            for job in slots {
                // From the root down: what an open proof was made from is open to doubt, too.
                for place in (0..self.jobs[job].shape().total()).rev() {
                    let at = At { job, node: place };
                    let doubted = self.is_unsealed(at)
                        && !self.jobs[job].is_seen(place)
                        && self.machine_of(self.answerable(at)) == node;
                    if doubted {
                        self.reopen_lost(at);
                    }
                }
            }
        }
    }

    /// As [`Engine::pay`], written down and told.
    pub(crate) fn charge_worker(&mut self, maker: u32, by: Option<u32>) {
        if let Some(times) = self.pay(maker, by) {
            self.out.push(Command::Persist(Record::Suspected { maker, times }));
            self.tell_suspected(maker, times);
        }
    }

    pub(crate) fn tell_suspected(&mut self, maker: u32, times: u8) {
        let worker = self.makers[maker as usize].name.clone();
        self.out.push(Command::Notice(Notice::Suspected { worker, times: u32::from(times) }));
    }

    /// Writes down how often a worker was suspected; beyond a few times neither it nor others of its machine
    /// get more leases.
    pub(crate) fn suspect(&mut self, maker: u32, times: u8) {
        let now = self.now;
        let Some(made) = self.makers.get_mut(maker as usize) else { return };
        let before = std::mem::replace(&mut made.suspected, times);
        made.suspected_at = now;
        let node = made.node;
        if times != before {
            let machine = self.machines.entry(node, now);
            machine.suspected = machine.suspected.saturating_sub(before).saturating_add(times);
        }
        let named = self.workers.by_name(&self.makers[maker as usize].name);
        let there = self.workers.on_node(node).iter().copied();
        for worker in there.chain(named).collect::<Vec<_>>() {
            if self.is_barred(worker) && self.workers[worker].state != WorkerState::Disconnected {
                self.workers[worker].state = WorkerState::Barred;
                self.workers.reindex(worker);
            }
        }
    }

    /// Whether a worker gets nothing for what it, or another of its machine, did.
    pub(crate) fn is_barred(&self, worker: u32) -> bool {
        let Worker { maker, node, .. } = self.workers[worker];
        let own = self.makers.get(maker as usize).map_or(0, |made| made.suspected);
        own.max(self.machines.suspected(node)) >= SUSPICIONS
    }

    /// Nobody is suspected any more: workers that were barred take leases again.
    pub(crate) fn trust_all(&mut self) {
        self.makers.iter_mut().for_each(|maker| maker.suspected = 0);
        for machine in self.machines.known.values_mut() {
            (machine.suspected, machine.blamers) = (0, vec![]);
        }
        let barred = self.workers.iter().filter(|(_, w)| w.state == WorkerState::Barred);
        for worker in barred.map(|(index, _)| index).collect::<Vec<_>>() {
            let Worker { state, drains, armed, .. } = &mut self.workers[worker];
            *state = match (*drains, *armed) {
                (true, _) => WorkerState::Draining,
                (false, true) => WorkerState::Live,
                // It lost its leases to silence; nobody waits for it until it is heard.
                (false, false) => WorkerState::Silent,
            };
            self.workers.reindex(worker);
        }
    }
}
