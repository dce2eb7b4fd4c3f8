//! The engine's books as bytes, and back: from a snapshot and the records since.

use super::Engine;
use super::codec::{BadBytes, Reader, Writer};
use super::extra::{Extra, Word};
use super::names::Maker;
use super::past::{get_past, put_past};
use super::rebuild::{Rebuilding, over_in_the_end};
use super::record::{get_maker, get_spec, get_state, get_system, put_maker, put_spec, put_state, put_system};
use super::table::{At, Job, NO_MAKER, Proven};
use super::{Config, Fence, JobSpec, JobState, Millis, Record, RestoreError, TaskState, Unresolved};
use crate::durations::Durations;
use crate::tree::Leaves;
use std::collections::HashSet;

/// Version of the snapshot's bytes.
const VERSION: u8 = 5;

/// Other proof systems of which is kept what was learned.
const OTHER_SYSTEMS: usize = 16;

fn put_durations(w: &mut Writer, system: &str, durations: &Durations) {
    w.text(system);
    let windows: Vec<_> = durations.export().collect();
    w.varint(windows.len() as u64);
    for (kind, cores, count, samples) in windows {
        w.byte(kind);
        w.varint(u64::from(cores));
        w.varint(count);
        w.varint(samples.len() as u64);
        samples.iter().for_each(|m| w.varint(u64::from(*m)));
    }
}

fn get_durations(r: &mut Reader<'_>, durations: &mut Durations) -> Result<(), BadBytes> {
    for _ in 0..r.number::<u32>()? {
        let (kind, cores, count) = (r.byte()?, r.number()?, r.varint()?);
        let samples: Vec<u32> = (0..r.number::<u32>()?).map(|_| r.number()).collect::<Result<_, _>>()?;
        durations.import(kind, cores, count, &samples);
    }
    Ok(())
}

impl Engine {
    /// Everything that a restart has to know: jobs, proofs, charges, makers that are named, durations. Leases are
    /// not in it; workers bring them back.
    pub fn snapshot(&self) -> Vec<u8> {
        let mut w = Writer::default();
        w.byte(VERSION);
        w.varint(self.now);
        w.varint(self.fences_to);
        w.varint(u64::from(self.last_job));
        w.varint(self.clock.eras().len() as u64);
        for (from, ahead) in self.clock.eras() {
            w.varint(*from);
            w.signed(*ahead);
        }
        let named = self.named_makers();
        let makers: Vec<_> = self.makers.iter().filter(|(number, _)| named.contains(number)).collect();
        w.varint(u64::from(self.makers.next()));
        w.varint(makers.len() as u64);
        for (number, maker) in makers {
            w.varint(u64::from(number));
            w.text(&maker.name);
            w.text(&self.nodes[maker.node as usize]);
            w.varint(u64::from(maker.cores));
            w.byte(maker.suspected);
        }
        w.varint(self.other_durations.len() as u64 + 1);
        put_durations(&mut w, &self.system.name(), &self.durations);
        self.other_durations.iter().for_each(|(name, durations)| put_durations(&mut w, name, durations));
        w.varint(self.jobs.iter().len() as u64);
        self.jobs.iter().for_each(|(_, job)| self.put_job(&mut w, job));
        w.varint(self.jobs.all_past().len() as u64);
        self.jobs.all_past().for_each(|past| put_past(&mut w, past));
        w.0
    }

