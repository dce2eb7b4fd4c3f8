//! Where a block's private proofs are found that the artifact store has not.

use super::{Budget, Collect, OBJECTS};
use crate::egress::{self, Reach, shown};
use arborist_artifacts::{ArtifactStore, StoreError, StoreOptions};
use arborist_core::block::MAX_PRIVATE_PROOF_BYTES;
use arborist_core::ids::ArtifactHash;
use bytes::Bytes;
use futures::future::BoxFuture;
use reqwest::StatusCode;
use reqwest::header::CONTENT_LENGTH;
use std::collections::HashMap;
use std::io::{ErrorKind, Read};
use std::path::PathBuf;
use std::time::Duration;
use url::Url;

/// A place with private proofs, each under its hash. What it holds is checked by who asks.
pub trait Objects: Send + Sync {
    /// Where that is, for people: `beside the block file`.
    fn place(&self) -> String;

    /// An object's bytes, at most [`MAX_PRIVATE_PROOF_BYTES`]; `None` when it is not there. The error says why that
    /// can't be said, or that it is too large.
    fn get(&self, hash: ArtifactHash) -> BoxFuture<'_, Result<Option<Bytes>, String>>;

    /// How many bytes an object has, as far as the place says so without giving it away; `None` when nobody says.
    fn size(&self, hash: ArtifactHash) -> BoxFuture<'_, Option<u64>>;
}

fn too_large(bytes: impl std::fmt::Display) -> String {
    format!("the object has {bytes} bytes, allowed are at most {MAX_PRIVATE_PROOF_BYTES}")
}

/// All private proofs have to be in the artifact store.
#[derive(Debug, Clone, Copy)]
pub struct Nowhere;

impl Objects for Nowhere {
    fn place(&self) -> String {
        String::new()
    }

    fn get(&self, _: ArtifactHash) -> BoxFuture<'_, Result<Option<Bytes>, String>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    fn size(&self, _: ArtifactHash) -> BoxFuture<'_, Option<u64>> {
        Box::pin(std::future::ready(None))
    }
}

/// Private proofs held in memory: of a sample, or from a ConfigMap.
#[derive(Debug, Clone)]
pub struct Held {
    /// Where they were found, for people.
    pub place: &'static str,
    /// The objects.
    pub objects: HashMap<ArtifactHash, Bytes>,
}

impl Objects for Held {
    fn place(&self) -> String {
        self.place.to_owned()
    }

    fn get(&self, hash: ArtifactHash) -> BoxFuture<'_, Result<Option<Bytes>, String>> {
        Box::pin(std::future::ready(Ok(self.objects.get(&hash).cloned())))
    }

    fn size(&self, hash: ArtifactHash) -> BoxFuture<'_, Option<u64>> {
        Box::pin(std::future::ready(self.objects.get(&hash).map(|bytes| bytes.len() as u64)))
    }
}

/// A folder of this machine.
#[derive(Debug, Clone)]
pub struct Folder(pub PathBuf);

impl Folder {
    /// The folder beside a block file.
    pub fn beside(file: &std::path::Path) -> Self {
        Self(file.parent().unwrap_or(std::path::Path::new("")).join(OBJECTS))
    }

    /// Reads an object; see [`Objects::get`].
    ///
    /// # Errors
    /// It can't be read, or is too large.
    pub fn read(&self, hash: &ArtifactHash) -> Result<Option<Bytes>, String> {
        let path = self.0.join(hash.to_string());
        let failed = |error: std::io::Error| format!("{}: {error}", path.display());
        let file = match std::fs::File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            file => file.map_err(failed)?,
        };
        let mut bytes = vec![];
        file.take(MAX_PRIVATE_PROOF_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > MAX_PRIVATE_PROOF_BYTES {
            return Err(too_large("more"));
        }
        Ok(Some(bytes.into()))
    }
}

impl Objects for Folder {
    fn place(&self) -> String {
        self.0.display().to_string()
    }

