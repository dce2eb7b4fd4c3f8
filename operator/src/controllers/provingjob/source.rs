//! Getting a block's bytes from where a job says they are.

use super::validate::CheckedSource;
use crate::api::conditions::reason;
use crate::egress::{self, Reach, shown};
use arborist_artifacts::{ArtifactStore, StoreError, StoreOptions};
use arborist_core::block::MAX_BLOCK_BYTES;
use bytes::{Bytes, BytesMut};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use std::time::{Duration, Instant};
use url::Url;

/// A server that sends nothing for so long is given up.
const SILENCE: Duration = Duration::from_secs(30);
/// The longest that a source may take: 512 MiB at 1 MiB/s.
const LONGEST: Duration = Duration::from_secs(600);
/// A server that after this time …
const GRACE: Duration = Duration::from_secs(30);
/// … has sent fewer bytes a second than this is given up: others wait for its turn.
const LEAST_RATE: u64 = 64 << 10;

/// Why a source could not be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum SourceError {
    /// It may be there later.
    #[error("{0}")]
    Unavailable(String),
    /// It will never do.
    #[error("{0}")]
    Bad(String),
}

impl SourceError {
    /// The condition's reason.
    pub(super) const fn reason(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => reason::SOURCE_UNAVAILABLE,
            Self::Bad(_) => reason::BAD_BLOCK,
        }
    }
}

/// Fetches the bytes, at most [`MAX_BLOCK_BYTES`]. Their hash is not checked here.
pub(super) async fn fetch(
    source: &CheckedSource,
    namespace: &str,
    client: &Client,
    reach: Reach,
) -> Result<Bytes, SourceError> {
    match source {
        CheckedSource::Uri { url, .. } if matches!(url.scheme(), "http" | "https") => {
            over_http(url, reach).await
        }
        CheckedSource::Uri { url, .. } => from_bucket(url).await,
        CheckedSource::ConfigMap { name, key } => from_config_map(client, namespace, name, key).await,
        CheckedSource::Synthetic { .. } | CheckedSource::Made { .. } => {
            Err(SourceError::Bad("a synthetic block is not fetched".into()))
        }
    }
}

async fn over_http(url: &Url, reach: Reach) -> Result<Bytes, SourceError> {
    let unavailable = |why: String| SourceError::Unavailable(format!("GET {}: {why}", shown(url)));
    egress::check(url, reach).map_err(|e| SourceError::Bad(e.to_string()))?;
    let client = egress::client(reach, true, None)
        .map_err(|e| unavailable(e.to_string()))?
        .read_timeout(SILENCE)
        .timeout(LONGEST)
        .build()
        .map_err(|e| unavailable(egress::chain(&e)))?;
    let mut answer = client.get(url.clone()).send().await.map_err(|e| unavailable(egress::chain(&e)))?;
    if !answer.status().is_success() {
        return Err(unavailable(answer.status().to_string()));
    }
    let (mut bytes, began) = (BytesMut::new(), Instant::now());
    while let Some(chunk) = answer.chunk().await.map_err(|e| unavailable(egress::chain(&e)))? {
        // the length that a server announces is a claim: what comes is counted
        if (bytes.len() + chunk.len()) as u64 > MAX_BLOCK_BYTES {
            return Err(too_large(&shown(url)));
        }
        bytes.extend_from_slice(&chunk);
        if trickles(bytes.len() as u64, began.elapsed()) {
            return Err(unavailable(format!("less than {} KiB a second came", LEAST_RATE >> 10)));
        }
    }
    Ok(bytes.freeze())
}

/// Whether so many bytes in this time are too few.
fn trickles(bytes: u64, after: Duration) -> bool {
    after > GRACE && bytes < LEAST_RATE.saturating_mul(after.as_secs())
}

fn too_large(name: &str) -> SourceError {
    SourceError::Bad(format!("{name} has more than {MAX_BLOCK_BYTES} bytes, the most a block file may have"))
}

