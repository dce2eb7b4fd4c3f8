//! Names of makers and machines, and the numbers that stand for them in the books. A number is given once, so a
//! journal that names one that was forgotten since means nobody else.

use super::{Engine, Millis};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Index, IndexMut};

/// How long a worker stays suspected that nothing else names, in milliseconds: 24 hours.
const SUSPECTED_FOR: Millis = 86_400_000;

/// The most suspects kept that nothing else names: those suspected last.
const MOST_SUSPECTS: usize = 4_096;

/// Names in the books before it is looked which of them are needed.
const FEW: usize = 1_024;

/// A worker that made proofs; its number stands in the books of each of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Maker {
    pub(crate) name: String,
    pub(crate) node: u32,
    pub(crate) cores: u16,
    /// How often it was found to make bad proofs or to say what is not so.
    pub(crate) suspected: u8,
    /// When it was suspected last.
    pub(crate) suspected_at: Millis,
    /// How many snapshots there were when it was written to the journal.
    pub(crate) written: u32,
}

/// Makers by number. One that was forgotten has no name.
#[derive(Debug, Default)]
pub(crate) struct Makers {
    all: BTreeMap<u32, Maker>,
    numbers: hashbrown::HashMap<String, u32>,
    next: u32,
    nobody: Maker,
}

impl Index<usize> for Makers {
    type Output = Maker;
    fn index(&self, number: usize) -> &Maker {
        self.get(number).unwrap_or(&self.nobody)
    }
}

impl IndexMut<usize> for Makers {
    fn index_mut(&mut self, number: usize) -> &mut Maker {
        self.all.entry(number as u32).or_default()
    }
}

impl Makers {
    pub(crate) fn get(&self, number: usize) -> Option<&Maker> {
        self.all.get(&(number as u32))
    }

    pub(crate) fn get_mut(&mut self, number: usize) -> Option<&mut Maker> {
        self.all.get_mut(&(number as u32))
    }

    pub(crate) fn number(&self, name: &str) -> Option<u32> {
        self.numbers.get(name).copied()
    }

    /// The number that the next new name gets.
    pub(crate) fn next(&self) -> u32 {
        self.next
    }

    /// Numbers below this one were given out.
    pub(crate) fn given_to(&mut self, next: u32) {
        self.next = self.next.max(next);
    }

    pub(crate) fn set(&mut self, number: u32, maker: Maker) {
        self.given_to(number.saturating_add(1));
        self.numbers.insert(maker.name.clone(), number);
        self.all.insert(number, maker);
    }

    /// By number.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Maker)> {
        self.all.iter().map(|(number, maker)| (*number, maker))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Maker> {
        self.all.values_mut()
    }

    fn retain(&mut self, named: &BTreeSet<u32>) {
        self.all.retain(|number, _| named.contains(number));
        self.numbers.retain(|_, number| named.contains(number));
    }
}

/// Names of machines by number. One that was forgotten has none.
#[derive(Debug, Default)]
pub(crate) struct Nodes {
    all: BTreeMap<u32, String>,
    numbers: hashbrown::HashMap<String, u32>,
    next: u32,
    none: String,
}

impl Index<usize> for Nodes {
    type Output = String;
    fn index(&self, number: usize) -> &String {
        self.all.get(&(number as u32)).unwrap_or(&self.none)
    }
}

impl Nodes {
    /// The number of a machine's name; a new one if there is none.
    pub(crate) fn number(&mut self, name: &str) -> u32 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = self.next;
        self.next += 1;
        self.all.insert(number, name.to_owned());
        self.numbers.insert(name.to_owned(), number);
        number
    }

    fn retain(&mut self, named: &BTreeSet<u32>) {
        self.all.retain(|number, _| named.contains(number));
        self.numbers.retain(|_, number| named.contains(number));
    }
}

impl Engine {
    /// Makers that something in the books names: their proofs in trees that are kept, their sessions, what may yet be
    /// charged to them, and suspicion.
    pub(crate) fn named_makers(&self) -> BTreeSet<u32> {
        let mut named: BTreeSet<u32> = self.workers.iter().map(|(_, worker)| worker.maker).collect();
        named.extend(self.jobs.iter().flat_map(|(_, job)| job.made_by.iter().copied()));
        named.extend(self.ends.makers());
        named.extend(self.checks.makers());
        let suspected = |(number, maker): (u32, &Maker)| {
            let known = maker.suspected > 0 && maker.suspected_at + SUSPECTED_FOR > self.now;
            known.then_some((maker.suspected_at, number))
        };
        let mut suspects: Vec<(Millis, u32)> = self.makers.iter().filter_map(suspected).collect();
        suspects.sort_unstable();
        named.extend(suspects.into_iter().rev().take(MOST_SUSPECTS).map(|(_, number)| number));
        named
    }

    /// Forgets makers and machines that nothing names, once there are twice as many names as were needed when it was
    /// looked last. Replayed, the journal that names one of them gives it its name again.
    pub(crate) fn forget_names(&mut self) {
        if self.makers.all.len().max(self.nodes.all.len()) < self.many_names {
            return;
        }
        let named = self.named_makers();
        self.makers.retain(&named);
        let mut nodes: BTreeSet<u32> = self.workers.iter().map(|(_, worker)| worker.node).collect();
        for (_, maker) in self.makers.iter() {
            nodes.insert(maker.node);
        }
        for (_, job) in self.jobs.iter() {
            job.extra.values().for_each(|extra| nodes.extend(extra.named()));
        }
        nodes.extend(self.machines.named());
        nodes.extend(self.checks.nodes());
        self.nodes.retain(&nodes);
        self.many_names = 2 * self.makers.all.len().max(self.nodes.all.len()) + FEW;
    }
}
