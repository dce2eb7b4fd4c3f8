//! The operator of Arborist: dispatcher, journal, artifact store and command line.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod api;
pub mod cli;
pub mod controllers;
pub mod dispatch;
pub mod egress;
pub mod intake;
pub mod kubernetes;
pub mod metrics;
pub mod operator_key;
mod places;
pub mod report;
pub mod store;
pub mod tenants;
pub mod tls;
pub mod tls_serve;
