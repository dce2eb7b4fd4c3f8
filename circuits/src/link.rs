//! How a parent's public inputs follow from its children's: the circuits' rules, checked natively first so
//! that an error says which child breaks them.

use crate::field::{self, F};
use crate::layout;
use arborist_core::backend::ProveError;
use arborist_core::circuit::Circuit;

/// A rule between children that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Broken {
    /// The child that is blamed.
    pub child: usize,
    /// What is wrong with it.
    pub reason: String,
}

impl Broken {
    /// Child `child` starts at another state than `other` ends at.
    pub(crate) fn states(child: usize, starts: [F; 4], other: usize, ends: [F; 4]) -> Self {
        let (starts, ends) = (field::to_word(starts), field::to_word(ends));
        Self { child, reason: format!("starts at state {starts}, but child {other} ends at {ends}") }
    }
}

/// Where a field of the public inputs comes from, and so who is to blame when it is not what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// This child alone.
    Child(usize),
    /// This child alone, once the links between the children hold.
    LinkedChild(usize),
    /// This input alone.
    Input(usize),
    /// Several of them.
    Several,
}

/// Origins of the fields in [`layout::fields`], in their order.
pub(crate) fn origins(circuit: Circuit, from_private: bool) -> &'static [Origin] {
    use Origin::{Child, Input, LinkedChild, Several};
    match circuit {
        Circuit::Vm => &[Input(0); 3],
        Circuit::Kernel { position: 0 | 1 } => &[Child(0), Child(0), Input(0), Input(0), Child(0), Several],
        Circuit::Kernel { .. } => &[Child(0), Child(1), Child(0), Child(0), Several, Several],
        Circuit::Base if from_private => &[Several, Several, Input(0), Several],
        Circuit::Base => &[Child(0), Child(0), Child(0), Several],
        Circuit::Merge { .. } => &[Child(0), Child(1), Several, LinkedChild(1)],
        Circuit::Root { height: 0 } => &[Several, Several, Child(0), Child(0), Child(0), Several, Several],
        Circuit::Root { .. } => &[Several, Several, Child(0), Child(1), Several, LinkedChild(1), Several],
    }
}

/// A proof's public inputs as they follow from its children and inputs.
pub(crate) struct Derived<'a> {
    pub circuit: Circuit,
    pub inputs: Vec<u64>,
    pub linked: Result<(), Broken>,
    pub origins: &'static [Origin],
    /// The children's circuits, for errors.
    pub children: &'a [Circuit],
}

impl Derived<'_> {
    /// Checks them against what was asked for (nothing, if empty), and the links between the children.
    ///
    /// # Errors
    /// Names the child or input that is at fault, as far as that can be told.
    pub(crate) fn check(&self, expected: &[u64]) -> Result<(), ProveError> {
        let total = layout::length(self.circuit);
        let asked = !expected.is_empty();
        if asked && expected.len() != total {
            return Err(ProveError::Failed(format!(
                "{} public inputs are asked for, {} has {total}",
                expected.len(),
                self.circuit
            )));
        }
        let differing = if asked { self.differences(expected) } else { Vec::new() };
        if let Some((origin, reason)) =
            differing.iter().find(|(o, _)| matches!(o, Origin::Child(_) | Origin::Input(_)))
        {
            return Err(self.blame(*origin, reason.clone()));
        }
        if let Err(broken) = &self.linked {
            return Err(self.blame(Origin::Child(broken.child), broken.reason.clone()));
        }
        match differing.into_iter().next() {
            Some((origin, reason)) => Err(self.blame(origin, reason)),
            None => Ok(()),
        }
    }

    fn differences(&self, expected: &[u64]) -> Vec<(Origin, String)> {
        let mut at = 0;
        let mut out = Vec::new();
        for ((name, length), origin) in layout::fields(self.circuit).iter().zip(self.origins) {
            let range = at..at + length;
            at = range.end;
            let (found, wanted) = (&self.inputs[range.clone()], &expected[range]);
            if found != wanted {
                let (found, wanted) = (layout::show(found), layout::show(wanted));
                out.push((*origin, format!("{name} is {found}, asked for is {wanted}")));
            }
        }
        out
    }

    fn blame(&self, origin: Origin, reason: String) -> ProveError {
        match origin {
            Origin::Child(index) | Origin::LinkedChild(index) => match self.children.get(index) {
                Some(circuit) => ProveError::BadChild { index, circuit: *circuit, reason },
                // Without calls the private proof stands in the child's place.
                None => ProveError::BadInput { index: 0, reason },
            },
            Origin::Input(index) => ProveError::BadInput { index, reason },
            Origin::Several => ProveError::Failed(reason),
        }
    }
}
