//! What the operator knows of worker pods: a few hundred bytes each, kept up to date by one watch a scope.

mod capacity;
mod record;
#[cfg(test)]
mod tests;
mod watch;

pub use record::{Ended, Phase, PodRecord, Scheduling, Stranger, Waiting, Waits};
pub use watch::watch;

use crate::controllers::Scope;
use arborist_core::engine::Serves;
use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch as channel;

/// The label of a worker pod with the hash of the template it was made from.
pub const LABEL_TEMPLATE: &str = "arborist.dev/template";
/// The label of what an object is, and its value for worker pods.
pub const LABEL_NAME: (&str, &str) = ("app.kubernetes.io/name", "arborist-worker");

/// A create request whose answer was lost may have made a pod: it is counted for so long.
const UNANSWERED: Duration = Duration::from_secs(20);

/// Pods with workers' labels that are no pool's: so many are remembered, to say why they are refused.
const MAX_STRANGERS: usize = 1_000;

/// The worker pods of the operator's scopes, and those that were asked for and not seen yet. Clones are the same book.
#[derive(Clone, Default)]
pub struct PodBook {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    pages: Mutex<Pages>,
    synced: channel::Sender<usize>,
    hearers: Mutex<Vec<UnboundedSender<Change>>>,
}

#[derive(Default)]
struct Pages {
    /// By worker's name, `<namespace>/<pod>`.
    pods: HashSet<Entry>,
    /// By `<namespace>/<pool>`.
    pools: HashMap<Box<str>, Page>,
    /// Pods with workers' labels that are no pool's, by `<namespace>/<pod>`.
    strangers: HashMap<Box<str>, Stranger>,
}

#[derive(Default)]
struct Page {
    /// The pool's uid, once its controller has told.
    uid: Option<Box<str>>,
    /// Whose jobs its workers prove, once its controller has told.
    serves: Option<Serves>,
    pods: HashSet<Entry>,
    expected: HashMap<Box<str>, Expected>,
}

/// A pod that was asked for and that the watch has not told of.
#[derive(Clone, Copy)]
enum Expected {
    /// Asked for.
    Asked,
    /// Made: it counts until the watch tells of it, or a list that began later does not have it.
    Made,
    /// Whether it was made is not known.
    Unanswered(Instant),
}

/// A record, found by its worker's name.
struct Entry(Arc<PodRecord>);

impl Borrow<str> for Entry {
    fn borrow(&self) -> &str {
        self.0.worker()
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.0.worker() == other.0.worker()
    }
}

impl Eq for Entry {}

impl Hash for Entry {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.worker().hash(state);
    }
}

/// What the watch told of one pod.
#[derive(Debug, Clone)]
pub struct Change {
    /// What was known; `None` for a new pod.
    pub before: Option<Arc<PodRecord>>,
    /// What is known now; `None` for one that is gone from the API.
    pub after: Option<Arc<PodRecord>>,
}

impl Change {
    /// The pod as it is, or was last.
    pub fn pod(&self) -> Option<&Arc<PodRecord>> {
        self.after.as_ref().or(self.before.as_ref())
    }
}

/// The pods of one pool.
#[derive(Debug, Clone, Default)]
pub struct PoolPods {
    /// Those the watch has told of, in no particular order.
    pub pods: Vec<Arc<PodRecord>>,
    /// How many were asked for beside them.
    pub expected: usize,
}

impl PodBook {
    /// A pod by its namespace and name, if the watch has told of it and it is not gone.
    pub fn find(&self, namespace: &str, name: &str) -> Option<Arc<PodRecord>> {
        self.find_worker(&format!("{namespace}/{name}"))
    }

    /// The pod of a worker, whose name is `<namespace>/<pod>`.
    pub fn find_worker(&self, worker: &str) -> Option<Arc<PodRecord>> {
        self.pages().pods.get(worker).map(|entry| entry.0.clone())
    }

    /// Why a pod is not in the book though it has a worker's labels.
    pub fn stranger(&self, worker: &str) -> Option<Stranger> {
        self.pages().strangers.get(worker).copied()
    }

    /// A pool of this name lives, with this uid, and its workers prove jobs of these: from now on pods of another one of its
    /// name are not its own. Returns the workers that logged in, or may have, for others.
    pub fn pool_lives(&self, namespace: &str, pool: &str, uid: &str, serves: &Serves) -> Vec<String> {
        let mut pages = self.pages();
        // without pods there is nothing to tell apart
        let Some(page) = pages.pools.get_mut(format!("{namespace}/{pool}").as_str()) else { return vec![] };
        if page.uid.as_deref() != Some(uid) {
            page.uid = Some(uid.into());
        }
        if page.serves.as_ref() == Some(serves) {
            return vec![];
        }
        let before = page.serves.replace(serves.clone()).unwrap_or_else(|| Serves::only([namespace]));
        let pods = page.pods.iter().filter(|_| before != *serves);
        pods.map(|entry| entry.0.worker().to_owned()).collect()
    }