    fn put_job(&self, w: &mut Writer, job: &Job) {
        put_spec(w, &job.spec);
        put_system(w, &job.tree.system);
        w.varint(job.submitted);
        w.varint(job.since);
        w.option(job.ended);
        put_state(w, &job.state);
        w.varint(job.policy as u64);
        w.varint(u64::from(job.shape().total()));
        let done = |node: &u32| job.is_done(*node);
        w.varint((0..job.shape().total()).filter(done).count() as u64);
        let mut before = 0;
        for node in (0..job.shape().total()).filter(done) {
            let p = job.proven(node);
            let flags = u64::from(p.found) | u64::from(job.is_seen(node)) << 1;
            w.varint(u64::from(node - before) << 2 | flags);
            before = node;
            put_maker(w, p.maker);
            [p.millis, p.cpu_millis, p.proof_bytes].into_iter().for_each(|n| w.varint(u64::from(n)));
            w.varint(p.at - job.submitted);
        }
        // What passes by itself is not kept.
        let lasts = |extra: &Extra| extra.charged() > 0 || extra.class.is_some() || extra.given_up;
        let lasting = || job.extra.iter().filter(|(_, extra)| lasts(extra));
        w.varint(lasting().count() as u64);
        for (node, extra) in lasting() {
            w.varint(u64::from(*node));
            self.put_extra(w, extra);
        }
    }

    fn put_extra(&self, w: &mut Writer, extra: &Extra) {
        w.0.extend_from_slice(&extra.attempts);
        w.option(extra.class.map(u64::from));
        w.varint(extra.nodes.len() as u64);
        extra.nodes.iter().for_each(|n| w.text(&self.nodes[*n as usize]));
        w.varint(extra.words.len() as u64);
        for word in &extra.words {
            [word.index, word.times].into_iter().for_each(|n| w.byte(n));
            w.text(&self.nodes[word.node as usize]);
        }
        w.byte(u8::from(extra.given_up));
        w.text(&extra.why);
    }

    /// The engine as it was when its last record was written; its time goes on from there. `resolve` finds a job's tree again:
    /// the number of calls of each transaction and the leaves. Records may be given more than once,
    /// as long as all that follow are given again too. A job whose tree can't be built any more is left
    /// out: the commands of the next event drop it from the journal and say so.
    ///
    /// # Errors
    /// Bytes that are none of this engine's, or a job whose tree can't be built now and that was not
    /// dropped from the books later.
    pub fn restore(
        config: Config,
        snapshot: Option<&[u8]>,
        records: &[Vec<u8>],
        mut resolve: impl FnMut(&JobSpec) -> Result<(Vec<u8>, Leaves), Unresolved>,
        now: Millis,
    ) -> Result<Self, RestoreError> {
        let decode = |(index, bytes): (usize, &Vec<u8>)| {
            Record::decode(bytes).map_err(|reason| RestoreError::Record { index, reason })
        };
        let records: Vec<Record> = records.iter().enumerate().map(decode).collect::<Result<_, _>>()?;
        let mut dropped = HashSet::new();
        for record in &records {
            match record {
                Record::Forgotten(id) => _ = dropped.insert(*id),
                Record::Submitted(spec, ..) => _ = dropped.remove(&spec.id),
                _ => {}
            }
        }
        let mut engine = Self::new(config);
        let over = over_in_the_end(&records);
        let mut rebuilding = Rebuilding { resolve: &mut resolve, dropped, over, left_out: vec![] };
        if let Some(bytes) = snapshot {
            engine.read_snapshot(bytes, &mut rebuilding)?;
        }
        for record in records {
            match record {
                Record::Submitted(spec, system, at) if !engine.jobs.knows(spec.id) => {
                    if let Some((slot, shared)) = rebuilding.enter(&mut engine, (spec, system), at, None)? {
                        engine.share_again(slot, &shared);
                    }
                }
                other => {
                    if let Record::State(id, JobState::Proving, at) = other {
                        rebuilding.revive(&mut engine, id, at)?;
                    }
                    engine.replay(other);
                }
            }
        }
        let left_out = rebuilding.left_out;
        if engine.now == 0 {
            engine.now = now;
        }
        engine.clock.go_on_from(engine.now, now);
        engine.settle_restored();
        engine.first_fence = engine.next_fence;
        engine.note_era();
        engine.out.extend(left_out);
        Ok(engine)
    }

