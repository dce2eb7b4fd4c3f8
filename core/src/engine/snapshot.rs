//! The engine's books as bytes, and back: from a snapshot and the records since.

use super::Engine;
use super::codec::{BadBytes, Reader, Writer};
use super::extra::{Extra, Word};
use super::past::{get_past, put_past};
use super::rebuild::Rebuilding;
use super::record::{get_maker, get_spec, get_state, get_system, put_maker, put_spec, put_state, put_system};
use super::table::{Job, Proven};
use super::{Config, JobSpec, Millis, Record, RestoreError, TaskState, Unresolved};
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
        self.snapshots.set(self.snapshots.get() + 1);
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
        let failed = |node: u32| job.state_of(node) == TaskState::Failed;
        let lasts =
            |(node, extra): &(&u32, &Extra)| extra.charged() > 0 || extra.class.is_some() || failed(**node);
        let lasting = || job.extra.iter().filter(lasts);
        w.varint(lasting().count() as u64);
        for (node, extra) in lasting() {
            w.varint(u64::from(*node));
            w.byte(u8::from(failed(*node)));
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
        w.varint(extra.failed.len() as u64);
        for (node, fence) in &extra.failed {
            w.text(&self.nodes[*node as usize]);
            w.varint(*fence);
        }
        w.text(&extra.why);
    }

    /// The engine as it was when its last record was written; its time goes on from there. The records are those
    /// written after the snapshot, in their order, each once. `resolve` finds a job's tree again: the number of
    /// calls of each transaction and the leaves. A job whose tree can't be built any more is left out: the commands
    /// of the next event drop it from the journal and say so.
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
        let mut rebuilding = Rebuilding { resolve: &mut resolve, dropped, left_out: vec![] };
        if let Some(bytes) = snapshot {
            engine.read_snapshot(bytes, &mut rebuilding)?;
        }
        for record in records {
            engine.replay(record, &mut rebuilding)?;
            engine.out.clear();
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
            self.replay_maker(number, name, &node, r.number()?);
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
        let (spec, system, submitted) = (get_spec(r)?, get_system(r)?, r.varint()?);
        let (ended, state, policy, total) = (r.option()?, get_state(r)?, r.number()?, r.number::<u32>()?);
        let slot = rebuilding.enter(self, (spec, system), submitted, Some(total))?.map(|(slot, _)| slot);
        if let Some(slot) = slot {
            let job = &mut self.jobs[slot];
            (job.ended, job.state) = (ended, state);
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
            let (node, failed) = (r.number::<u32>()?, r.flag()?);
            let extra = self.read_extra(r)?;
            if node >= total {
                return Err(BadBytes::Meaningless("node").into());
            }
            if let Some(slot) = slot {
                *self.jobs[slot].extra_mut(node) = extra;
                if failed {
                    self.jobs[slot].set_raw(node, TaskState::Failed);
                }
            }
        }
        slot.into_iter().for_each(|slot| self.jobs[slot].rebuild());
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
        let mut failed = vec![];
        for _ in 0..r.number::<u32>()? {
            let name = r.text()?;
            failed.push((self.node_number(&name), r.varint()?));
        }
        Ok(Extra { attempts, class, nodes, words, failed, why: r.text()?, ..Extra::default() })
    }

    /// What was learned under the proof system of this name.
    pub(super) fn durations_of(&mut self, system: &str) -> &mut Durations {
        if system == self.system.name() {
            return &mut self.durations;
        }
        if self.other_durations.len() >= OTHER_SYSTEMS && !self.other_durations.contains_key(system) {
            self.other_durations.pop_first();
        }
        let new = || Durations::new(&self.config.profile);
        self.other_durations.entry(system.to_owned()).or_insert_with(new)
    }

    pub(super) fn reserve_fences(&mut self, to: u64) {
        self.next_fence = self.next_fence.max(to);
        self.fences_to = self.next_fence;
    }

    /// Works out all that follows from what is done and charged, and is asked for again.
    fn settle_restored(&mut self) {
        for slot in self.jobs.by_id.values().copied().collect::<Vec<_>>() {
            self.jobs[slot].rebuild();
            (self.jobs[slot].asked, self.jobs[slot].asked_before) = (false, false);
        }
        self.rank();
        self.drop_old_trees();
        self.forget_names();
        self.out.clear();
    }
}
