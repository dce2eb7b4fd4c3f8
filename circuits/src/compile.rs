//! Building circuits, and keeping built ones.

use crate::base::{self, BaseTargets};
use crate::field::Data;
use crate::kernel::{self, KernelTargets, PrivateTargets};
use crate::keys::{KeyError, Keys};
use crate::merge::{self, JoinTargets};
use crate::root::{self, RootTargets};
use crate::vm::{self, VmTargets};
use arborist_core::circuit::Circuit;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

/// A circuit ready to prove.
pub(crate) struct Compiled {
    pub data: Data,
    pub targets: Targets,
}

/// Where a circuit's witness goes.
pub(crate) enum Targets {
    Vm(VmTargets),
    Private(PrivateTargets),
    Kernel(KernelTargets),
    Base(BaseTargets),
    Merge(JoinTargets),
    Root(RootTargets),
}

/// Builds a circuit with these keys as its children's.
pub(crate) fn build(keys: &Keys, circuit: Circuit) -> Result<Compiled, KeyError> {
    let (data, targets) = match circuit {
        Circuit::Vm => {
            let (data, targets) = vm::build();
            (data, Targets::Vm(targets))
        }
        Circuit::Kernel { position: 0 } => {
            let (data, targets) = kernel::build_private(keys);
            (data, Targets::Private(targets))
        }
        Circuit::Kernel { position } => {
            let (data, targets) = kernel::build(keys, position)?;
            (data, Targets::Kernel(targets))
        }
        Circuit::Base => {
            let (data, targets) = base::build(keys)?;
            (data, Targets::Base(targets))
        }
        Circuit::Merge { height } => {
            let (data, targets) = merge::build(keys, height)?;
            (data, Targets::Merge(targets))
        }
        Circuit::Root { height } => {
            let (data, targets) = root::build(keys, height)?;
            (data, Targets::Root(targets))
        }
    };
    Ok(Compiled { data, targets })
}

/// How many built circuits a process keeps, some 75 MiB each; the least recently used goes first.
/// A block of 1,024 transactions with 2 calls each uses 14, and seldom more than 4 at a time.
const KEPT: usize = 8;

type Slot = Arc<Mutex<Option<Arc<Compiled>>>>;

#[derive(Default)]
struct Kept {
    slots: HashMap<Circuit, (Slot, u64)>,
    clock: u64,
}

impl Kept {
    fn slot(&mut self, circuit: Circuit) -> Slot {
        self.clock += 1;
        let entry = self.slots.entry(circuit).or_default();
        entry.1 = self.clock;
        let slot = entry.0.clone();
        if self.slots.len() > KEPT
            && let Some(oldest) = self.slots.iter().min_by_key(|(_, (_, used))| *used).map(|(c, _)| *c)
        {
            self.slots.remove(&oldest);
        }
        slot
    }
}

/// The circuit, built with the pinned keys at first use. Whoever asks for it meanwhile waits for that one build.
///
/// # Errors
/// When the profile has no such circuit, or the code no longer builds the pinned one.
pub(crate) fn compiled(circuit: Circuit) -> Result<Arc<Compiled>, KeyError> {
    static KEPT_CIRCUITS: LazyLock<Mutex<Kept>> = LazyLock::new(Mutex::default);
    let keys = Keys::pinned();
    keys.key(circuit)?;
    let slot = KEPT_CIRCUITS.lock().unwrap_or_else(PoisonError::into_inner).slot(circuit);
    let mut built = slot.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(built) = &*built {
        return Ok(built.clone());
    }
    let fresh = Arc::new(build(keys, circuit)?);
    keys.check(circuit, &fresh)?;
    *built = Some(fresh.clone());
    Ok(fresh)
}