    /// Whose jobs a pod's worker proves: until its pool's controller has told, those of its own namespace alone.
    pub fn serves(&self, pod: &PodRecord) -> Serves {
        let key = pod.pool_key();
        let told = self.pages().pools.get(key.as_str()).and_then(|page| page.serves.clone());
        told.unwrap_or_else(|| Serves::only([namespace_of(&key)]))
    }

    /// Whether a pod's pool is the one that lives, as far as is known.
    pub fn has_living_pool(&self, pod: &PodRecord) -> bool {
        self.pages().pools.get(pod.pool_key().as_str()).is_none_or(|page| page.owns(pod))
    }

    /// All pods of a pool, with those that were asked for and not seen yet: no pod is in neither.
    pub fn of_pool(&self, namespace: &str, pool: &str) -> PoolPods {
        let mut pages = self.pages();
        let Some(page) = pages.pools.get_mut(format!("{namespace}/{pool}").as_str()) else {
            return PoolPods::default();
        };
        page.expected.retain(|_, expected| match expected {
            Expected::Asked | Expected::Made => true,
            Expected::Unanswered(since) => since.elapsed() < UNANSWERED,
        });
        PoolPods {
            pods: page.pods.iter().map(|entry| &entry.0).filter(|pod| page.owns(pod)).cloned().collect(),
            expected: page.expected.len(),
        }
    }

    /// Number of pods in the book.
    pub fn len(&self) -> usize {
        self.pages().pods.len()
    }

    /// Whether the book has no pods.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Pods of these names are about to be made: they count until the watch tells of them.
    pub fn expect(&self, namespace: &str, pool: &str, names: impl IntoIterator<Item = String>) {
        let mut pages = self.pages();
        let page = pages.pools.entry(format!("{namespace}/{pool}").into()).or_default();
        page.expected.extend(names.into_iter().map(|name| (name.into(), Expected::Asked)));
    }

    /// This pod was made.
    pub fn made(&self, namespace: &str, pool: &str, name: &str) {
        self.answer(namespace, pool, name, Some(Expected::Made));
    }

    /// This pod was not made, and will not be.
    pub fn refused(&self, namespace: &str, pool: &str, name: &str) {
        self.answer(namespace, pool, name, None);
    }

    /// Whether this pod was made is not known: it counts for a while.
    pub fn unanswered(&self, namespace: &str, pool: &str, name: &str) {
        self.answer(namespace, pool, name, Some(Expected::Unanswered(Instant::now())));
    }

    fn answer(&self, namespace: &str, pool: &str, name: &str, answer: Option<Expected>) {
        let mut pages = self.pages();
        // the watch may have been faster: then nothing is expected any more
        if let Some(page) = pages.pools.get_mut(format!("{namespace}/{pool}").as_str())
            && let Some(expected) = page.expected.get_mut(name)
        {
            match answer {
                Some(answer) => *expected = answer,
                None => _ = page.expected.remove(name),
            }
        }
    }

    /// Waits until the watches of so many scopes have told of all pods there are.
    pub async fn synced(&self, scopes: usize) {
        let mut synced = self.inner.synced.subscribe();
        // the sender lives in the book
        let _ = synced.wait_for(|done| *done >= scopes).await;
    }

    /// Of how many scopes all pods are known.
    pub fn synced_scopes(&self) -> usize {
        *self.inner.synced.borrow()
    }

    /// Every change from now on, after it is in the book. What was before is in the book: who needs it looks there
    /// after this call.
    pub fn subscribe(&self) -> UnboundedReceiver<Change> {
        let (tell, told) = unbounded_channel();
        self.inner.hearers.lock().unwrap_or_else(PoisonError::into_inner).push(tell);
        told
    }

