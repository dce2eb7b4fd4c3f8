//! What workers say, as events of the engine.

use super::Inner;
use super::core::{Core, SessionEntry};
use crate::dispatch::login::{self, Admitted, Refusal};
use crate::dispatch::net::{self, Peer, SendBuffers};
use crate::metrics::reason_label;
use arborist_core::engine::{Done, Event, Fence, Gone, Held, Millis, Reason, Session};
use arborist_core::ids::TaskId;
use arborist_core::wire::{self, FromWorker, Hello, PROTOCOL, Welcome};
use futures::future::BoxFuture;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

/// The most characters kept of a worker's text.
const MAX_TEXT: usize = 1000;

/// The dispatcher as the network sees it.
pub(super) struct Front(pub(super) Arc<Inner>);

impl net::Desk for Front {
    fn hello(&self, peer: &Arc<Peer>, hello: Hello, buffers: &mut SendBuffers) {
        let (worker, held) = match login::check_hello(&hello, &self.0.system) {
            Ok(checked) => checked,
            Err(refusal) => return self.0.refuse(peer, &hello.worker, &refusal, buffers),
        };
        let (inner, peer) = (self.0.clone(), peer.clone());
        let asks = Asks { name: worker.name.clone(), instance: hello.instance.clone(), held };
        let mut login: BoxFuture<'static, Result<Admitted, Refusal>> = Box::pin({
            let inner = inner.clone();
            async move {
                let admitted = inner.options.login.check(&hello.token).await?.admit(worker)?;
                Ok(Admitted { draining: admitted.draining || hello.draining, ..admitted })
            }
        });
        // a login may set timers or ask the network from its first step on; this thread is none of the runtime's
        let _context = inner.runtime.enter();
        // some answers are there at once; the others are waited for elsewhere
        match login.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answer) => inner.answer(&peer, asks, answer, buffers),
            Poll::Pending => {
                let runtime = inner.runtime.clone();
                runtime.spawn(async move {
                    let answer = login.await;
                    inner.answer(&peer, asks, answer, &mut SendBuffers::default());
                });
            }
        }
    }

    fn frames(&self, batch: &mut Vec<(Arc<Peer>, FromWorker)>, buffers: &mut SendBuffers) {
        self.0.room.drive(buffers, |core, now| {
            for (peer, frame) in batch.drain(..) {
                if let Some(session) = peer.session()
                    && let Err(why) = self.0.take_frame(core, now, &peer, Session(session), frame)
                {
                    tracing::warn!(address = %peer.address, why, "a worker does not speak the protocol");
                    peer.hang_up();
                }
            }
        });
    }

    fn closed(&self, peer: &Arc<Peer>, undelivered: Vec<u64>, buffers: &mut SendBuffers) {
        let Some(session) = peer.session() else { return };
        self.0.left(session, undelivered, buffers);
    }
}

/// What a login asks for, beside what has to be checked by others.
struct Asks {
    name: String,
    instance: Vec<u8>,
    held: Vec<Held>,
}

impl Inner {
    fn refuse(&self, peer: &Peer, worker: &str, refusal: &Refusal, buffers: &mut SendBuffers) {
        self.metrics.refused.with_label_values(&[refusal.cause]).inc();
        tracing::warn!(worker, address = %peer.address, reason = refusal.text, "a login was refused");
        peer.post(|out| out.refused = Some(refusal.to_wire()));
        // it is closed either way
        let _ = peer.flush(buffers);
        peer.hang_up();
    }

