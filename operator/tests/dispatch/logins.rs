//! Who gets in.

use crate::lab::{Lab, block, until};
use crate::worker::{Worker, hello, task};
use arborist_core::wire::{FromWorker, Held, Hello};
use arborist_operator::tls::Authority;
use std::sync::Arc;
use std::time::Duration;

#[test]
fn logins_that_do_not_fit_are_refused_and_say_why() {
    type Spoil = fn(&mut Hello);
    let lab = Lab::new();
    let cases: [(Spoil, &str, &str); 5] = [
        (|h| h.token = "wrong".into(), "token", "the token is wrong"),
        (|h| h.protocol = 99, "protocol", "speaks protocol 99, this dispatcher"),
        (|h| h.backend = "plonky2".into(), "backend", "wants `fake`"),
        (|h| h.circuits = "other".into(), "circuits", "wants `test-v1`"),
        (|h| h.worker = "no name\n".into(), "hello", "printable"),
    ];
    for (spoil, cause, text) in cases {
        let mut bad = hello("w");
        spoil(&mut bad);
        let mut worker = Worker::connect(&lab.dispatcher);
        worker.send(FromWorker { hello: Some(bad), ..Default::default() });
        let refused = worker.next().refused.expect("a refusal");
        assert!(refused.text.contains(text) && refused.permanent, "{refused:?}");
        assert!(worker.is_closed());
        assert_eq!(lab.metric(&format!("arborist_logins_refused_total{{cause=\"{cause}\"}}")), 1);
    }
    assert_eq!(lab.metric("arborist_workers_connected"), 0);
}

#[test]
fn who_does_not_speak_the_protocol_is_disconnected() {
    let lab = Lab::tuned(|o| o.max_frame = 100_000);
    let too_large_hello = (65u32 << 10).to_be_bytes();
    let heartbeat = FromWorker { heartbeat: Some(Default::default()), ..Default::default() };
    let mut no_hello = bytes::BytesMut::new();
    arborist_core::wire::put_frame(&heartbeat, &mut no_hello);
    for bytes in [&too_large_hello[..], &no_hello[..], &[0, 0, 0, 2, 0xff, 0xff][..]] {
        let mut worker = Worker::connect(&lab.dispatcher);
        worker.send_bytes(bytes);
        assert!(worker.is_closed(), "{bytes:?}");
    }
    let mut worker = Worker::login(&lab.dispatcher, hello("w"));
    worker.send_bytes(&100_001u32.to_be_bytes());
    assert!(worker.is_closed());
    assert_eq!(lab.metric("arborist_connections_ended_total{cause=\"oversize_frame\"}"), 2);
    assert_eq!(lab.metric("arborist_connections_ended_total{cause=\"protocol\"}"), 2);
    until("no worker is left", || (lab.metric("arborist_workers_connected") == 0).then_some(()));
}

#[test]
fn who_only_connects_is_disconnected() {
    let lab = Lab::tuned(|o| o.login_timeout = Duration::from_millis(50));
    // neither of them says hello: one not even in TLS
    let plain = std::net::TcpStream::connect(lab.dispatcher.address()).unwrap();
    let mut silent = Worker::connect(&lab.dispatcher);
    assert!(silent.is_closed());
    until("both are gone", || {
        (lab.metric("arborist_connections_ended_total{cause=\"login_timeout\"}") == 2).then_some(())
    });
    drop(plain);
}

#[test]
fn a_silent_worker_is_disconnected_and_its_lease_returns() {
    let lab = Lab::tuned(|o| o.lease = Duration::from_secs(1));
    lab.submit(block(1));
    let mut silent = Worker::login(&lab.dispatcher, hello("silent"));
    let lost = silent.leases(1).remove(0);
    assert!(silent.is_closed());
    let mut other = Worker::login(&lab.dispatcher, hello("other"));
    let again = other.leases(1).remove(0);
    assert_eq!(task(&again), task(&lost));
    assert!(again.fence > lost.fence);
    until("it is counted", || (lab.metric("arborist_leases_lost_total") == 1).then_some(()));
}

