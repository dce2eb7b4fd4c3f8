//! How long proofs take, learned while running: per kind and class of machine, deaf to outliers.

use crate::circuit::Kind;
use crate::profile::Profile;
use std::collections::BTreeMap;

/// Samples kept of each kind and class.
const WINDOW: usize = 64;

/// A class is believed from so many samples on; below it the kind's overall figure is used.
pub const MIN_SAMPLES: u64 = 5;

/// Numbers of cores that are told apart for each kind: enough for the machine types of a cluster, and no one can fill
/// the memory by naming others.
const CLASSES: usize = 32;

/// Machines of a class are taken to be slower than all together by no more than this: what they are given to do is
/// theirs for so long and no longer, whatever they say of themselves.
const SLOWEST: u32 = 8;

/// The last 64 durations of one kind on one class, also in ascending order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Window {
    recent: Vec<u32>,
    next: usize,
    sorted: Vec<u32>,
    count: u64,
}

impl Window {
    fn push(&mut self, millis: u32) {
        self.count += 1;
        if self.recent.len() < WINDOW {
            self.recent.push(millis);
        } else {
            let old = std::mem::replace(&mut self.recent[self.next], millis);
            let place = self.sorted.partition_point(|m| *m < old);
            self.sorted.remove(place);
        }
        self.next = (self.next + 1) % WINDOW;
        let place = self.sorted.partition_point(|m| *m < millis);
        self.sorted.insert(place, millis);
    }

    /// The smallest duration that at least `percent` of the window do not exceed.
    fn percentile(&self, percent: usize) -> Option<u32> {
        let rank = (self.sorted.len() * percent).div_ceil(100);
        self.sorted.get(rank.saturating_sub(1)).copied()
    }
}

/// Learned durations in milliseconds. Median and 95th percentile are of the last 64 proofs, so one
/// stuck proof among them moves neither.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Durations {
    first: [u32; 5],
    /// By kind and cores of the machine; cores 0 is all machines together.
    windows: BTreeMap<(u8, u16), Window>,
}

impl Durations {
    /// Nothing learned: the profile's guesses.
    pub fn new(profile: &Profile) -> Self {
        Self { first: profile.first_millis, windows: BTreeMap::new() }
    }

    /// Takes in one proof made on a machine of so many cores.
    pub fn learn(&mut self, kind: Kind, cores: u16, millis: u32) {
        let kind = kind.index() as u8;
        self.windows.entry((kind, 0)).or_default().push(millis);
        if cores > 0 {
            self.windows.entry((kind, cores)).or_default().push(millis);
            self.make_room(kind, cores);
        }
    }

    /// Forgets of a kind the class with the fewest samples, but not this one, if there are too many.
    fn make_room(&mut self, kind: u8, but: u16) {
        let classes = || self.windows.range((kind, 1)..=(kind, u16::MAX));
        if classes().count() > CLASSES {
            let others = classes().filter(|((_, cores), _)| *cores != but);
            let least = others.min_by_key(|(_, window)| window.count).map(|(class, _)| *class);
            least.map(|class| self.windows.remove(&class));
        }
    }

    fn window(&self, kind: Kind, cores: u16) -> Option<&Window> {
        let kind = kind.index() as u8;
        let own = self.windows.get(&(kind, cores)).filter(|w| w.count >= MIN_SAMPLES);
        own.or_else(|| self.windows.get(&(kind, 0)))
    }

    /// Typical duration on machines of so many cores; 0 cores asks for all machines together.
    pub fn median(&self, kind: Kind, cores: u16) -> u32 {
        let learned = self.window(kind, cores).and_then(|w| w.percentile(50));
        learned.unwrap_or(self.first[kind.index()]).max(1)
    }

    /// As long as a proof may be expected to take on machines of so many cores: their median, but no more than eight
    /// times that of all machines together.
    pub fn expected(&self, kind: Kind, cores: u16) -> u32 {
        self.median(kind, cores).min(self.median(kind, 0).saturating_mul(SLOWEST))
    }

    /// 95 % of the proofs take no longer.
    pub fn p95(&self, kind: Kind, cores: u16) -> u32 {
        let learned = self.window(kind, cores).and_then(|w| w.percentile(95));
        learned.unwrap_or(self.first[kind.index()]).max(1)
    }

    /// Proofs seen of this kind on machines of so many cores; 0 cores asks for all machines.
    pub fn samples(&self, kind: Kind, cores: u16) -> u64 {
        self.windows.get(&(kind.index() as u8, cores)).map_or(0, |w| w.count)
    }