    fn answer(
        &self,
        peer: &Arc<Peer>,
        asks: Asks,
        answer: Result<Admitted, Refusal>,
        buffers: &mut SendBuffers,
    ) {
        let admitted = match answer {
            Ok(admitted) => admitted,
            Err(refusal) => return self.refuse(peer, &asks.name, &refusal, buffers),
        };
        let name = asks.name.clone();
        let (session, before) = match self.join(peer, asks, admitted, buffers) {
            Ok(joined) => joined,
            Err(refusal) => return self.refuse(peer, &name, &refusal, buffers),
        };
        self.metrics.workers.inc();
        if let Some(before) = before {
            let text = "this worker has logged in anew since";
            before.post(|out| out.refused = Some(Refusal::for_now("replaced", text).to_wire()));
            // it is closed either way
            let _ = before.flush(buffers);
            before.hang_up();
        }
        if peer.is_closed() {
            // its reader saw the end before it had a session
            self.left(session, vec![], buffers);
        }
    }

    /// Takes a worker in: its session, and the connection that it had before.
    ///
    /// # Errors
    /// Another process has its name.
    fn join(
        &self,
        peer: &Arc<Peer>,
        asks: Asks,
        admitted: Admitted,
        buffers: &mut SendBuffers,
    ) -> Result<(u64, Option<Arc<Peer>>), Refusal> {
        let Admitted { worker, draining } = admitted;
        let Asks { name, instance, held } = asks;
        let token = hex::encode(rand::random::<[u8; 32]>());
        let welcome = Welcome {
            protocol: PROTOCOL,
            session_token: token.clone(),
            store_url: self.options.store_url.clone(),
            heartbeat_millis: self.options.heartbeat.as_millis() as u32,
            lease_millis: self.options.lease.as_millis() as u32,
        };
        self.room.drive(buffers, |core, now| {
            if core.is_anothers(&name, &instance) {
                let text = format!("the name {name} is in use by another live worker; names must be unique");
                return Err(Refusal::for_now("name-in-use", text));
            }
            let session = self.next_session.fetch_add(1, Ordering::Relaxed);
            peer.set_session(session);
            // what the cluster said at the login may be older than what this worker was told
            let draining = draining || core.leaving.contains(&name);
            tracing::debug!(worker = name, session, held = held.len(), draining, "a worker logged in");
            core.post(peer, |out| out.welcome = Some(welcome));
            core.tokens.insert(token.clone(), session);
            let before = core.by_name.insert(name.clone(), session);
            let before = before.and_then(|old| core.sessions.get(&old)).map(|entry| entry.peer.clone());
            let most_leases = core.engine.most_leases(worker.capacity, worker.prefetch);
            core.sessions
                .insert(session, SessionEntry { peer: peer.clone(), name, instance, token, most_leases });
            let joined = Session(session);
            core.event(
                now,
                match draining {
                    true => Event::JoinedToLeave { session: joined, worker, held },
                    false => Event::Joined { session: joined, worker, held },
                },
            );
            Ok((session, before))
        })
    }

    fn left(&self, session: u64, undelivered: Vec<u64>, buffers: &mut SendBuffers) {
        let known = self.room.drive(buffers, |core, now| {
            for fence in undelivered {
                core.event(now, Event::Undelivered(Session(session), Fence(fence)));
            }
            let Some(entry) = core.sessions.remove(&session) else { return false };
            core.tokens.remove(&entry.token);
            if core.by_name.get(&entry.name) == Some(&session) {
                core.by_name.remove(&entry.name);
            }
            core.event(now, Event::Left(Session(session), Gone::Disconnected));
            true
        });
        if known {
            self.metrics.workers.dec();
        }
    }

