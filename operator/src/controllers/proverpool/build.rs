//! The third step: what is to be done, with the pods to be made. Pure but for their random names.

use super::decide::{self, Input, Steps};
use super::dereference::Seen;
use super::pod::{Template, random_name};
use super::validate::ValidPool;
use crate::kubernetes::pods::PodRecord;
use std::sync::Arc;

/// What is to be done about a pool's pods.
pub(super) struct Built {
    /// Names of pods to be made.
    pub(super) create: Vec<String>,
    /// What is on its way is too much.
    pub(super) stop_creating: bool,
    /// Pods to be deleted.
    pub(super) delete: Vec<Arc<PodRecord>>,
    /// Pods to be deleted if they hold no lease when the engine drains them.
    pub(super) retire: Vec<Arc<PodRecord>>,
}

/// See the module.
pub(super) fn run(pool: &ValidPool, template: Option<&Template>, seen: &Seen) -> Built {
    let Steps { create, stop_creating, delete, retire } = decide::steps(&Input {
        census: &seen.census,
        wanted: seen.planned.wanted.pods,
        lately: seen.lately,
        delay: pool.scale_down_delay,
        template: template.map(|template| &*template.hash),
        deleted: &seen.deleted,
        allowed: seen.allowed,
        delete_failed: seen.delete_failed,
    });
    let create = (0..create).map(|_| random_name(&pool.key)).collect();
    Built { create, stop_creating, delete, retire }
}
