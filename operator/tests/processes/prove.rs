//! `arborist prove` with real worker processes: fake proofs for everything around proving, one block of real ones.

use crate::kit;
use crate::kit::{arborist, wait_for, worker_program};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

pub fn prove(out: &Path, args: &[&str]) -> Command {
    let mut command = arborist();
    command.args(["prove", "--worker-cores=1", "--out"]).arg(out).args(args);
    command
}

pub fn fake(out: &Path, args: &[&str]) -> Command {
    let mut command = prove(out, &["--backend=fake"]);
    command.args(args);
    command
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub fn run(mut command: Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.code().unwrap(), text(&stdout), text(&stderr))
}

fn report(out: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(out.join("report.json")).unwrap()).unwrap()
}

#[test]
fn a_real_block_is_proven_and_verified_by_another_process() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("out");
    let (code, stdout, stderr) =
        run(prove(&out, &["--transactions=2", "--calls=0,1", "--prover=tester", "--chain-id=5"]));
    assert_eq!(code, 0, "{stdout}{stderr}");
    for part in ["critical path", "who proved what", "makespan", "lower bound"] {
        assert!(stdout.contains(part), "{stdout}");
    }
    let (code, stdout, stderr) = run({
        let mut verify = arborist();
        verify.arg("verify").arg(&out);
        verify
    });
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(stdout.contains("block 1 of chain 5, 2 transactions") && stdout.contains("(tester)"), "{stdout}");
    assert_eq!(kit::sum(&report(&out)["report"], "count"), 5);
    the_same_block_by_a_plugin(&sample_block(&out), &folder.path().join("plugin"));
}

/// The sample that was made because no block file was given.
fn sample_block(out: &Path) -> PathBuf {
    let files = std::fs::read_dir(out).unwrap().flatten().map(|entry| entry.path());
    let is_sample = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with("sample-block-");
    files.into_iter().find(is_sample).expect("the sample block is kept")
}

fn the_same_block_by_a_plugin(block: &Path, out: &Path) {
    let plugin = Path::new(worker_program().get_program()).with_file_name("arborist-plugin-hash");
    let (plugin, block) = (format!("--plugin={}", plugin.display()), format!("--block={}", block.display()));
    let (code, stdout, stderr) = run(prove(out, &["--backend=process", &plugin, &block]));
    assert_eq!(code, 0, "{stdout}{stderr}");
    for (args, expected, text) in [
        (&[][..], 1, "error: invalid: backend: `process`"),
        (&[plugin.as_str()][..], 0, "valid: block 1 of chain 5, 2 transactions"),
    ] {
        let mut verify = arborist();
        verify.arg("verify").arg(out).args(args);
        let (code, stdout, stderr) = run(verify);
        assert_eq!(code, expected, "{stdout}{stderr}");
        assert!(format!("{stdout}{stderr}").contains(text), "{stdout}{stderr}");
    }
}

#[test]
fn a_finished_block_is_not_proven_again_and_another_prover_gets_only_another_root() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("out");
    let args = ["--transactions=5", "--calls=0,1,2,3"];
    let (code, _, stderr) = run(fake(&out, &args));
    assert_eq!(code, 0, "{stderr}");
    let first = report(&out);
    let (code, _, stderr) = run(fake(&out, &args));
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("of them are there already"), "{stderr}");
    assert_eq!(report(&out)["report"], first["report"]);
    let (code, _, stderr) = run(fake(&out, &[&args[..], &["--prover=other"]].concat()));
    assert_eq!(code, 0, "{stderr}");
    let other = &report(&out)["report"];
    assert_eq!(kit::sum(other, "count"), kit::sum(&first["report"], "count"));
    assert_eq!(kit::sum(other, "count") - kit::sum(other, "reused"), 1, "{other}");
}

/// Starts a slow block and gives its process back once some proofs are made.
pub fn half_way(out: &Path) -> kit::Process {
    let log = out.with_extension("log");
    let command = fake(out, &["--transactions=8", "--calls=2", "--fake-millis=150", "--grace=1s"]);
    let process = kit::Process::spawn(command, log);
    wait_for(
        "some proofs are made",
        || process.log(),
        || {
            let proofs = std::fs::read_dir(out.join("state/store/proofs")).ok()?.count();
            (proofs >= 6).then_some(())
        },
    );
    process
}

pub fn go_on(out: &Path) {
    let before = kit::Records::read(&out.join("state/store"), &out.join("logs"));
    let (code, stdout, stderr) = run(fake(out, &["--transactions=8", "--calls=2", "--log-format=text"]));
    assert_eq!(code, 0, "{stdout}{stderr}");
    assert!(stderr.contains("of them are there already"), "{stderr}");
    let after = kit::Records::read(&out.join("state/store"), &out.join("logs"));
    assert_eq!(after.proofs.len(), 47);
    for (task, maker) in &before.proofs {
        assert_eq!(after.proofs.get(task), Some(maker), "{task} was made again");
    }
    assert_eq!(kit::sum(&report(out)["report"], "count"), 47);
}

