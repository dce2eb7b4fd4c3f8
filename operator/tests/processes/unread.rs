//! Readers of standard output and standard error that are gone or asleep: nothing ends, nothing waits.

use crate::kit::{Lab, OperatorOptions, Reader, arborist, wait_for};
use std::io::PipeWriter;
use std::process::{Command, Output, Stdio};

/// The writing end of a pipe that nobody reads any more.
fn closed() -> PipeWriter {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer
}

fn run(args: &[&str], spoil: impl Fn(&mut Command)) -> Output {
    let mut command = arborist();
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    spoil(&mut command);
    command.output().unwrap()
}

#[test]
fn a_closed_output_changes_no_outcome() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (block, out, nothing) = (path("block.json"), path("out"), path("nothing"));
    let cases: [(&[&str], i32); 6] = [
        (&["crds"], 0),
        (&["block", "schema"], 0),
        (&["block", "new", "--transactions=2", "--calls=1", "--out", &block], 0),
        (&["block", "check", &block], 0),
        (&["prove", "--backend=fake", "--transactions=2", "--calls=0", "--out", &out], 0),
        (&["verify", &nothing], 2),
    ];
    for (args, code) in cases {
        for both in [false, true] {
            let output = run(args, |command| {
                command.stdout(closed());
                if both {
                    command.stderr(closed());
                }
            });
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(code), "{args:?}, both closed: {both}: {said}");
            assert!(!said.contains("panicked"), "{args:?}: {said}");
        }
    }
}

#[test]
fn an_output_that_is_lost_on_a_full_disk_is_a_failure() {
    let full = || std::fs::File::options().write(true).open("/dev/full").unwrap();
    let output = run(&["crds"], |command| _ = command.stdout(full()));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("standard output"), "{said}");
}

#[test]
fn logs_that_nobody_reads_end_nothing() {
    for reader in [Reader::Gone, Reader::Asleep] {
        let env = vec![("RUST_LOG".to_owned(), "trace".to_owned())];
        let lab = Lab::start(OperatorOptions { env, reader: Some(reader), ..Default::default() });
        let worker = lab.worker_unread("a", reader, &["--fake-millis=5"]);
        let job = lab.submit(8, &[2], 1);
        lab.wait_complete(job);
        // a thread that had ended or slept would serve nobody any more
        worker.kill();
        wait_for(
            "its end is seen",
            || format!("{reader:?}"),
            || lab.metric("arborist_workers_connected").filter(|n| *n == 0.0),
        );
        let _other = lab.worker_unread("b", reader, &[]);
        let job = lab.submit(8, &[2], 2);
        lab.wait_complete(job);
    }
}
