//! The artifact store as the operator and the workers use it.

use crate::backend::{Backend, Created, Entry, Opened};
use crate::error::StoreError;
use crate::health::{Health, Trouble, Watched};
use crate::open::{self, StoreOptions};
use arborist_core::ids::{ArtifactHash, TaskId};
use arborist_core::proof_object::{input_key, proof_key};
use bytes::Bytes;
use futures::future::join_all;
use futures::stream::BoxStream;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Instant;

/// A listing under way.
pub type EntryStream = BoxStream<'static, Result<Entry, StoreError>>;

/// How many creates of one key the check at the start sends at once.
const CHECK_RACERS: usize = 4;
/// How often one key may be moved aside.
const MAX_QUARANTINED: u32 = 1000;

/// A store of objects that are created once and never overwritten. Clones share one connection pool.
#[derive(Clone)]
pub struct ArtifactStore {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) name: Arc<str>,
    pub(crate) max_object_bytes: u64,
    pub(crate) health: Arc<Health>,
}

impl fmt::Debug for ArtifactStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ArtifactStore({})", self.name)
    }
}

impl ArtifactStore {
    /// Opens the store at a URL: `file:///folder` (made if missing), `s3://bucket/prefix`,
    /// `gs://bucket/prefix`, `az://container/prefix` (credentials from the environment), an operator's own
    /// store at `https://host:port`, or `memory:///` (lost with the process). Nothing is sent yet.
    ///
    /// # Errors
    /// [`StoreError::BadUrl`].
    pub fn open(url: &str, options: &StoreOptions) -> Result<Self, StoreError> {
        let (inner, name) = open::open(url, options)?;
        let (health, name) = (Arc::<Health>::default(), Arc::<str>::from(name));
        let backend = Arc::new(Watched { inner, health: health.clone(), name: name.clone() });
        Ok(Self { backend, name, max_object_bytes: options.max_object_bytes, health })
    }

    /// Why it can't be worked with now, as far as the calls made so far show; `None` while they are answered well.
    pub fn trouble(&self) -> Option<Trouble> {
        self.health.trouble(Instant::now())
    }

    /// The store's URL without secrets, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Objects above this many bytes are not read.
    pub fn max_object_bytes(&self) -> u64 {
        self.max_object_bytes
    }

    /// From now on sends this session token to an operator's own store; other stores don't use one.
    pub fn set_token(&self, token: String) {
        self.backend.set_token(token);
    }

