//! Where each pod of a pool stands: what Kubernetes knows of it, joined with what the engine knows of its worker. Pure.

use super::workforce::Workforce;
use crate::api::conditions::reason;
use crate::kubernetes::pods::{Phase, PodRecord, PoolPods, Scheduling, Waits};
use arborist_core::engine::{Millis, WorkerBrief, WorkerState};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Workers in the engine by name.
pub(super) type Workers = HashMap<String, WorkerBrief>;
/// Since when pods that are not logged in have been seen so, by worker.
pub(super) type Absent = HashMap<String, Instant>;

/// A worker that is not heard for so long has lost its leases, and may be deleted.
const MUTE: Duration = Duration::from_secs(60);

/// A pod whose container is not there after so long is not counted on, however large its image.
const SLOW: Duration = Duration::from_secs(300);

/// Where a pod stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It never runs again.
    Over,
    /// It is being deleted.
    Leaving,
    /// Its node is not heard, and its worker isn't either.
    Lost,
    /// Its worker has nothing to do, since so long.
    Idle(Duration),
    /// Its worker proves, or may be: it is not connected and its leases have not expired.
    Busy,
    /// Its worker takes nothing new.
    Draining {
        /// It holds no lease.
        done: bool,
    },
    /// It has a node, and its worker is not logged in yet.
    Arriving,
    /// It has no node yet.
    Pending,
    /// It can't be counted on.
    Stuck(Trouble),
}

/// Why a pod can't be counted on; the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Trouble {
    /// Its image can't be pulled.
    Image,
    /// Its container can't be made.
    Config,
    /// Its container was killed for lack of memory, again and again.
    OutOfMemory,
    /// Its container ends again and again.
    CrashLoop,
    /// No node has had room for it for a while.
    Unschedulable,
    /// It has a node, and its worker has not logged in for long.
    Mute,
}

impl Trouble {
    /// The reason as conditions have it.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Image => reason::IMAGE_PULL_FAILED,
            Self::Config => reason::CONTAINER_CONFIG_ERROR,
            Self::OutOfMemory => reason::OUT_OF_MEMORY,
            Self::CrashLoop => reason::CRASH_LOOP,
            Self::Unschedulable => reason::UNSCHEDULABLE,
            Self::Mute => reason::NOT_LOGGED_IN,
        }
    }
}

impl Standing {
    /// Whether its worker is logged in and takes leases.
    pub(super) fn is_present(self) -> bool {
        matches!(self, Self::Idle(_) | Self::Busy)
    }

    /// Whether its worker is not logged in.
    pub(super) fn is_absent(self) -> bool {
        matches!(self, Self::Arriving | Self::Pending | Self::Stuck(_))
    }
}

/// A pod and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) pod: Arc<PodRecord>,
    pub(super) standing: Standing,
}

impl Member {
    /// Whether nothing can be lost with it, so that it may be deleted without asking the engine. A container that runs
    /// may be a worker that proves and finds back to an operator that has just taken over: such a pod is asked for its
    /// leases first, once it is there.
    pub(super) fn is_empty(&self) -> bool {
        match self.standing {
            Standing::Pending | Standing::Stuck(_) => true,
            Standing::Arriving => self.pod.phase == Phase::Pending,
            _ => false,
        }
    }
}

/// All pods of a pool.
#[derive(Debug, Clone, Default)]
pub(super) struct Census {
    pub(super) members: Vec<Member>,
    /// Asked for and not seen yet.
    pub(super) expected: u32,
    pub(super) counts: Counts,
}

/// How many pods stand where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct Counts {
    pub(super) idle: u32,
    /// Of these: idle for longer than the pool waits.
    pub(super) removable: u32,
    pub(super) busy: u32,
    /// Draining or being deleted.
    pub(super) draining: u32,
    pub(super) arriving: u32,
    pub(super) pending: u32,
    pub(super) stuck: u32,
    /// Over or lost.
    pub(super) gone: u32,
    /// Of these: lost.
    pub(super) lost: u32,
    /// No node has room for them, however long.
    pub(super) unschedulable: u32,
    /// They have no node, for whatever reason and however long.
    pub(super) nodeless: u32,
    /// Of an older template.
    pub(super) outdated: u32,
    /// What troubles most of those that are stuck.
    pub(super) trouble: Option<Trouble>,
}

impl Counts {
    /// Pods whose worker takes leases.
    pub(super) fn present(&self) -> u32 {
        self.idle + self.busy
    }

    /// Pods that are there and are not about to go.
    pub(super) fn there(&self) -> u32 {
        self.present() + self.arriving + self.pending + self.stuck
    }
}

/// How a pool's pods are judged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules<'a> {
    /// Hash of the pool's template; `None` while there is none, so that no pod is older than it.
    pub(super) template: Option<&'a str>,
    /// A pod without a node counts for so long.
    pub(super) grace: Duration,
    /// A pod is removed when it was idle for so long.
    pub(super) delay: Duration,
}

/// When it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) instant: Instant,
    /// By the machine's clock, as the API's times are: milliseconds since 1970.
    pub(super) millis: u64,
    /// By the engine's clock.
    pub(super) engine: Millis,
}

impl Moment {
    pub(super) fn now(workforce: &dyn Workforce) -> Self {
        let millis = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or_default();
        Self { instant: Instant::now(), millis, engine: workforce.now() }
    }
}

