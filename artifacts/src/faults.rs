//! A store that fails, hangs or waits when a test says so (feature `faults`).

use crate::backend::{Answer, Backend, Created, Entry, Opened};
use crate::error::StoreError;
use crate::store::ArtifactStore;
use bytes::Bytes;
use futures::stream::BoxStream;
use std::sync::Arc;
use tokio::sync::Notify;

/// What is asked of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// A create-only write.
    Create,
    /// A read.
    Get,
    /// A look at an object's size.
    Head,
    /// A deletion.
    Delete,
}

/// How it goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// [`StoreError::Unavailable`].
    Unavailable,
    /// [`StoreError::Full`].
    Full,
    /// [`StoreError::Denied`].
    Denied,
    /// No answer, ever.
    Hang,
}

/// What happens to one operation.
#[derive(Debug, Clone)]
pub enum Fault {
    /// It goes through.
    None,
    /// It fails and has done nothing.
    Before(Failure),
    /// It is done, and the answer is lost.
    After(Failure),
    /// It waits until notified, then goes through.
    Wait(Arc<Notify>),
}

/// Says what happens to each operation on each key.
pub type Plan = Arc<dyn Fn(Operation, &str) -> Fault + Send + Sync>;

impl ArtifactStore {
    /// The same objects, reached through a store that fails as `plan` says. Listings never fail.
    #[must_use]
    pub fn with_faults(&self, plan: Plan) -> ArtifactStore {
        let backend = FaultyBackend { inner: self.backend.clone(), plan };
        ArtifactStore { backend: Arc::new(backend), ..self.clone() }
    }
}

struct FaultyBackend {
    inner: Arc<dyn Backend>,
    plan: Plan,
}

impl FaultyBackend {
    fn run<'a, T: Send + 'a>(
        &'a self,
        operation: Operation,
        key: &str,
        inner: Answer<'a, T>,
    ) -> Answer<'a, T> {
        let fault = (self.plan)(operation, key);
        let action = format!("{operation:?} {key} with {fault:?}");
        Box::pin(async move {
            match fault {
                Fault::None => inner.await,
                Fault::Before(failure) => Err(fail(failure, action).await),
                Fault::After(failure) => {
                    inner.await?;
                    Err(fail(failure, action).await)
                }
                Fault::Wait(notify) => {
                    notify.notified().await;
                    inner.await
                }
            }
        })
    }
}

async fn fail(failure: Failure, action: String) -> StoreError {
    let reason = "a test wants it so".to_owned();
    match failure {
        Failure::Unavailable => StoreError::Unavailable { action, reason },
        Failure::Full => StoreError::Full { action, reason },
        Failure::Denied => StoreError::Denied { action, reason },
        Failure::Hang => std::future::pending().await,
    }
}

impl Backend for FaultyBackend {
    fn create<'a>(&'a self, key: &'a str, bytes: Bytes) -> Answer<'a, Created> {
        self.run(Operation::Create, key, self.inner.create(key, bytes))
    }

    fn open<'a>(&'a self, key: &'a str, max_bytes: u64) -> Answer<'a, Option<Opened>> {
        self.run(Operation::Get, key, self.inner.open(key, max_bytes))
    }

    fn head<'a>(&'a self, key: &'a str) -> Answer<'a, Option<u64>> {
        self.run(Operation::Head, key, self.inner.head(key))
    }

    fn delete(&self, keys: Vec<String>) -> Answer<'_, ()> {
        let all = keys.join(",");
        self.run(Operation::Delete, &all, self.inner.delete(keys))
    }

    fn list(&self, prefix: &str, after: Option<&str>) -> BoxStream<'static, Result<Entry, StoreError>> {
        self.inner.list(prefix, after)
    }

    fn check(&self) -> Answer<'_, ()> {
        self.inner.check()
    }

    fn set_token(&self, token: String) {
        self.inner.set_token(token);
    }
}
