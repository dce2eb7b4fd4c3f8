use crate::support::*;
use arborist_core::circuit::Circuit;
use arborist_core::fake_proof;
use arborist_core::proof_object::ProofObject;
use arborist_core::wire::{self, Reason, ToWorker};

fn connected(args: &[&str]) -> (Dispatcher, Worker) {
    let dispatcher = Dispatcher::start();
    let worker = dispatcher.fake_worker(args);
    dispatcher.hello();
    (dispatcher, worker)
}

#[test]
fn a_lease_is_fetched_proven_stored_and_reported() {
    let (dispatcher, _worker) = connected(&["--fake-bytes", "2000"]);
    let input = dispatcher.put_input(b"a call");
    let vm = wire::Lease { inputs: vec![input.0.to_vec()], ..lease(1, Circuit::Vm, task(1)) };
    dispatcher.lease([vm]);
    let done = dispatcher.result(1).unwrap();
    assert_eq!((done.task, done.proof_bytes, done.found), (task(1).0.to_vec(), 2000, false));
    let object = ProofObject::open(&task(1), &dispatcher.stored(task(1)).unwrap()).unwrap();
    assert_eq!((object.circuit, object.maker.worker.as_str()), (Circuit::Vm, "w1"));
    assert_eq!(object.proof, fake_proof::prove(Circuit::Vm, &[1, 7], &[b"a call".to_vec()], &[], 2000));
}

#[test]
fn leases_that_come_in_one_piece_with_the_welcome_are_worked_off() {
    let dispatcher = Dispatcher::start();
    dispatcher.welcome_with(vec![lease(1, Circuit::Base, task(1))]);
    let _worker = dispatcher.fake_worker(&[]);
    dispatcher.result(1).unwrap();
}

#[test]
fn a_parent_is_proven_over_its_child() {
    let (dispatcher, _worker) = connected(&[]);
    let child = proof(KERNEL, &[5]);
    dispatcher.put_proof(task(1), &sealed(task(1), KERNEL, &child));
    dispatcher.lease([lease_over(2, task(2), task(1))]);
    assert!(!dispatcher.result(2).unwrap().found);
    let object = ProofObject::open(&task(2), &dispatcher.stored(task(2)).unwrap()).unwrap();
    assert_eq!(object.proof, fake_proof::prove(Circuit::Base, &[2, 7], &[], &[&child], 1000));
}

#[test]
fn a_proof_that_is_there_is_found_and_nothing_is_proven() {
    let (dispatcher, _worker) = connected(&["--fake-faults", "error=1000"]);
    dispatcher.put_proof(task(1), &sealed(task(1), Circuit::Base, &proof(Circuit::Base, &[1, 7])));
    dispatcher.lease([lease(1, Circuit::Base, task(1))]);
    let done = dispatcher.result(1).unwrap();
    assert_eq!((done.found, done.proof_bytes), (true, 500));
}

#[test]
fn garbage_under_the_own_key_names_the_task_itself() {
    let good = sealed(task(1), Circuit::Base, &proof(Circuit::Base, &[1, 7]));
    let other_statement = sealed(task(1), Circuit::Base, &proof(Circuit::Base, &[1, 8]));
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let objects = [b"garbage".to_vec(), good[..good.len() - 1].to_vec(), flipped, other_statement];
    for (n, object) in (1..).zip(objects) {
        let (dispatcher, _worker) = connected(&[]);
        dispatcher.put_proof(task(1), &object);
        dispatcher.lease([lease(1, Circuit::Base, task(1))]);
        let failed = dispatcher.failure(1);
        assert_eq!(reason(&failed), Reason::BadChild, "{n}: {}", failed.text);
        assert_eq!(failed.child, task(1).0, "{n}");
    }
}

#[test]
fn garbage_that_is_moved_aside_in_time_is_no_failure() {
    let (dispatcher, _worker) = connected(&[]);
    dispatcher.put_proof(task(1), b"garbage");
    dispatcher.lease([lease(1, Circuit::Base, task(1))]);
    dispatcher.frame("the lease taken", |frame| (frame.heartbeat.as_ref()?.fences == [1]).then_some(()));
    std::fs::remove_file(dispatcher.path(&format!("proofs/{}", task(1)))).unwrap();
    assert!(!dispatcher.result(1).unwrap().found);
}

#[test]
fn a_bad_child_is_named() {
    let (dispatcher, _worker) = connected(&[]);
    let good = proof(KERNEL, &[5]);
    let object = sealed(task(9), KERNEL, &good);
    let mut invalid = good.clone();
    invalid.bytes[100] ^= 1;
    let cases: [(&str, Vec<u8>); 7] = [
        ("truncated", object[..object.len() / 2].to_vec()),
        ("empty", vec![]),
        ("corrupted", object.iter().enumerate().map(|(i, b)| if i == 400 { b ^ 1 } else { *b }).collect()),
        ("of another task", sealed(task(8), KERNEL, &good)),
        ("of another circuit", sealed(task(9), Circuit::Base, &proof(Circuit::Base, &[5]))),
        ("of another statement", sealed(task(9), KERNEL, &proof(KERNEL, &[6]))),
        ("well sealed but not valid", sealed(task(9), KERNEL, &invalid)),
    ];
    for (fence, (what, object)) in (1..).zip(cases) {
        dispatcher.put_proof(task(9), &object);
        dispatcher.lease([lease_over(fence, task(fence as u8), task(9))]);
        let failed = dispatcher.failure(fence);
        assert_eq!(reason(&failed), Reason::BadChild, "{what}: {}", failed.text);
        assert_eq!(failed.child, task(9).0, "{what}");
        assert!(dispatcher.stored(task(fence as u8)).is_none(), "{what}");
    }
    dispatcher.lease([lease_over(50, task(50), task(51))]);
    let missing = dispatcher.failure(50);
    assert_eq!(
        (reason(&missing), &missing.child[..]),
        (Reason::MissingChild, &task(51).0[..]),
        "{}",
        missing.text
    );
}

