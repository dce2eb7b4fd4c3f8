//! Whose cluster it is. The tests remove what they find under the names they install under, with its volumes; so what is
//! there must be theirs, by the mark on its namespace.

use super::Lab;
use super::install::{NAMESPACE, SELECTOR};
use super::namespaces::MARK;
use anyhow::{Context, Result, bail};
use arborist_operator::api::{ProverPool, ProvingJob};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::ListParams;
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;
use std::fmt::Debug;

/// How many objects are named in a refusal.
const NAMED: usize = 3;

impl Lab {
    /// Refuses a cluster with an Arborist that is not the tests': their operator would serve its jobs, and their end would
    /// be its end. Nothing is changed.
    ///
    /// # Errors
    /// There is one: says what was found. Or the API server does not answer.
    pub async fn refuse_others(&self) -> Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let ours = namespaces.list_metadata(&ListParams::default().labels(&format!("{MARK}=true"))).await;
        let marked: BTreeSet<String> =
            ours.context("list namespaces")?.iter().map(ResourceExt::name_any).collect();
        let mut found = vec![];
        if !marked.contains(NAMESPACE) && namespaces.get_opt(NAMESPACE).await?.is_some() {
            found.push(format!("the namespace {NAMESPACE}, without the label {MARK}=true"));
        }
        let operators = self.places::<Deployment>(&ListParams::default().labels(SELECTOR)).await?;
        found.extend(others("operators", &operators, &marked));
        let pools = self.places::<ProverPool>(&ListParams::default()).await?;
        found.extend(others("pools", &pools, &marked));
        let jobs = self.places::<ProvingJob>(&ListParams::default()).await?;
        found.extend(others("jobs", &jobs, &marked));
        if found.is_empty() {
            return Ok(());
        }
        bail!(
            "this cluster has an Arborist that these tests did not install, and would remove:\n  {}\n\
             Run them on another cluster, or remove these first. Nothing was changed.",
            found.join("\n  ")
        )
    }

    /// Namespace and name of all objects of a kind; none if the cluster does not know the kind.
    async fn places<K>(&self, which: &ListParams) -> Result<Vec<(String, String)>>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        match Api::<K>::all(self.client.clone()).list_metadata(which).await {
            Ok(all) => Ok(all.iter().map(|o| (o.namespace().unwrap_or_default(), o.name_any())).collect()),
            Err(kube::Error::Api(error)) if error.code == 404 => Ok(vec![]),
            Err(error) => Err(error).with_context(|| format!("list {}", K::plural(&()))),
        }
    }
}

/// Says which objects are in namespaces that are not marked, if there are such.
fn others(what: &str, objects: &[(String, String)], marked: &BTreeSet<String>) -> Option<String> {
    let theirs: Vec<_> = objects.iter().filter(|(namespace, _)| !marked.contains(namespace)).collect();
    let named: Vec<String> =
        theirs.iter().take(NAMED).map(|(namespace, name)| format!("{namespace}/{name}")).collect();
    let more = if theirs.len() > NAMED { ", …" } else { "" };
    (!theirs.is_empty()).then(|| format!("{} {what}: {}{more}", theirs.len(), named.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::others;

    #[test]
    fn only_what_is_outside_of_marked_namespaces_is_somebody_elses() {
        let marked = ["arborist-system", "e2e-a"].map(str::to_owned).into();
        for (places, expected) in [
            (&[][..], None),
            (&["e2e-a/p", "arborist-system/p"], None),
            (&["e2e-a/p", "prod/p"], Some("1 pools: prod/p")),
            (&["e2e-ab/a", "b/b", "c/c", "d/d"], Some("4 pools: e2e-ab/a, b/b, c/c, …")),
        ] {
            let objects: Vec<(String, String)> = places
                .iter()
                .filter_map(|place| place.split_once('/'))
                .map(|(namespace, name)| (namespace.to_owned(), name.to_owned()))
                .collect();
            assert_eq!(others("pools", &objects, &marked).as_deref(), expected, "{places:?}");
        }
    }
}
