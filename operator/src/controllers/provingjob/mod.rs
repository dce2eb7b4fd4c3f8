//! The controller of ProvingJobs.

use crate::controllers::{Context, Scope};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// What the controllers of all scopes remember between two visits of a job. Nothing is lost with it.
#[derive(Debug, Default)]
pub struct Memory {}

/// Serves the ProvingJobs of a scope until `stop`.
pub async fn run(_ctx: Arc<Context>, _scope: Scope, stop: CancellationToken) {
    stop.cancelled().await;
}