#[test]
fn a_bad_input_is_no_childs_fault() {
    let (dispatcher, _worker) = connected(&[]);
    let input = dispatcher.put_input(b"a call");
    dispatcher.put_input(b"x");
    std::fs::write(dispatcher.path(&format!("inputs/{input}")), b"another call").unwrap();
    for (fence, hash) in [(1, input.0), (2, [3; 32])] {
        let vm = wire::Lease { inputs: vec![hash.to_vec()], ..lease(fence, Circuit::Vm, task(fence as u8)) };
        dispatcher.lease([vm]);
        let failed = dispatcher.failure(fence);
        assert_eq!((reason(&failed), failed.child.len()), (Reason::BadInput, 0), "{}", failed.text);
    }
}

#[test]
fn the_fake_backends_faults_have_their_reasons() {
    for (faults, expected) in [
        ("error=1000", Reason::Error),
        ("oom=1000", Reason::OutOfMemory),
        ("wrong=1000", Reason::BadProof),
        ("oversize=1000", Reason::Oversize),
        ("hang=1000", Reason::TimedOut),
    ] {
        let (dispatcher, _worker) = connected(&["--fake-faults", faults]);
        let limited = wire::Lease { limit_millis: 50, ..lease(1, Circuit::Base, task(1)) };
        let unlimited = lease(1, Circuit::Base, task(1));
        dispatcher.lease([if expected == Reason::TimedOut { limited } else { unlimited }]);
        let failed = dispatcher.failure(1);
        assert_eq!(reason(&failed), expected, "{faults}: {}", failed.text);
        assert!(dispatcher.stored(task(1)).is_none(), "{faults}");
    }
}

#[test]
fn a_lease_that_makes_no_sense_fails_and_the_worker_goes_on() {
    let (dispatcher, _worker) = connected(&[]);
    let good = lease(9, Circuit::Base, task(9));
    dispatcher.lease([
        wire::Lease { kind: 77, ..lease(1, Circuit::Base, task(1)) },
        wire::Lease { task: vec![1, 2], ..lease(2, Circuit::Base, task(2)) },
        wire::Lease { inputs: vec![vec![1]], ..lease(3, Circuit::Base, task(3)) },
        wire::Lease { param: 300, ..lease(4, Circuit::Base, task(4)) },
        good,
    ]);
    let mut failed = vec![];
    dispatcher.frame("all results", |frame| {
        failed.extend(frame.failed.iter().map(|f| (f.fence, reason(f))));
        (failed.len() == 4).then_some(())
    });
    failed.sort_unstable();
    assert_eq!(failed, [1, 2, 3, 4].map(|fence| (fence, Reason::Error)));
    until("the good one", || dispatcher.stored(task(9)).is_some());
}

#[test]
fn leases_beyond_the_capacity_wait_and_a_revoked_one_makes_room() {
    let (dispatcher, _worker) = connected(&["--fake-faults", "hang=1000"]);
    dispatcher.lease((1..=4).map(|fence| lease(fence, Circuit::Base, task(fence as u8))));
    dispatcher.frame("a heartbeat with all four", |frame| {
        (frame.heartbeat.as_ref()?.fences == [1, 2, 3, 4]).then_some(())
    });
    let first = dispatcher.running(2);
    dispatcher.send(ToWorker { revoked: first.clone(), ..Default::default() });
    until("the other two to run", || dispatcher.running(2).iter().all(|fence| !first.contains(fence)));
}

#[test]
fn heartbeats_go_on_while_every_core_proves() {
    let (dispatcher, _worker) = connected(&["--fake-faults", "hang=1000", "--prefetch", "4"]);
    dispatcher.lease((1..=6).map(|fence| lease(fence, Circuit::Base, task(fence as u8))));
    let mut beats = 0;
    dispatcher.frame("twenty heartbeats", |frame| {
        let fences = &frame.heartbeat.as_ref()?.fences;
        beats += usize::from(*fences == [1, 2, 3, 4, 5, 6]);
        (beats == 20).then_some(())
    });
}

#[test]
fn whoever_was_first_is_believed_if_its_proof_is_good() {
    let (dispatcher, _worker) = connected(&["--fake-millis", "2000", "--fake-sigma", "0"]);
    // put while the worker proves: its own create then finds the key taken
    for (fence, good) in [(1, true), (2, false)] {
        let (id, circuit) = (task(fence as u8), Circuit::Base);
        dispatcher.lease([lease(fence, circuit, id)]);
        assert_eq!(dispatcher.running(1), [fence]);
        let object =
            if good { sealed(id, circuit, &proof(circuit, &[fence, 7])) } else { b"garbage".to_vec() };
        dispatcher.put_proof(id, &object);
        match dispatcher.result(fence) {
            Ok(done) => assert!(good && done.found, "the proof is the other maker's"),
            Err(failed) => {
                assert!(!good, "{}", failed.text);
                assert_eq!((reason(&failed), &failed.child[..]), (Reason::BadChild, &id.0[..]));
            }
        }
        assert_eq!(dispatcher.stored(id).unwrap(), object, "nothing is overwritten");
    }
}
