//! The watch that keeps the book.

use super::record::WorkerPod;
use super::{Change, LABEL_NAME, PodBook};
use crate::api::{LABEL_MANAGED_BY, MANAGER};
use crate::controllers::Scope;
use crate::kubernetes::patience;
use futures::TryStreamExt;
use kube::Client;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Event, watcher};
use std::collections::HashSet;
use tokio_util::sync::CancellationToken;

/// Pods asked for in one page of a list: a page is what is in memory at once, 3 MB of JSON.
const PAGE: u32 = 500;

/// Keeps the book for one scope until `stop`, and tells of every change after it is in the book: `on_change`, and those
/// who subscribed.
pub async fn watch(
    client: Client,
    scope: Scope,
    book: PodBook,
    on_change: impl Fn(Change) + Send,
    stop: CancellationToken,
) {
    let selector =
        [(LABEL_MANAGED_BY, MANAGER), LABEL_NAME].map(|(key, value)| format!("{key}={value}")).join(",");
    let config = patience::watches().labels(&selector).page_size(PAGE);
    let mut events =
        Box::pin(watcher(scope.api::<WorkerPod>(&client), config).backoff(patience::of_watches()));
    let mut reader = Reader { scope, book, listing: None, synced: false };
    loop {
        let event = tokio::select! {
            event = events.try_next() => event,
            () = stop.cancelled() => return,
        };
        match event {
            Ok(Some(event)) => {
                for change in reader.take(event) {
                    reader.book.tell(&change);
                    on_change(change);
                }
            }
            Ok(None) => return,
            Err(error) => tracing::warn!(%error, "the watch of worker pods was interrupted"),
        }
    }
}

impl Drop for Reader {
    /// What nobody watches is not known.
    fn drop(&mut self) {
        if self.synced {
            self.book.inner.synced.send_modify(|scopes| *scopes -= 1);
        }
    }
}

/// Puts a watch's events into the book.
pub(super) struct Reader {
    pub(super) scope: Scope,
    pub(super) book: PodBook,
    /// While a whole list arrives.
    pub(super) listing: Option<Listing>,
    pub(super) synced: bool,
}

/// A list of all pods that is arriving.
pub(super) struct Listing {
    /// The pods in it so far.
    listed: HashSet<Box<str>>,
    /// Pods that were made and not seen when it began.
    unseen: HashSet<Box<str>>,
}

impl Reader {
    pub(super) fn take(&mut self, event: Event<WorkerPod>) -> Vec<Change> {
        match event {
            Event::Init => {
                let unseen = self.book.unseen(&self.scope);
                self.listing = Some(Listing { listed: HashSet::new(), unseen });
                vec![]
            }
            Event::InitApply(pod) => {
                if let Some(listing) = &mut self.listing {
                    listing.listed.insert(pod.worker().into());
                }
                self.apply(&pod)
            }
            Event::Apply(pod) => self.apply(&pod),
            Event::Delete(pod) => self.book.remove(&pod.worker()).into_iter().collect(),
            Event::InitDone => {
                let Some(Listing { listed, unseen }) = self.listing.take() else { return vec![] };
                let changes = self.book.keep(&self.scope, &listed, &unseen);
                if !self.synced {
                    self.synced = true;
                    self.book.inner.synced.send_modify(|scopes| *scopes += 1);
                }
                changes
            }
        }
    }

    fn apply(&self, pod: &WorkerPod) -> Vec<Change> {
        match pod.record() {
            Ok(record) => self.book.apply(record),
            Err(why) => self.book.ignore(pod.worker(), why).into_iter().collect(),
        }
    }
}
