//! What each namespace may have, and whose pools may prove whose jobs: the operator's own word on tenants.
//!
//! A namespace is a tenant. A pool proves its own namespace's jobs. It proves another's only if both sides agree: the pool
//! names the job's namespace (`spec.jobNamespaces`), and the operator's settings allow it in the place of the job's
//! namespace ([`Grant`]).

use crate::api::{BadQuantity, parse_bytes};
use crate::dispatch::{Quota, Quotas};
use arborist_core::engine::Serves;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Stands for every namespace.
pub const ANY: &str = "*";
/// The longest name of a namespace.
const MAX_NAME: usize = 63;

/// The operator's settings for tenants, as read from the file of `--tenants`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Tenants {
    /// Agreements made in the place of the jobs' namespaces.
    pub shared: Vec<Grant>,
    /// Limits of every namespace that has none of its own.
    pub defaults: Limits,
    /// Limits by namespace; what one leaves out is as in `defaults`.
    pub namespaces: BTreeMap<String, Limits>,
}

/// Pools of one namespace may prove jobs of others, without each job's word.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Grant {
    /// Namespace of the pools.
    pub pools: String,
    /// Namespaces of the jobs; `*` is all.
    pub jobs: Vec<String>,
}

/// What a namespace may have. What is left out has no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Limits {
    /// Its share of the cores while others want them too, relative to theirs: 1 to 1,000; 1 if left out. Not in
    /// [`Tenants::defaults`], where it would say nothing.
    pub weight: Option<u32>,
    /// Jobs that are being proven or wait for it.
    pub open_jobs: Option<u64>,
    /// Tasks of these jobs; each takes some 70 bytes of the operator's memory.
    pub open_tasks: Option<u64>,
    /// Bytes of the inputs of these jobs in the artifact store: block files and private proofs.
    pub open_bytes: Option<Bytes>,
    /// Worker pods of all its pools.
    pub pods: Option<u32>,
}

/// A number of bytes, written with a binary unit: `100Gi`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Bytes(pub u64);

impl TryFrom<String> for Bytes {
    type Error = BadQuantity;

    fn try_from(text: String) -> Result<Self, BadQuantity> {
        parse_bytes(&text).map(Self)
    }
}

/// Why the file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TenantsError {
    /// The file can't be read.
    #[error("can't be read")]
    Unreadable(#[from] std::io::Error),
    /// It is no such file.
    #[error("{0}")]
    Malformed(String),
    /// A value is not allowed.
    #[error("{field}: {value:?} is not {allowed}")]
    Value {
        /// Its place.
        field: String,
        /// What stands there.
        value: String,
        /// What may.
        allowed: &'static str,
    },
}

impl Tenants {
    /// Reads a file of settings.
    ///
    /// # Errors
    /// It can't be read, or says what is not allowed.
    pub fn read(path: &Path) -> Result<Self, TenantsError> {
        Self::parse(&std::fs::read_to_string(path)?)
    }

    /// Settings from YAML; an empty text has none.
    ///
    /// # Errors
    /// It says what is not allowed.
    pub fn parse(text: &str) -> Result<Self, TenantsError> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let tenants: Self =
            serde_saphyr::from_str(text).map_err(|error| TenantsError::Malformed(error.to_string()))?;
        tenants.check()?;
        Ok(tenants)
    }

    fn check(&self) -> Result<(), TenantsError> {
        const NAMESPACE: &str = "the name of a namespace";
        let value = |field: String, value: &str, allowed| {
            Err(TenantsError::Value { field, value: value.to_owned(), allowed })
        };
        for (place, grant) in self.shared.iter().enumerate() {
            if !is_namespace(&grant.pools) {
                return value(format!("shared[{place}].pools"), &grant.pools, NAMESPACE);
            }
            if let Some(bad) = grant.jobs.iter().find(|name| *name != ANY && !is_namespace(name)) {
                return value(format!("shared[{place}].jobs"), bad, "the name of a namespace or *");
            }
        }
        if let Some(bad) = self.namespaces.keys().find(|name| !is_namespace(name)) {
            return value("namespaces".into(), bad, NAMESPACE);
        }
        if let Some(weight) = self.defaults.weight {
            let allowed = "allowed here: a namespace that is not named has weight 1";
            return value("defaults.weight".into(), &weight.to_string(), allowed);
        }
        let named = self.namespaces.iter().map(|(name, limits)| (format!("namespaces.{name}"), limits));
        for (field, limits) in named {
            if let Some(weight) = limits.weight.filter(|weight| !(1..=1_000).contains(weight)) {
                return value(format!("{field}.weight"), &weight.to_string(), "between 1 and 1000");
            }
        }
        Ok(())
    }

    /// What a namespace may have.
    pub fn limits(&self, namespace: &str) -> Limits {
        let own = self.namespaces.get(namespace).copied().unwrap_or_default();
        Limits {
            weight: own.weight,
            open_jobs: own.open_jobs.or(self.defaults.open_jobs),
            open_tasks: own.open_tasks.or(self.defaults.open_tasks),
            open_bytes: own.open_bytes.or(self.defaults.open_bytes),
            pods: own.pods.or(self.defaults.pods),
        }
    }

    /// Weights of the namespaces that have one.
    pub fn weights(&self) -> BTreeMap<String, u32> {
        let weights =
            self.namespaces.iter().filter_map(|(name, limits)| Some((name.clone(), limits.weight?)));
        weights.collect()
    }

    /// What each namespace may have in the engine's books.
    pub fn quotas(&self) -> Quotas {
        let quota = |limits: Limits| Quota {
            jobs: limits.open_jobs,
            tasks: limits.open_tasks,
            bytes: limits.open_bytes.map(|bytes| bytes.0),
        };
        let of = self.namespaces.keys().map(|name| (name.clone(), quota(self.limits(name))));
        Quotas { each: quota(self.defaults), of: of.collect() }
    }

    /// Whose jobs the pools of a namespace prove when they name these (`spec.jobNamespaces`): their own namespace's, and those
    /// of which both sides agree.
    pub fn serves(&self, namespace: &str, named: &[String]) -> Serves {
        let grants = self.shared.iter().filter(|grant| grant.pools == namespace);
        let granted: BTreeSet<&str> = grants.flat_map(|grant| &grant.jobs).map(String::as_str).collect();
        let named: BTreeSet<&str> = named.iter().map(String::as_str).collect();
        let own = [namespace];
        match (named.contains(ANY), granted.contains(ANY)) {
            (true, true) => Serves::All,
            (true, false) => Serves::only(granted.into_iter().chain(own)),
            (false, true) => Serves::only(named.into_iter().chain(own)),
            (false, false) => Serves::only(named.intersection(&granted).copied().chain(own)),
        }
    }
}