impl Census {
    /// Joins pods and workers.
    pub(super) fn take(
        pods: PoolPods,
        workers: &Workers,
        absent: &Absent,
        rules: &Rules,
        now: Moment,
    ) -> Self {
        let mut census =
            Self { expected: u32::try_from(pods.expected).unwrap_or(u32::MAX), ..Self::default() };
        let mut troubles: HashMap<Trouble, u32> = HashMap::new();
        census.members.reserve(pods.pods.len());
        for pod in pods.pods {
            let standing = standing(&pod, workers.get(pod.worker()), absent, rules, now);
            if let Standing::Stuck(trouble) = standing {
                *troubles.entry(trouble).or_default() += 1;
            }
            census.counts.add(&pod, standing, rules);
            census.members.push(Member { pod, standing });
        }
        let most = troubles.into_iter().max_by_key(|(trouble, count)| (*count, std::cmp::Reverse(*trouble)));
        census.counts.trouble = most.map(|(trouble, _)| trouble);
        census
    }

    /// Pods that are there, or will be.
    pub(super) fn have(&self) -> u32 {
        self.counts.there() + self.expected
    }

    /// Pods that may come up yet.
    pub(super) fn coming(&self) -> u32 {
        self.counts.arriving + self.counts.pending + self.expected
    }

    /// A pod with this trouble, to name in a message.
    pub(super) fn example(&self, trouble: Trouble) -> Option<&PodRecord> {
        let troubled = self.members.iter().filter(|member| member.standing == Standing::Stuck(trouble));
        troubled.map(|member| &*member.pod).min_by_key(|pod| pod.worker())
    }
}

impl Counts {
    fn add(&mut self, pod: &PodRecord, standing: Standing, rules: &Rules) {
        let counter = match standing {
            // deleted already, and there until its finalizers are off: nothing is left to do about it
            Standing::Over if pod.deleting => return,
            Standing::Over | Standing::Lost => &mut self.gone,
            Standing::Leaving | Standing::Draining { .. } => &mut self.draining,
            Standing::Idle(_) => &mut self.idle,
            Standing::Busy => &mut self.busy,
            Standing::Arriving => &mut self.arriving,
            Standing::Pending => &mut self.pending,
            Standing::Stuck(_) => &mut self.stuck,
        };
        *counter += 1;
        self.lost += u32::from(standing == Standing::Lost);
        self.removable += u32::from(matches!(standing, Standing::Idle(since) if since >= rules.delay));
        let waits = standing.is_absent() && matches!(pod.scheduling, Scheduling::Unschedulable(_));
        self.unschedulable += u32::from(waits);
        let nodeless = matches!(standing, Standing::Pending | Standing::Stuck(Trouble::Unschedulable));
        self.nodeless += u32::from(nodeless);
        let counts = standing.is_present() || standing.is_absent();
        self.outdated += u32::from(counts && rules.template.is_some_and(|hash| *pod.template != *hash));
    }
}

fn standing(
    pod: &PodRecord,
    worker: Option<&WorkerBrief>,
    absent: &Absent,
    rules: &Rules,
    now: Moment,
) -> Standing {
    if pod.phase.is_over() {
        return Standing::Over;
    }
    if pod.deleting {
        return Standing::Leaving;
    }
    if let Some(worker) = worker {
        return match worker.state {
            WorkerState::Draining | WorkerState::Barred => Standing::Draining { done: worker.leases == 0 },
            // leases of one that is not heard may still be kept by it
            WorkerState::Silent | WorkerState::Disconnected => Standing::Busy,
            WorkerState::Live | WorkerState::Resting if worker.leases > 0 => Standing::Busy,
            WorkerState::Live | WorkerState::Resting => {
                let since = worker.idle_since.unwrap_or(now.engine);
                Standing::Idle(Duration::from_millis(now.engine.saturating_sub(since)))
            }
        };
    }
    if pod.node_lost {
        return Standing::Lost;
    }
    let waited = absent
        .get(pod.worker())
        .map_or(Duration::ZERO, |since| now.instant.saturating_duration_since(*since));
    if let Some(waiting) = &pod.waiting {
        return Standing::Stuck(match waiting.why {
            Waits::Image => Trouble::Image,
            Waits::Config => Trouble::Config,
            Waits::CrashLoop if pod.out_of_memory().is_some() => Trouble::OutOfMemory,
            Waits::CrashLoop => Trouble::CrashLoop,
        });
    }
    match (&pod.scheduling, pod.phase) {
        (Scheduling::Unschedulable(_), _) if waited >= rules.grace => Standing::Stuck(Trouble::Unschedulable),
        (Scheduling::Unschedulable(_) | Scheduling::Pending, _) => Standing::Pending,
        // it has its image and runs, so it should have been there long ago
        (Scheduling::Scheduled, Phase::Running) if waited >= MUTE.max(rules.grace * 2) => {
            Standing::Stuck(Trouble::Mute)
        }
        // a volume that can't be mounted shows nowhere else
        (Scheduling::Scheduled, _) if waited >= SLOW.max(rules.grace * 4) => Standing::Stuck(Trouble::Mute),
        (Scheduling::Scheduled, _) => Standing::Arriving,
    }
}
