//! A block file at a URL: what may stand there, and getting its bytes.

use super::{Beside, Budget, Collect, DoesNotFit, Folder, NotCollected, Objects, Reserved};
use crate::egress::{self, Reach, shown};
use arborist_artifacts::{ArtifactStore, StoreError, StoreOptions};
use arborist_core::block::MAX_BLOCK_BYTES;
use bytes::Bytes;
use reqwest::Response;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// A server that sends nothing for so long is given up.
const SILENCE: Duration = Duration::from_secs(30);
/// The longest that a source may take.
const LONGEST: Duration = Duration::from_secs(600);
/// How often a source is asked anew because it has become longer while its turn was waited for.
const GROWN: usize = 3;
/// The most bytes of a URL.
const MAX_URL: usize = 2048;

/// What the URL of a block file that is elsewhere begins with.
pub const REMOTE: [&str; 5] = ["http", "https", "s3", "gs", "az"];
/// The same where the user's own machine is meant as well.
pub const ANYWHERE: [&str; 6] = ["http", "https", "s3", "gs", "az", "file"];

/// Checks the URL of a block file, of one of these schemes.
///
/// # Errors
/// What is wrong with it and what is allowed.
pub fn check_url(text: &str, schemes: &[&str]) -> Result<Url, String> {
    if text.len() > MAX_URL {
        return Err(format!("{} bytes, allowed are at most {MAX_URL}", text.len()));
    }
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    if !schemes.contains(&url.scheme()) {
        let all: Vec<String> = schemes.iter().map(|scheme| format!("{scheme}://")).collect();
        let (last, others) = all.split_last().ok_or("nothing is allowed")?;
        return Err(format!("allowed are {} and {last}", others.join(", ")));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("it must not hold a user name or password".into());
    }
    if url.scheme() != "file" && url.host_str().is_none_or(str::is_empty) {
        return Err("the host (or the bucket's name) is missing".into());
    }
    Ok(url)
}

/// Reads a SHA-256.
///
/// # Errors
/// What is needed.
pub fn parse_sha256(text: &str) -> Result<[u8; 32], String> {
    let mut sha256 = [0; 32];
    hex::decode_to_slice(text, &mut sha256).map_err(|_| "64 hexadecimal digits are needed")?;
    Ok(sha256)
}

/// A block file as it came.
pub struct Fetched {
    /// Its bytes.
    pub json: Bytes,
    /// The memory it is held in.
    pub reserved: Reserved,
    /// Where its private proofs are looked for.
    pub objects: Arc<dyn Objects>,
}

/// A turn at holding a block file in memory.
pub struct Turn<'a> {
    /// Over all block files.
    pub budget: &'a Budget,
    /// Told why it has to be waited for, and, with `None`, that it no longer has.
    pub waits: &'a (dyn Fn(Option<String>) + Send + Sync),
}

impl Turn<'_> {
    /// Waits for so many bytes of the budget.
    ///
    /// # Errors
    /// See [`DoesNotFit`].
    pub async fn reserve(&self, bytes: u64) -> Result<Reserved, DoesNotFit> {
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
pub enum SourceError {
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

/// Fetches the bytes at a URL, at most [`MAX_BLOCK_BYTES`], as soon as there is memory for them. Their hash is not checked
/// here.
///
/// # Errors
/// See [`SourceError`].
pub async fn fetch(url: &Url, reach: Reach, turn: &Turn<'_>) -> Result<Fetched, SourceError> {
    if url.scheme() == "file" {
        return from_file(url, turn).await;
    }
    let (json, reserved) = match url.scheme() {
        "http" | "https" => over_http(url, reach, turn).await?,
        _ => from_bucket(url, turn).await?,
    };
    let objects = Arc::new(Beside::new(url, reach).map_err(SourceError::Unavailable)?);
    Ok(Fetched { json, reserved, objects })
}

async fn from_file(url: &Url, turn: &Turn<'_>) -> Result<Fetched, SourceError> {
    let unavailable = |why: String| SourceError::Unavailable(format!("{}: {why}", shown(url)));
    let no_file = || SourceError::Bad(format!("{}: it names no file of this machine", shown(url)));
    let path = url.to_file_path().map_err(|()| no_file())?;
    // others may not even be opened in time
    if !std::fs::metadata(&path).map_err(|error| unavailable(error.to_string()))?.is_file() {
        return Err(no_file());
    }
    let file = std::fs::File::open(&path).map_err(|error| unavailable(error.to_string()))?;
    let bytes = file.metadata().map_err(|error| unavailable(error.to_string()))?.len();
    if bytes > MAX_BLOCK_BYTES {
        return Err(too_large(&shown(url)));
    }
    let mut reserved = turn.reserve(bytes).await?;
    let read = move || {
        let mut json = Vec::with_capacity(bytes as usize);
        file.take(bytes).read_to_end(&mut json).map(|_| json)
    };
    let read = tokio::task::spawn_blocking(read).await.map_err(|error| unavailable(error.to_string()))?;
    let json = Bytes::from(read.map_err(|error| unavailable(error.to_string()))?);
    reserved.shrink(json.len() as u64);
    Ok(Fetched { json, reserved, objects: Arc::new(Folder::beside(&path)) })
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

    #[test]
    fn a_url_that_is_not_allowed_is_refused_with_what_is() {
        for (text, said) in [
            ("block.json", "relative URL"),
            ("ftp://h/b", "allowed are http://, https://, s3://, gs:// and az://"),
            ("file:///b", "allowed are http://, https://, s3://, gs:// and az://"),
            ("s3:///key", "the host (or the bucket's name) is missing"),
            ("https://me:secret@h/b", "user name or password"),
            (&format!("https://h/{}", "x".repeat(MAX_URL)), "allowed are at most 2048"),
        ] {
            let error = check_url(text, &REMOTE).unwrap_err();
            assert!(error.contains(said) && !error.contains("secret"), "{text}: {error}");
        }
        assert!(check_url("s3://bucket/inputs/1", &REMOTE).is_ok());
        assert!(check_url("file:///store/inputs/1", &ANYWHERE).is_ok());
        assert_eq!(parse_sha256(&"0a".repeat(32)), Ok([10; 32]));
        assert!(parse_sha256("0a").is_err());
    }

    #[tokio::test]
    async fn a_file_of_this_machine_has_its_private_proofs_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("block"), "a block").unwrap();
        let url = |name: &str| Url::from_file_path(folder.path().join(name)).unwrap();
        let turn = Turn { budget: &Budget::new(1 << 20), waits: &|_| () };
        let fetched = fetch(&url("block"), Reach::Everything, &turn).await.map_err(|e| e.to_string());
        let Fetched { json, reserved, objects } = fetched.unwrap();
        assert_eq!((&json[..], reserved.bytes()), (&b"a block"[..], 7));
        assert_eq!(objects.place(), folder.path().join("objects").display().to_string());
        let error = fetch(&url("none"), Reach::Everything, &turn).await.map(drop).unwrap_err();
        assert!(matches!(error, SourceError::Unavailable(_)), "{error}");
        let elsewhere = Url::parse("file://host/block").unwrap();
        let error = fetch(&elsewhere, Reach::Everything, &turn).await.map(drop).unwrap_err();
        assert!(matches!(error, SourceError::Bad(_)), "{error}");
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
