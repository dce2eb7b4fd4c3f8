//! What an artifact store must be able to do.

use crate::error::StoreError;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use std::fmt;
use std::time::SystemTime;

/// What came of a create-only write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// The object is there now.
    New,
    /// The key was taken before; what lies there was not touched.
    Exists,
}

/// One object in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The object's key.
    pub key: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// When the store says it was written.
    pub modified: SystemTime,
}

/// An object that was found and is about to be read.
pub struct Opened {
    /// Its size in bytes.
    pub bytes: u64,
    /// Reads it.
    pub content: BoxFuture<'static, Result<Bytes, StoreError>>,
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Opened({} bytes)", self.bytes)
    }
}

pub(crate) type Answer<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// A place for objects. Keys are slash-separated and relative to the store's root.
pub(crate) trait Backend: Send + Sync {
    /// Writes `bytes` unless the key is taken.
    fn create<'a>(&'a self, key: &'a str, bytes: Bytes) -> Answer<'a, Created>;
    /// Opens an object of at most `max_bytes`.
    fn open<'a>(&'a self, key: &'a str, max_bytes: u64) -> Answer<'a, Option<Opened>>;
    /// An object's size in bytes.
    fn head<'a>(&'a self, key: &'a str) -> Answer<'a, Option<u64>>;
    /// Deletes objects; one that is not there is no error.
    fn delete(&self, keys: Vec<String>) -> Answer<'_, ()>;
    /// Objects below `prefix` whose keys sort after `after`, in no certain order.
    fn list(&self, prefix: &str, after: Option<&str>) -> BoxStream<'static, Result<Entry, StoreError>>;
    /// Looks whether the place can keep objects at all.
    fn check(&self) -> Answer<'_, ()> {
        Box::pin(std::future::ready(Ok(())))
    }
    /// Takes a new session token, where there is such a thing.
    fn set_token(&self, _token: String) {}
}
