//! When a block will be done, from what was learned about its proofs.

use arborist_core::circuit::Kind;
use arborist_core::durations::Durations;
use arborist_core::engine::Counts;
use arborist_core::profile::Profile;
use std::time::Duration;

/// What the estimate counts on.
pub struct Eta<'a> {
    /// Cores of all workers.
    pub cores: f64,
    /// Needs and first guesses.
    pub profile: &'a Profile,
    /// Public calls of each transaction.
    pub calls: &'a [u8],
}

impl Eta<'_> {
    /// How long the rest takes: all open proofs over all cores, or the longest path that may remain if that is longer.
    /// A kind of which no proof was made yet is guessed from the others; `None` while nothing was learned at all.
    pub fn left(&self, counts: &[Counts; 5], learned: &Durations) -> Option<Duration> {
        let millis = self.millis(learned)?;
        let open = |kind: Kind| counts[kind.index()].total - counts[kind.index()].done;
        let longest = self.calls.iter().copied().max().unwrap_or(0);
        let levels = u32::BITS - (self.calls.len() as u32).saturating_sub(1).leading_zeros();
        let (mut path, mut work) = (0.0, 0.0);
        for kind in Kind::ALL {
            let (open, millis) = (open(kind), millis[kind.index()]);
            let steps = match kind {
                Kind::Kernel => open.min(longest.into()),
                Kind::Merge => (u32::BITS - open.leading_zeros()).min(levels),
                Kind::Vm | Kind::Base | Kind::Root => open.min(1),
            };
            path += f64::from(steps) * millis;
            work += f64::from(open) * millis * f64::from(self.profile.needs(kind).cores);
        }
        Some(Duration::from_millis((work / self.cores.max(1.0)).max(path) as u64))
    }

    /// Typical duration of each kind; what is not known is as much off the profile's guess as what is.
    fn millis(&self, learned: &Durations) -> Option<[f64; 5]> {
        let known = |kind: &Kind| learned.samples(*kind, 0) > 0;
        let guess = |kind: Kind| f64::from(self.profile.first_millis[kind.index()]);
        let sum = |of: &dyn Fn(Kind) -> f64| Kind::ALL.into_iter().filter(known).map(of).sum::<f64>();
        let median = |kind: Kind| f64::from(learned.median(kind, 0));
        let guessed = sum(&guess);
        if guessed <= 0.0 {
            return None;
        }
        let ratio = sum(&median) / guessed;
        Some(Kind::ALL.map(|kind| if known(&kind) { median(kind) } else { guess(kind) * ratio }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(open: [u32; 5]) -> [Counts; 5] {
        open.map(|total| Counts { total, ..Default::default() })
    }

    #[test]
    fn it_is_unknown_until_something_was_learned_and_then_counts_work_and_path() {
        let profile = Profile::local();
        let eta = Eta { cores: 2.0, profile: &profile, calls: &[2; 8] };
        let mut learned = Durations::new(&profile);
        let all = counts([16, 16, 8, 6, 1]);
        assert_eq!(eta.left(&all, &learned), None);
        learned.learn(Kind::Vm, 1, 1_000);
        // 16 proofs of a second and, as guessed, 31 of 4.5 s on two cores
        assert_eq!(eta.left(&all, &learned), Some(Duration::from_millis(77_750)));
        // two merges one after the other and the root: a second core is of no use
        assert_eq!(eta.left(&counts([0, 0, 0, 2, 1]), &learned), Some(Duration::from_millis(13_500)));
        learned.learn(Kind::Merge, 1, 3_000);
        // the root is as much below its guess of 4.5 s as the two that are known: 4 s instead of 5.5
        assert_eq!(eta.left(&counts([0, 0, 0, 0, 1]), &learned), Some(Duration::from_millis(3_272)));
        assert_eq!(eta.left(&counts([0; 5]), &learned), Some(Duration::ZERO));
    }
}
