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
mod tests {
    use super::*;
    use crate::circuit::KindSet;
    use crate::order::POLICIES;
    use crate::profile::{Needs, Profile};
    use proptest::prelude::*;

    fn plan<'a>(shape: &'a Shape, vm: u32, small: u32, costs: &Costs) -> Plan<'a> {
        Plan::new(shape, &pools(vm, small, costs), costs)
    }

    fn pools(vm: u32, small: u32, costs: &Costs) -> [Pool; 2] {
        [(vm, costs.needs[0]), (small, costs.needs[1])]
            .map(|(count, capacity)| Pool::of_all_kinds(count, capacity))
    }

    /// Small trees done by hand, in proofs.
    #[test]
    fn makespans_known_by_hand() {
        let costs = Costs::from(&Profile::rfp()).in_proofs();
        for (calls, vm, small, expected) in [
            (&[1u8][..], 1, 0, 4),
            (&[0], 1, 1, 2),
            (&[2], 1, 1, 5),
            (&[2], 2, 0, 5),
            (&[1, 1], 2, 2, 4),
            (&[1, 1], 1, 0, 5),
            (&[0; 8], 0, 1, 15),
            (&[0; 8], 1, 0, 2 + 1 + 1 + 1),
        ] {
            let shape = Shape::new(calls, 7).unwrap();
            let run = plan(&shape, vm, small, &costs).run(&POLICIES[0], u64::MAX).unwrap();
            assert_eq!(run.makespan, expected, "{calls:?} on {vm}+{small}");
            assert_eq!(run.busy.iter().sum::<u64>(), u64::from(shape.total()));
        }
    }

    /// Calls, machines by size and kinds, proofs one after the other.
    type Case<'a> = (&'a [u8], &'a [(u32, Needs, &'a str)], Option<u64>);

    #[test]
    fn machines_run_only_what_they_take() {
        let costs = Costs::from(&Profile::rfp()).in_proofs();
        let [large, small, ..] = costs.needs;
        let rollup = "kernel,base,merge,root";
        let cases: [Case; 10] = [
            // idle, the large one would run four of the small ones at once
            (&[0; 8], &[(1, large, "vm"), (1, small, rollup)], Some(15)),
            (&[0; 8], &[(1, large, "vm,base"), (1, small, rollup)], Some(9)),
            (&[2], &[(1, large, "vm"), (1, small, rollup)], Some(5)),
            (&[1; 4], &[(1, large, "vm"), (2, small, rollup)], Some(1 + 3 + 1 + 1 + 1 + 1)),
            (&[1; 4], &[(4, large, "vm"), (1, small, rollup)], Some(1 + 4 + 4 + 3)),
            (&[1; 4], &[(4, large, "vm"), (1, small, "kernel"), (1, small, "base,merge,root")], Some(2 + 7)),
            (&[1; 4], &[(4, large, "vm"), (4, small, "kernel"), (1, small, "base,merge,root")], Some(2 + 7)),
            // nobody takes what is left
            (&[1], &[(1, large, "vm"), (9, small, "kernel,base,merge")], None),
            (&[1], &[(9, large, "kernel,base,merge,root"), (9, small, "vm")], None),
            (&[0], &[(1, large, "vm"), (1, small, "base,root")], Some(2)),
        ];
        for (calls, machines, expected) in cases {
            let shape = Shape::new(calls, 7).unwrap();
            let pool = |(count, capacity, kinds): &(u32, Needs, &str)| Pool {
                count: *count,
                capacity: *capacity,
                kinds: kinds.parse().unwrap(),
            };
            let pools: Vec<Pool> = machines.iter().map(pool).collect();
            let run = Plan::new(&shape, &pools, &costs).run(&POLICIES[1], u64::MAX);
            assert_eq!(run.map(|run| run.makespan), expected, "{calls:?} on {machines:?}");
        }
    }

    #[test]
    fn a_limit_and_missing_machines_end_a_run() {
        let costs = Costs::from(&Profile::rfp());
        let shape = Shape::new(&[1, 2, 0], 7).unwrap();
        let all = plan(&shape, 1, 1, &costs).run(&POLICIES[0], u64::MAX).unwrap();
        assert_eq!(plan(&shape, 1, 1, &costs).run(&POLICIES[0], all.makespan), Some(all));
        assert_eq!(plan(&shape, 1, 1, &costs).run(&POLICIES[0], all.makespan - 1), None);
        assert_eq!(plan(&shape, 0, 9, &costs).run(&POLICIES[0], u64::MAX), None);
    }

    #[test]
    fn slow_proofs_count_with_their_own_duration() {
        let costs = Costs::from(&Profile::rfp());
        let shape = Shape::new(&[1, 1], 7).unwrap();
        let slow = |node: NodeId, kind: Kind| costs.millis[kind.index()] * if node.0 == 1 { 8 } else { 1 };
        let run = plan(&shape, 2, 2, &costs).run_with(&POLICIES[0], u64::MAX, slow).unwrap();
        assert_eq!((run.makespan, run.busy[0]), (330_000, 270_000));
    }

    proptest! {
        /// Against a plain simulation that looks at every node in every step.
        #[test]
        fn agrees_with_a_plain_simulation(
            calls in prop::collection::vec(0u8..=4, 1..30),
            millis in prop::array::uniform5(1u32..9),
            small in 0u32..5,
            policy in 0..POLICIES.len(),
            salt in any::<u32>(),
        ) {
            let shape = Shape::new(&calls, 7).unwrap();
            let costs = Costs { millis, ..Costs::from(&Profile::rfp()) };
            let odd = |n: NodeId, k: Kind| millis[k.index()] + u32::from((n.0 ^ salt).is_multiple_of(5)) * 7;
            // One large machine: which of several equal ones is taken would matter later.
            let pools = pools(1, small, &costs);
            let fast = Plan::new(&shape, &pools, &costs).run_with(&POLICIES[policy], u64::MAX, odd);
            prop_assert_eq!(fast.map(|run| run.makespan), plain(&shape, &pools, &costs, policy, odd));
        }

        /// As before, on machines that take some kinds only: also when nobody takes some.
        #[test]
        fn agrees_with_a_plain_simulation_of_kinds(
            calls in prop::collection::vec(0u8..=4, 1..30),
            millis in prop::array::uniform5(1u32..9),
            large in 1u32..32,
            small in prop::collection::vec((1u32..4, 1u32..32), 0..4),
            policy in 0..POLICIES.len(),
            salt in any::<u32>(),
        ) {
            let shape = Shape::new(&calls, 7).unwrap();
            let costs = Costs { millis, ..Costs::from(&Profile::rfp()) };
            let odd = |n: NodeId, k: Kind| millis[k.index()] + u32::from((n.0 ^ salt).is_multiple_of(5)) * 7;
            let pool = |count, capacity, kinds| Pool { count, capacity, kinds: KindSet::from_bits(kinds).unwrap() };
            let small = small.iter().map(|(count, kinds)| pool(*count, costs.needs[1], *kinds));
            let pools: Vec<Pool> = small.chain([pool(1, costs.needs[0], large)]).collect();
            let fast = Plan::new(&shape, &pools, &costs).run_with(&POLICIES[policy], u64::MAX, odd);
            prop_assert_eq!(fast.map(|run| run.makespan), plain(&shape, &pools, &costs, policy, odd));
        }

        #[test]
        fn what_is_done_takes_no_time(
            calls in prop::collection::vec(0u8..=4, 1..30),
            picks in prop::collection::vec(any::<bool>(), 300),
        ) {
            let shape = Shape::new(&calls, 7).unwrap();
            let mut done = vec![false; shape.total() as usize];
            for id in shape.nodes() {
                let below = shape.children(id);
                done[id.index()] = below.as_slice().iter().all(|c| done[c.index()]) && picks[id.index() % 300];
            }
            let costs = Costs::from(&Profile::rfp());
            let rest = plan(&shape, 1, 0, &costs).without(|id| done[id.index()]);
            let run = rest.run(&POLICIES[0], u64::MAX).unwrap();
            let left = shape.nodes().filter(|id| !done[id.index()]).count() as u64;
            prop_assert_eq!(run.busy.iter().sum::<u64>(), left * 30_000);
        }
    }

    /// `None` when some task is taken by nobody.
    fn plain(
        shape: &Shape,
        pools: &[Pool],
        costs: &Costs,
        policy: usize,
        duration: impl Fn(NodeId, Kind) -> u32,
    ) -> Option<u64> {
        let mut order: Vec<NodeId> = shape.nodes().collect();
        let large_first = POLICIES[policy].between == Between::LargeFirst;
        let later = |id: &NodeId| large_first && shape.kind(*id) != Kind::Vm;
        order.sort_by_key(|id| (later(id), (POLICIES[policy].key)(shape, *id), id.0));
        let mut ends: Vec<Option<u64>> = vec![None; order.len()];
        // (free cores, size of the machine, what it takes), and who runs where.
        let of_pool =
            |p: &Pool| (0..p.count).map(move |_| (p.capacity.cores, p.capacity.cores, p.kinds)).collect();
        let mut free: Vec<(u16, u16, KindSet)> =
            pools.iter().flat_map(|p| -> Vec<_> { of_pool(p) }).collect();
        let mut running: Vec<(u64, NodeId, usize)> = vec![];
        let mut now = 0;
        loop {
            for id in &order {
                let children = shape.children(*id);
                let done = |c: &NodeId| ends[c.index()].is_some_and(|end| end <= now);
                if ends[id.index()].is_some() || !children.as_slice().iter().all(done) {
                    continue;
                }
                let Needs { cores, .. } = costs.needs[shape.kind(*id).index()];
                let takes = |m: &usize| free[*m].0 >= cores && free[*m].2.contains(shape.kind(*id));
                let fits = (0..free.len()).filter(takes);
                if let Some(machine) = fits.min_by_key(|m| (free[*m].1, free[*m].2, free[*m].0)) {
                    free[machine].0 -= cores;
                    let end = now + u64::from(duration(*id, shape.kind(*id)));
                    ends[id.index()] = Some(end);
                    running.push((end, *id, machine));
                }
            }
            now = running.iter().map(|r| r.0).min()?;
            for (_, id, machine) in running.extract_if(.., |r| r.0 <= now) {
                free[machine].0 += costs.needs[shape.kind(id).index()].cores;
            }
            if let Some(end) = ends[shape.root().index()] {
                return Some(end);
            }
        }
    }
}
