//! Workers and the indexes by which one is found without looking at all.

use super::takers::{Keys, Takers};
use super::{Gone, Millis, Serves, Session, WorkerSpec, WorkerState};
use crate::circuit::{Kind, KindSet};
use crate::ids::TaskId;
use crate::profile::Needs;
use hashbrown::HashMap;
use std::collections::BTreeSet;
use std::ops::{Index, IndexMut};

/// Lost leases remembered of a worker: their results still count, and it may go on with them.
const REMEMBERED: usize = 64;

/// Whether something that needs `needs` goes into `room`.
pub(crate) fn fits(needs: Needs, room: Needs) -> bool {
    needs.cores <= room.cores && needs.memory_mib <= room.memory_mib
}

/// What a worker has to take to be given a task: its kind and namespace.
pub(crate) type Want<'a> = (Kind, &'a str);

/// A lease that is no longer the worker's, though it may still be working on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lost {
    pub(crate) fence: u64,
    pub(crate) task: TaskId,
    pub(crate) started: Option<Millis>,
    /// It was told to stop, so it will not go on.
    pub(crate) revoked: bool,
}

/// A worker's login.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) session: Session,
    pub(crate) name: String,
    /// Its machine, by number.
    pub(crate) node: u32,
    pub(crate) capacity: Needs,
    /// Kinds of proof that it takes.
    pub(crate) kinds: KindSet,
    /// Whose tasks it proves.
    pub(crate) serves: Serves,
    pub(crate) prefetch: u16,
    /// What its running leases need together.
    pub(crate) used: Needs,
    /// Slots of leases that run.
    pub(crate) running: Vec<u32>,
    /// Slots of leases queued, oldest first.
    pub(crate) queue: Vec<u32>,
    pub(crate) state: WorkerState,
    pub(crate) heard: Millis,
    /// Its number among makers.
    pub(crate) maker: u32,
    pub(crate) lost: Vec<Lost>,
    /// Largest class among the running leases.
    pub(crate) largest: u8,
    /// It said that it leaves.
    pub(crate) drains: bool,
    /// Its expiry is being waited for.
    pub(crate) armed: bool,
    /// Too much failed in a row on its machine: it takes no leases for a while.
    pub(crate) rests: bool,
    /// Much failed on its machine, and nothing was proven there since.
    pub(crate) on_trial: bool,
    /// Its leases' codes are made with it.
    pub(crate) key: [u8; 32],
    /// Nothing goes to it until this fits: see `hold`.
    pub(crate) held_for: Option<Needs>,
    /// When its last lease ended, or it logged in; says something while it has none.
    pub(crate) idle_since: Millis,
    present: bool,
    keys: Keys,
}

impl Worker {
    pub(crate) fn free(&self) -> Needs {
        Needs {
            cores: self.capacity.cores.saturating_sub(self.used.cores),
            memory_mib: self.capacity.memory_mib.saturating_sub(self.used.memory_mib),
        }
    }

    pub(crate) fn takes_leases(&self) -> bool {
        self.present && self.state == WorkerState::Live && !self.rests
    }

    /// Its state as it is shown.
    pub(crate) fn shown_state(&self) -> WorkerState {
        if self.rests && self.state == WorkerState::Live { WorkerState::Resting } else { self.state }
    }

    pub(crate) fn is_present(&self) -> bool {
        self.present
    }

    /// Whether it is kept free for a task that does not fit yet.
    pub(crate) fn is_held(&self) -> bool {
        self.held_for.is_some_and(|needs| !fits(needs, self.free()))
    }

    /// Whether it takes tasks of this kind and namespace.
    pub(crate) fn takes(&self, kind: Kind, namespace: &str) -> bool {
        self.kinds.contains(kind) && self.serves.contains(namespace)
    }

    /// Whether it takes tasks of this kind and namespace and has, in all, what they need.
    pub(crate) fn could_take(&self, needs: Needs, kind: Kind, namespace: &str) -> bool {
        self.takes(kind, namespace) && fits(needs, self.capacity)
    }

