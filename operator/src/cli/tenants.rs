//! What tenants get and may have.

use crate::dispatch::{Quota, Quotas};
use std::collections::BTreeMap;

/// Shares and quotas of namespaces.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct TenantArgs {
    /// How much of the machines namespaces get while several want them: NAMESPACE=WEIGHT,…; others weigh 1
    #[arg(
        long,
        env = "ARBORIST_SHARES",
        value_delimiter = ',',
        value_name = "NAMESPACE=WEIGHT",
        value_parser = weighted
    )]
    pub shares: Vec<(String, u32)>,
    /// The most jobs of a namespace that are not over; a further one waits, or is refused over HTTP
    #[arg(long, env = "ARBORIST_QUOTA_JOBS", value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub quota_jobs: Option<u64>,
    /// The most tasks of such jobs together (some 70 bytes of the operator's memory each)
    #[arg(long, env = "ARBORIST_QUOTA_TASKS", value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub quota_tasks: Option<u64>,
}

impl TenantArgs {
    /// Weights by namespace.
    pub fn weights(&self) -> BTreeMap<String, u32> {
        self.shares.iter().cloned().collect()
    }

    /// The quota of each namespace.
    pub fn quotas(&self) -> Quotas {
        Quotas { each: Quota { jobs: self.quota_jobs, tasks: self.quota_tasks }, of: BTreeMap::new() }
    }
}

/// A namespace and its weight.
fn weighted(text: &str) -> Result<(String, u32), String> {
    let bad = || format!("`{}`, allowed is NAMESPACE=WEIGHT with a weight from 1 to 10000", text.escape_debug());
    let (name, weight) = text.split_once('=').ok_or_else(bad)?;
    match weight.parse() {
        Ok(weight @ 1..=10_000) if !name.is_empty() => Ok((name.to_owned(), weight)),
        _ => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_read() {
        for (text, read) in [
            ("a=3", Some(("a", 3))),
            ("team-1=10000", Some(("team-1", 10_000))),
            ("a=0", None),
            ("a=10001", None),
            ("a=-1", None),
            ("a", None),
            ("=3", None),
            ("a=b", None),
        ] {
            assert_eq!(weighted(text).ok(), read.map(|(name, weight)| (name.to_owned(), weight)), "{text}");
        }
    }
}
