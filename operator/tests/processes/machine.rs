//! What a worker finds out about the machine that it is on, and what it says of itself.

use crate::kit::{Lab, OperatorOptions, Process, wait_for, worker_program};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Control groups of this test's own, one in the other; removed when dropped.
struct Groups {
    outer: PathBuf,
    inner: PathBuf,
}

impl Groups {
    /// With this limit on the outer one; `None`, with the reason printed, where none can be made.
    fn new(limit_bytes: u64) -> Option<Self> {
        let name = format!("arborist-test-{}", std::process::id());
        let (mount, file) = match Path::new("/sys/fs/cgroup/memory").is_dir() {
            true => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            false => ("/sys/fs/cgroup", "memory.max"),
        };
        let outer = Path::new(mount).join(name);
        let groups = Self { inner: outer.join("inner"), outer };
        let made = std::fs::create_dir(&groups.outer)
            .and_then(|()| std::fs::write(groups.outer.join(file), limit_bytes.to_string()))
            .and_then(|()| std::fs::create_dir(&groups.inner));
        match made {
            Ok(()) => Some(groups),
            Err(error) => {
                println!("skipped, no control group can be made: {error}");
                None
            }
        }
    }

    /// The same command inside.
    fn within(&self, command: &Command) -> Command {
        let mut shell = Command::new("sh");
        let join = format!("echo $$ > {}/cgroup.procs && exec \"$0\" \"$@\"", self.inner.display());
        shell.args(["-c", &join]).arg(command.get_program()).args(command.get_args());
        shell
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        for group in [&self.inner, &self.outer] {
            // a group that is still in use, or was never made, stays as it is
            let _ = std::fs::remove_dir(group);
        }
    }
}

fn worker_command(lab: &Lab, more: &[&str]) -> Command {
    let mut command = worker_program();
    command
        .args(["--backend=fake", "--cores=1", "--connect", &lab.address, "--ca-cert"])
        .arg(lab.state().join("ca.pem"))
        .arg("--token-file")
        .arg(lab.state().join("worker-token"))
        .args(more);
    command
}

fn workers(lab: &Lab, count: usize) -> Vec<serde_json::Value> {
    wait_for(
        "the workers are connected",
        || lab.logs(),
        || lab.get("/workers")?["workers"].as_array().filter(|all| all.len() == count).cloned(),
    )
}

#[test]
fn the_memory_limit_of_an_outer_control_group_counts() {
    let Some(groups) = Groups::new(640 << 20) else { return };
    let lab = Lab::start(OperatorOptions::default());
    let command = groups.within(&worker_command(&lab, &["--name=limited"]));
    let worker = Process::spawn(command, lab.folder().join("worker-limited.log"));
    assert_eq!(workers(&lab, 1)[0]["memory_mib"], 640, "{}", worker.log());
    worker.kill();
}

#[test]
fn workers_without_a_name_have_different_ones() {
    let lab = Lab::start(OperatorOptions::default());
    let start = |n| {
        let command = worker_command(&lab, &["--memory-mib=1024"]);
        Process::spawn(command, lab.folder().join(format!("worker-{n}.log")))
    };
    let _running: Vec<_> = (0..3).map(start).collect();
    workers(&lab, 3);
}

#[test]
fn a_worker_says_that_it_goes_on_also_while_the_operator_is_away() {
    let mut lab = Lab::start(OperatorOptions::default());
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let worker = lab.worker("a", &[&format!("--health-address=[::]:{port}")]);
    let healthy = || crate::kit::text(&format!("127.0.0.1:{port}"), "/healthz").filter(|text| text == "ok\n");
    wait_for("it answers", || worker.log(), healthy);
    workers(&lab, 1);
    lab.kill_operator();
    wait_for("it notices", || worker.log(), || worker.log().contains("not connected").then_some(()));
    assert!(healthy().is_some(), "{}", worker.log());
}
