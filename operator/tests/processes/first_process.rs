//! Both programs as the first process of a container: orphans are reaped, signals arrive, exit codes come out.

use crate::kit::{Lab, OperatorOptions, Process, arborist, wait_for, worker_program};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

/// How a command is started as the first process of a PID namespace; `None`, with the reason printed, where that is not
/// allowed.
fn namespace() -> Option<Vec<&'static str>> {
    let ways: [&[&str]; 2] = [
        &["--pid", "--fork", "--mount-proc"],
        &["--user", "--map-root-user", "--pid", "--fork", "--mount-proc"],
    ];
    let mut why = String::new();
    for way in ways {
        match Command::new("unshare").args(way).arg("true").output() {
            Ok(output) if output.status.success() => return Some(way.to_vec()),
            Ok(output) => why = String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            Err(error) => why = error.to_string(),
        }
    }
    println!("skipped, no PID namespace: {why}");
    None
}

/// The same command as the first process of a namespace.
fn first(command: &Command, way: &[&str]) -> Command {
    let mut inside = Command::new("unshare");
    inside.args(way).arg("--").arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        inside.env(name, value.unwrap_or_default());
    }
    inside
}

/// Children of a process: number, name, state.
fn children(parent: u32) -> Vec<(u32, String, String)> {
    let mut found = vec![];
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let Some((head, tail)) = stat.rsplit_once(')') else { continue };
        let Some((pid, name)) = head.split_once(" (") else { continue };
        let mut fields = tail.split_whitespace();
        let (Some(state), Some(ppid)) = (fields.next(), fields.next()) else { continue };
        if ppid == parent.to_string() {
            found.push((pid.parse().unwrap(), name.to_owned(), state.to_owned()));
        }
    }
    found
}

/// The namespace's first process, as it is known outside.
fn init_of(unshare: &Process) -> u32 {
    wait_for(
        "the first process runs",
        || unshare.log(),
        || children(unshare.id()).first().map(|(pid, ..)| *pid),
    )
}

fn terminate(init: u32) {
    kill(Pid::from_raw(init as i32), Signal::SIGTERM).expect("it can be signalled");
}

#[test]
fn a_worker_that_is_the_first_process_reaps_what_plugins_leave_behind() {
    let Some(way) = namespace() else { return };
    let lab = Lab::start(OperatorOptions::default());
    let folder = tempfile::TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let hash =
        worker_program().get_program().to_str().unwrap().replace("arborist-worker", "arborist-plugin-hash");
    // whoever leaves the group of the plug-in is not killed with it, and an orphan when it has ended; the plug-in does not
    // end before it has left. Numbers of processes come again in each namespace
    let script = format!(
        "#!/bin/sh\nleft=$0.$$.left\nrm -f $left\n\
         setsid sh -c \"touch $left; sleep 0.3; touch {}\" >/dev/null 2>&1 </dev/null &\n\
         until [ -e $left ]; do sleep 0.01; done\nexec {hash} \"$@\"\n",
        path("orphan-ended")
    );
    std::fs::write(path("plugin"), script).unwrap();
    std::fs::set_permissions(path("plugin"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let command = |address: &str| {
        let mut command = worker_program();
        command
            .args(["--backend=process", "--plugin", &path("plugin"), "--connect", address])
            .arg("--ca-cert")
            .arg(lab.state().join("ca.pem"))
            .arg("--token-file")
            .arg(lab.state().join("worker-token"))
            .env("RUST_LOG", "info");
        first(&command, &way)
    };
    // this operator takes another backend only: the worker ends by itself
    let refused = Process::spawn(command(&lab.address), folder.path().join("refused.log"));
    assert_eq!(refused.wait_end("the worker is refused").code(), Some(3), "{}", refused.log());

    std::fs::remove_file(path("orphan-ended")).ok();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let worker = Process::spawn(command(&nobody), folder.path().join("worker.log"));
    let init = init_of(&worker);
    let ended = || std::fs::exists(path("orphan-ended")).unwrap_or(false).then_some(());
    wait_for("the orphan has ended", || worker.log(), ended);
    let unreaped = || children(init).into_iter().filter(|(.., state)| state == "Z").collect::<Vec<_>>();
    wait_for(
        "it is reaped",
        || format!("{:?}\n{}", unreaped(), worker.log()),
        || unreaped().is_empty().then_some(()),
    );
    terminate(init);
    assert_eq!(worker.wait_end("the worker has drained").code(), Some(0), "{}", worker.log());
}

#[test]
fn an_operator_that_is_the_first_process_heeds_signals() {
    let Some(way) = namespace() else { return };
    let folder = tempfile::TempDir::new().unwrap();
    let ready = folder.path().join("ready.json");
    let mut command = arborist();
    command
        .args(["run", "--backend=fake", "--listen=127.0.0.1:0", "--http=127.0.0.1:0", "--state"])
        .arg(folder.path().join("state"))
        .arg("--ready-file")
        .arg(&ready);
    let operator = Process::spawn(first(&command, &way), folder.path().join("operator.log"));
    wait_for("it serves", || operator.log(), || ready.exists().then_some(()));
    terminate(init_of(&operator));
    assert_eq!(operator.wait_end("it has stopped").code(), Some(0), "{}", operator.log());
}
