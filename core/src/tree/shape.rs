//! Which nodes there are, what joins what.

use crate::circuit::{Circuit, Kind};

/// A node's number within its tree, 0 to [`Shape::total`] − 1, leaves first, the root last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u32);

impl NodeId {
    /// As an index into per-task arrays.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// What a node proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Node {
    /// A public call: transaction and the call's place in it, both from 0.
    Vm {
        /// Transaction.
        tx: u32,
        /// Call of the transaction, from 0.
        call: u8,
    },
    /// A kernel step: verifies call `position` − 1 and the step before.
    Kernel {
        /// Transaction.
        tx: u32,
        /// From 1 to the transaction's number of calls.
        position: u8,
    },
    /// A transaction.
    Base {
        /// Transaction.
        tx: u32,
    },
    /// The join of transactions `first .. first + count`.
    Merge {
        /// First transaction.
        first: u32,
        /// Number of transactions, at least 2.
        count: u32,
    },
    /// The join of all transactions.
    Root {
        /// Number of transactions, at least 1.
        count: u32,
    },
}

/// Why no tree can be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadShape {
    /// A block has at least one transaction.
    #[error("transactions: 0, allowed are 1 to {max}", max = crate::block::MAX_TRANSACTIONS)]
    Empty,
    /// More than the format allows.
    #[error("transactions: {0}, allowed are 1 to {max}", max = crate::block::MAX_TRANSACTIONS)]
    TooManyTransactions(usize),
    /// More than the profile allows.
    #[error("transactions[{tx}].calls: {calls}, the profile allows at most {max}")]
    TooManyCalls {
        /// The transaction.
        tx: usize,
        /// Its calls.
        calls: u8,
        /// The profile's maximum.
        max: u8,
    },
}

/// A join on the right edge of a tree whose size is no power of two.
#[derive(Debug, Clone, Copy)]
struct Spine {
    left: NodeId,
    right: NodeId,
    first: u32,
}

/// The shape of a block's tree: 4 bytes a transaction, everything else is arithmetic.
///
/// Numbering: `vm` of all calls in block order, `kernel` likewise, `base` of each transaction, then
/// joins of perfect subtrees level by level, then the joins of the right edge from the bottom up.
#[derive(Debug, Clone)]
pub struct Shape {
    /// `first_call[t]` = number of calls before transaction t; one entry more than transactions.
    first_call: Box<[u32]>,
    /// Number of the first perfect join of height h at `level[h]`; the bases at `level[0]`.
    level: Vec<u32>,
    spine: Vec<Spine>,
    total: u32,
}

/// Up to two children, in the circuit's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Children {
    nodes: [NodeId; 2],
    len: u8,
}

impl Children {
    const NONE: Self = Self { nodes: [NodeId(0); 2], len: 0 };

    const fn one(a: NodeId) -> Self {
        Self { nodes: [a, a], len: 1 }
    }

    const fn two(a: NodeId, b: NodeId) -> Self {
        Self { nodes: [a, b], len: 2 }
    }

    /// The children, left or earlier first.
    pub fn as_slice(&self) -> &[NodeId] {
        &self.nodes[..usize::from(self.len)]
    }
}

const fn ceil_log2(n: u32) -> u8 {
    (u32::BITS - (n - 1).leading_zeros()) as u8
}

impl Shape {
    /// The tree of transactions with these numbers of calls.
    ///
    /// # Errors
    /// No transaction, too many, or one with more than `max_calls` calls.
    pub fn new(calls: &[u8], max_calls: u8) -> Result<Self, BadShape> {
        match calls.len() {
            0 => return Err(BadShape::Empty),
            n if n > crate::block::MAX_TRANSACTIONS => return Err(BadShape::TooManyTransactions(n)),
            _ => {}
        }
        if let Some((tx, &calls)) = calls.iter().enumerate().find(|(_, n)| **n > max_calls) {
            return Err(BadShape::TooManyCalls { tx, calls, max: max_calls });
        }
        let mut sum = 0;
        let first_call: Box<[u32]> = std::iter::once(0)
            .chain(calls.iter().map(|&n| {
                sum += u32::from(n);
                sum
            }))
            .collect();
        let t = calls.len() as u32;
        let (mut next, mut level) = (2 * sum, vec![]);
        for height in 0..=t.ilog2() {
            level.push(next);
            next += t >> height;
        }
        let mut shape = Self { first_call, level, spine: vec![], total: next };
        shape.add_spine(t);
        Ok(shape)
    }

