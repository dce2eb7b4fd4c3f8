//! The coordinator is away when the block is proven: the job says so, and tells it once it is back. It takes one report.

use crate::lab::Scene;
use crate::lab::desk::Desk;
use crate::lab::objects::{job, pool};
use crate::lab::report::{checked, header};
use crate::lab::scene::{holds, job_conditions, says};
use crate::lab::wait::{eventually, secs};
use anyhow::{Result, ensure};
use arborist_operator::api::conditions::{Status, job as condition, reason};
use axum::http::StatusCode;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The Secret that tells a job where to report.
pub fn target(desk: &Desk) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "coordinator"},
        "stringData": {"url": desk.reports_url(), "authorization": "Bearer e2e"},
    })
}

pub async fn tell(scene: &Scene<'_>) -> Result<()> {
    let mut desk = Desk::open(scene.lab).await?;
    desk.down().await;
    let told =
        json!({"reportTo": [{"name": "coordinator", "secretName": "coordinator"}], "deadlineSeconds": 600});
    scene.apply(&[target(&desk), pool("workers", json!({})), job("told", 2, scene.seed, told)]).await?;
    let message = scene
        .until_job("told", secs(90), "proven, and the report failed", |job| {
            holds(job_conditions(job), condition::PROVEN)?;
            says(job_conditions(job), condition::REPORTED, Status::False, reason::REPORT_FAILED)
        })
        .await?;
    println!("   {message}");
    // it is back, but in trouble of its own
    desk.answer(StatusCode::SERVICE_UNAVAILABLE);
    desk.up().await?;
    eventually(secs(60), "a report that it can't take", || async {
        if desk.posts().is_empty() { Err("none has come".into()) } else { Ok(()) }
    })
    .await?;
    ensure!(desk.taken().is_empty(), "a report was taken by a coordinator that takes none");
    desk.answer(StatusCode::OK);
    scene.complete("told", secs(120)).await?;

    let taken = desk.taken();
    ensure!(taken.len() == 1, "{} reports were taken", taken.len());
    let (report, _) = checked(&taken[0])?;
    ensure!(report["job"]["name"] == "told", "the report is of {}", report["job"]);
    ensure!(header(&taken[0], "Authorization")? == "Bearer e2e", "other credentials");
    let posts = desk.posts();
    let keys: BTreeSet<&str> = posts.iter().map(|p| header(p, "Idempotency-Key")).collect::<Result<_>>()?;
    ensure!(keys.len() == 1, "attempts of one report had {} idempotency keys", keys.len());
    ensure!(posts.iter().all(|p| p.body == taken[0].body), "attempts of one report differ");
    let receipts = scene.jobs().get("told").await?.status.map(|s| s.reports).unwrap_or_default();
    ensure!(receipts.len() == 1 && receipts[0].delivered_at.is_some(), "receipts: {receipts:?}");
    ensure!(receipts[0].answer.contains("receipt-"), "the receipt is `{}`", receipts[0].answer);
    Ok(())
}