    /// Whether much failed on its machine, nothing was proven there since, and it is busy with the one task that it gets to
    /// try.
    pub(crate) fn is_on_probe(&self) -> bool {
        self.on_trial && !self.is_idle()
    }

    /// Whether it has no lease.
    pub(crate) fn is_idle(&self) -> bool {
        self.running.is_empty() && self.queue.is_empty()
    }

    fn keys(&self) -> Keys {
        if !self.takes_leases() {
            return Keys::default();
        }
        let free = self.free();
        let some = free.cores > 0 && free.memory_mib > 0 && !self.is_held() && !self.is_on_probe();
        let queued = self.queue.len() as u16;
        let room = queued < self.prefetch
            && !self.running.is_empty()
            && self.held_for.is_none()
            && !self.is_on_probe();
        Keys {
            free: some.then_some((self.capacity, free)),
            room: room.then_some((self.capacity, self.largest, queued)),
            counted: true,
        }
    }

    pub(crate) fn remember(&mut self, lost: Lost) {
        if self.lost.len() >= REMEMBERED {
            self.lost.remove(0);
        }
        self.lost.push(lost);
    }
}

/// All workers.
#[derive(Debug, Default)]
pub(crate) struct Workers {
    slab: Vec<Worker>,
    vacant: Vec<u32>,
    by_session: HashMap<Session, u32>,
    by_name: HashMap<String, u32>,
    /// Those that take leases, by the kinds they take and the namespaces they serve, fewest first: mostly there is
    /// one entry, for all.
    takers: Vec<Takers>,
    /// By machine.
    by_node: HashMap<u32, Vec<u32>>,
    /// Machines where much failed and nothing was proven since, resting or not.
    on_trial: BTreeSet<u32>,
    /// Machines that rest.
    resting: BTreeSet<u32>,
}

impl Index<u32> for Workers {
    type Output = Worker;
    fn index(&self, index: u32) -> &Worker {
        &self.slab[index as usize]
    }
}

impl IndexMut<u32> for Workers {
    fn index_mut(&mut self, index: u32) -> &mut Worker {
        &mut self.slab[index as usize]
    }
}

impl Workers {
    pub(crate) fn by_session(&self, session: Session) -> Option<u32> {
        self.by_session.get(&session).copied()
    }

    pub(crate) fn by_name(&self, name: &str) -> Option<u32> {
        self.by_name.get(name).copied()
    }

