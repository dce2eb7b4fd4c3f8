//! Getting a block's bytes from where a job says they are.

use super::validate::CheckedSource;
use crate::api::conditions::reason;
use crate::egress::Reach;
use crate::intake::{self, Fetched, Held, SourceError, Turn};
use arborist_core::ids::ArtifactHash;
use bytes::Bytes;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use std::sync::Arc;

/// The condition's reason.
pub(super) const fn reason_of(error: &SourceError) -> &'static str {
    match error {
        SourceError::Unavailable(_) => reason::SOURCE_UNAVAILABLE,
        SourceError::Bad(_) => reason::BAD_BLOCK,
    }
}

/// Fetches a job's block file as soon as there is memory for it. Its hash is not checked here.
pub(super) async fn fetch(
    source: &CheckedSource,
    namespace: &str,
    client: &Client,
    reach: Reach,
    turn: &Turn<'_>,
) -> Result<Fetched, SourceError> {
    match source {
        CheckedSource::Uri { url, .. } => intake::fetch(url, reach, turn).await,
        CheckedSource::ConfigMap { name, key } => from_config_map(client, namespace, name, key, turn).await,
        CheckedSource::Synthetic { .. } | CheckedSource::Made { .. } => {
            Err(SourceError::Bad("a synthetic block is not fetched".into()))
        }
    }
}

/// A ConfigMap has 1 MiB at most. The private proofs are other keys of it, each named by its hash.
async fn from_config_map(
    client: &Client,
    namespace: &str,
    name: &str,
    key: &str,
    turn: &Turn<'_>,
) -> Result<Fetched, SourceError> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let unavailable = |why: String| SourceError::Unavailable(why);
    let map = api.get_opt(name).await.map_err(|e| unavailable(format!("ConfigMap {name}: {e}")))?;
    let map = map.ok_or_else(|| unavailable(format!("there is no ConfigMap {name} in this namespace")))?;
    let texts = map.data.unwrap_or_default().into_iter().map(|(key, text)| (key, text.into_bytes()));
    let bytes = map.binary_data.unwrap_or_default().into_iter().map(|(key, bytes)| (key, bytes.0));
    let mut json = None;
    let mut objects = std::collections::HashMap::new();
    for (name, bytes) in texts.chain(bytes) {
        match name.parse::<ArtifactHash>() {
            _ if name == key => json = Some(Bytes::from(bytes)),
            Ok(hash) => drop(objects.insert(hash, bytes.into())),
            Err(_) => {}
        }
    }
    let json = json.ok_or_else(|| unavailable(format!("ConfigMap {name} has no key `{key}`")))?;
    let held = objects.values().map(Bytes::len).sum::<usize>() + json.len();
    let reserved = turn.reserve(held as u64).await?;
    Ok(Fetched { json, reserved, objects: Arc::new(Held { place: "the ConfigMap", objects }) })
}