#[test]
fn a_worker_that_comes_back_ends_its_first_connection_and_adopts_what_it_holds() {
    let lab = Lab::new();
    let job = lab.submit(block(1));
    let mut first = Worker::login(&lab.dispatcher, hello("w"));
    let lease = first.leases(1).remove(0);
    let held =
        Held { task: lease.task.clone(), fence: lease.fence, running_millis: 5, mac: lease.mac.clone() };
    let mut second = Worker::login(&lab.dispatcher, Hello { held: vec![held], ..hello("w") });
    let told = first.next();
    assert!(told.refused.is_some_and(|r| r.text.contains("logged in anew") && !r.permanent));
    assert!(first.is_closed());
    second.prove(&lab, &lease);
    second.report(&lease);
    let next = second.leases(1);
    assert_ne!(task(&next[0]), task(&lease), "the adopted lease counts");
    let counts = lab.dispatcher.job(job).unwrap().counts;
    assert_eq!(counts.iter().map(|c| c.done).sum::<u32>(), 1);
    until("one worker is left", || (lab.metric("arborist_workers_connected") == 1).then_some(()));
}

#[test]
fn another_process_gets_a_name_only_when_the_first_is_gone() {
    let lab = Lab::new();
    lab.submit(block(1));
    let of = |instance: u8| Hello { instance: vec![instance; 16], ..hello("w") };
    let mut first = Worker::login(&lab.dispatcher, of(1));
    let lease = first.leases(1).remove(0);
    for _ in 0..3 {
        let mut second = Worker::connect(&lab.dispatcher);
        second.send(FromWorker { hello: Some(of(2)), ..Default::default() });
        let refused = second.next().refused.expect("a refusal");
        assert!(refused.text.contains("in use by another live worker") && !refused.permanent, "{refused:?}");
        assert!(second.is_closed());
    }
    assert_eq!(lab.metric("arborist_logins_refused_total{cause=\"name-in-use\"}"), 3);
    first.prove(&lab, &lease);
    first.report(&lease);
    first.acknowledged();
    drop(first);
    until("its place is free", || (lab.metric("arborist_workers_connected") == 0).then_some(()));
    let _second = Worker::login(&lab.dispatcher, of(2));
}

#[test]
fn every_heartbeat_is_answered() {
    let lab = Lab::new();
    let mut worker = Worker::login(&lab.dispatcher, hello("w"));
    for _ in 0..3 {
        worker.send(FromWorker { heartbeat: Some(Default::default()), ..Default::default() });
        assert!(worker.next().heard);
    }
}

#[test]
fn the_authority_is_replaced_while_workers_work() {
    let [old, new] = [30, 60].map(|days| Authority::generate(days).unwrap());
    let authority = Arc::new(Authority::from_pem(&old.0, &old.1).unwrap());
    let given = authority.clone();
    let lab = Lab::tuned(move |o| o.authority = Some(given.clone()));
    lab.submit(block(3));
    let mut before = Worker::login(&lab.dispatcher, hello("before"));
    authority.replace(&new.0, &new.1).unwrap();
    assert_eq!(before.leases(1).len(), 1, "it stays connected");
    let mut old_trust = Worker::connect_trusting(&lab.dispatcher, &old.0);
    old_trust.send(FromWorker { hello: Some(hello("old")), ..Default::default() });
    assert!(old_trust.is_closed());
    for (name, trusted) in [("new", new.0.clone()), ("both", old.0 + &new.0)] {
        let mut worker = Worker::connect_trusting(&lab.dispatcher, &trusted).log_in(hello(name));
        assert_eq!(worker.leases(1).len(), 1, "{name}");
    }
    assert_eq!(lab.dispatcher.ca_pem(), new.0);
}
