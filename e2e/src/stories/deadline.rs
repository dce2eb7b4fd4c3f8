//! Deadlines: one passes and the job fails, until it is given another; one is moved in time and the job completes.

use crate::lab::Scene;
use crate::lab::objects::{fixed_pool, job};
use crate::lab::scene::{holds, job_conditions, says};
use crate::lab::wait::secs;
use anyhow::Result;
use arborist_operator::api::conditions::{Status, job as condition, reason};
use serde_json::json;

pub async fn tell(scene: &Scene<'_>) -> Result<()> {
    // nobody proves these two for now
    let moved = json!({"deadlineSeconds": 20});
    let late = json!({"deadlineSeconds": 25, "blockNumber": 2});
    scene.apply(&[job("moved", 2, scene.seed, moved), job("late", 2, scene.seed + 1, late)]).await?;
    scene
        .until_job("moved", secs(15), "accepted", |job| holds(job_conditions(job), condition::ACCEPTED))
        .await?;
    scene.patch("pj/moved", &json!({"deadlineSeconds": 600})).await?;
    scene
        .until_job("late", secs(60), "failed at its deadline", |job| {
            says(job_conditions(job), condition::FAILED, Status::True, reason::DEADLINE_EXCEEDED)
        })
        .await?;
    // the other's first deadline was before that one
    scene.apply(&[fixed_pool("workers", 2, json!({}))]).await?;
    scene.complete("moved", secs(60)).await?;
    let message = scene
        .until_job("late", secs(5), "still failed", |job| {
            says(job_conditions(job), condition::FAILED, Status::True, reason::DEADLINE_EXCEEDED)
        })
        .await?;
    println!("   {message}");
    // it is not lost: with a later deadline it goes on
    scene.patch("pj/late", &json!({"deadlineSeconds": 900})).await?;
    scene.complete("late", secs(60)).await?;
    Ok(())
}
