//! How long a block takes at least on given machines, whatever the order: what every schedule is
//! compared with.
//!
//! Of all tasks that have at least `head` of work before them and `tail` after them, none starts
//! before `head` and all end `tail` before the block does; in between the machines can do only so
//! much. That holds for the tasks of one class (against how many of them run at once on machines that take them) and for all
//! tasks together, weighed by the cores or the memory they take (so that machines which could run
//! either kind are not counted twice). The largest of all these is the bound.

use crate::circuit::Kind;
use crate::sim::{Classes, Costs, Pool};
use crate::tree::{NodeId, Shape};
use std::collections::HashMap;

#[cfg(test)]
mod tests;

/// The least time in milliseconds that proving this block takes on these machines; `None` when a
/// task fits no machine: it can't be proven at all.
///
/// Infinite speed of everything but proving is assumed. Takes O(tasks + levels²).
pub fn lower_bound(shape: &Shape, pools: &[Pool], costs: &Costs) -> Option<u64> {
    // Proofs start when others end, so all times are multiples of what divides all durations;
    // counting in it, every rounding up is worth more.
    let unit = costs.millis.into_iter().fold(0, greatest_common_divisor).max(1);
    let costs = &Costs { millis: costs.millis.map(|millis| millis / unit), ..*costs };
    let classes = Classes::new(&costs.needs, pools);
    let groups = Groups::new(shape, costs, &classes).0;
    let path = groups.iter().map(|g| g.head + g.millis + g.tail).max()?;
    let mut bound = path;
    for class in 0..classes.needs.len() {
        let own: Vec<Group> = groups.iter().filter(|g| g.class == class).copied().collect();
        if own.is_empty() {
            continue;
        }
        let weighing = Weighing::by_count(pools, &classes, class);
        if weighing.rate_of(1 << class) == 0 {
            return None;
        }
        bound = bound.max(weighing.bound(&own, bound));
    }
    if classes.needs.len() > 1 {
        for weighing in [Weighing::by_cores(pools, &classes), Weighing::by_memory(pools, &classes)] {
            bound = bound.max(weighing.bound(&groups, bound));
        }
    }
    Some(bound * u64::from(unit))
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

/// Tasks that are alike to the bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Group {
    tail: u64,
    head: u64,
    millis: u64,
    class: usize,
    count: u64,
}

/// The tasks of a tree by (class, head, tail, duration).
struct Groups(Vec<Group>);

impl Groups {
    fn new(shape: &Shape, costs: &Costs, classes: &Classes) -> Self {
        let mut counts: HashMap<Group, u64> = HashMap::new();
        let mut add = |kind: Kind, head: u64, tail: u64, count: u64| {
            let group =
                Group { tail, head, millis: costs.millis_of(kind), class: classes.of(kind), count: 0 };
            *counts.entry(group).or_default() += count;
        };
        let joins = Joins::new(shape, costs);
        for (n, tail, count) in joins.transactions_alike(shape) {
            let [vm, kernel, base] = [Kind::Vm, Kind::Kernel, Kind::Base].map(|k| costs.millis_of(k));
            for call in 0..n {
                add(Kind::Vm, 0, (n - call) * kernel + base + tail, count);
                add(Kind::Kernel, vm + call * kernel, (n - call - 1) * kernel + base + tail, count);
            }
            add(Kind::Base, base_head(costs, n), tail, count);
        }
        let mut last = (Kind::Root, 0, 0, 0);
        for (kind, head, tail) in joins.merges(shape) {
            if (kind, head, tail) != (last.0, last.1, last.2) {
                add(last.0, last.1, last.2, last.3);
                last = (kind, head, tail, 0);
            }
            last.3 += 1;
        }
        add(last.0, last.1, last.2, last.3);
        let tasks = counts.into_iter().filter(|(_, count)| *count > 0);
        let mut groups: Vec<Group> = tasks.map(|(group, count)| Group { count, ..group }).collect();
        groups.sort_unstable_by(|a, b| b.cmp(a));
        Self(groups)
    }
}

/// Work before a transaction's base proof.
fn base_head(costs: &Costs, calls: u64) -> u64 {
    match calls {
        0 => 0,
        n => costs.millis_of(Kind::Vm) + n * costs.millis_of(Kind::Kernel),
    }
}

