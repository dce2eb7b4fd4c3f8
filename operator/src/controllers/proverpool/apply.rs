//! The fourth step: pods are made and deleted. That goes on beside the visits, so that thousands of pods hold up neither
//! the pool's status nor other pools; what is on its way is counted in the pod book.

use super::Shop;
use super::build::Built;
use super::memory::{Prepared, Refusal};
use super::validate::PoolKey;
use crate::kubernetes::CA_CONFIG_MAP;
use crate::kubernetes::client::causes;
use crate::kubernetes::gate::NotLeading;
use crate::kubernetes::pods::PodRecord;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Error};
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Requests of one pool in flight at once.
const AT_ONCE: usize = 32;

/// A deletion that failed is not tried again sooner.
const DELETE_AGAIN: Duration = Duration::from_secs(2);

/// While pods start, their namespace is looked at for the certificates so often.
const TRUST: Duration = Duration::from_secs(60);

/// What was set going.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Applied {
    pub(super) created: u32,
    pub(super) deleted: u32,
}

/// See the module.
pub(super) fn run(shop: &Arc<Shop>, key: &PoolKey, prepared: &Arc<Prepared>, built: Built) -> Applied {
    let Built { create, stop_creating, delete, retire } = built;
    if stop_creating {
        shop.fleet.with(key, |memory| memory.creating.cancel());
    }
    // a worker that is drained for a pod that can't be deleted would do nothing until it can
    if !shop.gate.is_open() {
        return Applied::default();
    }
    let (logged_in, gone) = logged_in(shop, delete);
    let gone = [gone, drained(shop, [retire, logged_in].concat())].concat();
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let applied = Applied { created: number(create.len()), deleted: number(gone.len()) };
    if !create.is_empty() {
        start_creating(shop, key, prepared, create);
    }
    if !gone.is_empty() {
        start_deleting(shop, key, gone);
    }
    applied
}

/// Pods that have a node can't start without the certificates of their namespace, which somebody may have deleted since
/// they were made, or made anew without them.
pub(super) fn renew_trust(shop: &Arc<Shop>, key: &PoolKey) {
    let Some(trust) = shop.trust.clone().filter(|_| shop.gate.is_open()) else { return };
    let is_due = shop.fleet.with(key, |memory| {
        let due = memory.trust_seen.is_none_or(|seen| seen.elapsed() >= TRUST);
        if due {
            memory.trust_seen = Some(tokio::time::Instant::now());
        }
        due
    });
    if is_due {
        let PoolKey { namespace, name } = key.clone();
        shop.tasks.spawn(async move {
            if let Err(error) = trust.ensure_bundle(&namespace).await {
                let error = causes(&error);
                tracing::warn!(pool = name, namespace, error, "ConfigMap {CA_CONFIG_MAP} can't be renewed");
            }
        });
    }
}

/// Pods in which nothing ran at the last plan: those whose worker has logged in since, which may prove by now, and those
/// that may be deleted.
fn logged_in(shop: &Shop, delete: Vec<Arc<PodRecord>>) -> (Vec<Arc<PodRecord>>, Vec<Arc<PodRecord>>) {
    if delete.iter().all(|pod| pod.phase.is_over()) {
        return (vec![], delete);
    }
    let workers: HashSet<String> = shop.workforce.workers().into_iter().map(|worker| worker.name).collect();
    delete.into_iter().partition(|pod| !pod.phase.is_over() && workers.contains(pod.worker()))
}

/// Those that the engine drained: it decides in one step that a worker holds nothing and gets nothing new, also when it
/// comes back.
fn drained(shop: &Shop, retire: Vec<Arc<PodRecord>>) -> Vec<Arc<PodRecord>> {
    if retire.is_empty() {
        return retire;
    }
    let names: Vec<String> = retire.iter().map(|pod| pod.worker().to_owned()).collect();
    let drained: HashSet<String> = shop.workforce.drain_idle(&names).into_iter().collect();
    let (there, gone): (Vec<_>, Vec<_>) = retire
        .into_iter()
        .filter(|pod| drained.contains(pod.worker()))
        .partition(|pod| shop.book.find_worker(pod.worker()).is_some_and(|now| now.uid == pod.uid));
    // their end may have been told before they were drained: nobody tells it again
    gone.iter().for_each(|pod| shop.workforce.dead(pod.worker()));
    there
}

fn start_creating(shop: &Arc<Shop>, key: &PoolKey, prepared: &Arc<Prepared>, names: Vec<String>) {
    shop.book.expect(&key.namespace, &key.name, names.iter().cloned());
    let stop = shop.fleet.with(key, |memory| {
        if memory.creating.is_cancelled() {
            memory.creating = CancellationToken::new();
        }
        memory.creating.clone()
    });
    let batch = Batch {
        shop: shop.clone(),
        key: key.clone(),
        prepared: prepared.clone(),
        stop,
        refused: AtomicBool::new(false),
        refusal: Mutex::default(),
    };
    shop.tasks.spawn(batch.run(names));
}

/// Pods that are made together.
struct Batch {
    shop: Arc<Shop>,
    key: PoolKey,
    prepared: Arc<Prepared>,
    stop: CancellationToken,
    refused: AtomicBool,
    refusal: Mutex<Option<Refusal>>,
}

