//! The Arborist worker: holds one connection to the dispatcher, proves what it is leased, puts each
//! proof into the artifact store and reports it.
//!
//! A lease's way: [`connection`] → [`book`] → [`tasks`] → [`attempt`] → [`backend`] → [`artifacts`] →
//! [`book`] → [`connection`]. The connection has an OS thread of its own, so that proving can't
//! starve heartbeats.
#![warn(missing_docs)]
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod artifacts;
pub mod attempt;
pub mod backend;
pub mod book;
pub mod cli;
pub mod connection;
pub mod health;
pub mod machine;
mod manual;
pub mod parent;
pub mod plugin;
mod reach;
pub mod session;
pub mod slots;
pub mod tasks;
pub mod usage;
pub mod verify;
pub mod worker;