/// Heads and tails of the upper tree, from the first base on.
struct Joins {
    first: u32,
    heads: Vec<u64>,
    tails: Vec<u64>,
}

impl Joins {
    fn new(shape: &Shape, costs: &Costs) -> Self {
        let first = shape.base(0).0;
        let size = (shape.total() - first) as usize;
        let (mut heads, mut tails) = (vec![0; size], vec![0; size]);
        let place = |id: NodeId| (id.0 - first) as usize;
        for tx in 0..shape.transactions() {
            heads[tx as usize] = base_head(costs, u64::from(shape.calls(tx)));
        }
        let joins = first + shape.transactions()..shape.total();
        for id in joins.clone().map(NodeId) {
            let children = shape.children(id);
            let before = children.as_slice().iter();
            heads[place(id)] =
                before.map(|c| heads[place(*c)] + costs.millis_of(shape.kind(*c))).max().unwrap_or(0);
        }
        for id in joins.rev().map(NodeId) {
            let tail = tails[place(id)] + costs.millis_of(shape.kind(id));
            for child in shape.children(id).as_slice() {
                tails[place(*child)] = tail;
            }
        }
        Self { first, heads, tails }
    }

    /// (calls, work after the base, how many transactions).
    fn transactions_alike(&self, shape: &Shape) -> Vec<(u64, u64, u64)> {
        let mut alike: Vec<(u64, [u64; 256])> = vec![];
        for tx in 0..shape.transactions() {
            let tail = self.tails[tx as usize];
            if alike.last().is_none_or(|(t, _)| *t != tail) {
                alike.push((tail, [0; 256]));
            }
            if let Some((_, counts)) = alike.last_mut() {
                counts[usize::from(shape.calls(tx))] += 1;
            }
        }
        let all = alike.iter().flat_map(|(tail, counts)| {
            counts.iter().enumerate().map(|(calls, count)| (calls as u64, *tail, *count))
        });
        all.filter(|(_, _, count)| *count > 0).collect()
    }

    fn merges<'a>(&'a self, shape: &'a Shape) -> impl Iterator<Item = (Kind, u64, u64)> + 'a {
        (self.first + shape.transactions()..shape.total()).map(|n| {
            let place = (n - self.first) as usize;
            (shape.kind(NodeId(n)), self.heads[place], self.tails[place])
        })
    }
}

/// A way to weigh tasks, and what weight all machines can bear.
struct Weighing {
    /// Weight of a running task, by class.
    weight: Vec<u64>,
    /// The most that all machines bear at once, by set of classes that may run.
    rate: Vec<u64>,
}

impl Weighing {
    fn new(
        pools: &[Pool],
        classes: &Classes,
        weight: Vec<u64>,
        machine: impl Fn(&Pool, &[usize]) -> u64,
    ) -> Self {
        let rate = |set: usize| {
            let members = |pool: &Pool| -> Vec<usize> {
                let all = 0..classes.needs.len();
                all.filter(|c| set >> c & 1 == 1 && classes.run_on(*c, pool)).collect()
            };
            pools.iter().map(|pool| u64::from(pool.count) * machine(pool, &members(pool))).sum()
        };
        let rate = (0..1 << classes.needs.len()).map(rate).collect();
        Self { weight, rate }
    }

    /// One class alone: every proof weighs 1.
    fn by_count(pools: &[Pool], classes: &Classes, class: usize) -> Self {
        let weight = (0..classes.needs.len()).map(|c| u64::from(c == class)).collect();
        Self::new(pools, classes, weight, |pool, members| match members.contains(&class) {
            true => u64::from(classes.needs[class].fit_into(&pool.capacity)),
            false => 0,
        })
    }

    fn by_cores(pools: &[Pool], classes: &Classes) -> Self {
        let weight = classes.needs.iter().map(|n| u64::from(n.cores)).collect();
        Self::new(pools, classes, weight, |pool, members| {
            let parts = members.iter().map(|c| usize::from(classes.needs[*c].cores));
            largest_sum(usize::from(pool.capacity.cores), &parts.collect::<Vec<_>>()) as u64
        })
    }

    fn by_memory(pools: &[Pool], classes: &Classes) -> Self {
        let weight = classes.needs.iter().map(|n| u64::from(n.memory_mib)).collect();
        Self::new(pools, classes, weight, |pool, members| match members {
            [] => 0,
            _ => u64::from(pool.capacity.memory_mib),
        })
    }