    fn add_spine(&mut self, t: u32) {
        let peaks = (0..=t.ilog2()).filter(|h| t >> h & 1 == 1).map(|h| (h, (t >> h) - 1));
        let mut right: Option<NodeId> = None;
        for (height, place) in peaks {
            let peak = NodeId(self.level[height as usize] + place);
            right = Some(match right {
                None => peak,
                Some(right) => {
                    self.spine.push(Spine { left: peak, right, first: place << height });
                    self.total += 1;
                    NodeId(self.total - 1)
                }
            });
        }
        // The root is a node of its own above a lone base.
        self.total += u32::from(t == 1);
    }

    /// Number of transactions.
    pub fn transactions(&self) -> u32 {
        self.first_call.len() as u32 - 1
    }

    /// Number of public calls of all transactions.
    pub fn total_calls(&self) -> u32 {
        self.first_call[self.first_call.len() - 1]
    }

    /// Number of public calls of one transaction.
    pub fn calls(&self, tx: u32) -> u8 {
        (self.first_call[tx as usize + 1] - self.first_call[tx as usize]) as u8
    }

    /// Number of tasks.
    pub const fn total(&self) -> u32 {
        self.total
    }

    /// The root's number: the last.
    pub const fn root(&self) -> NodeId {
        NodeId(self.total - 1)
    }

