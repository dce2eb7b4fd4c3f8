//! Secrets that are made once, by whichever operator is first.

use crate::api::{LABEL_MANAGED_BY, MANAGER};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::PostParams;
use std::collections::BTreeMap;

/// The data of a Secret.
pub type Data = BTreeMap<String, ByteString>;

/// How the operator writes.
pub fn post() -> PostParams {
    PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() }
}

/// The Secret of this name; when there is none, one with what `make` gives. Of two operators that start at once both
/// get the first one's.
///
/// # Errors
/// What the API server or `make` says.
pub async fn read_or_create<E: From<kube::Error>>(
    api: &Api<Secret>,
    name: &str,
    make: impl FnOnce() -> Result<Data, E>,
) -> Result<Secret, E> {
    if let Some(secret) = api.get_opt(name).await? {
        return Ok(secret);
    }
    let mut secret = Secret { data: Some(make()?), type_: Some("Opaque".into()), ..Secret::default() };
    secret.metadata.name = Some(name.to_owned());
    secret.metadata.labels = Some(BTreeMap::from([(LABEL_MANAGED_BY.to_owned(), MANAGER.to_owned())]));
    match api.create(&post(), &secret).await {
        Ok(made) => {
            tracing::info!(secret = name, "made");
            Ok(made)
        }
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(api.get(name).await?),
        Err(error) => Err(error.into()),
    }
}
