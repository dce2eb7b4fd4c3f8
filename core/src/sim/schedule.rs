//! List scheduling of one job in virtual time, by the engine's rules: whenever a machine has room,
//! the ready task of those it takes that stands first in the order starts, large ones before small ones.

use super::bitset::RankSet;
use super::machines::{MachineId, Machines};
use super::pools::{Classes, Costs, Pool};
use crate::circuit::Kind;
use crate::order::{Between, Policy};
use crate::tree::{NodeId, Shape};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// In place of the number of proofs a node waits for.
const DONE: u8 = u8::MAX;

/// A job on given machines; run it in as many orders as wanted.
#[derive(Debug, Clone)]
pub struct Plan<'a> {
    shape: &'a Shape,
    costs: Costs,
    classes: Classes,
    /// The largest class goes first whatever its key: no other has its needs.
    one_of_each_size: bool,
    machines: Machines,
    /// Parent of each node; the root's is itself.
    parents: Vec<u32>,
    /// How many proofs each node waits for.
    waits: Vec<u8>,
}

/// What came of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// From the start of the first proof to the end of the last, in milliseconds.
    pub makespan: u64,
    /// Sum of all proofs' durations by kind, in milliseconds.
    pub busy: [u64; 5],
}

impl<'a> Plan<'a> {
    /// A job's tree on these machines.
    pub fn new(shape: &'a Shape, pools: &[Pool], costs: &Costs) -> Self {
        let classes = Classes::new(&costs.needs, pools);
        let one_of_each_size = classes.differ_in_needs();
        let machines = Machines::new(pools, &classes);
        let parents = parents(shape);
        let mut waits = vec![0; parents.len()];
        for (node, parent) in parents.iter().enumerate() {
            waits[*parent as usize] += u8::from(*parent as usize != node);
        }
        Self { shape, costs: *costs, classes, one_of_each_size, machines, parents, waits }
    }

    /// The same job with some proofs made already: a node that is done counts as if it had never
    /// been part of the tree. What stands below a done node has to be done, too.
    pub fn without(mut self, done: impl Fn(NodeId) -> bool) -> Self {
        for node in 0..self.parents.len() {
            let parent = self.parents[node] as usize;
            if done(NodeId(node as u32)) {
                self.waits[parent] -= u8::from(parent != node);
                self.waits[node] = DONE;
            }
        }
        self
    }

    /// Runs the job in an order.
    ///
    /// `None` when it isn't done by `limit` (milliseconds): because the order is worse than one
    /// known already, or because a task fits no machine.
    pub fn run(&self, policy: &Policy, limit: u64) -> Option<Schedule> {
        let millis = self.costs.millis;
        self.run_with(policy, limit, |_, kind| millis[kind.index()])
    }

    /// The same with a duration (milliseconds) for every single proof: stragglers, slow machines.
    pub fn run_with(
        &self,
        policy: &Policy,
        limit: u64,
        duration: impl Fn(NodeId, Kind) -> u32,
    ) -> Option<Schedule> {
        self.run_in_order(policy.key, policy.between, limit, duration)
    }

    /// The same in an order that is no policy; see [`Policy`] for what it is made of.
    pub fn run_in_order(
        &self,
        key: impl Fn(&Shape, NodeId) -> u32,
        between: Between,
        limit: u64,
        duration: impl Fn(NodeId, Kind) -> u32,
    ) -> Option<Schedule> {
        if self.waits[self.shape.root().index()] == DONE {
            return Some(Schedule { makespan: 0, busy: [0; 5] });
        }
        let order = Order::new(self.shape, key);
        let mut run = Run::new(self, &order);
        loop {
            run.start_all(between, &duration);
            let now = run.running.next_end()?;
            if now > limit {
                return None;
            }
            run.now = now;
            if run.finish_all() {
                return Some(Schedule { makespan: now, busy: run.busy });
            }
        }
    }
}

fn parents(shape: &Shape) -> Vec<u32> {
    let (calls, bases) = (shape.total_calls(), shape.base(0).0);
    let mut parents: Vec<u32> = Vec::with_capacity(shape.total() as usize);
    parents.extend(calls..2 * calls);
    parents.extend(calls + 1..=2 * calls);
    let mut end = calls as usize;
    for tx in 0..shape.transactions() {
        end += usize::from(shape.calls(tx));
        if shape.calls(tx) > 0 {
            parents[end - 1] = bases + tx;
        }
    }
    let root = shape.root();
    parents.extend((bases..shape.total()).map(|n| shape.parent(NodeId(n)).unwrap_or(root).0));
    parents
}

/// Ranks by key and node number.
struct Order {
    rank: Vec<u32>,
    node: Vec<u32>,
}

impl Order {
    fn new(shape: &Shape, key: impl Fn(&Shape, NodeId) -> u32) -> Self {
        let mut keyed: Vec<(u32, u32)> = shape.nodes().map(|id| (key(shape, id), id.0)).collect();
        sort_by_key(&mut keyed);
        let mut rank = vec![0; keyed.len()];
        for (place, (_, node)) in keyed.iter().enumerate() {
            rank[*node as usize] = place as u32;
        }
        Self { rank, node: keyed.into_iter().map(|(_, node)| node).collect() }
    }
}

