use super::contract::{read_hash, read_keys, read_public_inputs, write_public_inputs};
use super::*;

fn run(script: &str, limits: &Limits<'_>) -> Ran {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    group::run(command, limits).unwrap()
}

fn unlimited(cancel: &Cancel) -> Limits<'_> {
    Limits { deadline: None, memory_mib: 0, cancel }
}

#[test]
fn ends_are_told_apart() {
    let cancel = Cancel::default();
    for (script, end) in [
        ("exit 0", End::Exited(0)),
        ("exit 7", End::Exited(7)),
        ("kill -KILL $$", End::OutOfMemory),
        ("exit 137", End::OutOfMemory),
        ("kill -TERM $$", End::Signalled(nix::sys::signal::Signal::SIGTERM)),
    ] {
        assert_eq!(run(script, &unlimited(&cancel)).end, end, "{script}");
    }
    let past = Limits { deadline: Some(Instant::now()), ..unlimited(&cancel) };
    assert_eq!(run("sleep 60", &past).end, End::TimedOut);
    cancel.cancel();
    assert_eq!(run("sleep 60", &unlimited(&cancel)).end, End::Cancelled);
}

#[test]
fn only_the_end_of_what_it_says_is_kept() {
    let cancel = Cancel::default();
    let script = "i=0; while [ $i -lt 2000 ]; do echo line $i >&2; i=$((i+1)); done; echo out; exit 3";
    let ran = run(script, &unlimited(&cancel));
    assert_eq!(ran.stderr.len(), 4 << 10);
    assert!(ran.describe().starts_with("exited with code 3: ") && ran.describe().ends_with("line 1999"));
    assert!(ran.describe().chars().count() < 1_000);
    assert_eq!(ran.stdout, b"out\n");
}

#[test]
fn its_input_stays_open_while_it_runs() {
    let cancel = Cancel::default();
    let deadline = Some(Instant::now() + Duration::from_millis(300));
    // `cat` would end by itself at the end of its input
    assert_eq!(run("cat", &Limits { deadline, ..unlimited(&cancel) }).end, End::TimedOut);
}

#[test]
fn cpu_time_counts_children_too() {
    let cancel = Cancel::default();
    let busy = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done";
    let ran = run(&format!("sh -c '{busy}'; exit 0"), &unlimited(&cancel));
    assert!(ran.cpu_millis > 0, "{ran:?}");
}

#[test]
fn large_public_inputs_keep_their_digits() {
    let inputs = [0, 7, u64::MAX];
    assert_eq!(read_public_inputs(&write_public_inputs(&inputs)), Ok(inputs.to_vec()));
    for bad in ["", "-1", "18446744073709551616", "0x1", "1.5"] {
        assert!(read_public_inputs(&[bad.to_owned()]).is_err(), "{bad}");
    }
    assert!(read_hash(&"0".repeat(63)).is_err() && read_hash(&"g".repeat(64)).is_err());
}

#[test]
fn key_files_are_read_and_nonsense_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("keys.json");
    let hash = "ab".repeat(32);
    let cases = [
        (format!(r#"{{"vm": "{hash}", "merge/3": "{hash}"}}"#), Ok(2)),
        (r#"{"vm": "abc"}"#.to_owned(), Err("vm: vk_hash")),
        (format!(r#"{{"tree": "{hash}"}}"#), Err("no circuit")),
        ("[]".to_owned(), Err("map")),
    ];
    for (json, expected) in cases {
        std::fs::write(&file, &json).unwrap();
        match (read_keys(&file), expected) {
            (Ok(keys), Ok(count)) => assert_eq!(keys.len(), count),
            (Err(error), Err(words)) => assert!(error.contains(words), "{error}"),
            (found, _) => panic!("{json}: {found:?}"),
        }
    }
}