    fn get(&self, hash: ArtifactHash) -> BoxFuture<'_, Result<Option<Bytes>, String>> {
        let folder = self.clone();
        Box::pin(async move {
            let read = tokio::task::spawn_blocking(move || folder.read(&hash)).await;
            read.map_err(|error| error.to_string())?
        })
    }

    fn size(&self, hash: ArtifactHash) -> BoxFuture<'_, Option<u64>> {
        let path = self.0.join(hash.to_string());
        Box::pin(async move { tokio::fs::metadata(path).await.ok().map(|file| file.len()) })
    }
}

/// Beside a block file with a URL: at `objects/HASH`, relative to it.
pub struct Beside {
    url: Url,
    way: Way,
}

enum Way {
    Web { client: reqwest::Client, reach: Reach },
    Bucket(ArtifactStore),
}

/// How long one object may take.
const LONGEST: Duration = Duration::from_secs(60);

impl Beside {
    /// Beside the block file at this URL, over HTTP or from a bucket. Nothing is sent yet.
    ///
    /// # Errors
    /// There is no client for it.
    pub fn new(block: &Url, reach: Reach) -> Result<Self, String> {
        let way = if matches!(block.scheme(), "http" | "https") {
            let client = egress::client(reach, true, None).map_err(|e| e.to_string())?;
            let client = client.timeout(LONGEST).build().map_err(|e| egress::chain(&e))?;
            Way::Web { client, reach }
        } else {
            let mut bucket = block.clone();
            bucket.set_path("");
            let options =
                StoreOptions { max_object_bytes: MAX_PRIVATE_PROOF_BYTES, ..StoreOptions::default() };
            Way::Bucket(ArtifactStore::open(bucket.as_str(), &options).map_err(|e| e.to_string())?)
        };
        Ok(Self { url: block.clone(), way })
    }

    async fn length_over_http(
        &self,
        client: &reqwest::Client,
        reach: Reach,
        hash: ArtifactHash,
    ) -> Option<u64> {
        let url = self.url_of(&hash).ok()?;
        egress::check(&url, reach).ok()?;
        let answer = client.head(url).send().await.ok().filter(|answer| answer.status().is_success())?;
        // of an answer without a body the client knows no length
        answer.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
    }

    fn key_of(&self, hash: &ArtifactHash) -> Result<object_store::path::Path, String> {
        object_store::path::Path::from_url_path(self.url_of(hash)?.path()).map_err(|e| e.to_string())
    }

    /// The query, which may be a signature of the block file's own, stays with it.
    fn url_of(&self, hash: &ArtifactHash) -> Result<Url, String> {
        self.url.join(&format!("{OBJECTS}/{hash}")).map_err(|e| e.to_string())
    }

    async fn over_http(
        &self,
        client: &reqwest::Client,
        reach: Reach,
        hash: ArtifactHash,
    ) -> Result<Option<Bytes>, String> {
        let url = self.url_of(&hash)?;
        let failed = |why: String| format!("GET {}: {why}", shown(&url));
        egress::check(&url, reach).map_err(|e| e.to_string())?;
        let answer = client.get(url.clone()).send().await.map_err(|e| failed(egress::chain(&e)))?;
        match answer.status() {
            StatusCode::NOT_FOUND | StatusCode::GONE => return Ok(None),
            status if !status.is_success() => return Err(failed(status.to_string())),
            _ => {}
        }
        if let Some(bytes) = answer.content_length().filter(|bytes| *bytes > MAX_PRIVATE_PROOF_BYTES) {
            return Err(failed(too_large(bytes)));
        }
        // bounded by how many are fetched at once
        let bound = Budget::new(MAX_PRIVATE_PROOF_BYTES);
        let mut reserved = bound.reserve_now(MAX_PRIVATE_PROOF_BYTES).ok().flatten().ok_or("no room")?;
        let body = answer.bytes_stream();
        let collected = Collect::default().all(body, &mut reserved).await;
        collected.map(Some).map_err(|error| failed(error.to_string()))
    }
}

