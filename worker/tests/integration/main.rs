//! The real binary against a dispatcher that does what each test wants.

mod leases;
mod leaving;
mod login;
mod plugins;
mod real;
mod store;
mod support;