    /// All nodes, children before their parents.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + use<> {
        (0..self.total).map(NodeId)
    }

    /// Number of the `vm` task of a call.
    pub fn vm(&self, tx: u32, call: u8) -> NodeId {
        NodeId(self.first_call[tx as usize] + u32::from(call))
    }

    /// Number of a kernel task, `position` from 1.
    pub fn kernel(&self, tx: u32, position: u8) -> NodeId {
        NodeId(self.total_calls() + self.first_call[tx as usize] + u32::from(position) - 1)
    }

    /// Number of a base task.
    pub fn base(&self, tx: u32) -> NodeId {
        NodeId(self.level[0] + tx)
    }

    /// A call's transaction and its place in it.
    fn call_at(&self, call: u32) -> (u32, u8) {
        // Where all transactions have as many calls the guess is right, which spares the search.
        let guess = u64::from(call) * u64::from(self.transactions()) / u64::from(self.total_calls());
        let range = self.first_call.get(guess as usize..guess as usize + 2);
        let tx = match range {
            Some(&[first, next]) if first <= call && call < next => guess as usize,
            _ => self.first_call.partition_point(|first| *first <= call) - 1,
        };
        (tx as u32, (call - self.first_call[tx]) as u8)
    }

    /// Number of the first join on the right edge.
    fn spine_start(&self) -> u32 {
        self.level[0] + 2 * self.transactions() - self.transactions().count_ones()
    }

    /// What a node proves.
    pub fn node(&self, id: NodeId) -> Node {
        let (n, calls, t) = (id.0, self.total_calls(), self.transactions());
        if n < calls {
            let (tx, call) = self.call_at(n);
            return Node::Vm { tx, call };
        }
        if n < 2 * calls {
            let (tx, call) = self.call_at(n - calls);
            return Node::Kernel { tx, position: call + 1 };
        }
        if n - 2 * calls < t {
            return Node::Base { tx: n - 2 * calls };
        }
        if id == self.root() {
            return Node::Root { count: t };
        }
        match self.spine.get((n.wrapping_sub(self.spine_start())) as usize) {
            Some(spine) => Node::Merge { first: spine.first, count: t - spine.first },
            None => {
                let (height, place) = self.perfect(n);
                Node::Merge { first: place << height, count: 1 << height }
            }
        }
    }

    /// Height and place of a perfect subtree's node (bases have height 0).
    fn perfect(&self, n: u32) -> (u32, u32) {
        let height = self.level.partition_point(|start| *start <= n) - 1;
        (height as u32, n - self.level[height])
    }

    /// The kind of proof a node needs.
    pub fn kind(&self, id: NodeId) -> Kind {
        let (n, calls) = (id.0, self.total_calls());
        match () {
            () if n < calls => Kind::Vm,
            () if n < 2 * calls => Kind::Kernel,
            () if n - 2 * calls < self.transactions() => Kind::Base,
            () if id == self.root() => Kind::Root,
            () => Kind::Merge,
        }
    }

    /// The circuit that proves a node.
    pub fn circuit(&self, id: NodeId) -> Circuit {
        match self.node(id) {
            Node::Vm { .. } => Circuit::Vm,
            Node::Kernel { position, .. } => Circuit::Kernel { position },
            Node::Base { .. } => Circuit::Base,
            Node::Merge { count, .. } => Circuit::Merge { height: ceil_log2(count) },
            Node::Root { count } => Circuit::Root { height: ceil_log2(count) },
        }
    }

    /// The nodes whose proofs this one verifies, in the circuit's order.
    pub fn children(&self, id: NodeId) -> Children {
        match self.node(id) {
            Node::Vm { .. } => Children::NONE,
            Node::Kernel { tx, position: 1 } => Children::one(self.vm(tx, 0)),
            Node::Kernel { tx, position } => {
                Children::two(self.kernel(tx, position - 1), self.vm(tx, position - 1))
            }
            Node::Base { tx } => match self.calls(tx) {
                0 => Children::NONE,
                n => Children::one(self.kernel(tx, n)),
            },
            Node::Root { count: 1 } => Children::one(self.base(0)),
            Node::Merge { .. } | Node::Root { .. } => self.joined(id.0),
        }
    }

    fn joined(&self, n: u32) -> Children {
        if let Some(spine) = self.spine.get(n.wrapping_sub(self.spine_start()) as usize) {
            return Children::two(spine.left, spine.right);
        }
        let (height, place) = self.perfect(n);
        let below = self.level[height as usize - 1] + 2 * place;
        Children::two(NodeId(below), NodeId(below + 1))
    }

    /// The node that verifies this one's proof; `None` for the root.
    pub fn parent(&self, id: NodeId) -> Option<NodeId> {
        if id == self.root() {
            return None;
        }
        let (n, calls) = (id.0, self.total_calls());
        if n < calls {
            return Some(NodeId(n + calls));
        }
        if n < 2 * calls {
            let (tx, call) = self.call_at(n - calls);
            let last = call + 1 == self.calls(tx);
            return Some(if last { self.base(tx) } else { NodeId(n + 1) });
        }
        if self.transactions() == 1 {
            return Some(self.root());
        }
        let spine_start = self.spine_start();
        if n >= spine_start {
            return Some(NodeId(n + 1));
        }
        let (height, place) = self.perfect(n);
        let pairs = (self.transactions() >> height) / 2;
        if place < 2 * pairs {
            return Some(NodeId(self.level[height as usize + 1] + place / 2));
        }
        // A peak: the lowest one is the right child of the first join of the edge, the k-th lowest
        // the left child of the (k − 1)-th.
        let below = (self.transactions() & ((1 << height) - 1)).count_ones();
        Some(NodeId(spine_start + below.saturating_sub(1)))
    }

    /// Number of transactions a node covers: (first, count); a call's and kernel's is its own.
    pub fn range(&self, id: NodeId) -> (u32, u32) {
        match self.node(id) {
            Node::Vm { tx, .. } | Node::Kernel { tx, .. } | Node::Base { tx } => (tx, 1),
            Node::Merge { first, count } => (first, count),
            Node::Root { count } => (0, count),
        }
    }

    /// Proofs on the path from this node to the root, both included: the remaining path.
    pub fn remaining(&self, id: NodeId) -> u32 {
        match self.node(id) {
            Node::Vm { tx, call } => 1 + u32::from(self.calls(tx) - call) + self.remaining(self.base(tx)),
            Node::Kernel { tx, position } => {
                u32::from(self.calls(tx) - position) + 1 + self.remaining(self.base(tx))
            }
            Node::Root { .. } => 1,
            Node::Base { .. } | Node::Merge { .. } => self.join_remaining(id.0),
        }
    }

    fn join_remaining(&self, n: u32) -> u32 {
        if self.transactions() == 1 {
            return 2;
        }
        let spine_start = self.spine_start();
        if n >= spine_start {
            return self.total - n;
        }
        let (height, place) = self.perfect(n);
        let t = self.transactions();
        // The peak above this node: the highest aligned power of two that still fits.
        let first = place << height;
        let peak = (height..=t.ilog2())
            .find(|h| t >> h & 1 == 1 && first >= (t >> h >> 1 << h << 1))
            .unwrap_or(height);
        let below = (t & ((1 << peak) - 1)).count_ones();
        let spine = self.spine.len() as u32;
        let edge = if spine == 0 { 0 } else { spine - below.saturating_sub(1) };
        1 + (peak - height) + edge
    }

    /// Proofs that must be made one after the other before this one can start: the head.
    pub fn head(&self, id: NodeId) -> u32 {
        match self.node(id) {
            Node::Vm { .. } => 0,
            Node::Kernel { position, .. } => u32::from(position),
            Node::Base { tx } => match self.calls(tx) {
                0 => 0,
                n => u32::from(n) + 1,
            },
            Node::Merge { .. } | Node::Root { .. } => {
                self.children(id).as_slice().iter().map(|c| self.head(*c) + 1).max().unwrap_or(0)
            }
        }
    }
}