/// From a bucket, with the credentials in the operator's environment: a user who names an object needs no rights of
/// its own to it, but learns no more of it than its hash.
async fn from_bucket(url: &Url) -> Result<Bytes, SourceError> {
    let unavailable = |why: String| SourceError::Unavailable(format!("{}: {why}", shown(url)));
    let key =
        object_store::path::Path::from_url_path(url.path()).map_err(|e| SourceError::Bad(e.to_string()))?;
    let mut bucket = url.clone();
    bucket.set_path("");
    let options =
        StoreOptions { max_object_bytes: MAX_BLOCK_BYTES, request_timeout: LONGEST, ..Default::default() };
    let store = ArtifactStore::open(bucket.as_str(), &options).map_err(|e| unavailable(e.to_string()))?;
    match store.get(key.as_ref()).await {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) => Err(unavailable("there is no such object".into())),
        Err(StoreError::TooLarge { .. }) => Err(too_large(&shown(url))),
        Err(error) => Err(unavailable(error.to_string())),
    }
}

async fn from_config_map(
    client: &Client,
    namespace: &str,
    name: &str,
    key: &str,
) -> Result<Bytes, SourceError> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let unavailable = |why: String| SourceError::Unavailable(why);
    let map = api.get_opt(name).await.map_err(|e| unavailable(format!("ConfigMap {name}: {e}")))?;
    let map = map.ok_or_else(|| unavailable(format!("there is no ConfigMap {name} in this namespace")))?;
    let binary = map.binary_data.unwrap_or_default().remove(key).map(|bytes| bytes.0);
    let text = map.data.unwrap_or_default().remove(key).map(String::into_bytes);
    let bytes = binary.or(text);
    bytes.map(Bytes::from).ok_or_else(|| unavailable(format!("ConfigMap {name} has no key `{key}`")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::response::Redirect;
    use axum::routing::get;

    async fn web() -> String {
        let app = Router::new()
            .route("/block", get(|| async { "a block" }))
            .route("/moved", get(|| async { Redirect::temporary("/block") }))
            .route("/file", get(|| async { Redirect::temporary("file:///etc/hostname") }))
            .route("/round", get(|| async { Redirect::temporary("/round") }));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        base
    }

    async fn got(url: &str, reach: Reach) -> Result<Bytes, SourceError> {
        over_http(&Url::parse(url).unwrap(), reach).await
    }

    #[tokio::test]
    async fn what_is_there_comes_and_what_is_not_is_waited_for() {
        let base = web().await;
        let block = Ok(Bytes::from_static(b"a block"));
        assert_eq!(got(&format!("{base}/block"), Reach::Everything).await, block);
        assert_eq!(got(&format!("{base}/moved"), Reach::Everything).await, block);
        for (path, said) in [
            ("nowhere?secret=1", "404 Not Found"),
            ("file", "307 Temporary Redirect"),
            ("round", "more than 5 redirects"),
        ] {
            let error = got(&format!("{base}/{path}"), Reach::Everything).await.unwrap_err();
            let text = error.to_string();
            assert!(matches!(error, SourceError::Unavailable(_)), "{path}: {text}");
            assert!(text.contains(said) && !text.contains("secret"), "{path}: {text}");
        }
    }

    #[test]
    fn a_server_that_trickles_is_given_up_after_a_while() {
        let mib = 1 << 20;
        for (bytes, seconds, expected) in
            [(1, 29, false), (1, 30, false), (1, 31, true), (2 * mib, 31, false), (2 * mib, 33, true)]
        {
            assert_eq!(trickles(bytes, Duration::from_secs(seconds)), expected, "{bytes} {seconds}");
        }
    }

    #[tokio::test]
    async fn the_machine_itself_is_out_of_reach() {
        let base = web().await;
        let error = got(&format!("{base}/block"), Reach::Network).await.unwrap_err();
        assert!(matches!(error, SourceError::Bad(_)), "{error}");
        let named = base.replace("127.0.0.1", "localhost");
        let error = got(&format!("{named}/block"), Reach::Network).await.unwrap_err();
        assert!(error.to_string().contains("localhost is this machine"), "{error}");
    }
}
