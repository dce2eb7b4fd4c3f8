//! Why so many: typed, and as a sentence for people.

use crate::circuit::Kind;
use crate::profile::Needs;
use std::fmt;

/// Why a pool should have so many pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Because {
    /// So many.
    pub pods: u32,
    /// What is placed on them.
    pub shares: Vec<Share>,
    /// What else decided.
    pub bound: Bound,
}

/// Tasks placed on a pool's pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Their kind.
    pub kind: Kind,
    /// How many.
    pub tasks: u32,
    /// How many of them an empty pod takes.
    pub each: u32,
}

/// What decided beside the demand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// Nothing.
    Demand,
    /// The pool's minimum.
    Minimum(u32),
    /// The pool's maximum.
    Maximum {
        /// The maximum.
        pods: u32,
        /// How many more would be used.
        denied: u32,
    },
    /// The pool's budget.
    Budget {
        /// So many pods it pays for.
        pods: u32,
        /// How many more would be used.
        denied: u32,
    },
    /// The tenant's quota.
    Quota {
        /// So many pods its pools may have together.
        pods: u32,
        /// How many more would be used.
        denied: u32,
    },
    /// Pods can't be scheduled or don't start.
    Probing {
        /// So many are wanted all the same.
        probes: u32,
        /// How many would be used.
        denied: u32,
    },
    /// The user says how many.
    Fixed,
}

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.pods)?;
        if self.bound == Bound::Fixed {
            return write!(f, "spec.scaling.replicas in mode Fixed");
        }
        match &self.shares[..] {
            [] => write!(f, "nothing to prove")?,
            [one] => {
                let (proofs, run, are, will) = match one.tasks {
                    1 => ("proof", "runs", "is", "will be"),
                    _ => ("proofs", "run", "are", "will be"),
                };
                write!(f, "{} {} {proofs} {run}, {are} ready or soon {will}", one.tasks, one.kind)?;
                write!(f, "; {}", fit(one.each))?;
            }
            shares => {
                for (place, share) in shares.iter().enumerate() {
                    let comma = if place > 0 { ", " } else { "" };
                    write!(f, "{comma}{} {} ({} a pod)", share.tasks, share.kind, share.each)?;
                }
                write!(f, " proofs run, are ready or soon will be")?;
            }
        }
        write!(f, "{}", self.bound)
    }
}

fn fit(each: u32) -> String {
    format!("{each} {} a pod", if each == 1 { "fits" } else { "fit" })
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Demand | Self::Fixed => Ok(()),
            Self::Minimum(min) => write!(f, "; the minimum is {min}"),
            Self::Maximum { pods, denied } => {
                write!(f, "; {denied} more could be used, the maximum is {pods}")
            }
            Self::Budget { pods, denied } => {
                write!(f, "; {denied} more could be used, the budget pays for {pods}")
            }
            Self::Quota { pods, denied } => {
                write!(
                    f,
                    "; {denied} more could be used, the namespace's pools may have {pods} pods together"
                )
            }
            Self::Probing { probes, denied } => {
                write!(f, "; {denied} more could be used and don't come up: {probes} of them go on trying")
            }
        }
    }
}

/// Tasks that no pod of any pool can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Starved {
    /// Their kind.
    pub kind: Kind,
    /// What each needs.
    pub needs: Needs,
    /// How many.
    pub tasks: u32,
    /// Why.
    pub why: Why,
}

/// Why no pod can take them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The machines of the pools that take this kind are too small.
    TooSmall {
        /// The largest.
        largest: Needs,
    },
    /// No pool takes this kind.
    NotTaken,
    /// Pods of all pools that fit find no node or don't start.
    Limited,
    /// The pools that fit may have no pods.
    NoneAllowed,
}

impl fmt::Display for Starved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, needs, tasks, why } = self;
        let (proofs, wait) = if *tasks == 1 { ("proof", "waits") } else { ("proofs", "wait") };
        write!(f, "{tasks} {kind} {proofs} {wait}: ")?;
        match why {
            Why::TooSmall { largest } => write!(
                f,
                "each needs {}, and the largest machine of a pool that takes them has {}",
                machine(*needs),
                machine(*largest)
            ),
            Why::NotTaken => write!(f, "no pool's spec.circuits has {kind}"),
            Why::Limited => write!(f, "no pod of a pool that fits ({}) can be had", machine(*needs)),
            Why::NoneAllowed => {
                write!(f, "each needs {}, and the pools that fit may have no pods", machine(*needs))
            }
        }
    }
}

/// Cores and memory as people write them.
fn machine(needs: Needs) -> String {
    let cores = if needs.cores == 1 { "core" } else { "cores" };
    match needs.memory_mib % 1024 {
        0 => format!("{} {cores} and {}Gi", needs.cores, needs.memory_mib / 1024),
        _ => format!("{} {cores} and {}Mi", needs.cores, needs.memory_mib),
    }
}