impl Objects for Beside {
    fn place(&self) -> String {
        let folder = self.url.join(OBJECTS).unwrap_or_else(|_| self.url.clone());
        format!("{}/", shown(&folder))
    }

    fn get(&self, hash: ArtifactHash) -> BoxFuture<'_, Result<Option<Bytes>, String>> {
        Box::pin(async move {
            match &self.way {
                Way::Web { client, reach } => self.over_http(client, *reach, hash).await,
                Way::Bucket(store) => match store.get(self.key_of(&hash)?.as_ref()).await {
                    Err(StoreError::TooLarge { bytes, .. }) => Err(too_large(bytes)),
                    got => got.map_err(|error| error.to_string()),
                },
            }
        })
    }

    fn size(&self, hash: ArtifactHash) -> BoxFuture<'_, Option<u64>> {
        Box::pin(async move {
            match &self.way {
                Way::Web { client, reach } => self.length_over_http(client, *reach, hash).await,
                Way::Bucket(store) => store.head(self.key_of(&hash).ok()?.as_ref()).await.ok().flatten(),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::routing::get;

    #[tokio::test]
    async fn an_object_lies_beside_its_block_file() {
        let (small, hash) = (Bytes::from_static(b"a proof"), ArtifactHash([1; 32]));
        let (large, missing, broken) = (ArtifactHash([2; 32]), ArtifactHash([3; 32]), ArtifactHash([4; 32]));
        let folder = tempfile::tempdir().unwrap();
        let objects = folder.path().join("blocks/objects");
        std::fs::create_dir_all(&objects).unwrap();
        std::fs::write(objects.join(hash.to_string()), &small).unwrap();
        std::fs::write(objects.join(large.to_string()), vec![0; (1 << 20) + 1]).unwrap();
        std::fs::create_dir(objects.join(broken.to_string())).unwrap();
        let serve = |name: String| {
            let folder = objects.clone();
            move || async move { std::fs::read(folder.join(&name)).map_err(|_| StatusCode::FORBIDDEN) }
        };
        let app = [hash, large, broken].iter().fold(Router::new(), |app, hash| {
            app.route(&format!("/blocks/objects/{hash}"), get(serve(hash.to_string())))
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let web = format!("http://{}/blocks/7.json?signature=secret", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        let beside = |url: &str| Beside::new(&Url::parse(url).unwrap(), Reach::Everything).unwrap();
        let places: [Box<dyn Objects>; 2] =
            [Box::new(Folder::beside(&folder.path().join("blocks/7.json"))), Box::new(beside(&web))];
        for place in &places {
            assert_eq!(place.get(hash).await, Ok(Some(small.clone())), "{}", place.place());
            assert_eq!(place.get(missing).await, Ok(None), "{}", place.place());
            assert_eq!(place.size(hash).await, Some(7), "{}", place.place());
            assert_eq!(place.size(large).await, Some((1 << 20) + 1), "{}", place.place());
            assert_eq!(place.size(missing).await, None, "{}", place.place());
            let error = place.get(large).await.unwrap_err();
            assert!(error.contains("allowed are at most 1048576"), "{error}");
            let error = place.get(broken).await.unwrap_err();
            assert!(!error.contains("secret"), "{error}");
        }
        assert!(places[1].place().ends_with("/blocks/objects/"), "{}", places[1].place());
    }

    #[tokio::test]
    async fn the_machine_itself_is_out_of_reach() {
        let url = Url::parse("http://127.0.0.1:9/block.json").unwrap();
        let objects = Beside::new(&url, Reach::Network).unwrap();
        let error = objects.get(ArtifactHash([1; 32])).await.unwrap_err();
        assert!(error.contains("does not speak to such addresses"), "{error}");
    }
}
