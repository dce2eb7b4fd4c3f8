//! The dispatcher over real TLS on 127.0.0.1, with workers that do what the test says.

mod cluster;
mod jobs;
mod lab;
mod logins;
mod rechecks;
mod restarts;
mod sending;
mod store;
mod tenants;
mod worker;