    fn tell(&self, change: &Change) {
        let mut hearers = self.inner.hearers.lock().unwrap_or_else(PoisonError::into_inner);
        hearers.retain(|hearer| hearer.send(change.clone()).is_ok());
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.inner.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what the watch tells of a pod. A pod of the same name with another uid is a new one: the old is gone.
    fn apply(&self, record: PodRecord) -> Vec<Change> {
        let record = Arc::new(record);
        let mut changes = vec![];
        let mut pages = self.pages();
        pages.strangers.remove(record.worker());
        let mut before = pages.pods.get(record.worker()).map(|entry| entry.0.clone());
        let another = |old: &Arc<PodRecord>| {
            (&old.uid, &old.pool, &old.pool_uid) != (&record.uid, &record.pool, &record.pool_uid)
        };
        if before.as_ref().is_some_and(another) {
            changes.extend(pages.remove(record.worker()));
            before = None;
        }
        if before.as_ref() == Some(&record) {
            return changes;
        }
        pages.insert(&record);
        changes.push(Change { before, after: Some(record) });
        changes
    }

    fn remove(&self, worker: &str) -> Option<Change> {
        let mut pages = self.pages();
        pages.strangers.remove(worker);
        pages.remove(worker)
    }

    /// A pod with a worker's labels is none: if it was one it is no longer.
    fn ignore(&self, worker: String, why: Stranger) -> Option<Change> {
        let mut pages = self.pages();
        let change = pages.remove(&worker);
        if pages.strangers.len() < MAX_STRANGERS && pages.strangers.get(worker.as_str()) != Some(&why) {
            tracing::warn!(pod = worker, "a pod that is labelled as a worker {why}: it is ignored");
            pages.strangers.insert(worker.into(), why);
        }
        change
    }

    /// The pods that are made and not seen yet: a list that begins now has them, if they are still there.
    fn unseen(&self, scope: &Scope) -> HashSet<Box<str>> {
        let mut unseen = HashSet::new();
        for (key, page) in self.pages().pools.iter().filter(|(key, _)| within(scope, key)) {
            let made = page.expected.iter().filter(|(_, state)| matches!(state, Expected::Made));
            unseen.extend(made.map(|(name, _)| format!("{}/{name}", namespace_of(key)).into()));
        }
        unseen
    }

    /// Takes a whole list: what is in the book and not in it is gone, and so is what was made before it began and
    /// `unseen` then.
    fn keep(&self, scope: &Scope, listed: &HashSet<Box<str>>, unseen: &HashSet<Box<str>>) -> Vec<Change> {
        let mut pages = self.pages();
        let names = pages.pods.iter().map(|entry| entry.0.worker());
        let gone: Vec<String> =
            names.filter(|w| within(scope, w) && !listed.contains(*w)).map(str::to_owned).collect();
        let changes = gone.iter().filter_map(|worker| pages.remove(worker)).collect();
        pages.strangers.retain(|worker, _| !within(scope, worker) || listed.contains(worker));
        for (key, page) in pages.pools.iter_mut().filter(|(key, _)| within(scope, key)) {
            let namespace = namespace_of(key);
            page.expected.retain(|name, _| !unseen.contains(format!("{namespace}/{name}").as_str()));
        }
        pages.pools.retain(|_, page| !page.pods.is_empty() || !page.expected.is_empty());
        changes
    }
}

impl Page {
    fn owns(&self, pod: &PodRecord) -> bool {
        self.uid.as_ref().is_none_or(|uid| *uid == pod.pool_uid)
    }
}

impl Pages {
    fn insert(&mut self, record: &Arc<PodRecord>) {
        self.pods.replace(Entry(record.clone()));
        let page = self.pools.entry(record.pool_key().into()).or_default();
        page.pods.replace(Entry(record.clone()));
        page.expected.remove(record.name());
    }

    fn remove(&mut self, worker: &str) -> Option<Change> {
        let Entry(record) = self.pods.take(worker)?;
        if let Some(page) = self.pools.get_mut(record.pool_key().as_str()) {
            page.pods.remove(worker);
            page.expected.remove(record.name());
            if page.pods.is_empty() && page.expected.is_empty() {
                self.pools.remove(record.pool_key().as_str());
            }
        }
        Some(Change { before: Some(record), after: None })
    }
}

#[cfg(test)]
impl PodBook {
    /// Takes a pod as the watch would tell of it.
    pub(crate) fn tell_of(&self, pod: serde_json::Value) -> Vec<Change> {
        let pod: record::WorkerPod = serde_json::from_value(pod).unwrap();
        let changes = match pod.record() {
            Ok(record) => self.apply(record),
            Err(why) => self.ignore(pod.worker(), why).into_iter().collect(),
        };
        changes.iter().for_each(|change| self.tell(change));
        changes
    }

    /// Takes a pod's end as the watch would tell of it.
    pub(crate) fn tell_gone(&self, worker: &str) {
        if let Some(change) = self.remove(worker) {
            self.tell(&change);
        }
    }

    /// As if a scope's watch had told of all pods.
    pub(crate) fn tell_all(&self) {
        self.inner.synced.send_modify(|scopes| *scopes += 1);
    }
}

/// Whether `<namespace>/<name>` is in a scope.
fn within(scope: &Scope, key: &str) -> bool {
    match scope {
        Scope::Cluster => true,
        Scope::Namespace(namespace) => namespace_of(key) == namespace,
    }
}

fn namespace_of(key: &str) -> &str {
    key.split_once('/').map_or("", |(namespace, _)| namespace)
}
