use super::*;
use arborist_core::backend::{Child, ProveRequest};
use arborist_core::ids::TaskId;

fn job(task: u32, fence: u64) -> Job {
    let mut id = [0; 32];
    id[..4].copy_from_slice(&task.to_le_bytes());
    let child = fake_proof::prove(Circuit::Base, &[1], &[], &[], 100);
    Job {
        request: ProveRequest {
            circuit: Circuit::Merge { height: 1 },
            public_inputs: vec![7, 8],
            inputs: vec![],
            children: vec![Child { circuit: Circuit::Base, proof: child }; 2],
            threads: 1,
            cancel: Cancel::default(),
        },
        task: TaskId(id),
        fence,
        seed: 1,
        memory_mib: 0,
        limit: None,
    }
}

fn with(faults: &str) -> Fake {
    Fake::new(FakeProfile { faults: faults.parse().unwrap(), ..Default::default() })
}

#[test]
fn a_proof_verifies_and_states_what_was_asked() {
    let fake = Fake::default();
    let made = fake.prove(&job(1, 1)).unwrap();
    assert_eq!(made.proof.public_inputs, [7, 8]);
    assert_eq!(made.proof.bytes.len(), 1_000);
    assert_eq!(fake.verify(Circuit::Merge { height: 1 }, &made.proof, &Cancel::default()), Ok(()));
    assert_eq!(made.proof, fake.prove(&job(1, 2)).unwrap().proof, "whichever attempt");
}

#[test]
fn faults_happen_as_often_as_the_profile_says() {
    let fake = with("error=100,hang=50,oom=50,wrong=100,oversize=100,slow=100");
    let mut counts = BTreeMap::new();
    for n in 0..4_000 {
        *counts.entry(format!("{:?}", fake.fate(&job(n, 1)))).or_insert(0) += 1;
    }
    for (fate, per_mille) in
        [("Error", 100), ("Hang", 50), ("OutOfMemory", 50), ("Wrong", 100), ("Oversize", 100), ("Slow", 100)]
    {
        let wanted = 4 * per_mille;
        assert!((wanted - 80..=wanted + 80).contains(&counts[fate]), "{fate}: {} of {wanted}", counts[fate]);
    }
}

#[test]
fn a_retry_may_fare_better_but_poison_stays() {
    let faulty = with("error=500");
    assert!((0..50).any(|n| faulty.fate(&job(n, 1)) != faulty.fate(&job(n, 2))));
    let poison = with("poison=500");
    assert!((0..50).all(|n| (2..9).all(|fence| poison.fate(&job(n, fence)) == poison.fate(&job(n, 1)))));
    assert!((0..50).any(|n| poison.fate(&job(n, 1)) == Fate::Error));
    assert!((0..50).any(|n| poison.fate(&job(n, 1)) == Fate::Fine));
}

#[test]
fn each_fault_shows_as_it_should() {
    assert!(matches!(with("error=1000").prove(&job(1, 1)), Err(ProveError::Failed(_))));
    assert_eq!(with("oom=1000").prove(&job(1, 1)).unwrap_err(), ProveError::OutOfMemory);
    let wrong = with("wrong=1000");
    let proof = wrong.prove(&job(1, 1)).unwrap().proof;
    assert!(wrong.verify(Circuit::Merge { height: 1 }, &proof, &Cancel::default()).is_err());
    let large = with("oversize=1000").prove(&job(1, 1)).unwrap().proof;
    assert_eq!(large.bytes.len(), 32_769);
    let hanging = job(1, 1);
    hanging.request.cancel.cancel();
    assert_eq!(with("hang=1000").prove(&hanging).unwrap_err(), ProveError::Cancelled);
}

#[test]
fn delays_have_the_wanted_mean_and_factors() {
    let profile = FakeProfile { millis: "merge=100".parse().unwrap(), sigma: 0.5, ..Default::default() };
    let mean = |profile: &FakeProfile, fate| {
        let fake = Fake::new(profile.clone());
        (0..4_000).map(|n| fake.delay(&job(n, 1), fate).as_secs_f64() * 1_000.0).sum::<f64>() / 4_000.0
    };
    let plain = mean(&profile, Fate::Fine);
    assert!((95.0..105.0).contains(&plain), "{plain} ms");
    assert!((mean(&profile, Fate::Slow) / plain - 8.0).abs() < 0.01);
    let slow_machine = FakeProfile { time_factor: 3.0, ..profile.clone() };
    assert!((mean(&slow_machine, Fate::Fine) / plain - 3.0).abs() < 0.01);
    let other_kind = FakeProfile { millis: "vm=100".parse().unwrap(), ..profile };
    assert_eq!(mean(&other_kind, Fate::Fine), 0.0);
}

#[test]
fn profiles_are_read_from_json_and_command_line() {
    let json = r#"{"millis":{"vm":30,"root":5},"proof_bytes":200,"faults":{"slow":10},"slow_factor":4}"#;
    let profile: FakeProfile = serde_json::from_str(json).unwrap();
    assert_eq!((profile.millis.get(Kind::Vm), profile.millis.get(Kind::Merge)), (30, 0));
    assert_eq!((profile.proof_bytes.get(Kind::Merge), profile.faults.slow), (200, 10));
    assert_eq!("vm=30,root=5".parse(), Ok(profile.millis));
    for bad in ["", "vm", "vm=x", "tree=1", "-1"] {
        assert!(bad.parse::<PerKind>().is_err(), "{bad}");
    }
    assert!("explode=1".parse::<Faults>().is_err());
    assert!(serde_json::from_str::<FakeProfile>(r#"{"milis":1}"#).is_err());
}
