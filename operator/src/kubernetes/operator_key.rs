//! The operator's key: made at the first start, kept in a Secret.

use super::OPERATOR_KEY_SECRET;
use super::secrets::{Data, read_or_create};
use crate::operator_key::{KeyError, OperatorKey};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};

/// The key of the Secret with the 32 bytes.
const KEY: &str = "key";

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum OperatorKeyError {
    /// The API server refuses, or does not answer.
    #[error("Secret {OPERATOR_KEY_SECRET}: {0}")]
    Api(#[from] kube::Error),
    /// The Secret is not what it should be.
    #[error("Secret {OPERATOR_KEY_SECRET}: {0}")]
    Bad(#[from] KeyError),
}

/// Reads the key, or makes it. Of two operators that start at once both get the first one's.
///
/// # Errors
/// See [`OperatorKeyError`].
pub async fn open(client: &Client, namespace: &str) -> Result<OperatorKey, OperatorKeyError> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let make = || {
        let key = ByteString(OperatorKey::generate().to_bytes().to_vec());
        Ok::<_, OperatorKeyError>(Data::from([(KEY.into(), key)]))
    };
    let secret = read_or_create(&api, OPERATOR_KEY_SECRET, make).await?;
    let bytes = secret.data.as_ref().and_then(|data| data.get(KEY)).map(|value| value.0.as_slice());
    Ok(OperatorKey::read(KEY, bytes.unwrap_or_default())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::testing::FakeApi;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde_json::json;

    const PATH: &str = "/api/v1/namespaces/ours/secrets/arborist-operator-key";

    #[tokio::test]
    async fn two_that_start_at_once_have_one_key_and_so_has_the_next_start() {
        let api = FakeApi::default();
        let client = api.client();
        let (a, b) = tokio::join!(open(&client, "ours"), open(&client, "ours"));
        let again = open(&client, "ours").await.unwrap();
        assert_eq!((a.unwrap(), b.unwrap()), (again.clone(), again));
    }

    #[tokio::test]
    async fn a_spoilt_secret_is_an_error_and_stays_as_it_is() {
        for data in [json!({}), json!({"key": STANDARD.encode([1; 31])}), json!({"other": "AAAA"})] {
            let api = FakeApi::default();
            api.put(PATH, json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "arborist-operator-key"}, "data": data}));
            let error = open(&api.client(), "ours").await.unwrap_err().to_string();
            assert!(
                error.starts_with("Secret arborist-operator-key: key: ") && error.contains("32 bytes"),
                "{error}"
            );
            assert_eq!(api.get(PATH).unwrap()["data"], data);
        }
    }
}
