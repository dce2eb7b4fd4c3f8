use crate::support::*;
use arborist_core::circuit::Circuit;
use arborist_core::wire::PROTOCOL;

#[test]
fn a_worker_says_who_it_is_and_what_it_has() {
    let dispatcher = Dispatcher::start();
    let _worker = dispatcher.fake_worker(&["--prefetch", "3"]);
    let hello = dispatcher.hello();
    assert_eq!((hello.protocol, hello.token.as_str()), (PROTOCOL, TOKEN));
    assert_eq!((hello.worker.as_str(), hello.node.as_str()), ("w1", "n1"));
    assert_eq!((hello.cores, hello.memory_mib, hello.prefetch), (2, 4096, 3));
    assert_eq!((hello.backend.as_str(), hello.circuits.as_str()), ("fake", "mini-rollup-v1"));
    assert_eq!(hello.maker_key.len(), 32);
    assert!(hello.held.is_empty() && !hello.version.is_empty());
    assert_eq!(hello.kinds, 0, "all");
}

#[test]
fn a_worker_says_which_kinds_it_takes() {
    let dispatcher = Dispatcher::start();
    let _worker = dispatcher.fake_worker(&["--kinds", "kernel,root"]);
    assert_eq!(dispatcher.hello().kinds, 0b10010);
    let (code, text) = dispatcher.fake_worker(&["--kinds", "kernel,tree"]).end();
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("`tree` is no kind of proof"), "{text}");
}

#[test]
fn a_wrong_token_ends_it_with_code_3_and_the_message() {
    let dispatcher = Dispatcher::start();
    std::fs::write(dispatcher.dir.path().join("token"), "wrong").unwrap();
    let (code, text) = dispatcher.fake_worker(&[]).end();
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("unknown token"), "{text}");
}

#[test]
fn an_unknown_protocol_is_refused_by_either_side() {
    let dispatcher = Dispatcher::start();
    dispatcher.answer(Answer::Refuse { text: "protocol 1 is not spoken here, only 7", permanent: true });
    let (code, text) = dispatcher.fake_worker(&[]).end();
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("only 7"), "{text}");
    dispatcher.answer(Answer::Welcome { protocol: 7 });
    let (code, text) = dispatcher.fake_worker(&[]).end();
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("speaks protocol 7, this worker 1"), "{text}");
}

#[test]
fn a_refusal_that_may_pass_is_tried_again_with_the_token_of_then() {
    let dispatcher = Dispatcher::start();
    dispatcher.answer(Answer::Refuse { text: "not the leader", permanent: false });
    std::fs::write(dispatcher.dir.path().join("token"), "wrong").unwrap();
    let _worker = dispatcher.fake_worker(&[]);
    assert_eq!(dispatcher.hello().token, "wrong");
    assert_eq!(dispatcher.hello().token, "wrong");
    std::fs::write(dispatcher.dir.path().join("token"), TOKEN).unwrap();
    dispatcher.answer(Answer::ByToken);
    dispatcher.wait("the new token", |seen| match seen {
        Seen::Hello(hello) => (hello.token == TOKEN).then_some(()),
        _ => None,
    });
    dispatcher.frame("a heartbeat", |frame| frame.heartbeat.clone());
}

#[test]
fn another_ca_is_not_trusted_until_the_file_has_the_right_one() {
    let dispatcher = Dispatcher::start();
    let ca = dispatcher.dir.path().join("ca.pem");
    let right = std::fs::read(&ca).unwrap();
    let other = rcgen::generate_simple_self_signed(["arborist-dispatcher".to_owned()]).unwrap();
    std::fs::write(&ca, other.cert.pem()).unwrap();
    let _worker = dispatcher.fake_worker(&[]);
    for _ in 0..2 {
        dispatcher.wait("a hang-up", |seen| match seen {
            Seen::Closed => Some(()),
            Seen::Hello(_) | Seen::Frame(_) => panic!("the worker trusted a foreign certificate"),
        });
    }
    std::fs::write(&ca, right).unwrap();
    dispatcher.hello();
}

#[test]
fn another_server_name_is_not_trusted() {
    let dispatcher = Dispatcher::start();
    let _worker = dispatcher.fake_worker(&["--server-name", "somebody-else"]);
    dispatcher.wait("a hang-up", |seen| match seen {
        Seen::Closed => Some(()),
        Seen::Hello(_) | Seen::Frame(_) => panic!("the worker trusted another name"),
    });
}

#[test]
fn wrong_usage_is_code_2() {
    let dispatcher = Dispatcher::start();
    for args in [
        &["--backend", "fake", "--cores", "0"][..],
        &["--backend", "nonsense"],
        &["--backend", "process"],
        &["--backend", "process", "--plugin", "/nowhere/plugin"],
        &["--backend", "fake", "--fake", "/nowhere/profile.json"],
    ] {
        let (code, text) = dispatcher.worker(args).end();
        assert_eq!(code, Some(2), "{args:?}: {text}");
    }
}

#[test]
fn a_dispatcher_that_answers_no_heartbeat_is_left_and_what_runs_goes_on() {
    let dispatcher = Dispatcher::start();
    let _worker = dispatcher.fake_worker(&["--fake-millis", "600000"]);
    let first = dispatcher.hello();
    dispatcher.lease([lease(7, Circuit::Base, task(7))]);
    assert_eq!(dispatcher.running(1), [7]);
    dispatcher.play_dead(true);
    let again = dispatcher.hello();
    dispatcher.play_dead(false);
    assert_eq!(again.held.iter().map(|held| held.fence).collect::<Vec<_>>(), [7], "it keeps what it runs");
    assert!(!first.instance.is_empty() && first.instance == again.instance, "it is the same process");
}