/// Stable radix sort; digits that are the same everywhere cost one counting pass only.
fn sort_by_key(items: &mut Vec<(u32, u32)>) {
    const BITS: u32 = 11;
    let mut spare = vec![(0, 0); items.len()];
    for shift in [0, BITS, 2 * BITS] {
        let digit = |key: u32| (key >> shift & ((1 << BITS) - 1)) as usize;
        let mut places = [0u32; 1 << BITS];
        for (key, _) in items.iter() {
            places[digit(*key)] += 1;
        }
        if items.first().is_none_or(|(key, _)| places[digit(*key)] as usize == items.len()) {
            continue;
        }
        let mut sum = 0;
        for place in &mut places {
            (*place, sum) = (sum, sum + *place);
        }
        for item in items.iter() {
            let place = &mut places[digit(item.0)];
            spare[*place as usize] = *item;
            *place += 1;
        }
        std::mem::swap(items, &mut spare);
    }
}

/// One proof being made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Running {
    end: u64,
    node: u32,
    machine: MachineId,
}

/// Proofs being made: those of usual duration end in the order they started, kind by kind; only the
/// others need a heap.
#[derive(Default)]
struct RunningSet {
    usual: [VecDeque<Running>; 5],
    odd: BinaryHeap<Reverse<Running>>,
}

impl RunningSet {
    fn add(&mut self, kind: Kind, running: Running, usual: bool) {
        if usual {
            self.usual[kind.index()].push_back(running);
        } else {
            self.odd.push(Reverse(running));
        }
    }

    fn next_end(&self) -> Option<u64> {
        let usual = self.usual.iter().filter_map(|queue| queue.front());
        usual.chain(self.odd.peek().map(|r| &r.0)).map(|r| r.end).min()
    }

    fn take_ended(&mut self, now: u64) -> Option<Running> {
        for queue in &mut self.usual {
            if queue.front().is_some_and(|r| r.end <= now) {
                return queue.pop_front();
            }
        }
        if self.odd.peek().is_some_and(|r| r.0.end <= now) {
            return self.odd.pop().map(|r| r.0);
        }
        None
    }
}

struct Run<'a> {
    plan: &'a Plan<'a>,
    order: &'a Order,
    machines: Machines,
    waits: Vec<u8>,
    ready: Vec<RankSet>,
    running: RunningSet,
    now: u64,
    busy: [u64; 5],
    kind_ends: [u32; 5],
}

impl<'a> Run<'a> {
    fn new(plan: &'a Plan<'a>, order: &'a Order) -> Self {
        let shape = plan.shape;
        let (calls, total) = (shape.total_calls(), shape.total());
        let mut run = Self {
            plan,
            order,
            machines: plan.machines.clone(),
            waits: plan.waits.clone(),
            ready: plan.classes.needs.iter().map(|_| RankSet::new(order.rank.len())).collect(),
            running: RunningSet::default(),
            now: 0,
            busy: [0; 5],
            kind_ends: [calls, 2 * calls, 2 * calls + shape.transactions(), total - 1, total],
        };
        for node in 0..total {
            if run.waits[node as usize] == 0 {
                run.add_ready(node);
            }
        }
        run
    }

    fn kind(&self, node: u32) -> Kind {
        Kind::ALL[self.kind_ends.iter().filter(|end| **end <= node).count()]
    }

    fn add_ready(&mut self, node: u32) {
        let class = self.plan.classes.of(self.kind(node));
        self.ready[class].insert(self.order.rank[node as usize]);
    }

    /// Starts ready tasks until nothing more has room.
    fn start_all(&mut self, between: Between, duration: &impl Fn(NodeId, Kind) -> u32) {
        let mut full = [false; 5];
        loop {
            let open = (0..self.ready.len()).rev().filter(|class| !full[*class]);
            let mut heads = open.filter_map(|class| self.ready[class].first().map(|rank| (rank, class)));
            let next = match between {
                Between::LargeFirst if self.plan.one_of_each_size => heads.next(),
                Between::LargeFirst => self.largest_head(&full),
                Between::ByKey => heads.min(),
            };
            let Some((rank, class)) = next else { return };
            let Some(machine) = self.machines.take(class) else {
                full[class] = true;
                continue;
            };
            self.ready[class].remove(rank);
            self.start(self.order.node[rank as usize], machine, duration);
        }
    }

    /// The first of the largest tasks that may have room, where classes are of one size: kept out of the usual case's
    /// way.
    #[inline(never)]
    fn largest_head(&self, full: &[bool; 5]) -> Option<(u32, usize)> {
        let open = (0..self.ready.len()).filter(|class| !full[*class]);
        let heads = open.filter_map(|class| self.ready[class].first().map(|rank| (rank, class)));
        heads.min_by_key(|(rank, class)| (Reverse(self.plan.classes.needs[*class]), *rank))
    }

    fn start(&mut self, node: u32, machine: MachineId, duration: &impl Fn(NodeId, Kind) -> u32) {
        let kind = self.kind(node);
        let millis = duration(NodeId(node), kind);
        self.busy[kind.index()] += u64::from(millis);
        let running = Running { end: self.now + u64::from(millis), node, machine };
        self.running.add(kind, running, millis == self.plan.costs.millis[kind.index()]);
    }

    /// Ends all proofs due now; true if the root was among them.
    fn finish_all(&mut self) -> bool {
        let root = self.plan.shape.root().0;
        while let Some(Running { node, machine, .. }) = self.running.take_ended(self.now) {
            if node == root {
                return true;
            }
            let class = self.plan.classes.of(self.kind(node));
            self.machines.give_back(machine, class);
            let parent = self.plan.parents[node as usize];
            self.waits[parent as usize] -= 1;
            if self.waits[parent as usize] == 0 {
                self.add_ready(parent);
            }
        }
        false
    }
}

#[cfg(test)]
mod tests;
