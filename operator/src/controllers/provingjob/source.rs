//! Getting a block's bytes from where a job says they are.

use super::validate::CheckedSource;
use crate::api::conditions::reason;
use crate::egress::{self, Reach, shown};
use crate::intake::{Beside, Budget, Collect, DoesNotFit, Held, NotCollected, Objects, Reserved};
use arborist_artifacts::{ArtifactStore, StoreError, StoreOptions};
use arborist_core::block::MAX_BLOCK_BYTES;
use arborist_core::ids::ArtifactHash;
use bytes::Bytes;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use reqwest::Response;
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// A server that sends nothing for so long is given up.
const SILENCE: Duration = Duration::from_secs(30);
/// The longest that a source may take.
const LONGEST: Duration = Duration::from_secs(600);
/// How often a source is asked anew because it has become longer while its turn was waited for.
const GROWN: usize = 3;

/// A block file as it came.
pub(super) struct Fetched {
    pub json: Bytes,
    /// The memory it is held in.
    pub reserved: Reserved,
    /// Where its private proofs are looked for.
    pub objects: Arc<dyn Objects>,
}

/// A turn at holding a block file in memory.
pub(super) struct Turn<'a> {
    pub budget: &'a Budget,
    /// Told why it has to be waited for, and, with `None`, that it no longer has.
    pub waits: &'a (dyn Fn(Option<String>) + Send + Sync),
}

impl Turn<'_> {
    async fn reserve(&self, bytes: u64) -> Result<Reserved, DoesNotFit> {
        if let Some(reserved) = self.budget.reserve_now(bytes)? {
            return Ok(reserved);
        }
        (self.waits)(Some(self.budget.why_waiting(bytes)));
        let reserved = self.budget.reserve(bytes).await;
        (self.waits)(None);
        reserved
    }
}

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

