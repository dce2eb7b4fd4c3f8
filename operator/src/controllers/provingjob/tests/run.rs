//! The whole controller with its watch.

use super::lab::{Lab, context, until};
use crate::api::conditions::job as condition;
use crate::controllers::Scope;
use crate::controllers::provingjob::run;
use serde_json::json;
use tokio_util::sync::CancellationToken;

#[tokio::test(flavor = "multi_thread")]
async fn a_listed_job_is_proven_and_one_that_can_not_be_read_does_not_stop_it() {
    let lab = Lab::new().await;
    lab.prove_all().await;
    lab.apply("a", json!({}));
    let mut broken = lab.api.get("provingjobs/a").unwrap();
    broken["metadata"]["name"] = json!("broken");
    broken["metadata"]["uid"] = json!("uid-of-broken");
    broken["spec"]["chainId"] = json!("five");
    lab.api.put("provingjobs", broken);
    // the API server is in trouble when the operator starts
    lab.api.state().errors.extend([500, 503].map(|code| ("get provingjobs".to_owned(), code)));
    let ctx = context(&lab.dispatcher, &lab.client, "fake");
    assert_eq!(ctx.jobs.pending(&ctx.settings.scopes).len(), 1);
    let stop = CancellationToken::new();
    let running = tokio::spawn(run(ctx.clone(), Scope::Cluster, stop.clone()));
    until("the job is complete", || (lab.condition("a", condition::COMPLETE) == "True Done").then_some(()))
        .await;
    assert_eq!(ctx.jobs.pending(&ctx.settings.scopes), Vec::<String>::new());
    let log = lab.api.take_log();
    assert!(log.contains(&"event InvalidSpec".to_owned()), "{log:?}");
    stop.cancel();
    tokio::time::timeout(super::lab::PATIENCE, running).await.expect("it stops").unwrap();
}
