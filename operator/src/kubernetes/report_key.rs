//! The key that reports of completion are signed with: made at the first start, kept in a Secret.

use super::REPORT_KEY_SECRET;
use super::secrets::{Data, read_or_create};
use ed25519_dalek::SigningKey;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use std::sync::Arc;

/// The key of the Secret with the 32-byte seed.
const SEED: &str = "seed";
/// The key of the Secret with the 32-byte public key, for whoever checks reports.
const PUBLIC: &str = "public";

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum ReportKeyError {
    /// The API server refuses, or does not answer.
    #[error("Secret {REPORT_KEY_SECRET}: {0}")]
    Api(#[from] kube::Error),
    /// The Secret is not what it should be.
    #[error("Secret {REPORT_KEY_SECRET}: `{SEED}` has {length} bytes, 32 are needed")]
    BadSeed {
        /// Bytes found.
        length: usize,
    },
    /// Two values that do not belong together.
    #[error("Secret {REPORT_KEY_SECRET}: `{PUBLIC}` is not the public key of `{SEED}`")]
    BadPublic,
}

/// Reads the key, or makes it.
///
/// # Errors
/// See [`ReportKeyError`].
pub async fn open(client: &Client, namespace: &str) -> Result<SigningKey, ReportKeyError> {
    let api = Api::namespaced(client.clone(), namespace);
    let secret = read_or_create(&api, REPORT_KEY_SECRET, || {
        let key = SigningKey::from_bytes(&rand::random());
        Ok::<_, ReportKeyError>(Data::from([
            (SEED.into(), ByteString(key.to_bytes().to_vec())),
            (PUBLIC.into(), ByteString(key.verifying_key().to_bytes().to_vec())),
        ]))
    });
    read(&secret.await?)
}

/// The key as it stands now, or the `known` one when that can't be said: who stood by for long may know an older one.
pub async fn refreshed(client: &Client, namespace: &str, known: &Arc<SigningKey>) -> Arc<SigningKey> {
    match open(client, namespace).await {
        Ok(key) => Arc::new(key),
        Err(error) => {
            tracing::warn!(%error, "the report key is the one of this operator's start");
            known.clone()
        }
    }
}

fn read(secret: &Secret) -> Result<SigningKey, ReportKeyError> {
    let value =
        |key: &str| secret.data.as_ref().and_then(|data| data.get(key)).map(|value| value.0.as_slice());
    let seed = value(SEED).unwrap_or_default();
    let seed: [u8; 32] = seed.try_into().map_err(|_| ReportKeyError::BadSeed { length: seed.len() })?;
    let key = SigningKey::from_bytes(&seed);
    match value(PUBLIC) {
        Some(public) if public != key.verifying_key().as_bytes() => Err(ReportKeyError::BadPublic),
        _ => Ok(key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::testing::FakeApi;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde_json::json;

    const PATH: &str = "/api/v1/namespaces/ours/secrets/arborist-report-key";

    #[tokio::test]
    async fn two_that_start_at_once_have_one_key_and_so_has_the_next_start() {
        let api = FakeApi::default();
        let client = api.client();
        let (a, b) = tokio::join!(open(&client, "ours"), open(&client, "ours"));
        let again = open(&client, "ours").await.unwrap();
        assert_eq!((a.unwrap().to_bytes(), b.unwrap().to_bytes()), (again.to_bytes(), again.to_bytes()));
        let public =
            api.get(PATH).unwrap()["data"]["public"].as_str().map(|text| STANDARD.decode(text).unwrap());
        assert_eq!(public.as_deref(), Some(again.verifying_key().as_bytes().as_slice()));
    }

    #[tokio::test]
    async fn a_key_that_was_changed_is_read_anew_and_the_known_one_serves_when_it_can_not_be_read() {
        let api = FakeApi::default();
        let client = api.client();
        let known = Arc::new(open(&client, "ours").await.unwrap());
        assert_eq!(refreshed(&client, "ours", &known).await, known);
        for (seed, expected) in [(vec![1; 32], [1; 32]), (vec![1; 31], known.to_bytes())] {
            let mut secret = api.get(PATH).unwrap();
            secret["data"] = json!({"seed": STANDARD.encode(seed)});
            api.put(PATH, secret);
            assert_eq!(refreshed(&client, "ours", &known).await.to_bytes(), expected);
        }
    }

    #[tokio::test]
    async fn a_spoilt_secret_is_an_error_and_stays_as_it_is() {
        let (seed, other) = (STANDARD.encode([1; 32]), STANDARD.encode([2; 32]));
        for (data, error) in [
            (json!({}), "0 bytes"),
            (json!({"seed": STANDARD.encode([1; 31])}), "31 bytes"),
            (json!({"seed": seed, "public": other}), "not the public key"),
        ] {
            let api = FakeApi::default();
            let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "arborist-report-key"}, "data": data});
            api.put(PATH, secret);
            let found = open(&api.client(), "ours").await.map(|_| ()).unwrap_err().to_string();
            assert!(found.contains(error), "{found}");
            assert_eq!(api.get(PATH).unwrap()["data"], data);
        }
    }
}
