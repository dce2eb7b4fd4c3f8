//! Whole visits against a fake API server, with a real dispatcher.

mod fake_api;
mod lab;
mod reports;
mod run;
mod stories;
mod table;
