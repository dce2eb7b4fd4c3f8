//! What is remembered of a pool between two visits. All of it may be lost: it is learned anew.

use super::census::{Absent, Moment, Workers};
use super::pod::Template;
use super::validate::{Invalid, ValidPool};
use crate::api::ProverPoolStatus;
use crate::kubernetes::pods::PoolPods;
use arborist_core::plan::Wanted;
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// A pool's spec, checked, with its pods' template. Made once for each generation.
pub(super) struct Prepared {
    pub(super) uid: Option<String>,
    pub(super) generation: Option<i64>,
    /// What it may have: without a template no pods. `None` for an object that no API server would send.
    pub(super) pool: Option<ValidPool>,
    /// What its pods are made from, or why there are to be none.
    pub(super) template: Result<Template, Invalid>,
}

/// What the plan of all pools says of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Planned {
    /// The generation of the spec that it was made for.
    pub(super) generation: i64,
    pub(super) wanted: Wanted,
}

/// See the module.
#[derive(Default)]
pub(super) struct PoolMemory {
    pub(super) prepared: Option<Arc<Prepared>>,
    pub(super) planned: Option<Planned>,
    /// Pods that are not logged in, and since when that is known.
    pub(super) absent: Arc<Absent>,
    pub(super) window: Window,
    pub(super) startups: Startups,
    /// Pods seen since they were made whose worker has not logged in yet, by uid: the others' starts can't be measured.
    starting: HashSet<Box<str>>,
    /// Pods just made whose worker has logged in: when it comes back that is no start.
    started: HashSet<Box<str>>,
    /// Some of its pods could not be counted on: none beyond those that are there are, until then.
    pub(super) limited_until: Option<Instant>,
    pub(super) refusals: Refusals,
    /// Pods that failed before their worker ran: made, and refused by their nodes.
    pub(super) rejections: Refusals,
    /// Those that are noted and still there, by uid.
    rejected: HashSet<Box<str>>,
    /// When its namespace was last looked at for the certificates that its pods need.
    pub(super) trust_seen: Option<tokio::time::Instant>,
    /// Ends the creation of pods that are no longer wanted.
    pub(super) creating: CancellationToken,
    /// Pods that were deleted, by uid: the watch has not told yet.
    pub(super) deleted: HashSet<Box<str>>,
    /// The last deletion that was answered failed.
    pub(super) delete_failed: bool,
    /// The status written last.
    pub(super) written: Option<Written>,
    /// What the pool was last visited for.
    pub(super) visited_for: u64,
    /// Visits that failed in a row.
    pub(super) failures: u32,
}

/// A status that was written.
pub(super) struct Written {
    pub(super) status: ProverPoolStatus,
    pub(super) when: Instant,
    /// The pool's version after it.
    pub(super) version: Option<u64>,
}

/// A pod first seen within so many seconds of its making has not logged in before.
const JUST_MADE: u64 = 10;

impl PoolMemory {
    /// Notes who is not logged in, and how long those took that are now.
    pub(super) fn note(&mut self, pods: &PoolPods, workers: &Workers, now: Moment) {
        let mut absent = Absent::with_capacity(self.absent.len());
        let (mut starting, mut started) = (HashSet::new(), HashSet::new());
        let mut came_up = false;
        for pod in pods.pods.iter().filter(|pod| !pod.phase.is_over()) {
            let age = (now.millis / 1000).saturating_sub(u64::try_from(pod.created).unwrap_or(0));
            let since = self.absent.get(pod.worker()).copied();
            let there = workers.contains_key(pod.worker());
            came_up |= there && since.is_some();
            if there && self.starting.contains(&pod.uid) && pod.restarts == 0 {
                self.startups.add(u32::try_from(age).unwrap_or(u32::MAX));
            }
            if age <= JUST_MADE && (there || self.started.contains(&pod.uid)) {
                started.insert(pod.uid.clone());
            } else if !there && (self.starting.contains(&pod.uid) || since.is_none() && age <= JUST_MADE) {
                starting.insert(pod.uid.clone());
            }
            if !there {
                absent.insert(pod.worker().to_owned(), since.unwrap_or(now.instant));
            }
        }
        (self.absent, self.starting, self.started) = (Arc::new(absent), starting, started);
        // a pod that is being deleted, or gone, is no longer counted by anybody
        if !self.deleted.is_empty() {
            let there: HashSet<&str> =
                pods.pods.iter().filter(|pod| !pod.deleting).map(|pod| &*pod.uid).collect();
            self.deleted.retain(|uid| there.contains(&**uid));
        }
        self.note_rejected(pods, came_up, now.instant);
    }

