//! Waiting until the API server serves the two kinds.

use super::client::causes;
use super::patience::Patience;
use crate::api::GROUP;
use kube::Client;
use std::collections::HashSet;

/// What has to be served.
const VERSION: &str = "v1alpha1";
const KINDS: [&str; 2] = ["proverpools", "provingjobs"];

/// The kinds that the API server does not serve yet. Discovery needs no rights of its own.
///
/// # Errors
/// What the API server says.
pub async fn missing(client: &Client) -> Result<Vec<&'static str>, kube::Error> {
    let served = match client.list_api_group_resources(&format!("{GROUP}/{VERSION}")).await {
        Ok(list) => list.resources.into_iter().map(|resource| resource.name).collect(),
        Err(kube::Error::Api(status)) if status.code == 404 => HashSet::new(),
        Err(error) => return Err(error),
    };
    Ok(KINDS.into_iter().filter(|kind| !served.contains(*kind)).collect())
}

/// Waits until both kinds are served; `trouble` hears why not.
pub async fn served(client: &Client, trouble: impl Fn(Option<String>)) {
    let mut patience = Patience::default();
    loop {
        let text = match missing(client).await {
            Ok(missing) if missing.is_empty() => return trouble(None),
            Ok(missing) => {
                format!("{} of {GROUP} not served: install the chart arborist-crds", missing.join(" and "))
            }
            Err(error) => format!("the API server can't be asked what it serves: {}", causes(&error)),
        };
        tracing::warn!("waiting: {text}");
        trouble(Some(text));
        patience.pause().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::testing::{FakeApi, Mood, status};
    use http::Method;
    use serde_json::{Value, json};

    const PATH: &str = "/apis/arborist.dev/v1alpha1";

    fn list(kinds: &[&str]) -> Value {
        let resources: Vec<Value> = kinds
            .iter()
            .map(|kind| json!({"name": kind, "singularName": "", "namespaced": true, "kind": "K", "verbs": []}))
            .collect();
        json!({"kind": "APIResourceList", "groupVersion": "arborist.dev/v1alpha1", "resources": resources})
    }

    #[tokio::test]
    async fn what_is_missing_is_named() {
        let cases: [((u16, Value), &[&str]); 4] = [
            (status(404, "NotFound"), &["proverpools", "provingjobs"]),
            ((200, list(&["provingjobs"])), &["proverpools"]),
            ((200, list(&["proverpools", "proverpools/status", "provingjobs"])), &[]),
            ((200, list(&["proverpools/status", "provingjobs"])), &["proverpools"]),
        ];
        for (answer, wanted) in cases {
            let api = FakeApi::default();
            api.answer(Method::GET, PATH, move |_| answer.clone());
            assert_eq!(missing(&api.client()).await.unwrap(), wanted);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_waits_and_says_why() {
        let api = FakeApi::default();
        api.set(Mood::Down);
        let (told, hears) = std::sync::mpsc::channel();
        let client = api.client();
        let waits = tokio::spawn(async move { served(&client, move |text| told.send(text).unwrap()).await });
        let step = || tokio::time::sleep(std::time::Duration::from_secs(20));
        step().await;
        api.set(Mood::Well);
        step().await;
        let texts: Vec<_> = hears.try_iter().flatten().collect();
        assert!(texts[0].contains("can't be asked"), "{texts:?}");
        assert!(texts.last().unwrap().contains("install the chart arborist-crds"), "{texts:?}");
        api.answer(Method::GET, PATH, |_| (200, list(&["proverpools", "provingjobs"])));
        waits.await.unwrap();
        assert_eq!(hears.try_iter().last(), Some(None));
    }
}
