//! What waits to be looked at before it is believed, and what is known of it meanwhile.

use super::{Depth, Done, Millis, Reason};
use crate::ids::TaskId;
use hashbrown::HashMap;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

/// Proofs that are looked at at once.
pub(super) const AT_ONCE: usize = 64;

/// A look without an answer for so long is one that can't be taken, in milliseconds.
pub(crate) const PATIENCE: Millis = 10_000;

/// Proofs that wait to be looked at, and results that wait for it.
pub(super) const MOST: usize = 16_384;

/// Results of one machine that wait for a look.
pub(super) const MOST_OF_ONE: u32 = 1_024;

/// Results of one task that wait for a look.
pub(super) const MOST_OF_TASK: usize = 4;

/// Reported proofs that wait to be looked for: what comes when there are more is not looked for.
pub(super) const MOST_SPOTS: usize = 256;

/// A complaint of one worker about one proof.
#[derive(Debug, Clone)]
pub(super) struct Complaint {
    /// Who complains: number of the maker.
    pub(super) maker: u32,
    pub(super) reason: Reason,
    /// The task that could not be proven.
    pub(super) of: TaskId,
    /// When the proof complained of was made: one made since is another.
    pub(super) made: Millis,
    pub(super) text: String,
}

/// A proof that is to be looked at, and why.
#[derive(Debug, Default)]
pub(super) struct Subject {
    /// When the shell was asked.
    pub(super) asked: Option<Millis>,
    pub(super) depth: Option<Depth>,
    /// Results for leases that their worker does not hold.
    pub(super) claims: Vec<(u32, Done)>,
    pub(super) complaints: Vec<Complaint>,
}

/// Looks that wait or are under way.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    pub(super) subjects: HashMap<TaskId, Subject>,
    pub(super) waiting: Waiting,
    /// Reported proofs, to be looked for when nothing else is.
    pub(super) spots: VecDeque<TaskId>,
    pub(super) next_spot: Millis,
    /// Under way, oldest first; those that were answered too.
    pub(super) asked: VecDeque<(Millis, TaskId)>,
    pub(super) under_way: usize,
    /// Results that wait, in all and by machine.
    pub(super) claims: usize,
    pub(super) claims_of: HashMap<u32, u32>,
    /// Who said that a proof is in the store whose maker is not known.
    pub(super) vouched: HashMap<TaskId, u32>,
    /// Machine and maker number of those whose complaint about a proof could not be looked at.
    pub(super) accused: HashMap<TaskId, Vec<(u32, u32)>>,
}

/// Proofs that wait to be looked at. A proof may stand here that was looked at meanwhile.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// What others wait for: complaints, and proofs that are counted.
    pub(super) first: VecDeque<TaskId>,
    /// What is claimed, by machine: each has its turn.
    pub(super) claimed: BTreeMap<u32, VecDeque<TaskId>>,
    /// The machine that had its turn.
    turn: u32,
}

impl Waiting {
    pub(super) fn pop(&mut self) -> Option<TaskId> {
        if let Some(task) = self.first.pop_front() {
            return Some(task);
        }
        let after = (Bound::Excluded(self.turn), Bound::Unbounded);
        let next = self.claimed.range(after).next().or(self.claimed.first_key_value());
        let node = next.map(|(node, _)| *node)?;
        self.turn = node;
        let own = self.claimed.get_mut(&node)?;
        let task = own.pop_front();
        if own.is_empty() {
            self.claimed.remove(&node);
        }
        task
    }
}

impl Checks {
    /// Workers that said something that is not settled, or may be asked to account for it.
    pub(crate) fn makers(&self) -> impl Iterator<Item = u32> {
        let of = |subject: &Subject| -> Vec<u32> {
            let claims = subject.claims.iter().map(|(maker, _)| *maker);
            claims.chain(subject.complaints.iter().map(|complaint| complaint.maker)).collect()
        };
        let accused = self.accused.values().flatten().map(|(_, maker)| *maker);
        self.subjects.values().flat_map(of).chain(self.vouched.values().copied()).chain(accused)
    }

    /// Their machines.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = u32> {
        self.claims_of.keys().copied().chain(self.accused.values().flatten().map(|(node, _)| *node))
    }

    pub(crate) fn next_deadline(&self) -> Option<Millis> {
        let spot = self.spots.front().map(|_| self.next_spot);
        self.asked.front().map(|(at, _)| at + PATIENCE).into_iter().chain(spot).min()
    }

    pub(super) fn forget_claims(&mut self, subject: &Subject, node_of: impl Fn(u32) -> u32) {
        self.claims = self.claims.saturating_sub(subject.claims.len());
        for (maker, _) in &subject.claims {
            let node = node_of(*maker);
            let left = self.claims_of.get(&node).map_or(0, |n| n.saturating_sub(1));
            if left == 0 {
                self.claims_of.remove(&node);
            } else {
                self.claims_of.insert(node, left);
            }
        }
    }
}
