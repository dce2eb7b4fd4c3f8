//! What becomes of the report of a proven block.

use super::lab::{Lab, until};
use crate::api::conditions::job as condition;
use crate::report::{Body, Receipt, ReportError, Reporter, SignedReport, Target};
use arborist_core::engine::JobState;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, SigningKey, Verifier};
use futures::future::BoxFuture;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::sync::Semaphore;

/// A receiver that counts each idempotency key once.
#[derive(Clone)]
struct Receiver {
    /// Statuses of the next answers; then 200.
    answers: Arc<Mutex<Vec<u16>>>,
    posts: Arc<Mutex<Vec<(HeaderMap, Bytes)>>>,
    counted: Arc<Mutex<BTreeMap<String, Bytes>>>,
    /// Each answer needs one; who takes all holds the answers up.
    turns: Arc<Semaphore>,
}

/// More than a receiver is asked at once.
const TURNS: u32 = 4;

impl Default for Receiver {
    fn default() -> Self {
        let turns = Arc::new(Semaphore::new(TURNS as usize));
        Self { answers: Arc::default(), posts: Arc::default(), counted: Arc::default(), turns }
    }
}

impl Receiver {
    async fn start(answers: &[u16]) -> (Self, String) {
        let receiver = Self::default();
        receiver.answers.lock().unwrap().extend(answers.iter().rev());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/proofs", listener.local_addr().unwrap());
        let app = Router::new().route("/proofs", post(take)).with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        (receiver, url)
    }

    fn posts(&self) -> usize {
        self.posts.lock().unwrap().len()
    }
}

async fn take(State(receiver): State<Receiver>, headers: HeaderMap, body: Bytes) -> (StatusCode, String) {
    receiver.posts.lock().unwrap().push((headers.clone(), body.clone()));
    let _turn = receiver.turns.acquire().await.unwrap();
    let status = StatusCode::from_u16(receiver.answers.lock().unwrap().pop().unwrap_or(200)).unwrap();
    if status.is_success() {
        let key = headers["idempotency-key"].to_str().unwrap().to_owned();
        receiver.counted.lock().unwrap().insert(key, body);
        return (status, "receipt 42\nmore".into());
    }
    (status, "not now".into())
}

fn secret(name: &str, url: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {
        "url": STANDARD.encode(format!("{url}\n")), "authorization": STANDARD.encode("Bearer word"),
    }})
}

/// A lab with a proven job that reports to `url`.
async fn proven(url: &str, more: Value) -> Lab {
    let lab = Lab::new().await;
    lab.api.put("secrets", secret("coordinator", url));
    lab.prove_all().await;
    let mut spec = json!({"reportTo": [{"name": "coordinator", "secretName": "coordinator"}]});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    lab.apply("a", spec);
    lab.visit("a", 0).await;
    lab.until_state(JobState::Complete).await;
    lab
}

const STATUS: &str = "patch provingjobs/a/status";

