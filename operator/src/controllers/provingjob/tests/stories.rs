//! What users do, and what happens to them.

use super::lab::{Lab, PATIENCE, is_waiting, until};
use crate::api::conditions::{job as condition, reason};
use crate::controllers::Outcome;
use crate::controllers::provingjob::collect::{collect, named};
use crate::controllers::provingjob::deadline::millis;
use crate::controllers::provingjob::fixtures::{job, spec, validated};
use crate::controllers::provingjob::orphans::Block;
use crate::controllers::provingjob::prepare::material;
use crate::controllers::provingjob::{clock_of, reconcile};
use crate::dispatch::Quota;
use arborist_circuits::{Sample, prover_word, sample_block};
use arborist_core::engine::JobState;
use axum::Router;
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kube::core::DeserializeGuard;
use serde_json::{Value, json};
use sha2::Digest;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;
use tokio::time::timeout;

/// A block that can be proven; its private proof takes seconds.
static SAMPLE: LazyLock<Sample> = LazyLock::new(|| sample_block(&[1], 5, 9, 7, |_| {}).unwrap());
static BLOCK: LazyLock<String> = LazyLock::new(|| serde_json::to_string(&SAMPLE.block).unwrap());

/// The hash of its private proof.
fn private_proof() -> String {
    SAMPLE.block.transactions[0].private_proof.to_string()
}

/// A ConfigMap with the block and its private proof.
fn config_map() -> Value {
    let proof = STANDARD.encode(&SAMPLE.private_proofs[0]);
    json!({"metadata": {"name": "block"}, "data": {"block.json": *BLOCK}, "binaryData": {private_proof(): proof}})
}

fn synthetic(transactions: u32) -> Value {
    json!({"synthetic": {"transactions": transactions, "callsPerTransaction": 2, "seed": 7}})
}

fn patch(name: &str) -> String {
    format!("patch provingjobs/{name}/status")
}