impl From<DoesNotFit> for SourceError {
    fn from(error: DoesNotFit) -> Self {
        Self::Bad(error.to_string())
    }
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

/// Fetches the bytes, at most [`MAX_BLOCK_BYTES`], as soon as there is memory for them. Their hash is not checked here.
pub(super) async fn fetch(
    source: &CheckedSource,
    namespace: &str,
    client: &Client,
    reach: Reach,
    turn: &Turn<'_>,
) -> Result<Fetched, SourceError> {
    match source {
        CheckedSource::Uri { url, .. } => {
            let (json, reserved) = match url.scheme() {
                "http" | "https" => over_http(url, reach, turn).await?,
                _ => from_bucket(url, turn).await?,
            };
            let objects = Arc::new(Beside::new(url, reach).map_err(SourceError::Unavailable)?);
            Ok(Fetched { json, reserved, objects })
        }
        CheckedSource::ConfigMap { name, key } => from_config_map(client, namespace, name, key, turn).await,
        CheckedSource::Synthetic { .. } | CheckedSource::Made { .. } => {
            Err(SourceError::Bad("a synthetic block is not fetched".into()))
        }
    }
}

async fn over_http(url: &Url, reach: Reach, turn: &Turn<'_>) -> Result<(Bytes, Reserved), SourceError> {
    let unavailable = |why: String| SourceError::Unavailable(format!("GET {}: {why}", shown(url)));
    egress::check(url, reach).map_err(|e| SourceError::Bad(e.to_string()))?;
    let client = egress::client(reach, true, None)
        .map_err(|e| unavailable(e.to_string()))?
        .read_timeout(SILENCE)
        .timeout(LONGEST)
        .build()
        .map_err(|e| unavailable(egress::chain(&e)))?;
    let ask = async || -> Result<(Response, u64), SourceError> {
        let answer = client.get(url.clone()).send().await.map_err(|e| unavailable(egress::chain(&e)))?;
        if !answer.status().is_success() {
            return Err(unavailable(answer.status().to_string()));
        }
        let bytes = answer.content_length().unwrap_or_else(|| turn.budget.unknown());
        if bytes > MAX_BLOCK_BYTES {
            return Err(too_large(&shown(url)));
        }
        Ok((answer, bytes))
    };
    let (mut answer, mut bytes) = ask().await?;
    let mut reserved = turn.budget.reserve_now(bytes)?;
    for _ in 0..GROWN {
        if let Some(mut reserved) = reserved.take_if(|reserved| reserved.bytes() >= bytes) {
            let body = Collect::default().all(answer.bytes_stream(), &mut reserved).await;
            return match body {
                Ok(body) => Ok((body, reserved)),
                Err(NotCollected::TooLong(_)) => {
                    Err(unavailable("it sent more bytes than it announced".into()))
                }
                Err(NotCollected::Interrupted(why)) => Err(unavailable(why)),
            };
        }
        // no connection is kept open for so long
        drop((answer, reserved.take()));
        reserved = Some(turn.reserve(bytes).await?);
        (answer, bytes) = ask().await?;
    }
    Err(unavailable("its length changes from one answer to the next".into()))
}

fn too_large(name: &str) -> SourceError {
    SourceError::Bad(format!("{name} has more than {MAX_BLOCK_BYTES} bytes, the most a block file may have"))
}

/// From a bucket, with the credentials in the operator's environment: a user who names an object needs no rights of
/// its own to it, but learns no more of it than its hash.
async fn from_bucket(url: &Url, turn: &Turn<'_>) -> Result<(Bytes, Reserved), SourceError> {
    let unavailable = |why: String| SourceError::Unavailable(format!("{}: {why}", shown(url)));
    let missing = || unavailable("there is no such object".into());
    let key =
        object_store::path::Path::from_url_path(url.path()).map_err(|e| SourceError::Bad(e.to_string()))?;
    let mut bucket = url.clone();
    bucket.set_path("");
    let open = |max_object_bytes| {
        let options = StoreOptions { max_object_bytes, request_timeout: LONGEST, ..Default::default() };
        ArtifactStore::open(bucket.as_str(), &options).map_err(|e| unavailable(e.to_string()))
    };
    let head = open(MAX_BLOCK_BYTES)?.head(key.as_ref()).await.map_err(|e| unavailable(e.to_string()))?;
    let bytes = head.ok_or_else(missing)?;
    if bytes > MAX_BLOCK_BYTES {
        return Err(too_large(&shown(url)));
    }
    let mut reserved = turn.reserve(bytes).await?;
    match open(bytes)?.get(key.as_ref()).await {
        Ok(Some(json)) => {
            reserved.shrink(json.len() as u64);
            Ok((json, reserved))
        }
        Ok(None) => Err(missing()),
        Err(StoreError::TooLarge { .. }) => Err(unavailable("it became longer while it was fetched".into())),
        Err(error) => Err(unavailable(error.to_string())),
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
        let turn = Turn { budget: &Budget::new(1 << 20), waits: &|_| () };
        over_http(&Url::parse(url).unwrap(), reach, &turn).await.map(|(bytes, _)| bytes)
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

    #[tokio::test]
    async fn a_block_that_does_not_fit_now_waits_and_says_why_and_one_that_never_fits_is_refused() {
        let base = web().await;
        let url = Url::parse(&format!("{base}/block")).unwrap();
        let budget = Budget::new(1 << 10);
        let other = budget.reserve_now(1_000).unwrap();
        let (said, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let waits = move |why| drop(said.send(why));
        let turn = Turn { budget: &budget, waits: &waits };
        let fetched = over_http(&url, Reach::Everything, &turn);
        let let_go = async {
            let why = heard.recv().await.unwrap().unwrap();
            assert!(why.starts_with("waiting for memory"), "{why}");
            drop(other);
            assert_eq!(heard.recv().await, Some(None));
        };
        let (fetched, ()) = tokio::join!(fetched, let_go);
        let (json, reserved) = fetched.map_err(|e| e.to_string()).unwrap();
        assert_eq!((&json[..], reserved.bytes()), (&b"a block"[..], 7));
        let small = Budget::new(0);
        let turn = Turn { budget: &small, waits: &|_| () };
        let error = over_http(&url, Reach::Everything, &turn).await.map(drop).unwrap_err();
        assert!(matches!(&error, SourceError::Bad(why) if why.contains("--intake-memory")), "{error}");
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