    /// Every window as (kind, cores, count, samples from oldest to newest), for a snapshot.
    pub(crate) fn export(&self) -> impl Iterator<Item = (u8, u16, u64, Vec<u32>)> {
        self.windows.iter().map(|(&(kind, cores), w)| {
            let split = if w.recent.len() < WINDOW { 0 } else { w.next };
            let samples = [&w.recent[split..], &w.recent[..split]].concat();
            (kind, cores, w.count, samples)
        })
    }

    /// Takes back one window of [`Durations::export`].
    pub(crate) fn import(&mut self, kind: u8, cores: u16, count: u64, samples: &[u32]) {
        let mut window = Window::default();
        samples.iter().rev().take(WINDOW).rev().for_each(|m| window.push(*m));
        window.count = count;
        self.windows.insert((kind, cores), window);
        self.make_room(kind, cores);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guesses_count_until_something_is_learned() {
        let mut d = Durations::new(&Profile::rfp());
        assert_eq!(d.median(Kind::Vm, 32), 30_000);
        d.learn(Kind::Vm, 32, 1_000);
        assert_eq!(d.median(Kind::Vm, 32), 1_000);
        assert_eq!(d.median(Kind::Base, 32), 30_000);
    }

    #[test]
    fn outliers_move_neither_median_nor_p95() {
        let mut d = Durations::new(&Profile::rfp());
        (0..200).for_each(|i| d.learn(Kind::Vm, 8, if i % 50 == 7 { 900_000 } else { 1_000 + i }));
        assert!((1_100..1_250).contains(&d.median(Kind::Vm, 8)), "{}", d.median(Kind::Vm, 8));
        assert!(d.p95(Kind::Vm, 8) < 1_250);
    }

    #[test]
    fn classes_are_told_apart_once_they_have_samples() {
        let mut d = Durations::new(&Profile::rfp());
        (0..10).for_each(|_| d.learn(Kind::Base, 8, 2_000));
        (0..4).for_each(|_| d.learn(Kind::Base, 32, 500));
        assert_eq!(d.median(Kind::Base, 32), 2_000, "4 samples are not believed");
        d.learn(Kind::Base, 32, 500);
        assert_eq!((d.median(Kind::Base, 32), d.median(Kind::Base, 8)), (500, 2_000));
    }

    #[test]
    fn a_class_is_expected_to_be_no_more_than_eight_times_as_slow_as_all() {
        let mut d = Durations::new(&Profile::rfp());
        (0..20).for_each(|_| d.learn(Kind::Base, 8, 2_000));
        (0..5).for_each(|_| d.learn(Kind::Base, 9, u32::MAX));
        (0..5).for_each(|_| d.learn(Kind::Base, 4, 9_000));
        let expected = [0, 4, 8, 9].map(|cores| d.expected(Kind::Base, cores));
        assert_eq!(expected, [2_000, 9_000, 2_000, 16_000]);
    }

    #[test]
    fn of_many_classes_those_with_the_most_samples_are_kept() {
        let mut d = Durations::new(&Profile::rfp());
        (0..10).for_each(|_| d.learn(Kind::Base, 8, 2_000));
        (100..6_100).for_each(|cores| d.learn(Kind::Base, cores, 1));
        (0..5).for_each(|_| d.learn(Kind::Base, 64, 500));
        assert_eq!(d.export().count(), 1 + CLASSES);
        assert_eq!((d.median(Kind::Base, 8), d.median(Kind::Base, 64)), (2_000, 500));
        let mut copy = Durations::new(&Profile::rfp());
        d.export().for_each(|(kind, cores, count, samples)| copy.import(kind, cores, count, &samples));
        assert!(copy.export().eq(d.export()));
    }

    #[test]
    fn a_window_forgets_and_survives_export() {
        let mut d = Durations::new(&Profile::rfp());
        (0..100).for_each(|i| d.learn(Kind::Root, 8, if i < 36 { 9 } else { i }));
        assert_eq!(d.median(Kind::Root, 8), 67);
        let mut copy = Durations::new(&Profile::rfp());
        d.export().for_each(|(kind, cores, count, samples)| copy.import(kind, cores, count, &samples));
        for more in 0..40 {
            assert_eq!(d.median(Kind::Root, 8), copy.median(Kind::Root, 8));
            d.learn(Kind::Root, 8, more);
            copy.learn(Kind::Root, 8, more);
        }
    }
}
