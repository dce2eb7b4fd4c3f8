//! A suspended job starts nothing new and says so; resumed, it goes on with what it had.

use crate::lab::Scene;
use crate::lab::objects::{fixed_pool, job};
use crate::lab::scene::{counts, job_conditions, says};
use crate::lab::wait::{always, secs};
use anyhow::{Result, ensure};
use arborist_operator::api::conditions::{Status, job as condition, reason};
use serde_json::json;

pub async fn tell(scene: &Scene<'_>) -> Result<()> {
    scene.apply(&[fixed_pool("workers", 2, json!({})), job("paused", 12, scene.seed, json!({}))]).await?;
    scene.under_way("paused", 5, secs(60)).await?;
    scene.patch("pj/paused", &json!({"suspend": true})).await?;
    // what runs ends; then nothing runs
    let rested = scene
        .until_job("paused", secs(30), "Suspended, and nothing runs", |job| {
            says(job_conditions(job), condition::PROVING, Status::False, reason::SUSPENDED)?;
            let running: i64 = job.status.iter().flat_map(|s| &s.counts).map(|row| row.running).sum();
            if running == 0 { Ok(counts(job)) } else { Err(format!("{running} run")) }
        })
        .await?;
    ensure!(rested.0 < rested.1, "the job was over before it was suspended: {rested:?}");
    let jobs = scene.jobs();
    always(secs(4), "nothing new is proven", || async {
        let now = counts(&jobs.get("paused").await.map_err(|e| e.to_string())?);
        if now == rested { Ok(()) } else { Err(format!("{now:?} instead of {rested:?}")) }
    })
    .await?;
    scene.patch("pj/paused", &json!({"suspend": false})).await?;
    scene.complete("paused", secs(60)).await?;
    Ok(())
}
