//! `prove` and `run` over a store or state disk that is full or hangs: it is said on the terminal at once, the deadline
//! holds, signals end the process, and the exit code is the documented one. Real processes, fake proofs.

use crate::kit::http::look;
use crate::kit::{
    Bucket, Lab, OperatorOptions, Process, arborist, assert_reported_once, small_disk, sum, wait_for,
};
use crate::prove::{fake, run};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::json;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

fn started(command: Command, folder: &Path) -> Process {
    Process::spawn(command, folder.join("log"))
}

fn wait_said(process: &Process, text: &str) {
    let said = || {
        let ended = process.has_ended();
        let said = process.log().contains(text);
        assert!(said || !ended, "it ended before it said `{text}`:\n{}", process.log());
        said.then_some(())
    };
    wait_for(&format!("it says `{text}`"), || process.log(), said);
}

/// More proofs than the disk holds.
const TOO_MANY: [&str; 5] =
    ["--transactions=60", "--calls=2", "--fake-millis=2", "--workers=1", "--grace=1s"];

#[test]
fn a_full_state_disk_is_told_and_the_deadline_holds() {
    let folder = TempDir::new().unwrap();
    let disk = folder.path().join("small");
    let Some(_mounted) = small_disk(&disk, "256k") else { return };
    let state = format!("--state={}", disk.join("state").display());
    let command = fake(&folder.path().join("out"), &[&TOO_MANY[..], &[&state, "--deadline=4s"]].concat());
    let process = started(command, folder.path());
    wait_said(&process, "the artifact store is full");
    wait_said(&process, "make room there");
    assert_eq!(process.wait_end("its deadline passes").code(), Some(4), "{}", process.log());
    assert!(
        process.log().lines().last().unwrap().starts_with("error: deadline passed: "),
        "{}",
        process.log()
    );
}

#[test]
fn with_a_full_state_disk_a_signal_ends_it_and_with_room_it_goes_on() {
    let folder = TempDir::new().unwrap();
    let disk = folder.path().join("small");
    let Some(mounted) = small_disk(&disk, "256k") else { return };
    let out = folder.path().join("out");
    let state = format!("--state={}", disk.join("state").display());
    let args = [&TOO_MANY[..], &[&state]].concat();
    let process = started(fake(&out, &args), folder.path());
    wait_said(&process, "the artifact store is full");
    process.signal(Signal::SIGINT);
    assert_eq!(process.wait_end("it leaves").code(), Some(3), "{}", process.log());
    mounted.enlarge();
    let (code, _, stderr) = run(fake(&out, &args));
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("of them are there already"), "{stderr}");
}

/// A bucket whose server takes connections and never answers.
struct Silent(TcpListener);

impl Silent {
    fn start() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    fn serves(&self, mut command: Command) -> Command {
        command
            .arg("--store=s3://silent")
            .env("AWS_ENDPOINT", format!("http://{}", self.0.local_addr().unwrap()))
            .envs([("AWS_ALLOW_HTTP", "true"), ("AWS_REGION", "here")])
            .envs([("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")]);
        command
    }
}

#[test]
fn a_store_that_never_answers_is_told_before_anything_is_proven() {
    let (folder, silent) = (TempDir::new().unwrap(), Silent::start());
    let command = fake(&folder.path().join("out"), &["--transactions=2", "--deadline=8s"]);
    let process = started(silent.serves(command), folder.path());
    wait_said(&process, "the artifact store has not answered for");
    assert_eq!(process.wait_end("its deadline passes").code(), Some(4), "{}", process.log());
    assert!(process.log().contains("the block was not even taken in"), "{}", process.log());
}

#[test]
fn a_signal_ends_a_prove_whose_store_never_answers() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let (folder, silent) = (TempDir::new().unwrap(), Silent::start());
        let process =
            started(silent.serves(fake(&folder.path().join("out"), &["--transactions=2"])), folder.path());
        silent.0.set_nonblocking(true).unwrap();
        let _asked = wait_for("it asks the store", || process.log(), || silent.0.accept().ok());
        process.signal(signal);
        assert_eq!(process.wait_end("it leaves").code(), Some(3), "{signal}: {}", process.log());
    }
}

fn pipe_at(path: &Path) {
    let _ = std::fs::remove_file(path);
    mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
}

fn proofs(state: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(state.join("store/proofs")).unwrap().flatten().map(|entry| entry.path()).collect()
}

/// A pipe that nobody writes to hangs whoever reads it, as a dead disk does.
#[test]
fn proofs_that_hang_when_they_are_read_are_told_and_a_signal_ends_it() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("out");
    let args = ["--transactions=2", "--calls=0"];
    assert_eq!(run(fake(&out, &args)).0, 0);
    proofs(&out.join("state")).iter().for_each(|proof| pipe_at(proof));
    let process = started(fake(&out, &args), folder.path());
    wait_said(&process, "the artifact store has not answered for");
    wait_said(&process, "see to it that it answers");
    process.signal(Signal::SIGTERM);
    assert_eq!(process.wait_end("it leaves").code(), Some(3), "{}", process.log());
}

/// An operator over a disk on which nothing more has room; `None` where no disk can be mounted.
fn over_a_full_disk() -> Option<(Lab, impl Sized)> {
    let mut lab = Lab::prepare(OperatorOptions::default());
    let disk = small_disk(&lab.store(), "256k")?;
    lab.start_operator();
    let _job = lab.submit(2, &[0], 1);
    let mut rest = std::fs::File::create(lab.store().join("rest")).unwrap();
    while rest.write_all(&[0; 512]).is_ok() {}
    Some((lab, disk))
}