/// What of a log asks the API server to change something, without events.
fn writes(log: &[String]) -> Vec<&str> {
    let changes = |line: &&str| !line.starts_with("get ") && !line.contains("event");
    log.iter().map(String::as_str).filter(changes).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_is_written_down_then_sent_until_it_is_taken() {
    let (receiver, url) = Receiver::start(&[500, 503]).await;
    let lab = proven(&url, json!({})).await;
    lab.api.take_log();
    lab.visit("a", 1).await;
    let log = lab.api.take_log();
    let written = writes(&log);
    assert_eq!(written, ["create configmaps/a-proof", "create configmaps/a-report", STATUS]);
    assert_eq!(receiver.posts(), 0, "nothing is sent before the intent is in the status");
    assert_eq!(lab.condition("a", condition::REPORTED), "False Sending");
    assert_eq!(lab.condition("a", condition::PROVEN), "True RootVerified");

    let log = lab.settle("a", 2).await;
    assert_eq!((receiver.posts(), lab.condition("a", condition::REPORTED)), (1, "False ReportFailed".into()));
    assert!(log.contains(&"event ReportFailed".to_owned()), "{log:?}");
    assert_eq!(lab.status("a").reports[0].answer, "500: not now");
    lab.settle("a", 200).await;
    assert_eq!((receiver.posts(), lab.status("a").reports[0].attempts), (2, 2));
    let log = lab.settle("a", 400).await;
    assert_eq!(receiver.posts(), 3);
    assert_eq!(lab.condition("a", condition::COMPLETE), "True Done");
    assert!(log.ends_with(&["event Reported".into(), "event Complete".into()]), "{log:?}");
    let status = lab.status("a");
    assert_eq!((status.reports[0].attempts, status.reports[0].answer.as_str()), (3, "200: receipt 42"));
    lab.assert_silence("a", 500).await;

    let posts = receiver.posts.lock().unwrap();
    assert!(posts.iter().all(|(_, body)| *body == posts[0].1), "the same bytes at each attempt");
    check_post(&posts[0].0, &posts[0].1, &status.root_task.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_coordinator_refuses_only_attempts_are_written() {
    let (receiver, url) = Receiver::start(&[503; 20]).await;
    let lab = proven(&url, json!({})).await;
    lab.api.take_log();
    lab.settle("a", 1).await;
    assert_eq!(receiver.posts(), 1);
    let log = lab.api.take_log();
    assert!(log.is_empty(), "{log:?}");
    // the pause is a second at most, then two, then four: of ten visits some only wait
    let mut log = vec![];
    for second in 2..12 {
        let before = receiver.posts();
        lab.visit("a", second).await;
        lab.visit("a", second).await;
        let asked = lab.api.take_log();
        let attempts = receiver.posts() - before;
        assert_eq!(writes(&asked), vec![STATUS; attempts], "{second} s: {asked:?}");
        log.extend(asked);
    }
    let attempts = receiver.posts() - 1;
    assert!((2..=4).contains(&attempts), "{attempts} attempts after the first");
    assert_eq!(writes(&log).len(), attempts, "{log:?}");
    assert_eq!(lab.status("a").reports[0].attempts as usize, receiver.posts());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_stands_still_costs_no_write() {
    let (receiver, url) = Receiver::start(&[503; 20]).await;
    let lab = proven(&url, json!({})).await;
    // all that this watch ever says: the job before its result was written down
    let stale = lab.job("a");
    lab.api.take_log();
    for visit in 1..=10 {
        lab.visit_as("a", stale.clone(), 100 * visit).await;
    }
    let log = lab.api.take_log();
    let status = lab.status("a").reports[0].clone();
    // the ninth attempt is noted by a visit that does not come
    assert_eq!((receiver.posts(), status.attempts), (9, 8));
    let mut expected = vec!["create configmaps/a-proof", "create configmaps/a-report", STATUS];
    expected.extend([STATUS; 8]);
    assert_eq!(writes(&log), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_that_is_refused_does_not_write_the_result_again() {
    let (receiver, url) = Receiver::start(&[]).await;
    let mut lab = proven(&url, json!({})).await;
    let stale = lab.job("a");
    lab.api.take_log();
    // somebody else's edit, which the watch does not tell
    lab.edit("a", "priority", json!(1));
    lab.visit_as("a", stale.clone(), 1).await;
    let log = lab.api.take_log();
    assert_eq!(writes(&log), ["create configmaps/a-proof", "create configmaps/a-report", STATUS]);
    assert_eq!(log.last().unwrap(), "get provingjobs/a", "what is there is looked at");
    lab.visit_as("a", stale.clone(), 2).await;
    let log = lab.api.take_log();
    assert_eq!(writes(&log), [STATUS], "{log:?}");
    assert_eq!(lab.condition("a", condition::REPORTED), "False Sending");
    // the operator dies, and a status was not written: what is there is read, and left as it is
    lab.restart();
    let mut unwritten = lab.api.get("provingjobs/a").unwrap();
    unwritten.as_object_mut().unwrap().remove("status");
    lab.api.put("provingjobs", unwritten);
    lab.visit("a", 3).await;
    let log = lab.settle("a", 4).await;
    assert!(!log.iter().any(|line| line.starts_with("create") || line.starts_with("replace")), "{log:?}");
    assert_eq!((receiver.posts(), lab.condition("a", condition::COMPLETE)), (1, "True Done".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_that_is_being_taken_at_the_deadline_counts() {
    let (receiver, url) = Receiver::start(&[503]).await;
    let lab = proven(&url, json!({"deadlineSeconds": 1000})).await;
    lab.settle("a", 1).await;
    assert_eq!(lab.status("a").reports[0].attempts, 1);
    let held = receiver.turns.clone().acquire_many_owned(TURNS).await.unwrap();
    lab.look_at(lab.job("a"), 998).await;
    until("the second attempt", || (receiver.posts() == 2).then_some(())).await;
    lab.look_at(lab.job("a"), 1000).await;
    assert_eq!(lab.condition("a", condition::REPORTED), "False ReportFailed");
    assert!(lab.condition("a", condition::FAILED).starts_with("False"));
    drop(held);
    lab.until_idle("a").await;
    lab.settle("a", 1003).await;
    assert_eq!((receiver.posts(), lab.condition("a", condition::COMPLETE)), (2, "True Done".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_deadline_too_a_report_is_sent_once_though_the_api_server_fails_before() {
    let (receiver, url) = Receiver::start(&[503]).await;
    let lab = proven(&url, json!({"deadlineSeconds": 1000})).await;
    lab.visit("a", 1).await;
    for (line, second) in [("get configmaps/a-report", 2000), ("get secrets/coordinator", 2100)] {
        lab.api.state().errors.push((line.into(), 500));
        lab.settle("a", second).await;
        assert_eq!((receiver.posts(), lab.condition("a", condition::REPORTED)), (0, "False Sending".into()));
    }
    lab.settle("a", 2200).await;
    assert_eq!((receiver.posts(), lab.condition("a", condition::FAILED)), (1, "True ReportRefused".into()));
}

/// It crashes at each report.
struct Crashing;

impl Reporter for Crashing {
    fn send<'a>(&'a self, _: &'a Target, _: &'a SignedReport) -> BoxFuture<'a, Result<Receipt, ReportError>> {
        Box::pin(async { panic!("a bug") })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_crashes_is_tried_again_after_a_pause() {
    let mut lab = proven("http://127.0.0.1:1/", json!({})).await;
    until("nothing else is under way", || {
        Arc::get_mut(&mut lab.me).map(|me| me.reporter = Arc::new(Crashing))
    })
    .await;
    lab.visit("a", 1).await;
    for (second, attempts) in [(2, 1), (100, 2)] {
        lab.settle("a", second).await;
        let report = lab.status("a").reports.remove(0);
        assert_eq!((report.attempts, report.answer.contains("crashed")), (attempts, true), "{report:?}");
        assert_eq!(lab.condition("a", condition::REPORTED), "False ReportFailed");
    }
}

fn check_post(headers: &HeaderMap, body: &Bytes, root: &str) {
    let header = |name: &str| headers[name].to_str().unwrap().to_owned();
    assert_eq!(header("authorization"), "Bearer word");
    assert_eq!(header("content-type"), "application/json");
    let key = SigningKey::from_bytes(&[7; 32]).verifying_key();
    assert_eq!(header("arborist-key"), format!("ed25519={}", STANDARD.encode(key.to_bytes())));
    let signature = STANDARD.decode(header("arborist-signature").strip_prefix("ed25519=").unwrap()).unwrap();
    key.verify(body, &Signature::from_slice(&signature).unwrap()).unwrap();
    let report: Body = serde_json::from_slice(body).unwrap();
    assert_eq!((report.root_task.as_str(), report.block_number, report.transactions), (root, 9, 2));
    assert_eq!(report.attribution.shares[0].worker, "rollup-1");
    assert_eq!(report.attribution.shares[0].proofs, 11);
    assert!(report.root_proof.content.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_between_the_answer_and_its_note_counts_once() {
    let (receiver, url) = Receiver::start(&[]).await;
    let mut lab = proven(&url, json!({})).await;
    lab.visit("a", 1).await;
    let before = lab.api.get("provingjobs/a").unwrap();
    lab.visit("a", 2).await;
    assert_eq!(receiver.posts(), 1);
    // the operator died before it wrote the answer down
    lab.api.put("provingjobs", before);
    lab.restart();
    lab.settle("a", 3).await;
    assert_eq!((receiver.posts(), receiver.counted.lock().unwrap().len()), (2, 1));
    assert_eq!(lab.condition("a", condition::COMPLETE), "True Done");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_fails_the_job_and_an_edit_sends_again() {
    let (receiver, url) = Receiver::start(&[422]).await;
    let lab = proven(&url, json!({})).await;
    lab.settle("a", 1).await;
    assert_eq!(lab.condition("a", condition::REPORTED), "False ReportRefused");
    assert_eq!(lab.condition("a", condition::COMPLETE), "False ReportRefused");
    assert_eq!(lab.condition("a", condition::FAILED), "True ReportRefused");
    assert_eq!(lab.condition("a", condition::PROVEN), "True RootVerified");
    assert_eq!(lab.message("a", condition::FAILED), "coordinator: 422: not now");
    lab.assert_silence("a", 900).await;
    assert_eq!(receiver.posts(), 1);
    lab.edit("a", "priority", json!(1));
    lab.settle("a", 901).await;
    assert_eq!((receiver.posts(), lab.condition("a", condition::COMPLETE)), (2, "True Done".into()));
    assert_eq!(lab.condition("a", condition::FAILED), "False Done");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_deadline_one_attempt_is_all() {
    let (receiver, url) = Receiver::start(&[500]).await;
    let lab = proven(&url, json!({"deadlineSeconds": 50})).await;
    lab.visit("a", 1).await;
    // the operator was down across the deadline
    lab.settle("a", 100).await;
    assert_eq!((receiver.posts(), lab.condition("a", condition::FAILED)), (1, "True ReportRefused".into()));
    let message = lab.message("a", condition::FAILED);
    assert!(message.contains("had not taken the report when the deadline passed: 500"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_secret_is_waited_for() {
    let (receiver, url) = Receiver::start(&[]).await;
    let lab = proven(&url, json!({})).await;
    lab.api.state().objects.remove("secrets/coordinator");
    lab.settle("a", 1).await;
    let message = lab.message("a", condition::REPORTED);
    assert!(message.contains("there is no Secret coordinator"), "{message}");
    lab.api.put("secrets", secret("coordinator", &url));
    lab.settle("a", 200).await;
    assert_eq!((receiver.posts(), lab.condition("a", condition::COMPLETE)), (1, "True Done".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_may_not_be_read_is_waited_for_until_the_deadline() {
    let (receiver, url) = Receiver::start(&[]).await;
    let lab = proven(&url, json!({"deadlineSeconds": 1000})).await;
    let words = "coordinator: the operator may not read Secret coordinator: see rbac.reportSecrets";
    lab.api.state().errors.push(("get secrets/coordinator".into(), 403));
    lab.settle("a", 1).await;
    assert_eq!(lab.condition("a", condition::REPORTED), "False ReportFailed");
    let message = lab.message("a", condition::REPORTED);
    assert!(message.starts_with(words), "{message}");
    assert_eq!((receiver.posts(), lab.status("a").reports[0].attempts), (0, 1));
    lab.settle("a", 1000).await;
    assert_eq!((receiver.posts(), lab.condition("a", condition::FAILED)), (0, "True ReportRefused".into()));
    assert!(lab.status("a").finished_at.is_some(), "its ttl goes from here");
    // the right is given, and somebody asks for it again
    lab.edit("a", "deadlineSeconds", json!(3000));
    lab.settle("a", 1200).await;
    assert_eq!((receiver.posts(), lab.condition("a", condition::COMPLETE)), (1, "True Done".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_a_report_from_being_sent_for_long_is_told_and_ends_at_the_deadline() {
    let (receiver, url) = Receiver::start(&[]).await;
    let lab = proven(&url, json!({"deadlineSeconds": 1000})).await;
    lab.visit("a", 1).await;
    // past the longest pause each time
    for number in 1..=9 {
        lab.api.state().errors.push(("get secrets/coordinator".into(), 500));
        lab.settle("a", 100 * number).await;
        let expected = if number < 8 { "False Sending" } else { "False ReportFailed" };
        assert_eq!(lab.condition("a", condition::REPORTED), expected, "{number}");
    }
    let message = lab.message("a", condition::REPORTED);
    assert!(message.starts_with("coordinator: read Secret coordinator: 500 InternalError"), "{message}");
    lab.settle("a", 1000).await;
    assert_eq!((receiver.posts(), lab.condition("a", condition::FAILED)), (0, "True ReportRefused".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_that_was_deleted_is_written_down_again() {
    let (receiver, url) = Receiver::start(&[500]).await;
    let lab = proven(&url, json!({})).await;
    lab.settle("a", 1).await;
    lab.api.state().objects.remove("configmaps/a-report");
    lab.settle("a", 200).await;
    lab.settle("a", 400).await;
    assert_eq!((receiver.posts(), lab.condition("a", condition::COMPLETE)), (2, "True Done".into()));
}