    /// # Errors
    /// What is wrong with the frame; what came before it in the frame counts.
    fn take_frame(
        &self,
        core: &mut Core,
        now: Millis,
        peer: &Arc<Peer>,
        session: Session,
        frame: FromWorker,
    ) -> Result<(), &'static str> {
        check_lengths(&frame, core.sessions.get(&session.0).map_or(0, |entry| entry.most_leases))?;
        for done in frame.completed {
            let task = TaskId::from_slice(&done.task).ok_or("completed: a task id has 32 bytes")?;
            core.event(
                now,
                Event::Completed(
                    session,
                    Done {
                        task,
                        fence: Fence(done.fence),
                        millis: done.millis,
                        cpu_millis: done.cpu_millis,
                        peak_mib: done.peak_mib,
                        proof_bytes: done.proof_bytes,
                        found: done.found,
                    },
                ),
            );
        }
        for failed in frame.failed {
            self.take_failure(core, now, session, failed)?;
        }
        if let Some(heartbeat) = frame.heartbeat {
            let fences = heartbeat.fences.into_iter().map(Fence).collect();
            core.event(now, Event::Heartbeat(session, fences));
            core.post(peer, |out| out.heard = true);
        }
        if let Some(draining) = frame.draining {
            core.event(now, Event::Draining(session));
            for fence in draining.handed_back {
                core.event(now, Event::Undelivered(session, Fence(fence)));
            }
        }
        if frame.seq > 0 {
            core.post(peer, |out| out.ack = out.ack.max(frame.seq));
        }
        Ok(())
    }

    fn take_failure(
        &self,
        core: &mut Core,
        now: Millis,
        session: Session,
        failed: wire::Failed,
    ) -> Result<(), &'static str> {
        let task = TaskId::from_slice(&failed.task).ok_or("failed: a task id has 32 bytes")?;
        let reason = reason(&failed).ok_or("failed: a child has an id of 32 bytes")?;
        self.metrics.failures.with_label_values(&[reason_label(&reason)]).inc();
        let text = failed.text.chars().take(MAX_TEXT).collect();
        core.event(now, Event::Failed { session, task, fence: Fence(failed.fence), reason, text });
        Ok(())
    }
}

/// A reason that this version does not know is an error like any other.
fn reason(failed: &wire::Failed) -> Option<Reason> {
    Some(match failed.reason() {
        wire::Reason::Error => Reason::Error,
        wire::Reason::OutOfMemory => Reason::OutOfMemory,
        wire::Reason::TimedOut => Reason::TimedOut,
        wire::Reason::BadChild => Reason::BadChild(TaskId::from_slice(&failed.child)?),
        wire::Reason::MissingChild => Reason::MissingChild(TaskId::from_slice(&failed.child)?),
        wire::Reason::BadInput => Reason::BadInput,
        wire::Reason::BadProof => Reason::BadProof,
        wire::Reason::Oversize => Reason::Oversize,
        wire::Reason::StoreUnavailable => Reason::StoreUnavailable,
        wire::Reason::HandedBack => Reason::HandedBack,
    })
}

/// A frame of the largest size could name millions of leases, to be dealt with under one lock: it names at most what
/// the worker can have to do with.
fn check_lengths(frame: &FromWorker, most: usize) -> Result<(), &'static str> {
    let named = frame.heartbeat.as_ref().map_or(0, |h| h.fences.len());
    let handed_back = frame.draining.as_ref().map_or(0, |d| d.handed_back.len());
    match () {
        () if frame.completed.len() + frame.failed.len() > most => {
            Err("a frame has more results than the worker can hold leases")
        }
        () if named.max(handed_back) > most => Err("a frame names more leases than the worker can hold"),
        () => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arborist_core::wire::{Completed, Draining, Heartbeat};

    #[test]
    fn a_frame_names_no_more_than_its_worker_can_hold() {
        let frame = |results, fences, handed_back| FromWorker {
            completed: vec![Completed::default(); results],
            heartbeat: Some(Heartbeat { fences: vec![1; fences] }),
            draining: Some(Draining { handed_back: vec![1; handed_back] }),
            ..FromWorker::default()
        };
        for (frame, good) in [
            (frame(70, 70, 70), true),
            (frame(71, 0, 0), false),
            (frame(0, 71, 0), false),
            (frame(0, 0, 71), false),
        ] {
            assert_eq!(check_lengths(&frame, 70).is_ok(), good, "{frame:?}");
        }
    }
}
