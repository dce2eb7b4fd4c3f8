//! Leases at work: each is an async task that fetches, waits for its share of the machine, proves on a
//! thread of its own, stores and reports. Fetching needs no share, so prefetched leases have their
//! children here when their turn comes.

use crate::artifacts::{self, StoreHandle};
use crate::attempt::{self, Fetched, Identity, Lease, Refusal, Sealed};
use crate::backend::Prover;
use crate::book::{Book, Outcome, Stop};
use crate::slots::{Slot, Slots};
use arborist_artifacts::Created;
use arborist_core::backend::{Cancel, Proof};
use arborist_core::ids::TaskId;
use arborist_core::wire::{self, Completed, Reason};
use bytes::Bytes;
use futures::future::try_join_all;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};

/// How long garbage at a task's own key is given to be moved aside before it is reported.
const GARBAGE_PATIENCE: Duration = Duration::from_secs(5);
const GARBAGE_PAUSE: Duration = Duration::from_millis(200);

/// A lease that just came in, with what stops it.
#[derive(Debug)]
pub struct NewLease {
    /// As the dispatcher sent it.
    pub lease: wire::Lease,
    /// From [`Book::add`].
    pub stop: Stop,
}

/// What all leases of a worker share.
pub struct Tasks {
    /// The backend.
    pub prover: Arc<dyn Prover>,
    /// Who signs.
    pub identity: Identity,
    /// The machine.
    pub slots: Arc<Slots>,
    /// Where results go.
    pub book: Arc<Book>,
    /// Where artifacts are.
    pub store: StoreHandle,
}

impl Tasks {
    /// Works off leases until the channel closes, then waits for those under way.
    pub async fn run(self: Arc<Self>, mut leases: mpsc::UnboundedReceiver<NewLease>) {
        let mut running = JoinSet::new();
        loop {
            tokio::select! {
                next = leases.recv() => match next {
                    Some(new) => {
                        let place = self.slots.place();
                        running.spawn(self.clone().work(new, place));
                    }
                    None => break,
                },
                Some(_) = running.join_next() => {}
            }
        }
        running.join_all().await;
    }

    async fn work(self: Arc<Self>, new: NewLease, place: u64) {
        let lease = match Lease::read(&new.lease) {
            Ok(lease) => Arc::new(lease),
            Err(text) => return self.malformed(&new.lease, &text),
        };
        let stop = new.stop;
        let token = stop.token.clone();
        let ended = tokio::select! {
            ended = self.prepare(&lease, &stop.flag) => ended,
            () = token.cancelled() => return,
        };
        let fetched = match ended {
            Ok(Prepared::Found(completed)) => return self.report(&lease, Ok(completed)),
            Ok(Prepared::Fetched(fetched)) => fetched,
            Err(refusal) => return self.report(&lease, Err(refusal)),
        };
        let slot = tokio::select! {
            slot = self.slots.acquire(place, lease.needs) => slot,
            () = token.cancelled() => return,
        };
        if !self.book.start(lease.fence, Instant::now()) {
            return;
        }
        // not left alone when the lease is lost: the flag stops the backend, and it is waited for
        let proven = self.prove(&lease, fetched, &stop, slot).await;
        let ended = tokio::select! {
            ended = self.store(&lease, proven, &stop.flag) => ended,
            () = token.cancelled() => return,
        };
        self.report(&lease, ended);
    }

    async fn prepare(self: &Arc<Self>, lease: &Arc<Lease>, stop: &Cancel) -> Result<Prepared, Refusal> {
        if let Some(proof) = self.proof_there(lease, stop).await? {
            return Ok(Prepared::Found(attempt::found(lease, &proof)));
        }
        let inputs = try_join_all(lease.inputs.iter().map(|&hash| artifacts::input(&self.store, hash)));
        let children = try_join_all(lease.children.iter().map(|c| artifacts::child(&self.store, c.task)));
        let (inputs, children) = tokio::try_join!(inputs, children)?;
        Ok(Prepared::Fetched(Fetched { inputs, children }))
    }

    /// The good proof that is in the store already. Garbage may be on its way out: a task whose proof was
    /// found bad is leased anew while the operator still moves the old one aside.
    async fn proof_there(&self, lease: &Arc<Lease>, stop: &Cancel) -> Result<Option<Proof>, Refusal> {
        let end = Instant::now() + GARBAGE_PATIENCE;
        loop {
            let Some(object) = artifacts::proof(&self.store, lease.expected.task).await? else {
                return Ok(None);
            };
            match self.check_own(lease, object, stop).await {
                Ok(proof) => return Ok(Some(proof)),
                Err(refusal) if refusal.child.is_none() || Instant::now() >= end => return Err(refusal),
                Err(_) => tokio::time::sleep(GARBAGE_PAUSE).await,
            }
        }
    }

