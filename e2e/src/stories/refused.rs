//! Jobs whose spec the API server takes and the operator does not: each says why and what is wrong.

use crate::lab::desk::Desk;
use crate::lab::objects::{fixed_pool, job};
use crate::lab::scene::{job_conditions, says};
use crate::lab::wait::secs;
use crate::lab::{Scene, shell};
use anyhow::{Context, Result, ensure};
use arborist_operator::api::conditions::{Status, job as condition, reason};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

struct Case {
    name: &'static str,
    spec: Value,
    reason: &'static str,
    /// What its message must name.
    names: String,
}

pub async fn tell(scene: &Scene<'_>) -> Result<()> {
    let desk = Desk::open(scene.lab).await?;
    scene.apply(&[fixed_pool("workers", 2, json!({}))]).await?;
    let (block, private_proofs) = block_file(scene).await?;
    for (hash, proof) in private_proofs {
        desk.put_file(&format!("objects/{hash}"), proof);
    }
    let sha256 = hex::encode(Sha256::digest(&block));
    let url = desk.put_file("block.json", block);
    let cases = cases(&desk, &url, &sha256);
    let jobs: Vec<Value> = cases
        .iter()
        .map(|case| without_synthetic(job(case.name, 1, scene.seed, case.spec.clone())))
        .collect();
    scene.apply(&jobs).await?;
    for case in &cases {
        let message = scene
            .until_job(case.name, secs(30), case.reason, |job| {
                says(job_conditions(job), condition::ACCEPTED, Status::False, case.reason)
            })
            .await?;
        ensure!(message.contains(&case.names), "{}: `{message}` does not name `{}`", case.name, case.names);
        println!("   {}: {}: {message}", case.name, case.reason);
    }
    // what is fetched and has the right hash is proven
    let good = json!({"source": {"synthetic": null, "uri": {"url": url, "sha256": sha256}}});
    scene.apply(&[job("good", 1, scene.seed, good)]).await?;
    scene.complete("good", secs(60)).await?;
    Ok(())
}

fn cases(desk: &Desk, url: &str, sha256: &str) -> Vec<Case> {
    let wrong = "0".repeat(64);
    let text = "this is no block";
    let no_block = desk.put_file("no-block.json", text);
    let of_text = hex::encode(Sha256::digest(text));
    let gone = format!("{url}.gone");
    let source = |source: Value| json!({"source": source});
    vec![
        Case {
            name: "wrong-hash",
            spec: source(json!({"uri": {"url": url, "sha256": wrong}})),
            reason: reason::SOURCE_HASH_MISMATCH,
            names: sha256[..12].to_owned(),
        },
        Case {
            name: "no-block",
            spec: source(json!({"uri": {"url": no_block, "sha256": of_text}})),
            reason: reason::BAD_BLOCK,
            names: "no JSON".into(),
        },
        Case {
            name: "source-gone",
            spec: source(json!({"uri": {"url": gone, "sha256": wrong}})),
            reason: reason::SOURCE_UNAVAILABLE,
            names: "404".into(),
        },
        Case {
            name: "no-configmap",
            spec: source(json!({"configMap": {"name": "nobody-made-it"}})),
            reason: reason::SOURCE_UNAVAILABLE,
            names: "nobody-made-it".into(),
        },
        Case {
            name: "other-circuits",
            spec: json!({"circuitProfile": "other-rollup-v9"}),
            reason: reason::UNKNOWN_PROFILE,
            names: "other-rollup-v9".into(),
        },
    ]
}

/// `job` starts from a made-up block; a job with another source must not have it too.
fn without_synthetic(mut job: Value) -> Value {
    if let Some(source) = job.pointer_mut("/spec/source").and_then(Value::as_object_mut)
        && source.len() > 1
    {
        source.remove("synthetic");
    }
    job
}

/// A block file made by `arborist block new`, and its private proofs by their hashes.
async fn block_file(scene: &Scene<'_>) -> Result<(Vec<u8>, Vec<(String, Vec<u8>)>)> {
    let program = scene.lab.settings.arborist.display().to_string();
    let folder = scene.lab.settings.out.join(format!("{}-block", scene.story));
    std::fs::create_dir_all(&folder)?;
    let path = folder.join("block.json").display().to_string();
    let line = ["block", "new", "--transactions", "1", "--calls", "1", "--out", &path];
    shell::run(&program, &line, "").await?;
    let mut private_proofs = vec![];
    for entry in std::fs::read_dir(folder.join("objects"))? {
        let entry = entry?;
        private_proofs.push((entry.file_name().to_string_lossy().into_owned(), std::fs::read(entry.path())?));
    }
    Ok((std::fs::read(&path).with_context(|| path)?, private_proofs))
}