    fn read_snapshot(&mut self, bytes: &[u8], rebuilding: &mut Rebuilding<'_>) -> Result<(), RestoreError> {
        let r = &mut Reader(bytes);
        match r.byte()? {
            VERSION => {}
            other => return Err(BadBytes::Version(other).into()),
        }
        self.now = r.varint()?;
        self.reserve_fences(r.varint()?);
        self.last_job = r.number()?;
        for _ in 0..r.number::<u32>()? {
            let (from, ahead) = (r.varint()?, r.signed()?);
            self.clock.remember(from, ahead);
        }
        self.makers.given_to(r.number()?);
        for _ in 0..r.number::<u32>()? {
            let (number, name, node) = (r.number()?, r.text()?, r.text()?);
            self.replay(Record::Maker { number, name, node, cores: r.number()? });
            self.suspect(number, r.byte()?);
        }
        for _ in 0..r.number::<u32>()? {
            let name = r.text()?;
            get_durations(r, self.durations_of(&name))?;
        }
        for _ in 0..r.number::<u32>()? {
            self.read_job(r, rebuilding)?;
        }
        for _ in 0..r.number::<u32>()? {
            let past = get_past(r)?;
            self.jobs.insert_past(past);
        }
        Ok(r.end()?)
    }

    fn read_job(&mut self, r: &mut Reader<'_>, rebuilding: &mut Rebuilding<'_>) -> Result<(), RestoreError> {
        let (spec, system, submitted, since) = (get_spec(r)?, get_system(r)?, r.varint()?, r.varint()?);
        let (ended, state, policy, total) = (r.option()?, get_state(r)?, r.number()?, r.number::<u32>()?);
        let slot = rebuilding.enter(self, (spec, system), submitted, Some(total))?.map(|(slot, _)| slot);
        if let Some(slot) = slot {
            let job = &mut self.jobs[slot];
            (job.since, job.ended, job.state) = (since, ended, state);
            if policy < crate::order::POLICIES.len() {
                job.policy = policy;
            }
        }
        let mut node = 0u32;
        for _ in 0..r.number::<u32>()? {
            let head = r.varint()?;
            node = u32::try_from(head >> 2)
                .ok()
                .and_then(|step| node.checked_add(step))
                .filter(|n| *n < total)
                .ok_or(BadBytes::Meaningless("node"))?;
            let maker = get_maker(r)?;
            let (millis, cpu_millis, proof_bytes) = (r.number()?, r.number()?, r.number()?);
            let at = submitted.saturating_add(r.varint()?);
            let proven = Proven { maker, millis, cpu_millis, proof_bytes, found: head & 1 == 1, at };
            if let Some(slot) = slot {
                self.jobs[slot].write(node, &proven);
                self.jobs[slot].set_raw(node, TaskState::Done);
                self.jobs[slot].set_seen(node, head & 2 == 2);
            }
        }
        for _ in 0..r.number::<u32>()? {
            let node = r.number::<u32>()?;
            let extra = self.read_extra(r)?;
            if node >= total {
                return Err(BadBytes::Meaningless("node").into());
            }
            if let Some(slot) = slot {
                *self.jobs[slot].extra_mut(node) = extra;
            }
        }
        Ok(())
    }

    fn read_extra(&mut self, r: &mut Reader<'_>) -> Result<Extra, BadBytes> {
        let (attempts, class) = (r.array()?, r.option::<u8>()?);
        let mut nodes = vec![];
        for _ in 0..r.number::<u32>()? {
            let name = r.text()?;
            nodes.push(self.node_number(&name));
        }
        let mut words = vec![];
        for _ in 0..r.number::<u32>()? {
            let (index, times, name) = (r.byte()?, r.byte()?, r.text()?);
            words.push(Word { index, node: self.node_number(&name), times });
        }
        let class = class.filter(|c| usize::from(*c) < self.classes.len());
        let given_up = r.flag()?;
        Ok(Extra { attempts, class, nodes, words, given_up, why: r.text()?, ..Extra::default() })
    }

