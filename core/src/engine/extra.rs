//! What only tasks that had trouble have: attempts, and the machines where they failed.

use super::Millis;
use super::retries::CHARGES;
use std::cmp::Reverse;

/// That a machine had a task fail, for one reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Word {
    /// The reason, by [`super::retries::charge_index`].
    pub(crate) index: u8,
    /// The machine.
    pub(crate) node: u32,
    pub(crate) times: u8,
}

/// Machines remembered of one task, by reason and at all.
const MOST_WORDS: usize = 64;

/// What only tasks that had trouble have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Extra {
    /// Attempts charged, by [`super::retries::charge_index`].
    pub(crate) attempts: [u8; CHARGES],
    /// Failures charged to nobody in a row, for their backoff.
    pub(crate) soft: u8,
    /// Leases of it that were lost while it ran, since the last charge, by machine.
    pub(crate) lost: Vec<(u32, u8)>,
    /// Needs a larger class than its kind's, since it ran out of memory.
    pub(crate) class: Option<u8>,
    /// Machines where it failed.
    pub(crate) nodes: Vec<u32>,
    /// Machines that it does not go to before then.
    pub(crate) spared: Vec<(u32, Millis)>,
    /// Which machines had it fail, and for what.
    pub(crate) words: Vec<Word>,
    /// The last fence under which it failed at a machine.
    pub(crate) failed: Vec<(u32, u64)>,
    /// Not before then.
    pub(crate) until: Millis,
    /// The last failure, for people: some words.
    pub(crate) why: String,
}

impl Extra {
    pub(crate) fn charged(&self) -> u32 {
        self.attempts.iter().map(|n| u32::from(*n)).sum()
    }

    /// All machines that it names.
    pub(crate) fn named(&self) -> impl Iterator<Item = u32> {
        let spared = self.spared.iter().map(|(node, _)| *node);
        let failed = self.failed.iter().map(|(node, _)| *node).chain(self.lost.iter().map(|(node, _)| *node));
        self.nodes.iter().copied().chain(spared).chain(failed).chain(self.words.iter().map(|word| word.node))
    }

    /// Whether some machines are avoided, or were.
    pub(crate) fn is_picky(&self) -> bool {
        !self.nodes.is_empty() || !self.spared.is_empty()
    }

    /// Machines that it does not go to now.
    pub(crate) fn avoided(&self, now: Millis) -> Vec<u32> {
        let spared = self.spared.iter().filter(|(_, until)| *until > now).map(|(node, _)| *node);
        self.nodes.iter().copied().chain(spared).collect()
    }

    /// It failed on this machine, so it goes to others first.
    pub(crate) fn avoid(&mut self, node: u32) {
        if !self.nodes.contains(&node) {
            if self.nodes.len() >= MOST_WORDS {
                self.nodes.remove(0);
            }
            self.nodes.push(node);
        }
    }

    /// It does not go to this machine for a while.
    pub(crate) fn spare(&mut self, node: u32, until: Millis) {
        self.spared.retain(|(spared, _)| *spared != node);
        if self.spared.len() >= MOST_WORDS {
            self.spared.remove(0);
        }
        self.spared.push((node, until));
    }

    /// Notes that it failed on a machine for a reason; how often by now.
    pub(crate) fn said(&mut self, index: usize, node: u32) -> u8 {
        let index = index as u8;
        let known = self.words.iter().position(|w| (w.index, w.node) == (index, node));
        let place = known.unwrap_or_else(|| {
            if self.words.len() >= MOST_WORDS {
                self.words.remove(0);
            }
            self.words.push(Word { index, node, times: 0 });
            self.words.len() - 1
        });
        self.words[place].times = self.words[place].times.saturating_add(1);
        self.words[place].times
    }

    /// Notes that it failed at a machine under this fence.
    pub(crate) fn note_failed(&mut self, node: u32, fence: u64) {
        let before = self.last_failed(node).unwrap_or(0);
        self.failed.retain(|(other, _)| *other != node);
        if self.failed.len() >= MOST_WORDS {
            self.failed.remove(0);
        }
        self.failed.push((node, fence.max(before)));
    }

    /// The last fence under which it failed at a machine.
    pub(crate) fn last_failed(&self, node: u32) -> Option<u64> {
        self.failed.iter().find(|(other, _)| *other == node).map(|(_, fence)| *fence)
    }

    /// How often it failed at a machine, for any reason.
    pub(crate) fn times_at(&self, node: u32) -> u32 {
        let there = self.words.iter().filter(|word| word.node == node);
        there.map(|word| u32::from(word.times)).sum()
    }

    /// The machine that had it fail most often for this reason.
    pub(crate) fn most_failed(&self, index: usize) -> Option<u32> {
        let of = self.words.iter().filter(|word| usize::from(word.index) == index);
        of.max_by_key(|word| word.times).map(|word| word.node)
    }

    /// How many machines had it fail for this reason.
    pub(crate) fn machines(&self, index: usize) -> usize {
        self.words.iter().filter(|word| usize::from(word.index) == index).count()
    }

    /// How often it failed for a reason, if no machine counts more than once above the next one.
    pub(crate) fn spread(&self, index: usize) -> u32 {
        let of = self.words.iter().filter(|word| usize::from(word.index) == index);
        spread(of.map(|word| u32::from(word.times)).collect())
    }

    /// Notes that a lease of it was lost while it ran at a machine. Says how many were, and how many if no machine counts
    /// more than once above the next one.
    pub(crate) fn note_lost(&mut self, node: u32) -> (u32, u32) {
        match self.lost.iter().position(|(other, _)| *other == node) {
            Some(place) => self.lost[place].1 = self.lost[place].1.saturating_add(1),
            None if self.lost.len() < MOST_WORDS => self.lost.push((node, 1)),
            None => {}
        }
        let times: Vec<u32> = self.lost.iter().map(|(_, times)| u32::from(*times)).collect();
        (times.iter().sum(), spread(times))
    }

    /// A lost lease that was noted is charged for another reason.
    pub(crate) fn forget_lost(&mut self, node: u32) {
        let noted = self.lost.iter_mut().find(|(other, _)| *other == node);
        noted.into_iter().for_each(|(_, times)| *times = times.saturating_sub(1));
    }
}

/// The sum of these if the largest counts no more than the next one, and one more.
fn spread(mut times: Vec<u32>) -> u32 {
    times.sort_unstable_by_key(|times| Reverse(*times));
    let next = times.get(1).copied().unwrap_or(0);
    times.into_iter().map(|times| times.min(next + 1)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_one_machine_no_more_counts_than_of_the_next_and_one() {
        let cases: [(&[u8], u32); 6] =
            [(&[], 0), (&[9], 1), (&[3, 2], 5), (&[9, 1], 3), (&[3, 1, 1], 4), (&[2, 2, 1], 5)];
        for (times, counted) in cases {
            let mut extra = Extra::default();
            for (node, times) in (0..).zip(times) {
                (0..*times).for_each(|_| _ = extra.said(4, node));
                extra.said(5, node);
            }
            assert_eq!(extra.spread(4), counted, "{times:?}");
        }
    }
}
