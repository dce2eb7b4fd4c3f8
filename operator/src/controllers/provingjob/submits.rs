//! Submits under way: their trees are wanted, though nothing but the submit itself knows of them yet.

use super::memory::lock;
use super::orphans::Block;
use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

/// Which blocks are being submitted. A look at what nobody wants does not hold submits up, nor they it.
#[derive(Default)]
pub(super) struct Submits {
    state: Mutex<State>,
    /// Those who look come one after the other.
    looking: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    /// How many submits of each are under way.
    under_way: HashMap<Block, usize>,
    /// Of which one was under way at some time since the last look began.
    since: HashSet<Block>,
}

/// A submit under way, until it is dropped.
pub(super) struct Submit<'a> {
    all: &'a Submits,
    block: Block,
}

/// A look at what nobody wants, until it is dropped.
pub(super) struct Look<'a> {
    all: &'a Submits,
    _only: tokio::sync::MutexGuard<'a, ()>,
}

impl Submits {
    /// To be held from before a submit until its tree is remembered.
    pub(super) fn begin(&self, block: Block) -> Submit<'_> {
        let mut state = lock(&self.state);
        *state.under_way.entry(block).or_default() += 1;
        state.since.insert(block);
        Submit { all: self, block }
    }

    /// To be begun before anything else is looked at.
    pub(super) async fn look(&self) -> Look<'_> {
        let only = self.looking.lock().await;
        let mut state = lock(&self.state);
        state.since = state.under_way.keys().copied().collect();
        Look { all: self, _only: only }
    }
}

impl Look<'_> {
    /// Whether a submit of this block was under way at any time of this look.
    pub(super) fn has_met(&self, block: &Block) -> bool {
        lock(&self.all.state).since.contains(block)
    }
}

impl Drop for Submit<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.all.state);
        if let Some(count) = state.under_way.get_mut(&self.block) {
            *count -= 1;
            if *count == 0 {
                state.under_way.remove(&self.block);
            }
        }
    }
}

impl Drop for Look<'_> {
    fn drop(&mut self) {
        lock(&self.all.state).since.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_look_meets_what_was_under_way_at_any_time_of_it() {
        let submits = Submits::default();
        let block = |number| Block { chain_id: 1, number, prover: [0; 32] };
        drop(submits.begin(block(0)));
        let (ends, stays, again) =
            (submits.begin(block(1)), submits.begin(block(2)), submits.begin(block(2)));
        let look = submits.look().await;
        drop((ends, again));
        drop(submits.begin(block(3)));
        let met = |look: &Look<'_>| (0..4).map(|number| look.has_met(&block(number))).collect::<Vec<_>>();
        assert_eq!(met(&look), [false, true, true, true]);
        drop(look);
        let look = submits.look().await;
        assert_eq!(met(&look), [false, false, true, false], "one of two is still under way");
        drop((look, stays));
        assert!(lock(&submits.state).under_way.is_empty());
    }
}
