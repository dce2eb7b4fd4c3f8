//! A store whose every answer comes within a limit: a disk or network that hangs is a store that does not answer.

use crate::backend::{Answer, Backend, Created, Entry, Opened};
use crate::error::StoreError;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// What a store may take beyond the time of one request: it may try again itself.
const MORE: Duration = Duration::from_secs(5);

pub(crate) struct Limited {
    inner: Arc<dyn Backend>,
    name: String,
    limit: Duration,
}

impl Limited {
    /// `request`: how long one request may take.
    pub(crate) fn new(inner: Arc<dyn Backend>, name: &str, request: Duration) -> Self {
        Self { inner, name: name.to_owned(), limit: request + MORE }
    }

    fn late(name: &str, verb: &str, what: &str, limit: Duration) -> StoreError {
        StoreError::Unavailable {
            action: format!("{verb} {what} in {name}"),
            reason: format!("no answer within {} s", limit.as_secs()),
        }
    }

    fn within<'a, T>(&'a self, verb: &'a str, what: &'a str, answer: Answer<'a, T>) -> Answer<'a, T>
    where
        T: Send + 'a,
    {
        Box::pin(async move {
            let answer = timeout(self.limit, answer).await;
            answer.unwrap_or_else(|_| Err(Self::late(&self.name, verb, what, self.limit)))
        })
    }
}

impl Backend for Limited {
    fn create<'a>(&'a self, key: &'a str, bytes: Bytes) -> Answer<'a, Created> {
        self.within("create", key, self.inner.create(key, bytes))
    }

    fn open<'a>(&'a self, key: &'a str, max_bytes: u64) -> Answer<'a, Option<Opened>> {
        let opening = self.within("get", key, self.inner.open(key, max_bytes));
        let (limit, late) = (self.limit, Self::late(&self.name, "get", key, self.limit));
        Box::pin(async move {
            let Some(Opened { bytes, content }) = opening.await? else { return Ok(None) };
            let content = async move { timeout(limit, content).await.unwrap_or(Err(late)) };
            Ok(Some(Opened { bytes, content: Box::pin(content) }))
        })
    }

    fn head<'a>(&'a self, key: &'a str) -> Answer<'a, Option<u64>> {
        self.within("look up", key, self.inner.head(key))
    }

    fn delete(&self, keys: Vec<String>) -> Answer<'_, ()> {
        self.within("delete", "objects", self.inner.delete(keys))
    }

    /// Each entry has to follow the one before within the limit; the listing ends with the error.
    fn list(&self, prefix: &str, after: Option<&str>) -> BoxStream<'static, Result<Entry, StoreError>> {
        let (limit, late) = (self.limit, Self::late(&self.name, "list", prefix, self.limit));
        let listing = self.inner.list(prefix, after);
        stream::unfold(Some(listing), move |listing| {
            let late = late.clone();
            async move {
                let mut listing = listing?;
                match timeout(limit, listing.next()).await {
                    Ok(entry) => entry.map(|entry| (entry, Some(listing))),
                    Err(_) => Some((Err(late), None)),
                }
            }
        })
        .boxed()
    }

    fn check(&self) -> Answer<'_, ()> {
        self.within("check", "the place", self.inner.check())
    }

    fn set_token(&self, token: String) {
        self.inner.set_token(token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Hanging;

    impl Backend for Hanging {
        fn create<'a>(&'a self, _: &'a str, _: Bytes) -> Answer<'a, Created> {
            Box::pin(std::future::pending())
        }

        fn open<'a>(&'a self, _: &'a str, _: u64) -> Answer<'a, Option<Opened>> {
            let opened = Opened { bytes: 1, content: Box::pin(std::future::pending()) };
            Box::pin(std::future::ready(Ok(Some(opened))))
        }

        fn check(&self) -> Answer<'_, ()> {
            Box::pin(std::future::pending())
        }

        fn head<'a>(&'a self, _: &'a str) -> Answer<'a, Option<u64>> {
            Box::pin(std::future::pending())
        }

        fn delete(&self, _: Vec<String>) -> Answer<'_, ()> {
            Box::pin(std::future::pending())
        }

        fn list(&self, _: &str, _: Option<&str>) -> BoxStream<'static, Result<Entry, StoreError>> {
            stream::pending().boxed()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_call_waits_for_a_store_that_hangs() {
        let store = Limited::new(Arc::new(Hanging), "file:///disk", Duration::from_secs(30));
        let listed: Vec<_> = store.list("journal", None).collect().await;
        assert_eq!(listed.len(), 1, "the listing ends");
        for (call, error) in [
            ("create", store.create("k", Bytes::new()).await.err()),
            ("get", store.open("k", 1).await.unwrap().unwrap().content.await.err()),
            ("check", store.check().await.err()),
            ("look up", store.head("k").await.err()),
            ("delete", store.delete(vec!["k".into()]).await.err()),
            ("list", listed.into_iter().next().and_then(Result::err)),
        ] {
            let error = error.expect(call);
            assert!(error.is_retryable(), "{call}: {error}");
            let text = error.to_string();
            assert!(text.contains(call) && text.contains("no answer within 35 s"), "{text}");
        }
    }
}