#[test]
fn run_says_that_its_journal_is_not_written_and_leaves_in_bounded_time() {
    let Some((lab, _disk)) = over_a_full_disk() else { return };
    let operator = lab.operator.as_ref().unwrap();
    let refused = lab.ask("POST", "/jobs/1/suspend", "", b"");
    assert_eq!(refused.status, 503, "{}", refused.json());
    let text = refused.json()["error"].as_str().unwrap().to_owned();
    assert!(text.contains("not durable") && text.contains("is full"), "{text}");
    wait_said(operator, "make room there");
    operator.signal(Signal::SIGTERM);
    assert_eq!(operator.wait_end("it leaves").code(), Some(1), "{}", operator.log());
    assert!(operator.log().contains("the journal's end could not be written"), "{}", operator.log());
}

#[test]
fn a_second_signal_ends_run_at_once_with_its_own_code() {
    let Some((lab, _disk)) = over_a_full_disk() else { return };
    let operator = lab.operator.as_ref().unwrap();
    operator.signal(Signal::SIGTERM);
    wait_said(operator, "stopping: workers keep what they do");
    operator.signal(Signal::SIGINT);
    assert_eq!(operator.wait_end("it leaves").code(), Some(3), "{}", operator.log());
}

#[test]
fn a_disk_that_fills_under_run_is_told_on_its_terminal() {
    let mut lab = Lab::prepare(OperatorOptions::default());
    let Some(_disk) = small_disk(&lab.store(), "128k") else { return };
    lab.start_operator();
    let operator = lab.operator.as_ref().unwrap();
    let _worker = lab.worker("a", &["--fake-millis=5"]);
    let _job = lab.submit(60, &[2], 1);
    wait_said(operator, "make room there");
    operator.signal(Signal::SIGTERM);
    let code = operator.wait_end("it leaves").code();
    assert!(code == Some(0) || code == Some(1), "{code:?}: {}", operator.log());
}

/// Only the rest of a command line has to be said here: what runs is told by `arborist run`'s own options.
#[test]
fn run_over_a_store_that_never_answers_leaves_at_a_signal() {
    let (folder, silent) = (TempDir::new().unwrap(), Silent::start());
    let mut command = arborist();
    command.arg("run").arg(format!("--state={}", folder.path().join("state").display()));
    command.args(["--listen=127.0.0.1:0", "--http=127.0.0.1:0"]);
    let process = started(silent.serves(command), folder.path());
    wait_said(&process, "the artifact store has not answered for");
    process.signal(Signal::SIGHUP);
    assert_eq!(process.wait_end("it leaves").code(), Some(0), "{}", process.log());
}

/// A lab over a bucket, and a worker that proves slowly.
fn over_a_bucket(bucket: &Bucket) -> (Lab, Process) {
    let (args, env) = (vec!["--store=s3://b".to_owned()], bucket.env());
    let lab = Lab::start(OperatorOptions { args, env, ..Default::default() });
    let worker = lab.worker("a", &["--fake-millis=50"]);
    (lab, worker)
}

/// Waits until all say that the bucket does not answer.
fn wait_seen(lab: &Lab) {
    let operator = lab.operator.as_ref().unwrap();
    wait_said(operator, "the artifact store has not answered for");
    let not_ready = || (look(lab.http(), "/readyz").status == 503).then_some(());
    wait_for("it is not ready", || lab.logs(), not_ready);
    let text = look(lab.http(), "/readyz").text();
    assert!(text.contains("the journal"), "{text}");
    assert!(lab.metric("arborist_journal_stalled_seconds") > Some(5.0), "{}", lab.logs());
    assert_eq!(look(lab.http(), "/healthz").status, 200, "a bucket is no reason to start anew");
}

#[test]
fn run_tells_of_a_bucket_that_answers_no_more_keeps_the_deadline_and_leaves_at_a_signal() {
    let bucket = Bucket::start();
    let (lab, _worker) = over_a_bucket(&bucket);
    let body = json!({"synthetic": {"transactions": 400, "calls": [2], "seed": 1}, "prover": "me", "deadline": "20s"});
    let job = lab.post("/jobs", &body)["id"].as_u64().expect("a job");
    lab.wait_done(job, 4);
    bucket.set_silent(true);
    wait_seen(&lab);
    let failed = || lab.get(&format!("/jobs/{job}")).filter(|job| job["state"] == "failed");
    let failed = wait_for("the deadline passes", || lab.logs(), failed);
    assert!(failed["why"].as_str().is_some_and(|why| why.contains("deadline")), "{failed}");
    let operator = lab.operator.as_ref().unwrap();
    operator.signal(Signal::SIGTERM);
    assert_eq!(operator.wait_end("it leaves").code(), Some(1), "{}", operator.log());
    assert!(operator.log().contains("the journal's end could not be written"), "{}", operator.log());
}

#[test]
fn what_was_proven_while_the_bucket_was_silent_counts_when_it_answers_again() {
    let bucket = Bucket::start();
    let (lab, worker) = over_a_bucket(&bucket);
    let job = lab.submit(8, &[2], 1);
    lab.wait_done(job, 10);
    bucket.set_silent(true);
    wait_seen(&lab);
    bucket.set_silent(false);
    wait_said(lab.operator.as_ref().unwrap(), "the artifact store works again");
    let report = lab.wait_complete(job);
    assert_reported_once(&report, 8 * (2 * 2 + 2) - 1);
    assert_eq!(sum(&report, "retries"), 0, "a store that does not answer is charged to nobody: {report}");
    let ready = || (look(lab.http(), "/readyz").status == 200).then_some(());
    wait_for("it is ready again", || lab.logs(), ready);
    drop(worker);
}