#[tokio::test(flavor = "multi_thread")]
async fn first_visit_submits_and_says_what_it_waits_for() {
    let lab = Lab::new().await;
    lab.apply("a", json!({"deadlineSeconds": 3600, "priority": 4}));
    lab.visit("a", 0).await;
    assert_eq!(lab.api.take_log(), [patch("a")]);
    assert_eq!(lab.condition("a", condition::ACCEPTED), "Unknown Pending");
    assert_eq!(lab.status("a").conditions.len(), condition::ALL.len(), "all types from the first visit");

    lab.visit("a", 1).await;
    assert_eq!(lab.api.take_log(), [patch("a"), "event Accepted".into(), "event WaitingForWorkers".into()]);
    let status = lab.status("a");
    let root = lab.tree().ids.last().unwrap().to_string();
    assert_eq!((status.root_task, status.progress.as_deref()), (Some(root), Some("0/11")));
    assert_eq!(lab.condition("a", condition::PROVING), "False WaitingForWorkers");
    let message = lab.message("a", condition::PROVING);
    assert!(message.starts_with("4 vm proofs wait: no worker with 32 cores and 64 GiB"), "{message}");
    let tree = lab.dispatcher.jobs().remove(0);
    assert_eq!(tree.spec.name, "ProvingJob rollup/a");
    assert_eq!(tree.spec.priority, 4);
    assert!(tree.spec.deadline.is_some());
    lab.assert_silence("a", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_missing_is_waited_for() {
    let lab = Lab::new().await;
    lab.apply("a", json!({"source": {"configMap": {"name": "block"}}}));
    let log = lab.settle("a", 0).await;
    assert!(log.contains(&"event SourceUnavailable".to_owned()), "{log:?}");
    assert_eq!(lab.condition("a", condition::COMPLETE), "False SourceUnavailable");
    assert_eq!(lab.message("a", condition::ACCEPTED), "there is no ConfigMap block in this namespace");

    lab.api.put("configmaps", json!({"metadata": {"name": "block"}, "data": {"other": "x"}}));
    lab.settle("a", 300).await;
    assert_eq!(lab.message("a", condition::ACCEPTED), "ConfigMap block has no key `block.json`");

    lab.api.put("configmaps", config_map());
    lab.settle("a", 600).await;
    assert_eq!(lab.condition("a", condition::ACCEPTED), "True Submitted");
    assert_eq!(lab.status("a").progress.as_deref(), Some("0/4"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_proof_that_is_missing_is_waited_for_and_named() {
    let lab = Lab::new().await;
    lab.api.put("configmaps", json!({"metadata": {"name": "block"}, "data": {"block.json": *BLOCK}}));
    lab.apply("a", json!({"source": {"configMap": {"name": "block"}}}));
    lab.settle("a", 0).await;
    assert_eq!(lab.condition("a", condition::ACCEPTED), "False SourceUnavailable");
    let message = lab.message("a", condition::ACCEPTED);
    let hash = private_proof();
    assert_eq!(
        message,
        format!(
            "transactions[0].private_proof: the object {hash} is neither in the artifact store nor in the ConfigMap"
        )
    );
    // `arborist block push` brings it
    lab.store.put_input(SAMPLE.private_proofs[0].clone().into()).await.unwrap();
    lab.settle("a", 300).await;
    assert_eq!(lab.condition("a", condition::ACCEPTED), "True Submitted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_does_not_fit_waits_and_its_status_says_why() {
    let lab = Lab::new().await;
    let budget = lab.dispatcher.intake();
    let all = budget.reserve_now(budget.bytes()).unwrap();
    let sha256 = hex::encode(sha2::Sha256::digest(BLOCK.as_bytes()));
    let url = web(&[BLOCK.as_str()]).await;
    lab.apply("a", json!({"source": {"uri": {"url": url, "sha256": sha256}}}));
    lab.look_at(lab.job("a"), 0).await;
    until("it waits", || lab.me.ctx.jobs.known("uid-of-a", &[]).waits).await;
    lab.look_at(lab.job("a"), 5).await;
    assert_eq!(lab.condition("a", condition::ACCEPTED), "Unknown Pending");
    let message = lab.message("a", condition::ACCEPTED);
    assert!(message.starts_with("waiting for memory: a block file of 1 MiB"), "{message}");
    drop(all);
    lab.until_idle("a").await;
    lab.settle("a", 10).await;
    assert_eq!(lab.condition("a", condition::ACCEPTED), "True Submitted");
    assert_eq!(budget.used(), 0, "a block in the books is held no more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_no_block_fails_the_job_and_an_edit_tries_again() {
    let lab = Lab::new().await;
    lab.api.put("configmaps", json!({"metadata": {"name": "block"}, "data": {"block.json": "{}"}}));
    lab.apply("a", json!({"source": {"configMap": {"name": "block"}}}));
    lab.settle("a", 0).await;
    assert_eq!(lab.condition("a", condition::FAILED), "True BadBlock");
    assert!(lab.status("a").finished_at.is_some());
    lab.assert_silence("a", 900).await;

    lab.api.put("configmaps", config_map());
    lab.edit("a", "priority", json!(1));
    lab.settle("a", 901).await;
    assert_eq!(lab.condition("a", condition::FAILED), "False WaitingForWorkers");
    assert_eq!(lab.status("a").finished_at, None);
}

/// Serves these, one after the other; the last one for ever.
async fn web(bodies: &[&'static str]) -> String {
    let bodies = Arc::new(Mutex::new(bodies.iter().rev().copied().collect::<Vec<_>>()));
    let body = move || {
        let mut bodies = bodies.lock().unwrap();
        if bodies.len() > 1 { bodies.pop().unwrap() } else { bodies[0] }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let proof = || async { SAMPLE.private_proofs[0].clone() };
    let app = Router::new()
        .route("/block.json", get(move || async move { body() }))
        .route(&format!("/objects/{}", private_proof()), get(proof));
    tokio::spawn(async move { axum::serve(listener, app).await });
    format!("http://{address}/block.json?token=secret")
}

#[tokio::test(flavor = "multi_thread")]
async fn another_file_than_the_jobs_is_refused_with_both_hashes() {
    let lab = Lab::new().await;
    let url = web(&["not the block"]).await;
    lab.apply("a", json!({"source": {"uri": {"url": url, "sha256": "0".repeat(64)}}}));
    let mut log = vec![];
    for second in [0, 100] {
        lab.visit("a", second).await;
        log.extend(lab.settle("a", second).await);
        assert_eq!(lab.condition("a", condition::ACCEPTED), "False SourceHashMismatch");
        assert!(lab.condition("a", condition::FAILED).starts_with("False"), "it may be an error page");
    }
    // the third try, and what came of it
    lab.visit("a", 200).await;
    log.extend(lab.settle("a", 200).await);
    assert_eq!(lab.condition("a", condition::FAILED), "True SourceHashMismatch");
    let found = hex::encode(sha2::Sha256::digest("not the block"));
    let message = lab.message("a", condition::FAILED);
    assert_eq!(message, format!("the source has SHA-256 {found}, the job says {}", "0".repeat(64)));
    assert!(log.contains(&"event SourceHashMismatch".to_owned()), "{log:?}");
    assert!(!format!("{:?}", lab.status("a")).contains("secret"), "a URL's query is a secret");
    lab.assert_silence("a", 900).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_is_fetched_and_proven() {
    let lab = Lab::new().await;
    let sha256 = hex::encode(sha2::Sha256::digest(BLOCK.as_bytes()));
    let url = web(&["an error page", &BLOCK.as_str()[..100], BLOCK.as_str()]).await;
    lab.apply("a", json!({"source": {"uri": {"url": url, "sha256": sha256}}}));
    for second in [0, 100, 200] {
        lab.settle("a", second).await;
    }
    assert_eq!(lab.condition("a", condition::ACCEPTED), "True Submitted");
    lab.apply("b", json!({"blockNumber": 10, "source": {"uri": {"url": url, "sha256": sha256}}}));
    lab.settle("b", 0).await;
    assert_eq!(lab.condition("b", condition::FAILED), "True BadBlock");
    assert_eq!(lab.message("b", condition::FAILED), "block_number: the block says 9, asked for is 10");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_keeps_its_turn_until_it_is_dropped_and_a_config_map_waits_for_no_server() {
    let lab = Lab::new().await;
    let memory = &lab.me.ctx.jobs;
    let sha256 = hex::encode(sha2::Sha256::digest(BLOCK.as_bytes()));
    let url = web(&[BLOCK.as_str()]).await;
    let object = job(spec(json!({"source": {"uri": {"url": url, "sha256": sha256}}})));
    let (block, turn) = material(&lab.me, &validated(&object)).await.unwrap();
    let free = || (memory.fetches.available_permits(), memory.fetches_of("rollup").available_permits());
    assert_eq!(free(), (3, 1));
    drop((block, turn));
    assert_eq!(free(), (4, 2));

    let _servers_that_trickle = memory.fetches.clone().acquire_many_owned(4).await.unwrap();
    lab.api.put("configmaps", config_map());
    lab.apply("a", json!({"source": {"configMap": {"name": "block"}}}));
    lab.settle("a", 0).await;
    assert_eq!(lab.condition("a", condition::ACCEPTED), "True Submitted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_visit_goes_by_the_engines_clock() {
    let lab = Lab::new().await;
    let before = lab.dispatcher.now();
    let now = millis(clock_of(lab.dispatcher.clone())());
    assert!((before..=lab.dispatcher.now()).contains(&now));

    lab.apply("a", json!({"deadlineSeconds": 3600}));
    lab.settle("a", 0).await;
    // the machine's clock says otherwise
    lab.at(3601);
    reconcile(Arc::new(DeserializeGuard(Ok(lab.job("a")))), lab.me.clone()).await.unwrap();
    assert_eq!(lab.condition("a", condition::FAILED), "True DeadlineExceeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_real_circuits_the_operator_makes_the_senders_proofs() {
    let lab = Lab::of("plonky2").await;
    lab.apply("a", json!({"source": synthetic(1)}));
    lab.settle("a", 0).await;
    assert_eq!(lab.condition("a", condition::ACCEPTED), "True Submitted");
    assert!(lab.dispatcher.published(lab.dispatcher.jobs()[0].spec.id).await.unwrap().is_some());
    lab.apply("b", json!({"source": synthetic(17)}));
    lab.settle("b", 0).await;
    assert_eq!(lab.condition("b", condition::FAILED), "True InvalidSpec");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_the_tree_is_found_and_nothing_fetched() {
    let mut lab = Lab::new().await;
    lab.api.put("configmaps", config_map());
    lab.apply("a", json!({"source": {"configMap": {"name": "block"}}}));
    lab.settle("a", 0).await;
    let root = lab.status("a").root_task;
    lab.restart();
    lab.assert_silence("a", 10).await;

    // the operator died after the submit and before the write of the status
    let mut object = lab.api.get("provingjobs/a").unwrap();
    object.as_object_mut().unwrap().remove("status");
    lab.api.put("provingjobs", object);
    lab.restart();
    lab.settle("a", 20).await;
    assert_eq!(lab.status("a").root_task, root);
    assert_eq!(lab.dispatcher.jobs().len(), 1, "the same block is the same tree");
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_flow_to_the_engine() {
    let lab = Lab::new().await;
    lab.apply("a", json!({}));
    lab.settle("a", 0).await;
    let spec = || lab.dispatcher.jobs().remove(0).spec;
    lab.edit("a", "suspend", json!(true));
    lab.settle("a", 1).await;
    assert!(spec().suspended);
    assert_eq!(lab.condition("a", condition::COMPLETE), "False Suspended");
    lab.edit("a", "suspend", json!(false));
    lab.edit("a", "priority", json!(-5));
    lab.edit("a", "deadlineSeconds", json!(7200));
    let log = lab.settle("a", 2).await;
    assert_eq!((spec().suspended, spec().priority), (false, -5));
    let deadline = lab.start.as_second() as u64 * 1000 + 7_200_000;
    assert_eq!(spec().deadline, Some(deadline));
    // the same as at first: the event counts on
    assert!(log.iter().any(|line| line.starts_with("patch events/a.")), "{log:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_fails_at_its_deadline_and_lives_again_with_a_later_one() {
    let lab = Lab::new().await;
    lab.apply("a", json!({"deadlineSeconds": 1}));
    lab.settle("a", 0).await;
    lab.until_state(JobState::Failed { why: String::new() }).await;
    let log = lab.settle("a", 2).await;
    assert_eq!(lab.condition("a", condition::FAILED), "True DeadlineExceeded");
    assert_eq!(lab.condition("a", condition::AT_RISK), "True DeadlineExceeded");
    let message = lab.message("a", condition::FAILED);
    assert!(message.contains("11 of 11 proofs missing"), "{message}");
    assert!(log.contains(&"event Failed".to_owned()), "{log:?}");
    lab.assert_silence("a", 3).await;

    lab.edit("a", "deadlineSeconds", json!(3600));
    lab.settle("a", 4).await;
    lab.until_state(JobState::Proving).await;
    assert_eq!(lab.condition("a", condition::FAILED), "False WaitingForWorkers");
    assert_eq!(lab.status("a").finished_at, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_inputs_are_over_the_quota_waits_until_another_is_over() {
    let one = BLOCK.len() as u64 + SAMPLE.private_proofs[0].len() as u64;
    let lab = Lab::with_quota(Quota { bytes: Some(2 * one - 1), ..Quota::default() }).await;
    lab.api.put("configmaps", config_map());
    let source = json!({"configMap": {"name": "block"}});
    lab.apply("a", json!({"source": source}));
    lab.settle("a", 0).await;
    assert_eq!(lab.condition("a", condition::ACCEPTED), "True Submitted");
    lab.apply("b", json!({"source": source, "proverId": "bob"}));
    lab.settle("b", 1).await;
    assert_eq!(lab.condition("b", condition::ACCEPTED), "False QuotaExceeded");
    let said = format!("quota: namespace rollup has {one} bytes of inputs of open jobs, with {one} more");
    let message = lab.message("b", condition::ACCEPTED);
    assert!(message.starts_with(&said), "{message}");

    lab.api.state().objects.remove("provingjobs/a");
    lab.list();
    collect(&lab.me).await;
    lab.settle("b", 300).await;
    assert_eq!(lab.condition("b", condition::ACCEPTED), "True Submitted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_failed_lives_again_only_if_the_quota_has_room_for_it() {
    let lab = Lab::with_quota(Quota { jobs: Some(1), ..Quota::default() }).await;
    lab.apply("a", json!({"deadlineSeconds": 1}));
    lab.settle("a", 0).await;
    lab.until_state(JobState::Failed { why: String::new() }).await;
    lab.settle("a", 2).await;
    lab.apply("b", json!({"blockNumber": 10}));
    lab.settle("b", 3).await;
    lab.edit("a", "deadlineSeconds", json!(3600));
    lab.settle("a", 4).await;
    assert_eq!(lab.condition("a", condition::ACCEPTED), "False QuotaExceeded");
    assert_eq!(lab.condition("a", condition::COMPLETE), "False QuotaExceeded");
    let message = lab.message("a", condition::ACCEPTED);
    assert!(message.starts_with("quota: namespace rollup has 1 open jobs"), "{message}");
    lab.assert_silence("a", 20).await;

    lab.api.state().objects.remove("provingjobs/b");
    lab.list();
    collect(&lab.me).await;
    lab.settle("a", 40).await;
    lab.until_state(JobState::Proving).await;
    lab.settle("a", 41).await;
    assert_eq!(lab.condition("a", condition::ACCEPTED), "True Submitted");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_block_twice_is_one_tree_and_the_second_job_ends_at_once() {
    let lab = Lab::new().await;
    lab.prove_all().await;
    lab.apply("a", json!({}));
    lab.visit("a", 0).await;
    lab.until_state(JobState::Complete).await;
    lab.settle("a", 1).await;
    lab.apply("b", json!({}));
    lab.settle("b", 2).await;
    for name in ["a", "b"] {
        assert_eq!(lab.condition(name, condition::COMPLETE), "True Done");
        assert_eq!(lab.status(name).percent, Some(100));
        let map = lab.api.get(&format!("configmaps/{name}-proof")).unwrap();
        assert_eq!(map["metadata"]["ownerReferences"][0]["uid"], format!("uid-of-{name}"));
        assert!(map["binaryData"]["root.proof"].is_string() && map["data"]["public.json"].is_string());
    }
    assert_eq!(lab.dispatcher.jobs().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_map_of_that_name_that_is_another_objects_is_not_touched() {
    let lab = Lab::new().await;
    lab.api.put("configmaps", json!({"metadata": {"name": "a-proof"}, "data": {"mine": "x"}}));
    lab.prove_all().await;
    lab.apply("a", json!({}));
    lab.visit("a", 0).await;
    lab.until_state(JobState::Complete).await;
    lab.visit("a", 1).await;
    assert_eq!(lab.condition("a", condition::COMPLETE), "False Pending");
    let message = lab.message("a", condition::COMPLETE);
    assert!(message.contains("ConfigMap a-proof is not this job's"), "{message}");
    assert_eq!(lab.api.get("configmaps/a-proof").unwrap()["data"]["mine"], "x");
    lab.api.take_log();
    lab.visit("a", 2).await;
    assert_eq!(lab.api.take_log(), ["get configmaps/a-proof"], "waiting writes nothing");
    lab.api.state().objects.remove("configmaps/a-proof");
    lab.settle("a", 2).await;
    assert_eq!(lab.condition("a", condition::COMPLETE), "True Done");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_the_api_server_refuses_is_told_and_written_once_it_may() {
    let lab = Lab::new().await;
    lab.prove_all().await;
    lab.apply("a", json!({}));
    lab.visit("a", 0).await;
    lab.until_state(JobState::Complete).await;
    lab.api.state().errors.push(("create configmaps/a-proof".into(), 403));
    lab.visit("a", 1).await;
    assert_eq!(lab.condition("a", condition::COMPLETE), "False Pending");
    let message = lab.message("a", condition::COMPLETE);
    assert!(message.contains("ConfigMap a-proof is refused: InternalError"), "{message}");
    lab.settle("a", 2).await;
    assert_eq!(lab.condition("a", condition::COMPLETE), "True Done");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_deleted_after_its_time_and_not_at_another_version() {
    let lab = Lab::new().await;
    lab.prove_all().await;
    lab.apply("a", json!({"ttlSecondsAfterFinished": 60}));
    lab.visit("a", 0).await;
    lab.until_state(JobState::Complete).await;
    lab.settle("a", 1).await;
    let outcome = lab.visit("a", 30).await;
    assert!(
        matches!(outcome, Outcome::Applied(Some(left)) if left <= Duration::from_secs(60)),
        "{outcome:?}"
    );
    lab.edit("a", "ttlSecondsAfterFinished", json!(600));
    lab.settle("a", 120).await;
    assert_eq!(lab.status("a").observed_generation, 2);
    assert!(lab.api.get("provingjobs/a").is_some(), "kept longer");
    lab.visit("a", 700).await;
    assert!(lab.api.get("provingjobs/a").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_of_another_version_is_not_overwritten() {
    let lab = Lab::new().await;
    lab.apply("a", json!({}));
    lab.api.state().errors.push((patch("a"), 409));
    assert!(is_waiting(&lab.visit("a", 0).await));
    let read_again = "get provingjobs/a".to_owned();
    assert_eq!(lab.api.take_log(), [patch("a"), read_again], "no event of what is not written");
    lab.settle("a", 1).await;
    assert_eq!(lab.condition("a", condition::COMPLETE), format!("False {}", reason::WAITING_FOR_WORKERS));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_jobs_tree_is_cancelled_and_a_wanted_one_never() {
    let mut lab = Lab::new().await;
    lab.apply("a", json!({}));
    lab.apply("b", json!({"blockNumber": 10}));
    collect(&lab.me).await;
    lab.list();
    lab.visit("a", 0).await;
    lab.visit("b", 0).await;
    // submitted, and no status says so yet
    collect(&lab.me).await;
    let states = |lab: &Lab| lab.dispatcher.jobs().into_iter().map(|j| j.state).collect::<Vec<_>>();
    assert_eq!(states(&lab), [JobState::Proving, JobState::Proving]);

    // the operator died before it wrote the status of b
    lab.settle("a", 1).await;
    lab.restart();
    lab.list();
    collect(&lab.me).await;
    assert_eq!(states(&lab), [JobState::Proving, JobState::Proving]);

    lab.settle("b", 2).await;
    lab.api.state().objects.remove("provingjobs/a");
    lab.list();
    collect(&lab.me).await;
    assert_eq!(states(&lab), [JobState::Cancelled, JobState::Proving]);

    // the same block is wanted again
    lab.apply("c", json!({}));
    lab.list();
    lab.settle("c", 3).await;
    assert_eq!(states(&lab), [JobState::Proving, JobState::Proving]);
    let known = until("the tree's root", || lab.status("c").root_task).await;
    assert_eq!(known, lab.tree().ids.last().unwrap().to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_submit_holds_nobody_up_and_its_tree_is_wanted() {
    let lab = Lab::new().await;
    lab.apply("a", json!({}));
    lab.list();
    let submits = &lab.me.ctx.jobs.submits;
    let slow = submits.begin(Block { chain_id: 5, number: 9, prover: prover_word("alice").0 });
    timeout(PATIENCE, collect(&lab.me)).await.expect("it waits for no submit");
    lab.settle("a", 0).await;
    assert_eq!(lab.condition("a", condition::ACCEPTED), "True Submitted");
    lab.api.state().objects.remove("provingjobs/a");
    lab.list();
    let state = || lab.dispatcher.jobs().remove(0).state;
    collect(&lab.me).await;
    assert_eq!(state(), JobState::Proving, "another job's submit found the same tree");
    drop(slow);
    collect(&lab.me).await;
    assert_eq!(state(), JobState::Cancelled);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_proof_stays_as_long_as_a_job_names_it() {
    let lab = Lab::new().await;
    let ctx = &lab.me.ctx;
    assert_eq!(named(ctx), None, "the jobs are not known yet");
    let root = lab.prove_all().await;
    lab.apply("a", json!({}));
    lab.visit("a", 0).await;
    let id = lab.until_state(JobState::Complete).await;
    lab.settle("a", 1).await;
    lab.list();
    assert_eq!(named(ctx), Some([root].into()));
    let is_there = async || lab.store.get_proof(&root).await.unwrap().is_some();
    for (there, case) in [(true, "a job names it"), (true, "it is in the books"), (false, "nobody needs it")]
    {
        ctx.jobs.note_released(root);
        collect(&lab.me).await;
        assert_eq!(is_there().await, there, "{case}");
        match case {
            "a job names it" => {
                lab.api.state().objects.remove("provingjobs/a");
                lab.list();
            }
            _ if there => lab.dispatcher.forget(id).await.unwrap(),
            _ => {}
        }
    }
    assert!(ctx.jobs.take_released().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_jobs_of_one_tree_have_their_own_deadlines() {
    let lab = Lab::new().await;
    lab.apply("a", json!({"deadlineSeconds": 100, "priority": 3}));
    lab.apply("b", json!({"deadlineSeconds": 900}));
    lab.list();
    for name in ["a", "b", "a", "b"] {
        lab.settle(name, 0).await;
        lab.list();
    }
    let spec = lab.dispatcher.jobs().remove(0).spec;
    let deadline = lab.start.as_second() as u64 * 1000 + 900_000;
    assert_eq!((spec.deadline, spec.priority), (Some(deadline), 3));
    lab.settle("a", 101).await;
    lab.list();
    lab.settle("b", 101).await;
    assert_eq!(lab.condition("a", condition::FAILED), "True DeadlineExceeded");
    assert_eq!(lab.condition("b", condition::FAILED), "False WaitingForWorkers");
}