    /// Checks what lies in the store under the lease's own task. Garbage there is reported as a bad
    /// child that is the task itself: only the operator can move it aside.
    async fn check_own(&self, lease: &Arc<Lease>, object: Bytes, stop: &Cancel) -> Result<Proof, Refusal> {
        let (prover, lease, stop) = (self.prover.clone(), lease.clone(), stop.clone());
        let check = move || {
            attempt::check(&*prover, &lease.expected, &object, &stop)?.map_err(|text| {
                let text = format!("the proof in the store under the task's own key: {text}");
                Refusal::bad_child(lease.expected.task, text)
            })
        };
        tokio::task::spawn_blocking(check).await.unwrap_or_else(|error| Err(panicked(error)))
    }

    async fn prove(
        self: &Arc<Self>,
        lease: &Arc<Lease>,
        fetched: Fetched,
        stop: &Stop,
        slot: Slot,
    ) -> Result<Sealed, Refusal> {
        let (tasks, mut job, flag) = (self.clone(), Lease::clone(lease), stop.flag.clone());
        job.needs = slot.share();
        let mut proving = tokio::task::spawn_blocking(move || {
            let sealed = attempt::prove(&*tasks.prover, &tasks.identity, &job, fetched, &flag);
            drop(slot);
            sealed
        });
        let limit = async {
            match lease.limit {
                Some(limit) => tokio::time::sleep(limit).await,
                None => std::future::pending().await,
            }
        };
        let ended = tokio::select! {
            ended = &mut proving => ended,
            () = limit => {
                stop.flag.cancel();
                let ended = proving.await;
                if !matches!(ended, Ok(Ok(_))) {
                    return Err(timed_out(lease));
                }
                ended
            }
        };
        ended.unwrap_or_else(|error| Err(panicked(error)))
    }

    async fn store(
        &self,
        lease: &Arc<Lease>,
        proven: Result<Sealed, Refusal>,
        stop: &Cancel,
    ) -> Result<Completed, Refusal> {
        let sealed = proven?;
        let task = lease.expected.task;
        let end = Instant::now() + GARBAGE_PATIENCE;
        let there = loop {
            if artifacts::put(&self.store, task, sealed.object.clone()).await? == Created::New {
                return Ok(sealed.completed);
            }
            // someone was first, or this worker in a try whose answer was lost
            if let Some(there) = artifacts::proof(&self.store, task).await? {
                break there;
            }
            // it was bad, and has been moved aside meanwhile
            if Instant::now() >= end {
                let text = "the store says that the proof is there, and that it is not";
                return Err(Refusal::new(Reason::StoreUnavailable, text));
            }
            tokio::time::sleep(GARBAGE_PAUSE).await;
        };
        if there == sealed.object {
            return Ok(sealed.completed);
        }
        let proof = self.check_own(lease, there, stop).await?;
        Ok(attempt::found(lease, &proof))
    }

    fn report(&self, lease: &Lease, ended: Result<Completed, Refusal>) {
        let (task, circuit) = (lease.expected.task, lease.expected.circuit);
        let (id, fence) = (task.short(), lease.fence);
        let outcome = match &ended {
            Ok(completed) => Outcome::Done(completed.clone()),
            Err(refusal) => Outcome::failed(fence, task, refusal.reason, &refusal.text, refusal.child),
        };
        if !self.book.finish(outcome) {
            tracing::debug!(task = id, %circuit, "its lease is gone: the result is dropped");
            return;
        }
        match ended {
            Ok(completed) => {
                tracing::debug!(task = id, %circuit, millis = completed.millis, found = completed.found, "done");
            }
            Err(refusal) => {
                tracing::warn!(task = id, %circuit, reason = ?refusal.reason, "{}", refusal.text);
            }
        }
    }

    fn malformed(&self, lease: &wire::Lease, text: &str) {
        tracing::warn!(fence = lease.fence, "a lease that makes no sense: {text}");
        let task = TaskId::from_slice(&lease.task).unwrap_or(TaskId([0; 32]));
        let text = format!("the lease makes no sense: {text}");
        self.book.finish(Outcome::failed(lease.fence, task, Reason::Error, &text, None));
    }
}

enum Prepared {
    Found(Completed),
    Fetched(Fetched),
}

fn timed_out(lease: &Lease) -> Refusal {
    let limit = lease.limit.unwrap_or_default();
    Refusal::new(Reason::TimedOut, format!("ran longer than {} ms", limit.as_millis()))
}

fn panicked(error: JoinError) -> Refusal {
    let text = match error.try_into_panic() {
        Ok(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a message").to_owned()
        }
        Err(error) => error.to_string(),
    };
    Refusal::new(Reason::Error, format!("the backend panicked: {text}"))
}
