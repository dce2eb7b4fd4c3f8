//! One thread: its workers, their leases, and when they are answered.

use crate::Shared;
use crate::client::{Client, Reported};
use crate::stats::Stats;
use anyhow::{Context, Result, bail};
use arborist_core::circuit::{Circuit, Kind};
use arborist_core::fake_proof;
use arborist_core::ids::TaskId;
use arborist_core::proof_object::{Maker, ProofObject};
use arborist_core::wire::{Completed, Lease, ToWorker};
use ed25519_dalek::SigningKey;
use mio::{Events, Interest, Poll, Token};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Connections in their handshake at once.
const CONNECTS: usize = 32;
/// After the first lease: thousands go out at once then, which is not what is measured.
const BURST: Duration = Duration::from_secs(1);
/// Pause before a lost connection is tried again.
const RECONNECT: Duration = Duration::from_millis(10);

struct Slot {
    client: Option<Client>,
    /// Fences it holds.
    held: Vec<u64>,
    retry_at: Instant,
    /// Results kept over a reconnect.
    kept: Vec<Reported>,
    last_result: Option<Instant>,
    last_sent: Instant,
}

struct Thread<'a> {
    shared: &'a Shared,
    part: usize,
    poll: Poll,
    slots: Vec<Slot>,
    connecting: usize,
    stats: Stats,
    /// Leases that wait for their time: when, place in `waiting`.
    due: BinaryHeap<Reverse<(Instant, u64)>>,
    waiting: HashMap<u64, (usize, Lease)>,
    next_waiting: u64,
    /// When a task's result was sent.
    sent: HashMap<Vec<u8>, Instant>,
    acknowledged: HashSet<Vec<u8>>,
    random: u64,
    key: SigningKey,
}

pub fn run(shared: &Shared, part: usize) -> Result<Stats> {
    let args = &shared.args;
    let count = args.workers / args.threads + usize::from(part < args.workers % args.threads);
    let now = Instant::now();
    let slot = || Slot {
        client: None,
        held: vec![],
        retry_at: now,
        kept: vec![],
        last_result: None,
        last_sent: now,
    };
    let mut thread = Thread {
        shared,
        part,
        poll: Poll::new()?,
        slots: (0..count).map(|_| slot()).collect(),
        connecting: 0,
        stats: Stats::default(),
        due: BinaryHeap::new(),
        waiting: HashMap::new(),
        next_waiting: 0,
        sent: HashMap::new(),
        acknowledged: HashSet::new(),
        random: 0x9E37_79B9_7F4A_7C15 ^ part as u64,
        key: SigningKey::from_bytes(&[7; 32]),
    };
    thread.work()?;
    Ok(thread.stats)
}

