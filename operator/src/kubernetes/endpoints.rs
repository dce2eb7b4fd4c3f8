//! Where workers find the leader: the Service that they connect to has no selector, and this EndpointSlice of it
//! holds the leader's address alone. So a standby is Ready and gets no worker.

use super::client::causes;
use super::patience::Patience;
use super::{ENDPOINT_SLICE, gate};
use crate::api::MANAGER;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// So often it is looked whether the slice still says what it should.
const CHECK: Duration = Duration::from_secs(15);

/// The leader as workers reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The Service it belongs to.
    pub service: String,
    /// The operator's pod.
    pub pod: String,
    /// Its namespace.
    pub namespace: String,
    /// The pod's address.
    pub ip: IpAddr,
    /// The dispatcher's port: the Service's port `dispatch`.
    pub dispatch: u16,
    /// The built-in artifact store's port: the Service's port `store`. `None` when proofs lie elsewhere.
    pub store: Option<u16>,
}

impl Address {
    /// The slice with this address, or with none.
    fn slice(&self, present: bool) -> EndpointSlice {
        let endpoint = Endpoint {
            addresses: vec![self.ip.to_string()],
            conditions: Some(EndpointConditions {
                ready: Some(true),
                serving: Some(true),
                terminating: Some(false),
            }),
            target_ref: Some(ObjectReference {
                kind: Some("Pod".into()),
                name: Some(self.pod.clone()),
                namespace: Some(self.namespace.clone()),
                ..ObjectReference::default()
            }),
            ..Endpoint::default()
        };
        let port = |name: &str, port: u16| EndpointPort {
            name: Some(name.into()),
            port: Some(port.into()),
            protocol: Some("TCP".into()),
            ..EndpointPort::default()
        };
        let mut slice = EndpointSlice {
            address_type: if self.ip.is_ipv4() { "IPv4" } else { "IPv6" }.into(),
            endpoints: if present { vec![endpoint] } else { vec![] },
            ports: Some(
                [Some(port("dispatch", self.dispatch)), self.store.map(|p| port("store", p))]
                    .into_iter()
                    .flatten()
                    .collect(),
            ),
            ..EndpointSlice::default()
        };
        slice.metadata.name = Some(ENDPOINT_SLICE.into());
        slice.metadata.labels = Some(BTreeMap::from([
            ("kubernetes.io/service-name".into(), self.service.clone()),
            // Kubernetes' own controllers leave slices alone that are another's
            ("endpointslice.kubernetes.io/managed-by".into(), MANAGER.into()),
            (crate::api::LABEL_MANAGED_BY.into(), MANAGER.into()),
        ]));
        slice
    }

    /// Whether a slice says what it should.
    fn is_in(&self, found: Option<&EndpointSlice>) -> bool {
        let wanted = self.slice(true);
        found.is_some_and(|found| {
            let has = |labels: &BTreeMap<String, String>| {
                let of = |slice: &EndpointSlice| slice.metadata.labels.clone().unwrap_or_default();
                of(&wanted).iter().all(|(key, value)| labels.get(key) == Some(value))
            };
            found.endpoints == wanted.endpoints
                && found.ports == wanted.ports
                && found.metadata.labels.as_ref().is_some_and(has)
        })
    }

    fn api(&self, client: &Client) -> Api<EndpointSlice> {
        Api::namespaced(client.clone(), &self.namespace)
    }

    /// Keeps the address in the slice, whoever changes or deletes it. Never ends.
    pub async fn keep(self, client: Client) {
        let mut patience = Patience::default();
        let api = self.api(&client);
        loop {
            match self.once(&api).await {
                Ok(wrote) => {
                    patience = Patience::default();
                    if wrote {
                        tracing::info!(service = self.service, ip = %self.ip, "workers of the Service come here");
                    }
                    tokio::time::sleep(CHECK).await;
                }
                Err(error) => {
                    if !gate::is_closed(&error) {
                        tracing::warn!(error = causes(&error), "the address for workers can't be published");
                    }
                    patience.pause().await;
                }
            }
        }
    }

