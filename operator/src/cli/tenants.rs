//! What tenants get and may have.

use crate::kubernetes::client::causes;
use crate::tenants::Tenants;
use std::path::Path;
use std::sync::Arc;

/// Shares, limits and agreements of namespaces.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct TenantArgs {
    /// A file that says what each namespace may have, and whose pools may prove whose jobs: docs/tenants.md
    #[arg(long = "tenants", env = "ARBORIST_TENANTS", value_name = "FILE", value_parser = read)]
    tenants: Option<Arc<Tenants>>,
}

impl TenantArgs {
    /// The settings; without a file none.
    pub fn settings(&self) -> Arc<Tenants> {
        self.tenants.clone().unwrap_or_default()
    }
}

fn read(path: &str) -> Result<Arc<Tenants>, String> {
    Tenants::read(Path::new(path)).map(Arc::new).map_err(|error| causes(&error))
}