    /// All that are in the books, in the order of their places.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Worker)> {
        self.slab.iter().enumerate().filter(|(_, w)| w.present).map(|(i, w)| (i as u32, w))
    }

    /// Adds a login; [`Workers::reindex`] has to follow.
    pub(crate) fn insert(
        &mut self,
        session: Session,
        spec: &WorkerSpec,
        (node, maker, key): (u32, u32, [u8; 32]),
        now: Millis,
    ) -> u32 {
        let worker = Worker {
            session,
            name: spec.name.clone(),
            node,
            capacity: spec.capacity,
            kinds: spec.kinds,
            serves: spec.serves.clone(),
            prefetch: spec.prefetch,
            used: Needs { cores: 0, memory_mib: 0 },
            running: vec![],
            queue: vec![],
            state: WorkerState::Live,
            heard: now,
            maker,
            lost: vec![],
            largest: 0,
            drains: false,
            armed: false,
            rests: false,
            on_trial: self.on_trial.contains(&node),
            key,
            held_for: None,
            idle_since: now,
            present: true,
            keys: Keys::default(),
        };
        let index = match self.vacant.pop() {
            Some(index) => {
                self.slab[index as usize] = worker;
                index
            }
            None => {
                self.slab.push(worker);
                self.slab.len() as u32 - 1
            }
        };
        self.by_session.insert(session, index);
        self.by_name.insert(spec.name.clone(), index);
        self.by_node.entry(node).or_default().push(index);
        index
    }

    /// Takes a worker without leases out of the books.
    pub(crate) fn remove(&mut self, index: u32) {
        self[index].present = false;
        self.reindex(index);
        let node = self[index].node;
        if let Some(there) = self.by_node.get_mut(&node) {
            there.retain(|other| *other != index);
            if there.is_empty() {
                self.by_node.remove(&node);
            }
        }
        let worker = &mut self.slab[index as usize];
        let name = std::mem::take(&mut worker.name);
        self.by_session.remove(&worker.session);
        if self.by_name.get(&name) == Some(&index) {
            self.by_name.remove(&name);
        }
        self.vacant.push(index);
    }

    /// Its connection is gone or it is back under another session.
    pub(crate) fn rename(&mut self, index: u32, session: Session) {
        let old = std::mem::replace(&mut self[index].session, session);
        self.by_session.remove(&old);
        self.by_session.insert(session, index);
    }

    /// Keeps a worker free until this fits, or lets it go. One that left since is not there to be let go.
    pub(crate) fn hold(&mut self, index: u32, needs: Option<Needs>) {
        self[index].held_for = needs;
        self.reindex(index);
    }

    /// Brings the indexes up to date after a worker changed.
    pub(crate) fn reindex(&mut self, index: u32) {
        let worker = &self.slab[index as usize];
        let (old, new) = (worker.keys, worker.keys());
        if old == new {
            return;
        }
        let (node, capacity) = (worker.node, worker.capacity);
        let key = (worker.kinds, &worker.serves);
        let place = self.takers.partition_point(|takers| (takers.kinds, &takers.serves) < key);
        if self.takers.get(place).is_none_or(|takers| (takers.kinds, &takers.serves) != key) {
            self.takers.insert(place, Takers::new(key.0, key.1.clone()));
        }
        self.takers[place].reindex(index, capacity, node, (old, new));
        if self.takers[place].is_empty() {
            self.takers.remove(place);
        }
        self.slab[index as usize].keys = new;
    }

    /// Those that take leases, by the kinds they take and the namespaces they serve, fewest first.
    pub(crate) fn takers(&self) -> &[Takers] {
        &self.takers
    }

    /// Those that take leases of this kind and namespace.
    pub(crate) fn takers_of<'a>(
        &'a self,
        kind: Kind,
        namespace: &'a str,
    ) -> impl Iterator<Item = &'a Takers> {
        self.takers.iter().filter(move |takers| takers.take(kind, namespace))
    }

    /// Kinds of which a worker could run a task of a namespace with these needs now.
    pub(crate) fn free_kinds_for(&self, needs: Needs, namespace: &str) -> KindSet {
        let free =
            |takers: &&Takers| takers.serves.contains(namespace) && takers.free_for(needs).next().is_some();
        let takers = self.takers.iter().filter(free);
        takers.fold(KindSet::NONE, |kinds, takers| kinds.or(takers.kinds))
    }

    /// Kinds that are taken by workers that take this one of this namespace.
    pub(crate) fn rivals(&self, kind: Kind, namespace: &str) -> KindSet {
        let takers = self.takers_of(kind, namespace);
        takers.fold(KindSet::NONE, |kinds, takers| kinds.or(takers.kinds))
    }

    pub(crate) fn any_free(&self) -> bool {
        self.takers.iter().any(Takers::any_free)
    }

    pub(crate) fn any_room(&self) -> bool {
        self.takers.iter().any(Takers::any_room)
    }

    /// The smallest worker that can run this now, on none of these machines; of equal ones one that takes the
    /// fewest kinds and serves the fewest namespaces.
    pub(crate) fn best(&self, needs: Needs, (kind, namespace): Want<'_>, avoid: &[u32]) -> Option<u32> {
        self.best_of(needs, (kind, namespace), |index| !avoid.contains(&self[index].node))
    }

    /// The smallest worker of these that can run this now.
    pub(crate) fn best_of(
        &self,
        needs: Needs,
        (kind, namespace): Want<'_>,
        may: impl Fn(u32) -> bool,
    ) -> Option<u32> {
        let takers = self.takers_of(kind, namespace);
        let best = takers.filter_map(|takers| takers.free_for(needs).find(|index| may(*index)));
        best.min_by_key(|index| self[*index].capacity)
    }

    /// The worker that can run this now of which this is least, the smallest of several.
    pub(crate) fn best_by(
        &self,
        needs: Needs,
        (kind, namespace): Want<'_>,
        key: impl Fn(u32) -> u32,
    ) -> Option<u32> {
        let takers = self.takers_of(kind, namespace);
        let free = takers.flat_map(|takers| takers.free_for(needs));
        free.min_by_key(|index| (key(*index), self[*index].capacity))
    }

    /// Whether a worker that takes leases could ever run this on none of these machines.
    pub(crate) fn could(&self, needs: Needs, want: Want<'_>, avoid: &[u32]) -> bool {
        self.could_on(needs, want, |node| !avoid.contains(&node))
    }

    /// Whether a worker that takes leases could ever run this on a machine of these.
    pub(crate) fn could_on(
        &self,
        needs: Needs,
        (kind, namespace): Want<'_>,
        may: impl Fn(u32) -> bool,
    ) -> bool {
        self.takers_of(kind, namespace).any(|takers| takers.could(needs, &may))
    }

    /// Whether one that rests, on none of these machines, could run this when its rest is over. Looks at all that
    /// rest.
    pub(crate) fn could_later(&self, needs: Needs, (kind, namespace): Want<'_>, avoid: &[u32]) -> bool {
        let nodes = self.resting.iter().filter(|node| !avoid.contains(node));
        nodes.flat_map(|node| self.on_node(*node)).any(|index| {
            let worker = &self[*index];
            worker.shown_state() == WorkerState::Resting && worker.could_take(needs, kind, namespace)
        })
    }

    /// Workers of a machine.
    pub(crate) fn on_node(&self, node: u32) -> &[u32] {
        self.by_node.get(&node).map_or(&[], Vec::as_slice)
    }

    /// Whether a machine is one where much failed and nothing was proven since.
    pub(crate) fn is_on_trial(&self, node: u32) -> bool {
        self.on_trial.contains(&node)
    }

    pub(crate) fn any_on_trial(&self) -> bool {
        !self.on_trial.is_empty()
    }

    /// Puts a machine on trial, or takes it from there.
    pub(crate) fn try_out(&mut self, node: u32, on_trial: bool) {
        let changed = if on_trial { self.on_trial.insert(node) } else { self.on_trial.remove(&node) };
        if !changed {
            return;
        }
        for index in self.on_node(node).to_vec() {
            self[index].on_trial = on_trial;
            self.reindex(index);
        }
    }

    /// Workers of a machine take no leases, or do again.
    pub(crate) fn set_rest(&mut self, node: u32, rests: bool) {
        if rests {
            self.resting.insert(node);
        } else {
            self.resting.remove(&node);
        }
        for index in self.on_node(node).to_vec() {
            self[index].rests = rests;
            self.reindex(index);
        }
    }

    /// Those on trial that may try a task now.
    pub(crate) fn probes(&self) -> Vec<u32> {
        let ready = |index: &u32| {
            let worker = &self[*index];
            worker.takes_leases() && worker.is_idle() && !worker.is_held()
        };
        let workers = self.on_trial.iter().flat_map(|node| self.on_node(*node));
        workers.copied().filter(ready).collect()
    }

    /// A worker of these takers to queue a lease of this class and kind at: of the smallest capacity of all
    /// that it fits into, running leases at least as large, so that room comes when one of them ends.
    pub(crate) fn best_room(
        &self,
        takers: &Takers,
        class: u8,
        (kind, namespace): Want<'_>,
        classes: &[Needs],
    ) -> Option<u32> {
        let needs = classes[usize::from(class)];
        let home = self.takers_of(kind, namespace).filter_map(|takers| takers.home(needs)).min()?;
        takers.room_at(home, (0..classes.len() as u8).filter(|c| fits(needs, classes[usize::from(*c)])))
    }

    /// What a connection's end makes of a worker.
    pub(crate) fn gone(&mut self, index: u32, gone: Gone) {
        if gone == Gone::Disconnected {
            self[index].state = WorkerState::Disconnected;
        }
        self.reindex(index);
    }
}