#[test]
fn a_signal_drains_and_the_same_command_goes_on() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let folder = TempDir::new().unwrap();
        let out = folder.path().join("out");
        let process = half_way(&out);
        process.signal(signal);
        assert_eq!(process.wait_end("it has drained").code(), Some(3), "{}", process.log());
        let log = process.log();
        let last = log.lines().last().unwrap();
        assert!(last.contains("the same command goes on from there"), "{log}");
        go_on(&out);
    }
}

#[test]
fn after_a_kill_the_workers_are_gone_and_the_same_command_goes_on() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("out");
    half_way(&out).kill();
    let ours = out.join("state").display().to_string();
    wait_for(
        "its workers are gone",
        || "they stay".into(),
        || {
            let processes = std::fs::read_dir("/proc").ok()?.flatten();
            let mut lines = processes.filter_map(|p| std::fs::read(p.path().join("cmdline")).ok());
            (!lines.any(|line| text(&line).contains(&ours))).then_some(())
        },
    );
    go_on(&out);
}

#[test]
fn a_deadline_that_passes_is_exit_code_4_and_says_what_was_missing() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("out");
    let args = ["--transactions=2", "--calls=1", "--fake-millis=5000", "--deadline=1s", "--grace=1s"];
    let (code, stdout, stderr) = run(fake(&out, &args));
    assert_eq!((code, stdout.as_str()), (4, ""), "{stderr}");
    let last = stderr.lines().last().unwrap();
    assert!(last.starts_with("error: deadline passed: "), "{stderr}");
    let (code, _, stderr) = run(fake(&out, &["--transactions=2", "--calls=1"]));
    assert_eq!(code, 0, "a failed job is taken up again: {stderr}");
}

#[test]
fn a_worker_that_dies_is_started_again() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("out");
    let process = half_way(&out);
    let name = "--name\0worker-1";
    let ours = out.join("state").display().to_string();
    let victim = wait_for(
        "the worker runs",
        || process.log(),
        || {
            std::fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
                let line = text(&std::fs::read(entry.path().join("cmdline")).ok()?);
                let found = line.contains(name) && line.contains(&ours);
                found.then(|| entry.file_name().to_str()?.parse::<i32>().ok())?
            })
        },
    );
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(victim), Signal::SIGKILL).unwrap();
    assert_eq!(process.wait_end("the block is proven").code(), Some(0), "{}", process.log());
    assert!(process.log().contains("worker worker-1 ended (signal: 9"), "{}", process.log());
}

#[test]
fn wrong_options_and_blocks_are_one_line_and_exit_code_2() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("out");
    let bad = folder.path().join("bad.json");
    std::fs::write(&bad, b"{}").unwrap();
    let bad = format!("--block={}", bad.display());
    let cases: [(&[&str], &str); 5] = [
        (&[&bad], "bad.json: version: it is missing"),
        (&["--fake-millis=5"], "--fake…: given with --backend plonky2"),
        (&["--plugin=/bin/true"], "--plugin: given with --backend plonky2"),
        (&["--backend=fake", "--store=https://example.org"], "--store: `https://example.org`"),
        (&["--backend=fake", "--fake-millis=x"], "--fake-millis"),
    ];
    for (args, expected) in cases {
        let (code, stdout, stderr) = run(prove(&out, args));
        let errors: Vec<&str> = stderr.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(errors.len(), 1, "{args:?}: {stderr}");
        assert!(errors[0].contains(expected), "{args:?}: {stderr}");
        assert_eq!(code, 2, "{args:?}: {stderr}");
        assert_eq!(stdout, "");
    }
}

#[test]
fn an_error_of_an_earlier_run_is_not_this_runs() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("out");
    let (code, _, stderr) = run(fake(&out, &["--transactions=2", "--calls=0", "--fake-faults=foo=3"]));
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("foo"), "{stderr}");
    let (code, _, stderr) = run(fake(&out, &["--transactions=2", "--calls=0", "--fake-bytes-file=x"]));
    assert_eq!(code, 2, "{stderr}");
    let block = folder.path().join("block.json");
    let mut new = arborist();
    new.args(["block", "new", "--transactions=1", "--calls=0", "--out"]).arg(&block);
    assert_eq!(run(new).0, 0);
    let block = format!("--block={}", block.display());
    let (code, _, stderr) = run(prove(&out, &["--backend=process", "--plugin=/nope", &block]));
    assert_eq!(code, 2, "{stderr}");
    let last = stderr.lines().last().unwrap();
    assert!(last.contains("/nope") && !stderr.contains("foo"), "{stderr}");
}

#[test]
fn progress_says_how_long_it_took_and_will_take_once_that_is_known() {
    let folder = TempDir::new().unwrap();
    let args = ["--transactions=8", "--calls=1", "--fake-millis=100", "--workers=1"];
    let (code, _, stderr) = run(fake(&folder.path().join("out"), &args));
    assert_eq!(code, 0, "{stderr}");
    let lines: Vec<&str> = stderr.lines().filter(|line| line.starts_with("vm ")).collect();
    assert!(lines[0].ends_with(" s, time left not known yet"), "{stderr}");
    assert!(lines.iter().skip(1).any(|line| line.contains(" s, about ")), "{stderr}");
    assert!(lines.last().unwrap().ends_with("about 0 s left"), "{stderr}");
}