    /// What was learned under the proof system of this name.
    fn durations_of(&mut self, system: &str) -> &mut Durations {
        if system == self.system.name() {
            return &mut self.durations;
        }
        if self.other_durations.len() >= OTHER_SYSTEMS && !self.other_durations.contains_key(system) {
            self.other_durations.pop_first();
        }
        let new = || Durations::new(&self.config.profile);
        self.other_durations.entry(system.to_owned()).or_insert_with(new)
    }

    fn reserve_fences(&mut self, to: u64) {
        self.next_fence = self.next_fence.max(to);
        self.fences_to = self.next_fence;
    }

    /// What a new job has in common with those before, while states are not worked out yet.
    pub(super) fn share_again(&mut self, slot: u32, shared: &[u32]) {
        for &node in shared {
            let at = At { job: slot, node };
            if let Some(proven) = self.proven_elsewhere(at) {
                self.jobs[slot].write(node, &proven);
                self.jobs[slot].set_raw(node, TaskState::Done);
                continue;
            }
            let others = self.open_copies(at);
            let other = others.as_slice().iter().find(|c| c.job != slot);
            if let Some(extra) = other.and_then(|c| self.jobs[c.job].extra(c.node)).cloned() {
                let given_up = extra.given_up;
                *self.jobs[slot].extra_mut(node) = extra;
                if given_up {
                    self.renew(at);
                }
            }
        }
    }

    /// Takes in one record. Every record sets what it speaks of, none counts up, so reading it again
    /// does no harm. One of a job that is not in the books is passed over.
    fn replay(&mut self, record: Record) {
        match record {
            Record::Maker { number, name, node, cores } => self.replay_maker(number, name, &node, cores),
            Record::FencesTo(Fence(to)) => self.reserve_fences(to),
            Record::Clock { from, ahead } => {
                self.now = self.now.max(from);
                self.clock.remember(from, ahead);
            }
            Record::Submitted(..) => {}
            Record::Done { job, node, maker, millis, cpu_millis, proof_bytes, found, at } => {
                let proven = Proven { maker, millis, cpu_millis, proof_bytes, found, at };
                self.place(job, node).into_iter().for_each(|at| self.replay_done(at, &proven));
            }
            Record::Charged { job, node, reason, attempts, worker } => {
                let machine = worker.and_then(|w| self.makers.get(w as usize)).map(|m| m.node);
                let why = "failed before the last restart";
                self.place(job, node)
                    .into_iter()
                    .for_each(|at| self.charge(at, reason, attempts, machine, why));
            }
            Record::Reopened { job, node, attempts, maker, suspected, at: when } => {
                if let Some(at) = self.place(job, node) {
                    self.replay_reopened(at, attempts, maker, when);
                }
                maker.into_iter().for_each(|maker| self.suspect(maker, suspected));
            }
            Record::GivenUp { job, node } => {
                let at = self.place(job, node);
                let copies = at.map(|at| self.copies(at));
                for copy in copies.iter().flat_map(|copies| copies.as_slice()) {
                    self.jobs[copy.job].extra_mut(copy.node).given_up = true;
                }
            }
            Record::Suspected { maker, times } => self.suspect(maker, times),
            Record::Changed { job, suspended, deadline, priority } => {
                let spec = match self.jobs.slot(job) {
                    Some(slot) => Some(&mut self.jobs[slot].spec),
                    None => self.jobs.past_mut(job).map(|past| &mut past.view.spec),
                };
                if let Some(spec) = spec {
                    (spec.suspended, spec.deadline, spec.priority) = (suspended, deadline, priority);
                }
            }
            Record::State(job, state, at) => {
                if state == JobState::Proving {
                    self.trust_all();
                }
                if let Some(slot) = self.jobs.slot(job) {
                    self.replay_state(slot, state, at);
                }
            }
            Record::Forgotten(job) => {
                self.last_job = self.last_job.max(job.0);
                self.jobs.remove_past(job);
                self.jobs.slot(job).into_iter().for_each(|slot| self.drop_job(slot));
            }
        }
    }

