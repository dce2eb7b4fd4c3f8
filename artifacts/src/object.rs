//! Folders, buckets and memory, through object_store.

use crate::backend::{Answer, Backend, Created, Entry};
use crate::error::StoreError;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use std::sync::Arc;

pub(crate) struct ObjectBackend {
    store: Arc<dyn ObjectStore>,
    name: Arc<str>,
}

impl ObjectBackend {
    pub(crate) fn new(store: Arc<dyn ObjectStore>, name: &str) -> Self {
        Self { store, name: name.into() }
    }

    fn action(&self, verb: &str, key: &str) -> String {
        format!("{verb} {key} in {}", self.name)
    }

    fn path(&self, key: &str) -> Result<Path, StoreError> {
        Path::parse(key).map_err(|error| StoreError::Other {
            action: self.action("use key", key),
            reason: error.to_string(),
        })
    }

    async fn create_once(&self, key: &str, bytes: Bytes) -> Result<Created, StoreError> {
        let path = self.path(key)?;
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let error = match self.store.put_opts(&path, bytes.into(), options).await {
            Ok(_) => return Ok(Created::New),
            Err(error) => error,
        };
        if let Error::AlreadyExists { .. } = error {
            // S3 also answers so when two creates meet and neither has won yet: look
            match self.store.head(&path).await {
                Ok(_) => return Ok(Created::Exists),
                Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(StoreError::of_object_store(self.action("look up", key), error)),
            }
        }
        Err(StoreError::of_object_store(self.action("create", key), error))
    }

    async fn get_bounded(&self, key: &str, max_bytes: u64) -> Result<Option<Bytes>, StoreError> {
        let failed = |error| StoreError::of_object_store(self.action("get", key), error);
        let result = match self.store.get(&self.path(key)?).await {
            Ok(result) => result,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let bytes = result.meta.size;
        if bytes > max_bytes {
            return Err(StoreError::TooLarge { action: self.action("get", key), bytes, max_bytes });
        }
        result.bytes().await.map(Some).map_err(failed)
    }

    async fn delete_each(&self, keys: Vec<String>) -> Result<(), StoreError> {
        let paths: Vec<Path> = keys.iter().map(|key| self.path(key)).collect::<Result<_, _>>()?;
        let action = match keys.as_slice() {
            [key] => self.action("delete", key),
            keys => format!("delete {} objects in {}", keys.len(), self.name),
        };
        let mut deleted = self.store.delete_stream(stream::iter(paths.into_iter().map(Ok)).boxed());
        while let Some(result) = deleted.next().await {
            match result {
                Ok(_) | Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(StoreError::of_object_store(action, error)),
            }
        }
        Ok(())
    }
}

impl Backend for ObjectBackend {
    fn create<'a>(&'a self, key: &'a str, bytes: Bytes) -> Answer<'a, Created> {
        Box::pin(self.create_once(key, bytes))
    }

    fn get<'a>(&'a self, key: &'a str, max_bytes: u64) -> Answer<'a, Option<Bytes>> {
        Box::pin(self.get_bounded(key, max_bytes))
    }

    fn head<'a>(&'a self, key: &'a str) -> Answer<'a, Option<u64>> {
        Box::pin(async move {
            match self.store.head(&self.path(key)?).await {
                Ok(meta) => Ok(Some(meta.size)),
                Err(Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(StoreError::of_object_store(self.action("look up", key), error)),
            }
        })
    }

    fn delete(&self, keys: Vec<String>) -> Answer<'_, ()> {
        Box::pin(self.delete_each(keys))
    }

    fn list(&self, prefix: &str, after: Option<&str>) -> BoxStream<'static, Result<Entry, StoreError>> {
        let action = self.action("list", prefix);
        let prefix = Path::from(prefix);
        let listing = match after {
            Some(after) => self.store.list_with_offset(Some(&prefix), &Path::from(after)),
            None => self.store.list(Some(&prefix)),
        };
        listing
            .map_ok(|meta| Entry {
                key: meta.location.into(),
                bytes: meta.size,
                modified: meta.last_modified.into(),
            })
            .map_err(move |error| StoreError::of_object_store(action.clone(), error))
            .boxed()
    }
}
