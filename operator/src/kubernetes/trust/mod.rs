//! What workers know the operator by: certificates of an authority of the operator's own, published in every
//! namespace that has pools.

mod keeper;
mod rotation;
mod secret;
#[cfg(test)]
mod tests;

pub use keeper::Keeper;
pub use rotation::{Authorities, SETTLE, Step, VALID_DAYS, Validity, rotation};
pub use secret::TrustError;

use super::{CA_CONFIG_MAP, CA_KEY};
use crate::api::{LABEL_MANAGED_BY, MANAGER};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// A ConfigMap is looked at again after so long, in case somebody has changed it or deleted it with its namespace.
const FRESH: Duration = Duration::from_secs(10);

/// The certificates that workers trust, and where they are published.
pub struct Trust {
    client: Client,
    state: Mutex<State>,
}

struct State {
    bundle: String,
    /// What each namespace was told last; `None`: nothing yet by this process.
    namespaces: HashMap<String, Option<Published>>,
    /// Whether the namespaces that have pools are known: to a new leader they are not at first.
    counted: bool,
}

/// What a namespace was told last.
struct Published {
    bundle: blake3::Hash,
    /// When it was last seen there.
    seen: Instant,
    /// When it was told this bundle first.
    since: Timestamp,
}

impl Trust {
    /// Publishes these certificates (PEM, one or more) through this client.
    pub fn new(client: Client, bundle: String) -> Self {
        Self { client, state: Mutex::new(State { bundle, namespaces: HashMap::new(), counted: false }) }
    }

    /// The certificates that workers trust, in PEM.
    pub fn bundle(&self) -> String {
        self.lock().bundle.clone()
    }

    /// From now on these certificates are published; [`Trust::spread`] brings them to all namespaces.
    pub fn set_bundle(&self, bundle: String) {
        self.lock().bundle = bundle;
    }

    /// All namespaces that have pools now: their workers have to hear of a new authority before it signs, also where
    /// this process has made no pod. Others are forgotten: one that is made anew is told anew.
    pub fn serves<'a>(&self, namespaces: impl IntoIterator<Item = &'a str>) {
        let mut state = self.lock();
        let mut before = std::mem::take(&mut state.namespaces);
        for namespace in namespaces {
            if !state.namespaces.contains_key(namespace) {
                let (name, known) =
                    before.remove_entry(namespace).unwrap_or_else(|| (namespace.to_owned(), None));
                state.namespaces.insert(name, known);
            }
        }
        state.counted = true;
    }

    /// Makes sure that a namespace has the ConfigMap `arborist-ca` with the present certificates, before worker
    /// pods are made there. Costs nothing when it had them a few seconds ago, and no write when it has them.
    ///
    /// # Errors
    /// What the API server says.
    pub async fn ensure_bundle(&self, namespace: &str) -> Result<(), kube::Error> {
        let (bundle, hash) = {
            let state = self.lock();
            let hash = blake3::hash(state.bundle.as_bytes());
            let known = state.namespaces.get(namespace).and_then(Option::as_ref);
            if known.is_some_and(|known| known.bundle == hash && known.seen.elapsed() < FRESH) {
                return Ok(());
            }
            (state.bundle.clone(), hash)
        };
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        let there = api.get_opt(CA_CONFIG_MAP).await?.is_some_and(|map| has(&map, &bundle));
        if !there {
            let how = PatchParams::apply(MANAGER).force();
            api.patch(CA_CONFIG_MAP, &how, &Patch::Apply(config_map(bundle))).await?;
        }
        let mut state = self.lock();
        let known = state.namespaces.get(namespace).and_then(Option::as_ref);
        // one that was gone is told anew
        let known = known.filter(|known| there && known.bundle == hash);
        let since = known.map_or_else(Timestamp::now, |known| known.since);
        let published = Published { bundle: hash, seen: Instant::now(), since };
        state.namespaces.insert(namespace.to_owned(), Some(published));
        Ok(())
    }

    /// Brings the present certificates to every namespace that has pools. A namespace that is gone is forgotten.
    ///
    /// # Errors
    /// What the API server says; the other namespaces are done all the same.
    pub async fn spread(&self) -> Result<(), kube::Error> {
        let namespaces: Vec<String> = self.lock().namespaces.keys().cloned().collect();
        let mut result = Ok(());
        for namespace in namespaces {
            match self.ensure_bundle(&namespace).await {
                Err(kube::Error::Api(status)) if status.code == 404 => {
                    self.lock().namespaces.remove(&namespace);
                }
                Err(error) => {
                    tracing::debug!(namespace, %error, "a namespace does not get its certificates");
                    result = Err(error);
                }
                Ok(()) => {}
            }
        }
        result
    }

    /// Since when every namespace has had the present certificates; `None` while one has not, and until
    /// [`Trust::serves`] was called.
    pub fn spread_since(&self) -> Option<Timestamp> {
        let state = self.lock();
        let hash = blake3::hash(state.bundle.as_bytes());
        let since = |known: &Option<Published>| {
            known.as_ref().filter(|known| known.bundle == hash).map(|known| known.since)
        };
        let all: Vec<Timestamp> =
            state.namespaces.values().map(since).collect::<Option<_>>().filter(|_| state.counted)?;
        Some(all.into_iter().max().unwrap_or(Timestamp::UNIX_EPOCH))
    }

    /// A namespace that has not had the present certificates yet, to name in a message.
    pub(super) fn lacking(&self) -> Option<String> {
        let state = self.lock();
        let hash = blake3::hash(state.bundle.as_bytes());
        let lacks =
            |known: &Option<Published>| known.as_ref().is_none_or(|published| published.bundle != hash);
        state
            .namespaces
            .iter()
            .filter(|&(_, known)| lacks(known))
            .map(|(namespace, _)| namespace)
            .min()
            .cloned()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn has(map: &ConfigMap, bundle: &str) -> bool {
    map.data.as_ref().and_then(|data| data.get(CA_KEY)).is_some_and(|certificates| certificates == bundle)
}

fn config_map(bundle: String) -> ConfigMap {
    let mut map = ConfigMap::default();
    map.metadata.name = Some(CA_CONFIG_MAP.to_owned());
    map.metadata.labels = Some(BTreeMap::from([(LABEL_MANAGED_BY.to_owned(), MANAGER.to_owned())]));
    map.data = Some(BTreeMap::from([(CA_KEY.to_owned(), bundle)]));
    map
}
