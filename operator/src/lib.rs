//! The operator of Arborist: dispatcher, journal, artifact store and command line.

pub mod cli;
pub mod dispatch;
pub mod metrics;
pub mod store;
pub mod tls;
pub mod tls_serve;
