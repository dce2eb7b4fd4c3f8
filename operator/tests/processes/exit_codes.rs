//! Exit codes of all commands, as docs/run.md lists them; completions and man pages.

use crate::kit::{arborist, worker_program};
use crate::prove::run;
use std::process::Command;
use tempfile::TempDir;

fn with(mut command: Command, args: &[&str]) -> Command {
    command.args(args);
    command
}

#[test]
fn wrong_usage_is_exit_code_2_and_says_what_is_wrong() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("file"), "x").unwrap();
    let (out, file, missing) = (format!("--out={}", path("out")), path("file"), path("missing"));
    let state = format!("--state={}", path("state"));
    let file_state = format!("--state={file}");
    let cases: &[(&[&str], &str)] = &[
        (&[], "Usage"),
        (&["nonsense"], "nonsense"),
        (&["prove", &out, "--workers=0"], "--workers"),
        (&["prove", &out, "--deadline=0s"], "--deadline"),
        (&["prove", &out, "--deadline=99999999h"], "--deadline"),
        (&["prove", &out, "--prover=Bj\u{f6}rn"], "printable ASCII"),
        (&["prove", &out, "--prover=0x12"], "64 hexadecimal"),
        (&["prove", &out, "--backend=process"], "--plugin"),
        (&["prove", &out, "--backend=fake", "--transactions=65537"], "--transactions"),
        (&["prove", &out, "--backend=fake", "--fake-millis=x"], "--fake-millis"),
        (&["prove", &out, "--backend=fake", "--fake-faults=foo=3"], "foo"),
        (&["prove", &out, "--backend=fake", "--store=nonsense"], "--store"),
        (&["prove", &out, "--backend=fake", &file_state], "file"),
        (&["prove", &format!("--out={file}/x"), "--backend=fake"], "file"),
        (&["prove", &out, "--block", &missing], "missing"),
        (&["prove", &out, "--block", &file], "file"),
        (&["run"], "--state"),
        (&["run", &file_state], "file"),
        (&["run", &state, "--store=https://example.org"], "--store"),
        (&["run", &state, "--block", &file], "file"),
        (&["run", &state, "--lease=x"], "--lease"),
        (&["run", &state, "--prover=\u{1b}[2J"], "printable ASCII"),
        (&["verify"], "FOLDER"),
        (&["verify", &missing], "public.json"),
        (&["block", "check", &missing], "missing"),
        (&["block", "new", "--calls=8"], "--calls"),
        (&["crds", "--check", &missing], "missing"),
        (&["healthcheck", "https://127.0.0.1/"], "http://"),
        (&["completions", "tcsh"], "tcsh"),
    ];
    for (args, expected) in cases {
        let (code, stdout, stderr) = run(with(arborist(), args));
        assert_eq!((code, stdout.as_str()), (2, ""), "{args:?}: {stderr}");
        assert!(stderr.contains(expected), "{args:?}: {stderr}");
        assert!(!stderr.contains('\u{1b}'), "{args:?}: {stderr}");
    }
    let worker: &[&[&str]] = &[
        &["--nonsense"],
        &["--backend=fake"],
        &["--backend=fake", "--fake-millis=x"],
        &["--backend=process"],
        &["--backend=process", "--plugin=/nope", "--connect=127.0.0.1:1", "--ca-cert=x", "--token-file=x"],
        &["verify", "--circuit=nonsense", "--object=x"],
        &["completions", "tcsh"],
    ];
    for args in worker {
        let (code, stdout, stderr) = run(with(worker_program(), args));
        assert_eq!((code, stdout.as_str()), (2, ""), "{args:?}: {stderr}");
    }
}

#[test]
fn what_fails_though_it_was_asked_rightly_is_exit_code_1() {
    let folder = TempDir::new().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let state = format!("--state={}", folder.path().join("state").display());
    for args in [
        &["run", &state, "--listen", &taken][..],
        &["run", &state, "--listen=127.0.0.1:0", "--http", &taken],
        &["healthcheck", "http://127.0.0.1:1/"],
    ] {
        let (code, _, stderr) = run(with(arborist(), args));
        assert_eq!(code, 1, "{args:?}: {stderr}");
        assert_eq!(
            stderr.lines().filter(|line| line.starts_with("error: ")).count(),
            1,
            "{args:?}: {stderr}"
        );
    }
}

#[test]
fn completions_and_man_pages_know_every_command_and_option() {
    for shell in ["bash", "zsh", "fish"] {
        for (program, parts) in
            [(arborist(), ["prove", "--fake-millis"]), (worker_program(), ["verify", "--grace"])]
        {
            let (code, stdout, stderr) = run(with(program, &["completions", shell]));
            assert_eq!((code, stderr.as_str()), (0, ""), "{shell}");
            for part in parts {
                // fish names options without their dashes
                assert!(stdout.contains(part.trim_start_matches('-')), "{shell}: {part}");
            }
        }
    }
    let (_, script, _) = run(with(arborist(), &["completions", "bash"]));
    let mut bash = Command::new("bash");
    bash.args(["-n", "-c", &script]);
    assert_eq!(run(bash).0, 0, "bash can't read it");
    let folder = TempDir::new().unwrap();
    let dir = folder.path().to_str().unwrap();
    for (program, page, part) in [
        (arborist as fn() -> Command, "arborist-prove.1", "fake"),
        (worker_program, "arborist-worker-verify.1", "circuit"),
    ] {
        let (code, stdout, stderr) = run(with(program(), &["man"]));
        assert_eq!((code, stderr.as_str()), (0, ""));
        assert!(stdout.contains(".TH") && stdout.contains("Exit codes"), "{stdout}");
        assert_eq!(run(with(program(), &["man", "--dir", dir])).0, 0);
        let text = std::fs::read_to_string(folder.path().join(page)).unwrap();
        assert!(text.contains(".TH") && text.contains(part), "{page}");
    }
}