    async fn once(&self, api: &Api<EndpointSlice>) -> Result<bool, kube::Error> {
        if self.is_in(api.get_opt(ENDPOINT_SLICE).await?.as_ref()) {
            return Ok(false);
        }
        self.write(api, true).await?;
        Ok(true)
    }

    /// Takes the address out: workers are refused at once, rather than wait for an answer of a pod that is gone. The
    /// slice itself stays, for the next leader to fill.
    ///
    /// # Errors
    /// What the API server says.
    pub async fn withdraw(&self, client: &Client) -> Result<(), kube::Error> {
        self.write(&self.api(client), false).await
    }

    async fn write(&self, api: &Api<EndpointSlice>, present: bool) -> Result<(), kube::Error> {
        let how = PatchParams::apply(MANAGER).force();
        api.patch(ENDPOINT_SLICE, &how, &Patch::Apply(self.slice(present))).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::testing::{FakeApi, Mood};
    use http::Method;
    use serde_json::json;

    const PATH: &str = "/apis/discovery.k8s.io/v1/namespaces/ours/endpointslices/arborist-leader";

    fn address() -> Address {
        Address {
            service: "arborist".into(),
            pod: "arborist-0".into(),
            namespace: "ours".into(),
            ip: [10, 0, 0, 7].into(),
            dispatch: 7700,
            store: Some(7702),
        }
    }

    #[test]
    fn the_slice_is_the_services_and_has_its_ports() {
        let slice = serde_json::to_value(address().slice(true)).unwrap();
        assert_eq!(slice["metadata"]["labels"]["kubernetes.io/service-name"], "arborist");
        assert_eq!(slice["addressType"], "IPv4");
        assert_eq!(slice["endpoints"][0]["addresses"], json!(["10.0.0.7"]));
        assert_eq!(slice["endpoints"][0]["conditions"]["ready"], true);
        assert_eq!(slice["ports"].as_array().unwrap().len(), 2);
        assert_eq!(slice["ports"][0]["name"], "dispatch");
        let elsewhere = Address { store: None, ip: [0xfd00, 0, 0, 0, 0, 0, 0, 1].into(), ..address() };
        let slice = serde_json::to_value(elsewhere.slice(false)).unwrap();
        assert_eq!(slice["addressType"], "IPv6");
        assert_eq!(slice["endpoints"], json!([]));
        assert_eq!(slice["ports"].as_array().unwrap().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_written_when_it_differs_and_only_then() {
        let api = FakeApi::default();
        let writes = || api.count(Method::PATCH, PATH);
        tokio::spawn(address().keep(api.client()));
        let checks = |n: u32| tokio::time::sleep(CHECK * n + Duration::from_secs(1));
        checks(4).await;
        assert_eq!(writes(), 1, "written once");
        api.delete(PATH);
        checks(2).await;
        assert_eq!(writes(), 2, "made anew");
        let mut other = api.get(PATH).unwrap();
        other["endpoints"][0]["addresses"] = json!(["10.0.0.8"]);
        api.put(PATH, other);
        checks(2).await;
        assert_eq!(writes(), 3, "an old leader's address is replaced");
        api.set(Mood::Down);
        checks(4).await;
        api.delete(PATH);
        api.set(Mood::Well);
        checks(2).await;
        assert_eq!(api.get(PATH).unwrap()["endpoints"][0]["addresses"], json!(["10.0.0.7"]));
    }

    #[tokio::test]
    async fn what_is_withdrawn_has_no_address_and_stays() {
        let api = FakeApi::default();
        address().once(&api.client_api()).await.unwrap();
        address().withdraw(&api.client()).await.unwrap();
        assert_eq!(api.get(PATH).unwrap()["endpoints"], json!([]));
        assert!(!address().is_in(api.client_api().get_opt(ENDPOINT_SLICE).await.unwrap().as_ref()));
    }

    impl FakeApi {
        fn client_api(&self) -> Api<EndpointSlice> {
            Api::namespaced(self.client(), "ours")
        }
    }
}
