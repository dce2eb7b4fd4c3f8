//! Folders, buckets and memory, through object_store.

use crate::backend::{Answer, Backend, Created, Entry, Opened};
use crate::error::{StoreError, is_bucket_gone, is_lacking};
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

pub(crate) struct ObjectBackend {
    store: Arc<dyn ObjectStore>,
    name: Arc<str>,
    /// Where the objects lie, if they are files.
    folder: Option<PathBuf>,
}

impl ObjectBackend {
    pub(crate) fn new(store: Arc<dyn ObjectStore>, name: &str, folder: Option<PathBuf>) -> Self {
        Self { store, name: name.into(), folder }
    }

    /// A file is created once by a hard link to it.
    async fn check_links(&self, folder: PathBuf) -> Result<(), StoreError> {
        let action = format!("make a hard link in {}", self.name);
        let tried = tokio::task::spawn_blocking(move || try_link(&folder)).await;
        let tried =
            tried.map_err(|error| StoreError::Other { action: action.clone(), reason: error.to_string() })?;
        tried.map_err(|(step, error)| no_link(&self.name, action, step, &error))
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
        if is_lacking(&error) {
            let reason = format!("it does not know conditional creates: {error}");
            return Err(StoreError::Unfit { store: self.name.to_string(), reason });
        }
        Err(StoreError::of_object_store(self.action("create", key), error))
    }

    async fn open_bounded(&self, key: &str, max_bytes: u64) -> Result<Option<Opened>, StoreError> {
        let action = self.action("get", key);
        let failed = move |error| StoreError::of_object_store(action.clone(), error);
        let result = match self.store.get(&self.path(key)?).await {
            Ok(result) => result,
            Err(error @ Error::NotFound { .. }) if !is_bucket_gone(&error) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let bytes = result.meta.size;
        if bytes > max_bytes {
            return Err(StoreError::TooLarge { action: self.action("get", key), bytes, max_bytes });
        }
        let content = async move { result.bytes().await.map_err(failed) };
        Ok(Some(Opened { bytes, content: Box::pin(content) }))
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
                Ok(_) => {}
                Err(error @ Error::NotFound { .. }) if !is_bucket_gone(&error) => {}
                Err(error) => return Err(StoreError::of_object_store(action, error)),
            }
        }
        Ok(())
    }
}

/// A step of a trial in a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Write,
    Link,
}

fn try_link(folder: &std::path::Path) -> Result<(), (Step, io::Error)> {
    let random = RandomState::new().hash_one(std::process::id());
    let (file, link) =
        (folder.join(format!("check-{random:016x}.a")), folder.join(format!("check-{random:016x}.b")));
    std::fs::File::create_new(&file).map_err(|error| (Step::Write, error))?;
    let linked = std::fs::hard_link(&file, &link).map_err(|error| (Step::Link, error));
    for path in [&file, &link] {
        // what stays behind is empty, and nobody reads it
        let _gone = std::fs::remove_file(path);
    }
    linked
}

/// Where a file can be made and no link to it, the file system has none.
fn no_link(store: &str, action: String, step: Step, error: &io::Error) -> StoreError {
    use io::ErrorKind as K;
    match (step, error.kind()) {
        (Step::Link, K::PermissionDenied | K::Unsupported | K::TooManyLinks | K::InvalidInput) => {
            let reason = format!("its file system has no hard links ({error})");
            StoreError::Unfit { store: store.to_owned(), reason }
        }
        (_, kind) => StoreError::of_io(action, error.to_string(), kind),
    }
}

impl Backend for ObjectBackend {
    fn check(&self) -> Answer<'_, ()> {
        match self.folder.clone() {
            Some(folder) => Box::pin(self.check_links(folder)),
            None => Box::pin(std::future::ready(Ok(()))),
        }
    }

    fn create<'a>(&'a self, key: &'a str, bytes: Bytes) -> Answer<'a, Created> {
        Box::pin(self.create_once(key, bytes))
    }

    fn open<'a>(&'a self, key: &'a str, max_bytes: u64) -> Answer<'a, Option<Opened>> {
        Box::pin(self.open_bounded(key, max_bytes))
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
        let after = after.map(str::to_owned);
        listing
            // some stores begin at the start wherever they are told to
            .try_filter(move |meta| {
                let wanted = after.as_deref().is_none_or(|after| meta.location.as_ref() > after);
                std::future::ready(wanted)
            })
            .map_ok(|meta| Entry {
                key: meta.location.into(),
                bytes: meta.size,
                modified: meta.last_modified.into(),
            })
            .map_err(move |error| StoreError::of_object_store(action.clone(), error))
            .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_without_hard_links_is_unfit_and_one_that_fails_is_not() {
        use io::ErrorKind as K;
        for (step, kind, expected) in [
            (Step::Link, K::PermissionDenied, "Unfit"),
            (Step::Link, K::Unsupported, "Unfit"),
            (Step::Link, K::StorageFull, "Full"),
            (Step::Link, K::TimedOut, "Unavailable"),
            (Step::Write, K::PermissionDenied, "Denied"),
            (Step::Write, K::ReadOnlyFilesystem, "Denied"),
        ] {
            let error = no_link("file:///x", "link".into(), step, &io::Error::from(kind));
            assert!(format!("{error:?}").starts_with(expected), "{step:?} {kind:?} became {error:?}");
        }
        let text =
            no_link("file:///x", String::new(), Step::Link, &io::Error::from(K::Unsupported)).to_string();
        assert!(text.contains("file:///x") && text.contains("hard links"), "{text}");
    }

    #[test]
    fn a_trial_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        try_link(dir.path()).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert_eq!(try_link(&dir.path().join("none")).unwrap_err().0, Step::Write);
    }
}
