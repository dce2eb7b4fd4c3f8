//! What is written on a machine is for its owner alone, and what a killed process leaves is removed by the next.

use crate::kit::{Process, arborist, wait_for, worker_program};
use crate::prove::{fake, run};
use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// The same command under the most generous umask.
fn with_open_umask(command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", "umask 000; exec \"$0\" \"$@\""]).arg(command.get_program()).args(command.get_args());
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell
}

/// Everything in a folder, itself included.
fn everything(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![folder.to_owned()];
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(everything(&entry.path())),
            false => found.push(entry.path()),
        }
    }
    found
}

fn assert_private(folder: &Path) {
    let found = everything(folder);
    assert!(found.len() > 10, "{found:?}");
    for path in found {
        let mode = path.metadata().unwrap().mode() & 0o777;
        assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", path.display());
    }
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn an_output_folder_is_its_owners_alone_whatever_the_umask() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("out");
    let command = fake(&out, &["--transactions=2", "--calls=1"]);
    let (code, _, stderr) = run(with_open_umask(&command));
    assert_eq!(code, 0, "{stderr}");
    assert_private(&out);
}

#[test]
fn folders_that_were_open_are_tightened_and_leftovers_of_a_killed_run_are_removed() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("out");
    let args = ["--transactions=2", "--calls=0"];
    assert_eq!(run(fake(&out, &args)).0, 0);
    for path in everything(&out) {
        set_mode(&path, if path.is_dir() { 0o777 } else { 0o666 });
    }
    let left = [
        "root.proof.unchecked",
        "state/store/proofs/ab#1",
        "state/worker-token.new-1-ab",
        "state/store/check/x",
    ];
    for name in left {
        let path = out.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "x").unwrap();
    }
    let (code, _, stderr) = run(fake(&out, &args));
    assert_eq!(code, 0, "{stderr}");
    for name in left {
        assert!(!out.join(name).exists(), "{name} stays");
    }
    for name in
        ["state", "state/store", "state/worker-token", "state/ca-key.pem", "logs", "logs/operator.log"]
    {
        let mode = out.join(name).metadata().unwrap().mode() & 0o777;
        assert_eq!(mode & 0o077, 0, "{name} has mode {mode:o}");
    }
}

#[test]
fn a_folder_of_others_is_refused_as_state_and_stays_as_it_is() {
    let folder = TempDir::new().unwrap();
    let shared = folder.path().join("shared");
    std::fs::create_dir(&shared).unwrap();
    std::fs::write(shared.join("thesis.tex"), "x").unwrap();
    set_mode(&shared, 0o755);
    let state = format!("--state={}", shared.display());
    let mut serve = arborist();
    serve.args(["run", &state, "--listen=127.0.0.1:0", "--http=127.0.0.1:0"]);
    for command in [fake(&folder.path().join("out"), &["--transactions=2", &state]), serve] {
        let (code, _, stderr) = run(command);
        assert_eq!(code, 2, "{stderr}");
        assert!(stderr.contains("shared: folder: open to others (mode 755)"), "{stderr}");
    }
    assert_eq!(shared.metadata().unwrap().mode() & 0o777, 0o755);
    assert_eq!(std::fs::read_dir(&shared).unwrap().count(), 1);
}

/// A worker with a plug-in, that tries to reach an operator that is not there.
fn lonely_worker(folder: &Path, name: &str) -> Process {
    let mut command = worker_program();
    let plugin = Path::new(command.get_program()).with_file_name("arborist-plugin-hash");
    std::fs::write(folder.join("token"), "0123456789abcdef").unwrap();
    command.args(["--backend=process", "--connect=127.0.0.1:1", "--name", name, "--plugin"]).arg(plugin);
    for (option, file) in [("--ca-cert", "token"), ("--token-file", "token"), ("--work-dir", "work")] {
        command.arg(option).arg(folder.join(file));
    }
    Process::spawn(with_open_umask(&command), folder.join(name))
}

fn scratch(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder.join("work")).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    found.sort();
    found
}

#[test]
fn job_folders_of_a_killed_worker_are_removed_and_those_of_a_living_one_stay() {
    let folder = TempDir::new().unwrap();
    let killed = lonely_worker(folder.path(), "killed");
    let one = wait_for("its folder is there", || killed.log(), || scratch(folder.path()).pop());
    assert_eq!(one.metadata().unwrap().mode() & 0o777, 0o700);
    std::fs::create_dir(one.join("job-1")).unwrap();
    std::fs::write(one.join("job-1/request.json"), "{}").unwrap();
    killed.kill();
    assert!(one.exists(), "nobody removes it at once");
    let living = lonely_worker(folder.path(), "living");
    let two = wait_for(
        "the dead one's folder is gone and its own is there",
        || living.log(),
        || match &scratch(folder.path())[..] {
            [two] if *two != one => Some(two.clone()),
            _ => None,
        },
    );
    let third = lonely_worker(folder.path(), "third");
    wait_for("both have one", || third.log(), || (scratch(folder.path()).len() == 2).then_some(()));
    assert!(two.exists(), "the living one's stays");
    third.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(third.wait_end("it leaves").code(), Some(0), "{}", third.log());
    assert_eq!(scratch(folder.path()), [two], "one that leaves takes its folder with it");
}
