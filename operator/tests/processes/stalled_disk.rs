//! The disk of a running operator stops answering: readiness, a metric and the terminal say so, deadlines hold, a leader
//! makes room for another one, a signal ends the process, and what was proven counts when the disk is back. Real
//! processes, fake proofs.

use crate::kit::http::{Answer, look};
use crate::kit::{
    ApiServer, Dead, Freezer, LONG_PATIENCE, Lab, Leader, OperatorOptions, Process, arborist,
    assert_books_balance, sum, wait_for, wait_within,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::time::Duration;
use tempfile::TempDir;

fn operator(lab: &Lab) -> &Process {
    lab.operator.as_ref().expect("it runs")
}

fn ready(lab: &Lab) -> Answer {
    look(lab.http(), "/readyz")
}

/// Waits until all say that the disk does not answer.
fn wait_seen(lab: &Lab) {
    let logs = || lab.logs();
    let said = || operator(lab).log().contains("the artifact store has not answered for");
    wait_for("the terminal says so", logs, || said().then_some(()));
    wait_for("it is not ready", logs, || (ready(lab).status == 503).then_some(()));
    let text = ready(lab).text();
    assert!(text.contains("the journal"), "{text}");
    assert!(lab.metric("arborist_journal_stalled_seconds") > Some(5.0), "{}", lab.logs());
    assert!(lab.metric("arborist_journal_lag_bytes") > Some(0.0), "{}", lab.logs());
    let health = look(lab.http(), "/healthz");
    assert_eq!(health.status, 200, "a disk is no reason to start anew: {}", health.text());
}

#[test]
fn run_tells_of_a_folder_that_answers_no_more_keeps_the_deadline_and_leaves_at_a_signal() {
    let mut lab = Lab::start(OperatorOptions::default());
    let _worker = lab.worker("a", &["--fake-millis=50"]);
    let body = json!({"synthetic": {"transactions": 400, "calls": [2], "seed": 1}, "prover": "me", "deadline": "20s"});
    let job = lab.post("/jobs", &body)["id"].as_u64().expect("a job");
    lab.wait_done(job, 4);
    let Some(dead) = Dead::over(&lab.state()) else { return };
    wait_seen(&lab);
    // the token that jobs are asked for with lies in that folder
    let job_failed = || lab.metric("arborist_jobs{state=\"failed\"}").filter(|count| *count == 1.0);
    wait_for("the deadline passes", || lab.logs(), job_failed);
    operator(&lab).signal(Signal::SIGTERM);
    operator(&lab).wait_left("it leaves");
    assert!(operator(&lab).log().contains("the journal's end could not be written"), "{}", lab.logs());
    dead.recover();
    assert_eq!(operator(&lab).wait_end("all of it has ended").code(), Some(1), "{}", lab.logs());
    lab.kill_operator();
    lab.start_operator();
    let state = || lab.get(&format!("/jobs/{job}")).filter(|job| job["state"] == "failed");
    wait_for("it knows the end of the job again", || lab.logs(), state);
}

/// A lab whose state lies on a disk that can be frozen.
fn freezable() -> Option<(Lab, Freezer)> {
    let mut lab = Lab::prepare(OperatorOptions::default());
    let disk = Freezer::new(&lab.state())?;
    lab.start_operator();
    Some((lab, disk))
}

#[test]
fn what_was_proven_before_the_disk_froze_and_meanwhile_counts_when_it_is_back() {
    let Some((lab, disk)) = freezable() else { return };
    let workers = ["a", "b"].map(|name| lab.worker(name, &["--fake-millis=60"]));
    let job = lab.submit(8, &[2], 1);
    lab.wait_done(job, 10);
    disk.freeze();
    wait_seen(&lab);
    let before = lab.records();
    disk.thaw();
    let is_ready = || (ready(&lab).status == 200).then_some(());
    wait_for("it is ready again", || lab.logs(), is_ready);
    let report = lab.wait_complete(job);
    lab.records().assert_nothing_of_made_again(&before);
    assert_books_balance(&lab, &report, 8 * (2 * 2 + 2) - 1);
    assert_eq!(sum(&report, "retries"), 0, "a disk that does not answer is charged to nobody: {report}");
    let over = || operator(&lab).log().contains("the artifact store works again").then_some(());
    wait_for("the terminal says that it is over", || lab.logs(), over);
    wait_for(
        "nothing waits",
        || lab.logs(),
        || lab.metric("arborist_journal_stalled_seconds").filter(|seconds| *seconds < 5.0),
    );
    drop(workers);
}

#[test]
fn a_signal_ends_run_over_a_frozen_disk() {
    let Some((lab, disk)) = freezable() else { return };
    disk.freeze();
    wait_seen(&lab);
    operator(&lab).signal(Signal::SIGTERM);
    operator(&lab).wait_left("it leaves");
    assert!(operator(&lab).log().contains("the journal's end could not be written"), "{}", lab.logs());
    disk.thaw();
    assert_eq!(operator(&lab).wait_end("all of it has ended").code(), Some(1), "{}", lab.logs());
}

const JOB: &str = "/apis/arborist.dev/v1alpha1/namespaces/tenant/provingjobs/block";

/// An API server with a job that has so long.
fn with_job(time: Duration) -> ApiServer {
    let api = ApiServer::start(0);
    let deadline = jiff::Timestamp::now() + time;
    api.put(
        JOB,
        json!({
            "apiVersion": "arborist.dev/v1alpha1", "kind": "ProvingJob",
            "metadata": {"name": "block", "namespace": "tenant", "uid": "u-1", "generation": 1,
                "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"chainId": 1, "blockNumber": 1, "proverId": "me", "deadline": deadline.to_string(),
                "source": {"synthetic": {"transactions": 2, "callsPerTransaction": 1}}},
        }),
    );
    api
}

/// The status of a condition of the job; `null` while it has none.
fn condition(api: &ApiServer, name: &str) -> Value {
    let object = api.object(JOB);
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.iter().find(|one| one["type"] == name).map(|one| one["status"].clone()).unwrap_or_default()
}

/// Waits until it has given the Lease up, and says why.
fn wait_gives_up(leader: &Leader) {
    let log = || leader.process.log();
    let gives_up = || log().contains("it gives the Lease up and stands by").then_some(());
    wait_within(LONG_PATIENCE, "it gives the Lease up", log, gives_up);
    wait_for("the Lease is nobody's", log, || leader.holder().is_empty().then_some(()));
    assert_eq!(leader.metric("arborist_leader "), Some(0.0), "{}", log());
    let ready = leader.look("/readyz");
    assert_eq!(ready.status, 503, "{}", log());
    assert!(ready.text().starts_with("dispatcher: "), "{}", ready.text());
}

/// It takes its turn again after a while, also while the disk is dead.
fn wait_leads_in_vain(leader: &Leader) {
    let log = || leader.process.log();
    wait_for("it takes the Lease again", log, || (!leader.holder().is_empty()).then_some(()));
    let starting = || leader.look("/readyz").text().contains("dispatcher: ").then_some(());
    wait_for("its dispatcher does not start", log, starting);
}

#[test]
fn a_leader_whose_disk_answers_no_more_keeps_deadlines_gives_its_place_up_and_leaves_at_a_signal() {
    let folder = TempDir::new().unwrap();
    let leader = Leader::start(folder.path(), with_job(Duration::from_secs(30)));
    leader.wait_leads();
    let log = || leader.process.log();
    let accepted = || (condition(&leader.api, "Accepted") == "True").then_some(());
    wait_for("the job is in its books", log, accepted);
    assert_ne!(condition(&leader.api, "Failed"), "True", "{}", log());
    let Some(dead) = Dead::over(&folder.path().join("state")) else { return };
    let stalled = || leader.look("/readyz").text().contains("the journal");
    wait_for("it is not ready", log, || stalled().then_some(()));
    assert!(leader.metric("arborist_journal_stalled_seconds") > Some(5.0), "{}", log());
    let failed = || (condition(&leader.api, "Failed") == "True").then_some(());
    wait_for("the job's deadline passes", log, failed);
    wait_gives_up(&leader);
    assert_eq!(leader.look("/healthz").status, 200, "{}", log());
    wait_leads_in_vain(&leader);
    leader.process.signal(Signal::SIGTERM);
    leader.process.wait_left("it leaves");
    assert_eq!(leader.holder(), "", "a standby need not wait for the Lease's end: {}", log());
    dead.recover();
    assert_eq!(leader.process.wait_end("all of it has ended").code(), Some(0), "{}", log());
}

#[test]
fn run_over_a_folder_that_answers_nothing_says_so_and_leaves_at_a_signal() {
    let (folder, started) = (TempDir::new().unwrap(), std::cell::OnceCell::new());
    let state = folder.path().join("state");
    std::fs::create_dir(&state).unwrap();
    let Some(dead) = Dead::over(&state) else { return };
    let mut command = arborist();
    command
        .args(["run", "--backend=fake", "--listen=127.0.0.1:0", "--http=127.0.0.1:0", "--state"])
        .arg(&state);
    let process: &Process = started.get_or_init(|| Process::spawn(command, folder.path().join("log")));
    let said = || process.log().contains("/state has not answered for").then_some(());
    wait_for("the terminal says so", || process.log(), said);
    process.signal(Signal::SIGTERM);
    process.wait_left("it leaves");
    dead.recover();
    assert_eq!(process.wait_end("all of it has ended").code(), Some(0), "{}", process.log());
}

#[test]
fn an_operator_that_can_t_open_its_folder_gives_its_place_up_and_leads_when_it_can() {
    let (folder, leader) = (TempDir::new().unwrap(), std::cell::OnceCell::new());
    let state = folder.path().join("state");
    std::fs::create_dir(&state).unwrap();
    let Some(dead) = Dead::over(&state) else { return };
    let leader = leader.get_or_init(|| Leader::start(folder.path(), ApiServer::start(0)));
    wait_leads_in_vain(leader);
    wait_gives_up(leader);
    dead.recover();
    leader.wait_leads();
    leader.process.signal(Signal::SIGTERM);
    assert_eq!(leader.process.wait_end("it leaves").code(), Some(0), "{}", leader.process.log());
}
