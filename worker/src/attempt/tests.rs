use super::*;
use crate::backend::Made;
use arborist_core::backend::VerifyError;
use arborist_core::fake_proof;
use std::sync::Mutex;

/// A backend that does what each test wants.
struct Scripted {
    makes: Mutex<Option<Result<Proof, ProveError>>>,
    verifies: Result<(), CheckError>,
}

impl Scripted {
    fn new(makes: Result<Proof, ProveError>) -> Self {
        Self { makes: Mutex::new(Some(makes)), verifies: Ok(()) }
    }
}

impl Prover for Scripted {
    fn name(&self) -> &'static str {
        "scripted"
    }

    fn circuits(&self) -> &str {
        "none"
    }

    fn max_proof_bytes(&self) -> usize {
        500
    }

    fn prove(&self, _: &Job) -> Result<Made, ProveError> {
        let made = self.makes.lock().unwrap().take().expect("asked once");
        made.map(|proof| Made { proof, usage: Usage { cpu_millis: 3, peak_mib: 4 } })
    }

    fn verify(&self, circuit: Circuit, proof: &Proof, _: &Cancel) -> Result<(), CheckError> {
        self.verifies.clone()?;
        Ok(fake_proof::verify(circuit, proof)?)
    }
}

fn identity() -> Identity {
    Identity { worker: "w".into(), node: "n".into(), key: SigningKey::from_bytes(&[1; 32]) }
}

fn expected(n: u8, circuit: Circuit, public_inputs: &[u64]) -> Expected {
    Expected { task: TaskId([n; 32]), circuit, public_inputs: public_inputs.to_vec() }
}

fn lease() -> Lease {
    Lease {
        fence: 9,
        expected: expected(1, Circuit::Base, &[5, 6]),
        inputs: vec![],
        children: vec![],
        needs: crate::slots::Share { cores: 2, memory_mib: 10 },
        limit: None,
        seed: 0,
    }
}

fn attempt(prover: &Scripted, lease: &Lease, children: Vec<Bytes>) -> Result<Sealed, Refusal> {
    prove(prover, &identity(), lease, Fetched { inputs: vec![], children }, &Cancel::default())
}

fn good(bytes: usize) -> Proof {
    fake_proof::prove(Circuit::Base, &[5, 6], &[], &[], bytes)
}

#[test]
fn a_good_proof_is_sealed_with_what_it_took() {
    let sealed = attempt(&Scripted::new(Ok(good(500))), &lease(), vec![]).unwrap();
    let done = &sealed.completed;
    assert_eq!(
        (done.fence, done.cpu_millis, done.peak_mib, done.proof_bytes, done.found),
        (9, 3, 4, 500, false)
    );
    let object = ProofObject::open(&TaskId([1; 32]), &sealed.object).unwrap();
    assert_eq!((object.proof, object.maker.node.as_str()), (good(500), "n"));
}

#[test]
fn what_the_backend_says_becomes_a_reason() {
    let circuit = Circuit::Vm;
    let child = |index| ProveError::BadChild { index, circuit, reason: "x".into() };
    let mut lease = lease();
    lease.children = vec![expected(2, circuit, &[])];
    let object = seal_other(2, circuit, &fake_proof::prove(circuit, &[], &[], &[], 100));
    for (error, reason, blamed) in [
        (ProveError::OutOfMemory, Reason::OutOfMemory, None),
        (ProveError::TimedOut(3), Reason::TimedOut, None),
        (ProveError::Failed("x".into()), Reason::Error, None),
        (ProveError::BadInput { index: 0, reason: "x".into() }, Reason::BadInput, None),
        (child(0), Reason::BadChild, Some(TaskId([2; 32]))),
        (child(7), Reason::Error, None),
    ] {
        let refusal = attempt(&Scripted::new(Err(error.clone())), &lease, vec![object.clone()]).unwrap_err();
        assert_eq!((refusal.reason, refusal.child), (reason, blamed), "{error}");
    }
}

fn seal_other(n: u8, circuit: Circuit, proof: &Proof) -> Bytes {
    let maker = Maker { worker: "o".into(), node: "o".into(), finished_unix_ms: 0, millis: 0, cpu_millis: 0 };
    ProofObject::seal(TaskId([n; 32]), circuit, proof, &maker, &SigningKey::from_bytes(&[2; 32])).into()
}

#[test]
fn a_proof_is_accepted_only_if_everything_about_it_fits() {
    let mut invalid = good(500);
    invalid.bytes[80] ^= 1;
    let other = fake_proof::prove(Circuit::Base, &[5, 7], &[], &[], 500);
    for (proof, reason) in
        [(good(501), Reason::Oversize), (invalid, Reason::BadProof), (other, Reason::BadProof)]
    {
        let refusal = attempt(&Scripted::new(Ok(proof)), &lease(), vec![]).unwrap_err();
        assert_eq!((refusal.reason, refusal.child), (reason, None), "{}", refusal.text);
    }
    let unable = Err(CheckError::Unable("no verifier".into()));
    let prover = Scripted { verifies: unable, ..Scripted::new(Ok(good(500))) };
    assert_eq!(attempt(&prover, &lease(), vec![]).unwrap_err().reason, Reason::Error);
}

#[test]
fn without_a_statement_any_public_inputs_are_taken() {
    let mut lease = lease();
    lease.expected.public_inputs.clear();
    assert!(attempt(&Scripted::new(Ok(good(500))), &lease, vec![]).is_ok());
}

#[test]
fn a_verifier_that_fails_blames_nobody() {
    let object = seal_other(2, Circuit::Vm, &fake_proof::prove(Circuit::Vm, &[], &[], &[], 100));
    let wanted = expected(2, Circuit::Vm, &[]);
    let with = |verifies| Scripted { verifies, ..Scripted::new(Ok(good(500))) };
    let bad = Err(CheckError::Bad(VerifyError::WrongKey { circuit: Circuit::Vm }));
    assert!(check(&with(bad), &wanted, &object, &Cancel::default()).unwrap().is_err());
    let unable = Err(CheckError::Unable("crashed".into()));
    assert_eq!(check(&with(unable), &wanted, &object, &Cancel::default()).unwrap_err().reason, Reason::Error);
    assert!(check(&with(Ok(())), &wanted, &object, &Cancel::default()).unwrap().is_ok());
}