    /// Takes pods that failed before their worker ran for a try that was refused, however many they are at once. It counts
    /// until a worker comes up.
    fn note_rejected(&mut self, pods: &PoolPods, came_up: bool, now: Instant) {
        if came_up || self.rejections.is_long_ago(now) {
            self.rejections.clear();
        }
        let before = std::mem::take(&mut self.rejected);
        let mut news = None;
        // one that is deleted before it has started fails too
        for pod in pods.pods.iter().filter(|pod| !pod.deleting) {
            let Some(why) = &pod.rejected else { continue };
            if !before.contains(&pod.uid) {
                news = Some((pod, why));
            }
            self.rejected.insert(pod.uid.clone());
        }
        if let Some((pod, why)) = news
            && self.rejections.allowed(now) > 0
        {
            tracing::warn!(pod = pod.worker(), why, "a pod failed before its worker ran");
            self.rejections.refused(now, Refusal::Node(why.to_string()));
        }
    }

    /// How many pods may be made now, while so many are on their way. While nodes refuse them one is tried at a time, and what
    /// becomes of it is waited for.
    pub(super) fn allowed(&self, coming: u32, now: Instant) -> u32 {
        let by_nodes = match self.rejections.allowed(now) {
            u32::MAX => u32::MAX,
            tries => tries.saturating_sub(coming),
        };
        by_nodes.min(self.refusals.allowed(now))
    }

    /// How long a pod takes from being made to its worker's login.
    pub(super) fn startup(&self, pool: &ValidPool) -> Duration {
        self.startups.median().map_or(pool.startup, |seconds| Duration::from_secs(seconds.into()))
    }

    /// How long a pod without a node counts: as long as the user says that a start takes (an autoscaler may have to
    /// bring a machine), or as long as slow ones were seen to take: most others may have found a machine that was there.
    pub(super) fn grace(&self, pool: &ValidPool) -> Duration {
        let slow = self.startups.slow().map_or(Duration::ZERO, |seconds| Duration::from_secs(seconds.into()));
        pool.startup.max(slow).clamp(Duration::from_secs(2), Duration::from_secs(600))
    }

    /// Whether only those pods count that are there.
    pub(super) fn is_limited(&self, now: Instant) -> bool {
        self.refusals.message().is_some() || self.lacks_nodes(now)
    }

    /// Whether pods could not be counted on a short while ago, though they were made.
    pub(super) fn lacks_nodes(&self, now: Instant) -> bool {
        self.rejections.message().is_some() || self.limited_until.is_some_and(|until| until > now)
    }
}

/// The most that were wanted lately.
#[derive(Debug, Default)]
pub(super) struct Window {
    current: u32,
    /// Numbers wanted before, with the time when another took their place: each lower than the one before it, since those
    /// that a later, higher one outlives don't matter.
    past: VecDeque<(Instant, u32)>,
}

impl Window {
    /// So many are wanted from now on.
    pub(super) fn add(&mut self, now: Instant, wanted: u32) {
        let before = std::mem::replace(&mut self.current, wanted);
        if before == wanted {
            return;
        }
        while self.past.back().is_some_and(|(_, lower)| *lower <= before) {
            self.past.pop_back();
        }
        self.past.push_back((now, before));
    }

    /// The most wanted at any time since `delay` ago.
    pub(super) fn most(&mut self, now: Instant, delay: Duration) -> u32 {
        while self.past.front().is_some_and(|(until, _)| now.saturating_duration_since(*until) >= delay) {
            self.past.pop_front();
        }
        self.past.front().map_or(self.current, |(_, highest)| self.current.max(*highest))
    }
}

