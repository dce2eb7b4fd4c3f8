//! What workers know the operator by: certificates of an authority of the operator's own, published in every
//! namespace that has pools.

mod keeper;
mod rotation;
mod secret;

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

/// A ConfigMap is written again after so long, in case somebody has changed or deleted it.
const REFRESH: Duration = Duration::from_secs(600);

/// The certificates that workers trust, and where they are published.
pub struct Trust {
    client: Client,
    state: Mutex<State>,
}

struct State {
    bundle: String,
    namespaces: HashMap<String, Published>,
}

/// What a namespace was told last.
struct Published {
    bundle: blake3::Hash,
    /// When it was last written.
    written: Instant,
    /// When it was told this bundle first.
    since: Timestamp,
}

impl Trust {
    /// Publishes these certificates (PEM, one or more) through this client.
    pub fn new(client: Client, bundle: String) -> Self {
        Self { client, state: Mutex::new(State { bundle, namespaces: HashMap::new() }) }
    }

    /// The certificates that workers trust, in PEM.
    pub fn bundle(&self) -> String {
        self.lock().bundle.clone()
    }

    /// From now on these certificates are published; [`Trust::spread`] brings them to all namespaces.
    pub fn set_bundle(&self, bundle: String) {
        self.lock().bundle = bundle;
    }

    /// Makes sure that a namespace has the ConfigMap `arborist-ca` with the present certificates, before worker
    /// pods are made there. Costs nothing when it has.
    ///
    /// # Errors
    /// What the API server says.
    pub async fn ensure_bundle(&self, namespace: &str) -> Result<(), kube::Error> {
        let (bundle, hash) = {
            let state = self.lock();
            let hash = blake3::hash(state.bundle.as_bytes());
            let known = state.namespaces.get(namespace);
            if known.is_some_and(|known| known.bundle == hash && known.written.elapsed() < REFRESH) {
                return Ok(());
            }
            (state.bundle.clone(), hash)
        };
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        let how = PatchParams::apply(MANAGER).force();
        api.patch(CA_CONFIG_MAP, &how, &Patch::Apply(config_map(bundle))).await?;
        let mut state = self.lock();
        let since =
            state.namespaces.get(namespace).filter(|known| known.bundle == hash).map(|known| known.since);
        let since = since.unwrap_or_else(Timestamp::now);
        state
            .namespaces
            .insert(namespace.to_owned(), Published { bundle: hash, written: Instant::now(), since });
        Ok(())
    }

    /// Brings the present certificates to every namespace that has had earlier ones. A namespace that is gone is
    /// forgotten.
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
                Err(error) => result = Err(error),
                Ok(()) => {}
            }
        }
        result
    }

    /// Since when every namespace has had the present certificates; `None` while one has not.
    pub fn spread_since(&self) -> Option<Timestamp> {
        let state = self.lock();
        let hash = blake3::hash(state.bundle.as_bytes());
        let all: Option<Vec<Timestamp>> =
            state.namespaces.values().map(|known| (known.bundle == hash).then_some(known.since)).collect();
        all.map(|all| all.into_iter().max().unwrap_or(Timestamp::UNIX_EPOCH))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn config_map(bundle: String) -> ConfigMap {
    let mut map = ConfigMap::default();
    map.metadata.name = Some(CA_CONFIG_MAP.to_owned());
    map.metadata.labels = Some(BTreeMap::from([(LABEL_MANAGED_BY.to_owned(), MANAGER.to_owned())]));
    map.data = Some(BTreeMap::from([(CA_KEY.to_owned(), bundle)]));
    map
}