    fn rate_of(&self, set: usize) -> u64 {
        self.rate[set]
    }

    /// The largest bound that any head and tail give. `groups` by tail, largest first; `known` is
    /// a bound that holds already.
    fn bound(&self, groups: &[Group], known: u64) -> u64 {
        let mut heads: Vec<u64> = groups.iter().map(|g| g.head).collect();
        heads.sort_unstable();
        heads.dedup();
        let mut best = known;
        for head in heads {
            let mut set = TaskSet::new(self.weight.len());
            let mut tasks = groups.iter().filter(|g| g.head >= head).peekable();
            while let Some(group) = tasks.next() {
                set.add(group, self.weight[group.class]);
                if tasks.peek().is_none_or(|next| next.tail != group.tail) {
                    best = best.max(set.bound(self, head, group.tail, best));
                }
            }
        }
        best
    }
}

/// The tasks with at least some head and tail.
struct TaskSet {
    area: u64,
    count: u64,
    shortest: u64,
    same_weight: Option<u64>,
    classes: usize,
    /// Smallest head and tail by class.
    heads: Vec<u64>,
    tails: Vec<u64>,
}

impl TaskSet {
    fn new(classes: usize) -> Self {
        let none = vec![u64::MAX; classes];
        Self {
            area: 0,
            count: 0,
            shortest: u64::MAX,
            same_weight: None,
            classes: 0,
            heads: none.clone(),
            tails: none,
        }
    }

    fn add(&mut self, group: &Group, weight: u64) {
        self.area += group.count * group.millis * weight;
        let first = self.count == 0;
        self.count += group.count;
        self.shortest = self.shortest.min(group.millis);
        self.same_weight = if first { Some(weight) } else { self.same_weight.filter(|w| *w == weight) };
        self.classes |= 1 << group.class;
        self.heads[group.class] = self.heads[group.class].min(group.head);
        self.tails[group.class] = self.tails[group.class].min(group.tail);
    }

    /// What this set says about the whole block's time.
    fn bound(&self, weighing: &Weighing, head: u64, tail: u64, known: u64) -> u64 {
        let rate = weighing.rate_of(self.classes);
        if rate == 0 {
            return 0;
        }
        // Until the first task of a class can start, and after its last has to be done, machines
        // that would run it can only run the others.
        let (before, before_loss) = self.unusable(weighing, rate, &self.heads, head);
        let (after, after_loss) = self.unusable(weighing, rate, &self.tails, tail);
        let between = |area: u64| area.div_ceil(rate);
        let mut span = between(self.area + before_loss).max(between(self.area + after_loss));
        // Both at once only where they can't overlap.
        if known.saturating_sub(head + tail) >= before + after {
            span = span.max(between(self.area + before_loss + after_loss));
        }
        // Somebody makes at least this many of them one after the other.
        if let Some(weight) = self.same_weight {
            let at_once = rate / weight.max(1);
            span = span.max(self.count.div_ceil(at_once.max(1)) * self.shortest);
        }
        head + span + tail
    }

    /// How long some class can't run at one end of the set's time, and the weight that is lost by it.
    fn unusable(&self, weighing: &Weighing, rate: u64, limits: &[u64], from: u64) -> (u64, u64) {
        let mut order: Vec<usize> = (0..limits.len()).filter(|c| self.classes >> c & 1 == 1).collect();
        order.sort_unstable_by_key(|c| limits[*c]);
        let (mut usable, mut at, mut loss) = (0, from, 0);
        for class in order {
            loss += (limits[class] - at) * (rate - weighing.rate_of(usable));
            at = limits[class];
            usable |= 1 << class;
        }
        (at - from, loss)
    }
}

/// The largest sum not above `limit` that repeated parts make.
fn largest_sum(limit: usize, parts: &[usize]) -> usize {
    let mut reachable = vec![false; limit + 1];
    reachable[0] = true;
    let mut largest = 0;
    for sum in 1..=limit {
        reachable[sum] = parts.iter().any(|part| *part > 0 && *part <= sum && reachable[sum - part]);
        if reachable[sum] {
            largest = sum;
        }
    }
    largest
}