    /// Writes an object unless the key is taken; never overwrites. After an error it may or may not have
    /// been written: calling again is safe.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn create(&self, key: &str, bytes: Bytes) -> Result<Created, StoreError> {
        self.backend.create(key, bytes).await
    }

    /// Reads an object; `None` when the key is free.
    ///
    /// # Errors
    /// See [`StoreError`]; [`StoreError::TooLarge`] above the store's limit.
    pub async fn get(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        match self.open_object(key).await? {
            Some(opened) => opened.content.await.map(Some),
            None => Ok(None),
        }
    }

    /// Finds an object and says how large it is before it is read; `None` when the key is free.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn open_object(&self, key: &str) -> Result<Option<Opened>, StoreError> {
        self.backend.open(key, self.max_object_bytes).await
    }

    /// An object's size in bytes; `None` when the key is free.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn head(&self, key: &str) -> Result<Option<u64>, StoreError> {
        self.backend.head(key).await
    }

    /// Deletes an object; one that is not there is no error. Not for an operator's own store.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.backend.delete(vec![key.to_owned()]).await
    }

    /// Deletes many objects, in bulk where the store can.
    ///
    /// # Errors
    /// See [`StoreError`]; some may be deleted then.
    pub async fn delete_all(&self, keys: Vec<String>) -> Result<(), StoreError> {
        if keys.is_empty() {
            return Ok(());
        }
        self.backend.delete(keys).await
    }

    /// All objects in the folder `prefix`, in no certain order. Not for an operator's own store.
    pub fn list(&self, prefix: &str) -> EntryStream {
        self.backend.list(prefix, None)
    }

    /// The objects in the folder `prefix` whose keys sort after `after`, in no certain order. Most stores
    /// then don't even look at the others.
    pub fn list_after(&self, prefix: &str, after: &str) -> EntryStream {
        self.backend.list(prefix, Some(after))
    }

    /// Moves an object out of the way, to `quarantine/<key>.<n>` with the reason in
    /// `quarantine/<key>.<n>.reason`, and returns the new key; `None` when nothing was there. An object too
    /// large to read is dropped, and only the reason kept. Safe to repeat after a crash. Only one process
    /// may do this to a key at a time: a second could move the good object that has come since.
    ///
    /// # Errors
    /// See [`StoreError`]; the object is where it was then.
    pub async fn move_aside(&self, key: &str, reason: &str) -> Result<Option<String>, StoreError> {
        let (bytes, reason) = match self.get(key).await {
            Ok(None) => return Ok(None),
            Ok(Some(bytes)) => (bytes, reason.to_owned()),
            Err(StoreError::TooLarge { bytes, .. }) => {
                (Bytes::new(), format!("{reason}\nNot kept: {bytes} bytes are more than the store's limit."))
            }
            Err(error) => return Err(error),
        };
        let aside = self.quarantine(key, bytes).await?;
        self.create(&format!("{aside}.reason"), Bytes::from(reason)).await?;
        self.delete(key).await?;
        Ok(Some(aside))
    }

    async fn quarantine(&self, key: &str, bytes: Bytes) -> Result<String, StoreError> {
        for n in 1..=MAX_QUARANTINED {
            let aside = format!("quarantine/{key}.{n}");
            if self.create(&aside, bytes.clone()).await? == Created::New {
                return Ok(aside);
            }
            // a crash after the copy: go on from there
            if self.get(&aside).await?.as_ref() == Some(&bytes) {
                return Ok(aside);
            }
        }
        Err(StoreError::Other {
            action: format!("move {key} aside in {}", self.name),
            reason: format!("it was moved aside {MAX_QUARANTINED} times already"),
        })
    }

    /// Makes sure that the store keeps the one promise everything rests on: of several creates of one key
    /// exactly one succeeds, also when they come at once.
    ///
    /// # Errors
    /// [`StoreError::Unfit`] when it does not; else see [`StoreError`].
    pub async fn check_conditional_create(&self) -> Result<(), StoreError> {
        self.backend.check().await?;
        let key = format!("check/{:016x}", RandomState::new().hash_one(std::process::id()));
        let racers = (0..CHECK_RACERS).map(|i| self.create(&key, Bytes::from(format!("racer {i}"))));
        let mut created: Vec<Created> = Vec::new();
        for result in join_all(racers).await {
            match result {
                Ok(result) => created.push(result),
                // some stores turn away creates that meet; the next one settles it
                Err(StoreError::Unavailable { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let won = created.iter().filter(|c| **c == Created::New).count();
        let late = self.create(&key, Bytes::from_static(b"late")).await;
        self.delete(&key).await?;
        let reason = match (won, late?) {
            (0 | 1, Created::Exists) => return Ok(()),
            (0, Created::New) => {
                return Err(StoreError::Unavailable {
                    action: format!("check conditional create in {}", self.name),
                    reason: "none of several creates went through".into(),
                });
            }
            (_, Created::New) => "a second create of one key overwrote the first".to_owned(),
            (won, _) => format!("{won} creates of one key succeeded at once"),
        };
        Err(StoreError::Unfit { store: self.name.to_string(), reason })
    }

    /// Stores an input and returns its hash. One that is there already is read and checked; a damaged one
    /// is moved aside and written again.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn put_input(&self, bytes: Bytes) -> Result<ArtifactHash, StoreError> {
        let hash = ArtifactHash::of(&bytes);
        let key = input_key(&hash);
        if self.create(&key, bytes.clone()).await? == Created::New {
            return Ok(hash);
        }
        match self.get_input(&hash).await {
            Ok(Some(_)) => Ok(hash),
            Ok(None) => self.create(&key, bytes).await.map(|_| hash),
            Err(StoreError::Corrupt { reason, .. }) => {
                self.move_aside(&key, &reason).await?;
                self.create(&key, bytes).await.map(|_| hash)
            }
            Err(error) => Err(error),
        }
    }

    /// Reads an input and checks it against its hash; `None` when it is not there.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when the hash differs; else see [`StoreError`].
    pub async fn get_input(&self, hash: &ArtifactHash) -> Result<Option<Bytes>, StoreError> {
        let key = input_key(hash);
        let Some(bytes) = self.get(&key).await? else { return Ok(None) };
        let found = ArtifactHash::of(&bytes);
        if found != *hash {
            return Err(StoreError::Corrupt {
                action: format!("get {key} in {}", self.name),
                reason: format!("its bytes hash to {found}"),
            });
        }
        Ok(Some(bytes))
    }

    /// Stores a task's sealed proof (see [`arborist_core::proof_object`]) unless one is there.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn create_proof(&self, task: &TaskId, sealed: Bytes) -> Result<Created, StoreError> {
        self.create(&proof_key(task), sealed).await
    }

    /// Reads a task's sealed proof; `None` when there is none. What it holds is the caller's to check.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn get_proof(&self, task: &TaskId) -> Result<Option<Bytes>, StoreError> {
        self.get(&proof_key(task)).await
    }
}