    fn place(&self, job: super::JobId, node: u32) -> Option<At> {
        let slot = self.jobs.slot(job).filter(|slot| node < self.jobs[*slot].shape().total())?;
        Some(At { job: slot, node })
    }

    fn replay_maker(&mut self, number: u32, name: String, node: &str, cores: u16) {
        let node = self.node_number(node);
        let Maker { suspected, suspected_at, .. } = self.makers[number as usize];
        self.makers.set(number, Maker { name, node, cores, suspected, suspected_at });
    }

    fn replay_done(&mut self, at: At, proven: &Proven) {
        self.now = self.now.max(proven.at);
        let job = &mut self.jobs[at.job];
        if job.is_done(at.node) {
            // Read before, or its maker was not known: see `known`. An earlier proof of it was found bad.
            let written = job.proven(at.node);
            if written.maker == NO_MAKER && written.at <= proven.at {
                job.write(at.node, proven);
            }
        } else if !proven.found {
            let cores = self.makers.get(proven.maker as usize).map_or(0, |m| m.cores);
            let (name, kind) = (self.jobs[at.job].tree.system.name(), self.jobs[at.job].kind(at.node));
            self.durations_of(&name).learn(kind, cores, proven.millis);
        }
        for copy in self.open_copies(at).as_slice() {
            let job = &mut self.jobs[copy.job];
            if proven.at >= job.since {
                job.write(copy.node, proven);
                job.set_raw(copy.node, TaskState::Done);
            }
        }
    }

    fn replay_reopened(&mut self, at: At, attempts: u8, maker: Option<u32>, when: Millis) {
        let copies = self.copies(at);
        for copy in copies.as_slice() {
            // The place named was not hidden by a finished parent then, whatever it is now.
            let meant = *copy == at || self.is_unsealed(*copy);
            let job = &self.jobs[copy.job];
            if meant && job.is_done(copy.node) && job.proven(copy.node).at <= when {
                self.jobs[copy.job].set_raw(copy.node, TaskState::Waiting);
                self.reopen_below(*copy);
            }
        }
        let machine = maker.and_then(|w| self.makers.get(w as usize)).map(|m| m.node);
        let why = "bad proof before the last restart";
        self.charge(at, super::Reason::BadProof, attempts, machine, why);
    }

    /// As `align_children`, while states are not worked out yet.
    fn reopen_below(&mut self, at: At) {
        let children = self.jobs[at.job].shape().children(crate::tree::NodeId(at.node));
        for child in children.as_slice() {
            let child = At { job: at.job, node: child.0 };
            if self.jobs[child.job].is_done(child.node) && !self.open_copies(child).as_slice().is_empty() {
                self.jobs[child.job].set_raw(child.node, TaskState::Waiting);
                self.reopen_below(child);
            }
        }
    }

    fn replay_state(&mut self, slot: u32, state: JobState, at: Millis) {
        self.now = self.now.max(at);
        if state == JobState::Proving {
            return self.reenter(slot);
        }
        (self.jobs[slot].state, self.jobs[slot].ended) = (state, Some(at));
    }

    /// Works out all that follows from what is done and charged.
    fn settle_restored(&mut self) {
        for slot in self.jobs.by_id.values().copied().collect::<Vec<_>>() {
            let given_up = |(node, extra): (&u32, &Extra)| extra.given_up.then_some(*node);
            let failed: Vec<u32> = self.jobs[slot].extra.iter().filter_map(given_up).collect();
            let job = &mut self.jobs[slot];
            for node in failed {
                if !job.is_done(node) {
                    job.set_raw(node, TaskState::Failed);
                }
            }
            job.rebuild();
            if job.state == JobState::Checking && job.open > 0 {
                job.state = JobState::Proving;
            }
            if job.state == JobState::Proving && job.open == 0 {
                job.state = JobState::Checking;
            }
            job.asked = false;
        }
        self.rank();
        self.drop_old_trees();
        self.forget_names();
        self.out.clear();
    }
}
