//! The dispatcher: the shell around the engine. It speaks to the workers, keeps the journal and asks
//! the artifact store; every decision is the engine's.
//!
//! A frame's way: [`net`] reads and decrypts it, [`shell`] hands its events to the engine under one
//! lock, posts what the engine commands to the peers in the engine's order, appends to the journal's
//! buffer, and the same thread sends the answers. Nothing waits for a disk: a proof in the store is
//! the record that its task is done, the journal is an index behind it.

mod login;
mod net;
mod shell;

pub use login::{Identity, Login, Refusal, StaticToken};
pub use shell::{
    BadBlock, Dispatcher, FakeRoots, JobError, Options, OverQuota, PastError, Plonky2Roots, ProgramRoots,
    Progress, Quota, Quotas, RootCheck, RootProblem, RootVerifier, StartError, SubmitError, SubmitRequest,
    SubmitSource,
};