impl Thread<'_> {
    fn work(&mut self) -> Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut scratch = vec![0; 64 << 10];
        let mut tended = Instant::now();
        while !self.shared.stop.load(Ordering::Relaxed) {
            let wait = self.due.peek().map_or(Duration::from_millis(10), |Reverse((at, _))| {
                at.saturating_duration_since(Instant::now()).min(Duration::from_millis(10))
            });
            self.poll.poll(&mut events, Some(wait))?;
            for event in &events {
                self.ready(event.token().0, event.is_writable(), &mut scratch);
            }
            self.answer_due()?;
            if tended.elapsed() > Duration::from_millis(5) {
                tended = Instant::now();
                self.tend(tended)?;
            }
        }
        Ok(())
    }

    /// Connects those who are not, and says that the others are alive.
    fn tend(&mut self, now: Instant) -> Result<()> {
        let heartbeat = Duration::from_millis(self.shared.args.heartbeat);
        for index in 0..self.slots.len() {
            let slot = &mut self.slots[index];
            match &mut slot.client {
                None if self.connecting < CONNECTS && slot.retry_at <= now => self.connect(index)?,
                Some(client) if client.welcomed && now.duration_since(slot.last_sent) > heartbeat => {
                    slot.last_sent = now;
                    let held = slot.held.clone();
                    if client.heartbeat(held).is_err() {
                        self.lost(index);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn connect(&mut self, index: usize) -> Result<()> {
        let mut client = Client::connect(self.shared.args.connect, self.shared.tls.clone())?;
        client.unacknowledged = self.slots[index].kept.drain(..).map(|c| (0, c)).collect();
        let name = format!("load-{}-{index}", self.part);
        client.hello(name, &self.shared.token, self.shared.args.leases)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut client.socket, Token(index), interest)?;
        self.connecting += 1;
        self.slots[index].client = Some(client);
        Ok(())
    }

    fn lost(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        let Some(client) = slot.client.take() else { return };
        slot.kept = client.unacknowledged.into_iter().map(|(_, done)| done).collect();
        slot.held.clear();
        slot.retry_at = Instant::now() + RECONNECT;
        self.stats.reconnects += 1;
        if client.welcomed {
            self.shared.connected.fetch_sub(1, Ordering::Relaxed);
        } else {
            self.connecting -= 1;
        }
        self.waiting.retain(|_, (worker, _)| *worker != index);
    }

    fn ready(&mut self, index: usize, writable: bool, scratch: &mut [u8]) {
        let Some(mut client) = self.slots[index].client.take() else { return };
        if writable {
            let _ = client.socket.set_nodelay(true);
        }
        let flushed = client.flush();
        let mut leases = vec![];
        let read = flushed.and_then(|()| {
            client.read(scratch, |client, message| self.message(index, client, message, &mut leases))
        });
        let answered = if leases.is_empty() { Ok(()) } else { self.take_leases(index, &mut client, leases) };
        self.slots[index].client = Some(client);
        if let Err(error) = read.and(answered) {
            if error.to_string().starts_with("refused") {
                eprintln!("{error}");
                self.shared.stop.store(true, Ordering::Relaxed);
            }
            self.lost(index);
        }
    }

    fn message(
        &mut self,
        index: usize,
        client: &mut Client,
        message: ToWorker,
        leases: &mut Vec<Lease>,
    ) -> Result<()> {
        if let Some(refused) = message.refused {
            bail!("refused: {}", refused.text);
        }
        if message.welcome.is_some() {
            client.welcomed = true;
            self.connecting -= 1;
            self.shared.connected.fetch_add(1, Ordering::Relaxed);
            let again: Vec<_> = client.unacknowledged.drain(..).map(|(_, done)| done).collect();
            if !again.is_empty() {
                client.report(again, true)?;
            }
        }
        while client.unacknowledged.front().is_some_and(|(seq, _)| *seq <= message.ack && message.ack > 0) {
            let (_, (done, _)) = client.unacknowledged.pop_front().context("just seen")?;
            self.acknowledged.insert(done.task);
        }
        self.stats.revoked += message.revoked.len() as u64;
        self.slots[index].held.retain(|fence| !message.revoked.contains(fence));
        leases.extend(message.leases);
        Ok(())
    }

    fn take_leases(&mut self, index: usize, client: &mut Client, leases: Vec<Lease>) -> Result<()> {
        let now = Instant::now();
        self.stats.first.get_or_insert(now);
        for lease in &leases {
            if self.acknowledged.contains(&lease.task) {
                self.stats.leased_after_ack += 1;
            }
        }
        if self.shared.args.rate == 0 {
            let done = leases.iter().map(|lease| self.prove(index, lease)).collect::<Result<Vec<_>>>()?;
            return self.report(index, client, done, now);
        }
        for lease in leases {
            self.measure(index, &lease, now);
            self.slots[index].held.push(lease.fence);
            self.next_waiting += 1;
            self.waiting.insert(self.next_waiting, (index, lease));
            let mean = self.waiting.len() as f64 / self.shared.args.rate as f64;
            let pause = Duration::from_secs_f64(self.exponential(mean));
            self.due.push(Reverse((now + pause, self.next_waiting)));
        }
        Ok(())
    }

    /// A lease whose task became ready by a result that came after the worker's own: it was parked.
    fn measure(&mut self, index: usize, lease: &Lease, now: Instant) {
        if self.stats.first.is_none_or(|first| now - first < BURST) {
            return;
        }
        let ready = lease.children.iter().filter_map(|child| self.sent.get(&child.task)).max().copied();
        match (ready, self.slots[index].last_result) {
            (Some(ready), Some(own)) if ready <= own => self.stats.own.push(now - own),
            (Some(ready), _) => self.stats.parked.push(now - ready),
            (None, Some(own)) => self.stats.own.push(now - own),
            // the first lease of all
            (None, None) => {}
        }
    }

    fn answer_due(&mut self) -> Result<()> {
        let now = Instant::now();
        while let Some(Reverse((at, number))) = self.due.peek().copied()
            && at <= now
        {
            self.due.pop();
            let Some((index, lease)) = self.waiting.remove(&number) else { continue };
            let Some(mut client) = self.slots[index].client.take() else { continue };
            self.slots[index].held.retain(|fence| *fence != lease.fence);
            let done = vec![self.prove(index, &lease)?];
            let sent = Instant::now();
            self.sent.insert(lease.task, sent);
            self.slots[index].last_result = Some(sent);
            let reported = self.report(index, &mut client, done, sent);
            self.slots[index].client = Some(client);
            if reported.is_err() {
                self.lost(index);
            }
        }
        Ok(())
    }

    fn report(&mut self, index: usize, client: &mut Client, done: Vec<Reported>, now: Instant) -> Result<()> {
        let count = done.len() as u64;
        client.report(done, self.shared.args.proofs.is_some())?;
        self.slots[index].last_sent = now;
        self.stats.done += count;
        let all = self.shared.done.fetch_add(count, Ordering::Relaxed) + count;
        self.stats.last = Some(now);
        if all >= self.shared.args.tasks {
            self.shared.stop.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    fn prove(&mut self, index: usize, lease: &Lease) -> Result<Reported> {
        let mut found = false;
        if let Some(folder) = &self.shared.args.proofs {
            found = !put_proof(folder, &format!("{}-{index}", self.part), lease, &self.key)?;
            self.stats.made += u64::from(!found);
            self.stats.found += u64::from(found);
        }
        let completed = Completed {
            fence: lease.fence,
            task: lease.task.clone(),
            millis: 1,
            cpu_millis: 1,
            peak_mib: 1,
            proof_bytes: 200,
            found,
        };
        Ok((completed, lease.mac.clone()))
    }

    fn exponential(&mut self, mean: f64) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let uniform = (self.random >> 11) as f64 / (1u64 << 53) as f64;
        -uniform.max(1e-12).ln() * mean
    }
}

/// Puts a proof where the dispatcher's file store has it; `false` when there is one already. Without a
/// sync: a killed process loses nothing that is in the page cache.
fn put_proof(folder: &Path, worker: &str, lease: &Lease, key: &SigningKey) -> Result<bool> {
    let task = TaskId::from_slice(&lease.task).context("task id")?;
    let path = folder.join("proofs").join(task.to_string());
    if path.exists() {
        return Ok(false);
    }
    let kind = Kind::from_index(lease.kind as usize).context("kind")?;
    let circuit = Circuit::new(kind, lease.param as u8);
    let proof = fake_proof::prove(circuit, &lease.public_inputs, &[], &[], 100);
    let maker =
        Maker { worker: worker.into(), node: worker.into(), finished_unix_ms: 0, millis: 1, cpu_millis: 1 };
    let draft = folder.join(format!("draft-{worker}"));
    std::fs::write(&draft, ProofObject::seal(task, circuit, &proof, &maker, key))?;
    std::fs::create_dir_all(folder.join("proofs"))?;
    std::fs::rename(&draft, &path)?;
    Ok(true)
}
