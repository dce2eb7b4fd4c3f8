//! The artifact store: proofs, inputs and the journal, as objects that are created once and never
//! overwritten. One URL says where they lie: a folder (`file:///dir`), a bucket (`s3://`, `gs://`,
//! `az://`), or the store an operator serves itself (`https://`).
//!
//! ```no_run
//! # async fn f() -> Result<(), arborist_artifacts::StoreError> {
//! use arborist_artifacts::{ArtifactStore, StoreOptions};
//! let store = ArtifactStore::open("s3://proofs/mainnet", &StoreOptions::default())?;
//! store.check_conditional_create().await?;
//! let input = store.put_input(bytes::Bytes::from_static(b"block")).await?;
//! assert!(store.get_input(&input).await?.is_some());
//! # Ok(()) }
//! ```
#![warn(missing_docs)]

mod backend;
mod error;
#[cfg(feature = "faults")]
pub mod faults;
mod health;
mod http;
mod limited;
mod object;
mod open;
mod retry;
mod store;

pub use backend::{Created, Entry, Opened};
pub use error::StoreError;
pub use health::Trouble;
pub use open::StoreOptions;
pub use retry::with_retry;
pub use store::{ArtifactStore, EntryStream};