/// How long pods took to log in, in seconds.
#[derive(Debug, Default)]
pub(super) struct Startups {
    last: VecDeque<u32>,
}

/// So many are remembered.
const STARTUPS: usize = 31;

impl Startups {
    pub(super) fn add(&mut self, seconds: u32) {
        if self.last.len() >= STARTUPS {
            self.last.pop_front();
        }
        self.last.push_back(seconds);
    }

    /// The median, once one is known.
    pub(super) fn median(&self) -> Option<u32> {
        self.tenth(5)
    }

    /// What nine of ten did not exceed, once one is known.
    fn slow(&self) -> Option<u32> {
        self.tenth(9)
    }

    fn tenth(&self, tenths: usize) -> Option<u32> {
        let mut sorted: Vec<u32> = self.last.iter().copied().collect();
        sorted.sort_unstable();
        sorted.get(sorted.len() * tenths / 10).copied()
    }

    /// What an operator before this one had measured counts as one.
    pub(super) fn recall(&mut self, seconds: i32) {
        if let Some(seconds) = u32::try_from(seconds).ok().filter(|seconds| *seconds > 0)
            && self.last.is_empty()
        {
            self.add(seconds);
        }
    }
}

/// Pods that the API server refused to make, or nodes to run.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// Tries refused in a row.
    pub(super) streak: u32,
    /// Whether it gave a reason, at any of them.
    said: bool,
    /// What the API server said last.
    message: String,
    pub(super) not_before: Option<Instant>,
}

/// An API server that does not answer so many tries in a row is not waited for: within some seconds.
const AWAY: u32 = 3;

/// What nodes refused so long ago they may take now.
const FORGOTTEN: Duration = Duration::from_secs(300);

/// Why pods were not made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The API server says no, for this reason; somebody has to change something.
    Said(String),
    /// It does not answer, or this operator may not write for the moment: that ends by itself.
    Away(String),
    /// A node refused a pod that was made: another one may take it.
    Node(String),
}

impl Refusal {
    /// With what it is about before it.
    pub(super) fn with_prefix(self, prefix: &str) -> Self {
        match self {
            Self::Said(message) => Self::Said(format!("{prefix}{message}")),
            Self::Away(message) => Self::Away(format!("{prefix}{message}")),
            Self::Node(message) => Self::Node(format!("{prefix}{message}")),
        }
    }
}

impl Refusals {
    /// The API server refused, or does not answer.
    pub(super) fn refused(&mut self, now: Instant, refusal: Refusal) {
        let (longest, said, message) = match refusal {
            Refusal::Said(message) => (60, true, message),
            Refusal::Away(message) => (4, false, message),
            Refusal::Node(message) => (60, false, message),
        };
        self.said |= said;
        let pause = Duration::from_secs((1 << self.streak.min(6)).min(longest));
        self.streak = self.streak.saturating_add(1);
        self.message = message;
        self.not_before = Some(now + pause.mul_f64(0.8 + 0.2 * rand::random::<f64>()));
    }

    /// It did not.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Whether the last one is so long ago that it says nothing any more.
    fn is_long_ago(&self, now: Instant) -> bool {
        self.not_before.is_some_and(|not_before| now.saturating_duration_since(not_before) >= FORGOTTEN)
    }

    /// What the API server said, once no more pods can be counted on than there are: one try that failed is soon repeated,
    /// and no reason to start dearer machines.
    pub(super) fn message(&self) -> Option<&str> {
        (self.said || self.is_away()).then_some(&self.message)
    }

    /// Whether the API server has failed for a while.
    pub(super) fn is_away(&self) -> bool {
        self.streak >= AWAY
    }

    /// How many pods may be tried now: after a refusal one at a time, with pauses.
    pub(super) fn allowed(&self, now: Instant) -> u32 {
        match self.not_before {
            Some(not_before) if now < not_before => 0,
            Some(_) => 1,
            None => u32::MAX,
        }
    }
}
