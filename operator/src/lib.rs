//! The operator of Arborist: dispatcher, journal, artifact store and command line.

pub mod cli;
pub mod store;
pub mod tls_serve;