impl Batch {
    async fn run(self, names: Vec<String>) {
        let api: Api<Pod> = Api::namespaced(self.shop.client.clone(), &self.key.namespace);
        if let Some(trust) = &self.shop.trust
            && let Err(error) = trust.ensure_bundle(&self.key.namespace).await
        {
            self.refuse(refusal(&error).with_prefix(&format!("ConfigMap {CA_CONFIG_MAP}: ")));
        }
        futures::stream::iter(&names).for_each_concurrent(AT_ONCE, |name| self.create(&api, name)).await;
        let refusal = self.refusal.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.shop.fleet.with(&self.key, |memory| match refusal {
            Some(refusal) => memory.refusals.refused(Instant::now(), refusal),
            None if !self.stop.is_cancelled() => memory.refusals.clear(),
            None => {}
        });
        self.shop.fleet.wake.notify_one();
    }

    /// Makes one pod, unless one before it was refused or no more are wanted.
    async fn create(&self, api: &Api<Pod>, name: &str) {
        let (book, key) = (&self.shop.book, &self.key);
        let stopped = self.stop.is_cancelled() || self.shop.stop.is_cancelled();
        let template = self.prepared.template.as_ref().ok();
        let Some(template) = template.filter(|_| !stopped && !self.refused.load(Ordering::Relaxed)) else {
            return book.refused(&key.namespace, &key.name, name);
        };
        match api.create(&PostParams::default(), &template.named(name)).await {
            Ok(made) => match template.lacking(&made.metadata) {
                None => book.made(&key.namespace, &key.name, name),
                Some(lacking) => self.undo(api, name, made.metadata.uid, &lacking).await,
            },
            // somebody else has the name, as no create is sent twice: another one comes with the next visit
            Err(Error::Api(status)) if status.code == 409 => book.refused(&key.namespace, &key.name, name),
            Err(error) => {
                match was_not_made(&error) {
                    true => book.refused(&key.namespace, &key.name, name),
                    false => book.unanswered(&key.namespace, &key.name, name),
                }
                self.refuse(refusal(&error));
            }
        }
    }

    /// Deletes a pod that was made without what makes it the pool's: it is not watched, its worker is not let in, and nobody
    /// else would delete it.
    async fn undo(&self, api: &Api<Pod>, name: &str, uid: Option<String>, lacking: &str) {
        let PoolKey { namespace, name: pool } = &self.key;
        if let Err(error) = api.delete(name, &only(uid)).await {
            tracing::warn!(pod = name, namespace, %error, "a pod without {lacking} is not deleted");
        }
        self.shop.book.refused(namespace, pool, name);
        self.refuse(Refusal::Said(format!(
            "a pod was made without {lacking}, which a webhook took away; it is deleted again"
        )));
    }

    fn refuse(&self, refusal: Refusal) {
        if !self.refused.swap(true, Ordering::Relaxed) {
            let PoolKey { namespace, name } = &self.key;
            tracing::warn!(pool = name, namespace, ?refusal, "pods are not made");
            *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(refusal);
        }
    }
}

/// Why a request failed, and whether that ends by itself: an API server that is busy, has lost its store or can't reach a
/// webhook says so with these codes.
pub(super) fn refusal(error: &Error) -> Refusal {
    match error {
        Error::Api(status) if matches!(status.code, 429 | 500..=599) => Refusal::Away(status.message.clone()),
        Error::Api(status) => Refusal::Said(status.message.clone()),
        error => Refusal::Away(format!("no answer: {}", causes(error))),
    }
}

/// Whether nothing came of a create that failed. After an error of the server's own something may have: its store may have
/// taken what it did not confirm in time.
fn was_not_made(error: &Error) -> bool {
    match error {
        Error::Api(status) => status.code < 500,
        error => was_never_sent(error),
    }
}

/// Whether a request that failed did not reach the API server.
fn was_never_sent(error: &Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        let refused = |io: &std::io::Error| io.kind() == std::io::ErrorKind::ConnectionRefused;
        if error.is::<NotLeading>() || error.downcast_ref().is_some_and(refused) {
            return true;
        }
        cause = error.source();
    }
    false
}

fn start_deleting(shop: &Arc<Shop>, key: &PoolKey, pods: Vec<Arc<PodRecord>>) {
    shop.fleet.with(key, |memory| memory.deleted.extend(pods.iter().map(|pod| pod.uid.clone())));
    let (shop, key) = (shop.clone(), key.clone());
    shop.clone().tasks.spawn(async move {
        let api: Api<Pod> = Api::namespaced(shop.client.clone(), &key.namespace);
        let delete = |pod: Arc<PodRecord>| delete(&shop, &api, &key, pod);
        futures::stream::iter(pods).for_each_concurrent(AT_ONCE, delete).await;
    });
}

/// Deletes a pod and no other that may have its name by now.
fn only(uid: Option<String>) -> DeleteParams {
    let only = Preconditions { uid, resource_version: None };
    DeleteParams { preconditions: Some(only), ..DeleteParams::default() }
}

/// Deletes one pod.
async fn delete(shop: &Shop, api: &Api<Pod>, key: &PoolKey, pod: Arc<PodRecord>) {
    if shop.stop.is_cancelled() {
        return;
    }
    let answer = api.delete(pod.name(), &only(Some(pod.uid.to_string()))).await;
    let gone = match &answer {
        Ok(_) => true,
        Err(Error::Api(status)) => matches!(status.code, 404 | 409),
        Err(_) => false,
    };
    shop.fleet.with(key, |memory| memory.delete_failed = !gone);
    match answer {
        Err(error) if !gone => {
            tracing::warn!(pod = pod.worker(), %error, "a pod is not deleted; it is tried again");
            tokio::time::sleep(DELETE_AGAIN).await;
            shop.fleet.with(key, |memory| memory.deleted.remove(&pod.uid));
        }
        _ => {}
    }
}
