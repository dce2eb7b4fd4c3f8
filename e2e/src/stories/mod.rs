//! The stories, in the order they are told: those that want the same installation together, quick ones first.

mod api_server_down;
mod capacity;
mod coordinator_down;
mod crds;
mod deadline;
mod delete_job;
mod drain;
mod foreign_token;
mod kill_worker;
mod kubelet_down;
mod leader_kill;
mod missing_image;
mod oom;
mod operators_down;
mod partition;
mod priorities;
mod quickstart;
mod refused;
mod same_block;
mod scale;
mod scaling;
mod store_down;
mod suspend;
mod tenants;
mod upgrade;

use crate::lab::wait::secs;
use crate::lab::{Flavour, Scene};
use anyhow::Result;
use futures::future::BoxFuture;
use std::time::Duration;

/// What a story finds in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// The CRDs only.
    Cluster,
    /// The operator.
    Operator(Flavour),
}

/// A story.
pub struct Story {
    /// What it is called by.
    pub name: &'static str,
    /// What it shows.
    pub about: &'static str,
    /// What it finds in place.
    pub needs: Needs,
    /// Whether it needs what `e2e/cluster` can do and a cluster reached through its API can't: kill the API server, a
    /// kubelet or a process in a pod, cut a node off, simulate nodes. Such a story is skipped on every other cluster, kind's
    /// too, where it would take Docker to do the same.
    pub needs_faults: bool,
    /// It hangs if it takes longer.
    pub limit: Duration,
    /// Tells it.
    pub tell: for<'a> fn(&'a Scene<'a>) -> BoxFuture<'a, Result<()>>,
}

const PLAIN: Needs = Needs::Operator(Flavour::Plain);
const FAKE: Needs = Needs::Operator(Flavour::Fake);
const PAIR: Needs = Needs::Operator(Flavour::Pair);

macro_rules! story {
    ($module:ident, $needs:expr, $about:expr) => {
        story!(@ $module, $needs, false, $about)
    };
    ($module:ident, $needs:expr, faults, $about:expr) => {
        story!(@ $module, $needs, true, $about)
    };
    (@ $module:ident, $needs:expr, $faults:expr, $about:expr) => {
        Story {
            name: name(stringify!($module)),
            about: $about,
            needs: $needs,
            needs_faults: $faults,
            limit: limit(stringify!($module)),
            tell: |scene| Box::pin($module::tell(scene)),
        }
    };
}

/// A module's name as the story's: namespaces have no underscores, so one-word names are as they are and the others
/// are said here.
const fn name(module: &'static str) -> &'static str {
    match module.as_bytes() {
        b"api_server_down" => "api-server-down",
        b"coordinator_down" => "coordinator-down",
        b"delete_job" => "delete-job",
        b"foreign_token" => "foreign-token",
        b"kill_worker" => "kill-worker",
        b"kubelet_down" => "kubelet-down",
        b"leader_kill" => "leader-kill",
        b"missing_image" => "missing-image",
        b"operators_down" => "operators-down",
        b"same_block" => "same-block",
        b"store_down" => "store-down",
        _ => module,
    }
}

/// Ten times what most take; the large sizes of `scale` take half an hour.
const fn limit(module: &str) -> Duration {
    match module.as_bytes() {
        b"scale" => secs(3_600),
        _ => secs(900),
    }
}

/// All stories.
pub const STORIES: &[Story] = &[
    story!(crds, Needs::Cluster, "objects the API server takes, and what it says to those it refuses"),
    story!(refused, FAKE, "jobs that the operator refuses, each with a reason and a message"),
    story!(same_block, FAKE, "the same block twice: the second is done from the artifacts"),
    story!(priorities, FAKE, "two jobs at once: the one of higher priority goes first"),
    story!(suspend, FAKE, "a suspended job starts nothing, a resumed one goes on"),
    story!(tenants, FAKE, "two namespaces: nobody's pools prove the other's jobs unless both agree"),
    story!(delete_job, FAKE, "a job deleted while it runs: workers stop, the next job goes on"),
    story!(deadline, FAKE, "a deadline that passes fails the job, one that is moved does not"),
    story!(scaling, FAKE, "from nothing to workers and back to nothing; kubectl scale of a fixed pool"),
    story!(
        capacity,
        FAKE,
        "pods that no node takes: another pool does the work; no pool fits: the pool says so"
    ),
    story!(missing_image, FAKE, "an image that does not exist is named in the pool's condition"),
    story!(foreign_token, FAKE, "a worker with a token for somebody else is refused and counted"),
    story!(kill_worker, FAKE, "busy workers are killed: their tasks are made by others"),
    story!(oom, FAKE, "workers killed for their memory: the operator learns it, larger ones make the proofs"),
    story!(
        coordinator_down,
        FAKE,
        "the coordinator is away when the block is proven, and told when it is back"
    ),
    story!(upgrade, FAKE, "helm upgrade in the middle of a job"),
    story!(drain, FAKE, "a node is drained under its workers"),
    story!(api_server_down, FAKE, faults, "the API server is away for 20 seconds: proving goes on"),
    story!(kubelet_down, FAKE, faults, "a kubelet dies: its workers go on, or are replaced"),
    story!(partition, FAKE, faults, "a node is cut off and comes back: its tasks are made elsewhere, once"),
    story!(
        quickstart,
        PLAIN,
        "helm install, kubectl apply of the sample: real proofs, verified, reported once"
    ),
    story!(
        leader_kill,
        PAIR,
        faults,
        "kill -9 of the leader: the standby takes over, nothing is proven twice"
    ),
    story!(operators_down, PAIR, "both operators go and come back: the job goes on where it was"),
    story!(store_down, PAIR, "the bucket is away for a while: finished proofs are kept until it is back"),
    story!(scale, FAKE, faults, "a large block wants thousands of workers, on simulated nodes"),
];