/// Whether a text can be a namespace's name: a DNS label.
fn is_namespace(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let bytes = name.as_bytes();
    let ends = [bytes.first(), bytes.last()];
    (1..=MAX_NAME).contains(&bytes.len())
        && bytes.iter().all(|byte| inner(*byte))
        && ends.into_iter().flatten().all(|byte| *byte != b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "
shared:
  - {pools: provers, jobs: [team-a, team-b]}
  - {pools: spare, jobs: ['*']}
defaults: {openJobs: 100, openBytes: 100Gi, pods: 50}
namespaces:
  team-a: {weight: 3, openBytes: 2Ti, pods: 200}
";

    #[test]
    fn a_namespace_has_its_own_limits_and_else_the_defaults() {
        let tenants = Tenants::parse(FILE).unwrap();
        let open_bytes = Some(Bytes(100 << 30));
        let defaults = Limits { open_jobs: Some(100), open_bytes, pods: Some(50), ..Limits::default() };
        assert_eq!(tenants.limits("team-b"), defaults);
        let open_bytes = Some(Bytes(2 << 40));
        let own = Limits { weight: Some(3), open_bytes, pods: Some(200), ..defaults };
        assert_eq!(tenants.limits("team-a"), own);
        assert_eq!(Tenants::parse(" \n").unwrap().limits("team-a"), Limits::default());
        assert_eq!(tenants.weights(), [("team-a".to_owned(), 3)].into());
        let quota = |bytes| Quota { jobs: Some(100), tasks: None, bytes: Some(bytes) };
        let of = [("team-a".to_owned(), quota(2 << 40))].into();
        assert_eq!(tenants.quotas(), Quotas { each: quota(100 << 30), of });
    }

    #[test]
    fn a_pool_serves_its_own_namespace_and_those_of_which_both_sides_agree() {
        let tenants = Tenants::parse(FILE).unwrap();
        for (pools, named, served) in [
            ("provers", &[][..], Serves::only(["provers"])),
            ("provers", &["team-a", "team-c"], Serves::only(["provers", "team-a"])),
            ("provers", &["*"], Serves::only(["provers", "team-a", "team-b"])),
            ("spare", &[], Serves::only(["spare"])),
            ("spare", &["team-c"], Serves::only(["spare", "team-c"])),
            ("spare", &["*"], Serves::All),
            ("team-a", &["*"], Serves::only(["team-a"])),
            ("team-a", &["team-b"], Serves::only(["team-a"])),
        ] {
            let named: Vec<String> = named.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(tenants.serves(pools, &named), served, "{pools} {named:?}");
        }
    }

    #[test]
    fn a_file_that_says_what_is_not_allowed_is_refused_with_the_place() {
        for (text, says) in [
            ("namespaces: {Team: {}}", "namespaces: \"Team\" is not the name of a namespace"),
            ("shared: [{pools: '*', jobs: [a]}]", "shared[0].pools: \"*\" is not the name of a namespace"),
            (
                "shared: [{pools: a, jobs: [b, -c]}]",
                "shared[0].jobs: \"-c\" is not the name of a namespace or *",
            ),
            ("defaults: {weight: 2}", "defaults.weight: \"2\" is not allowed here"),
            ("namespaces: {a: {weight: 0}}", "namespaces.a.weight: \"0\" is not between 1 and 1000"),
            ("namespaces: {a: {weight: 1001}}", "namespaces.a.weight: \"1001\" is not between 1 and 1000"),
            ("namespaces: {a: {pots: 1}}", "unknown field `pots`"),
            ("defaults: {pods: -1}", "pods"),
            ("defaults: {openBytes: 100G}", "`100G`: allowed is a whole number with Ki, Mi, Gi or Ti"),
            ("defaults: {openBytes: 5}", "openBytes"),
            ("tenants: {}", "unknown field `tenants`"),
            ("[]", "expected"),
        ] {
            let error = Tenants::parse(text).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
