//! The backend: checks everything a proof depends on, then makes it.

use crate::base;
use crate::compile::{self, Targets};
use crate::field::{self, F, InnerProof, VerifierKey};
use crate::kernel;
use crate::keys::{KeyError, Keys};
use crate::layout::{KernelInputs, RangeInputs, RootInputs, VmInputs};
use crate::link::{self, Broken, Derived};
use crate::merge::{self, range_circuit, range_height};
use crate::pools;
use crate::private::PrivateProof;
use crate::root::RootParts;
use crate::verify::{self, MAX_PROOF_BYTES, one_line};
use crate::vm::{self, CheckedCall};
use arborist_core::backend::{Backend, Cancel, Proof, ProveError, ProveRequest, VerifyError};
use arborist_core::block::Call;
use arborist_core::circuit::Circuit;
use plonky2::field::types::Field;
use plonky2::iop::generator::generate_partial_witness;
use plonky2::iop::witness::PartialWitness;
use plonky2::plonk::prover::prove_with_partition_witness;
use plonky2::util::timing::TimingTree;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The embedded backend. Cheap to create; circuits are built at first use and shared by the whole process.
///
/// It looks at the cancel flag between its steps (children, building, witness, proof); the longest, the proof
/// itself, can't be interrupted and takes some 5 CPU seconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Plonky2;

impl Plonky2 {
    /// The backend.
    pub const fn new() -> Self {
        Self
    }
}

impl Backend for Plonky2 {
    fn name(&self) -> &'static str {
        "plonky2"
    }

    fn max_proof_bytes(&self) -> usize {
        MAX_PROOF_BYTES
    }

    fn prove(&self, request: &ProveRequest) -> Result<Proof, ProveError> {
        let pool = pools::take(request.threads).map_err(|e| ProveError::Failed(e.to_string()))?;
        let made = catch_unwind(AssertUnwindSafe(|| pool.run(|| prove_here(request))));
        made.unwrap_or_else(|panic| Err(ProveError::Failed(format!("panicked: {}", panic_text(&*panic)))))
    }

    fn verify(&self, circuit: Circuit, proof: &Proof) -> Result<(), VerifyError> {
        verify::open(circuit, proof).map(drop)
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
    text.chars().take(200).collect()
}

fn prove_here(request: &ProveRequest) -> Result<Proof, ProveError> {
    check_arity(request)?;
    let mut children = Vec::with_capacity(request.children.len());
    for (index, child) in request.children.iter().enumerate() {
        check_cancel(&request.cancel)?;
        children.push(verify::open(child.circuit, &child.proof).map_err(|e| ProveError::BadChild {
            index,
            circuit: child.circuit,
            reason: e.to_string(),
        })?);
    }
    let circuits: Vec<Circuit> = request.children.iter().map(|c| c.circuit).collect();
    let (job, derived) = plan(request, &children, &circuits)?;
    derived.check(&request.public_inputs)?;
    check_cancel(&request.cancel)?;
    let proof = run(request.circuit, &request.cancel, |targets, w| job.assign(targets, w))?;
    Ok(Proof {
        bytes: verify::encode(&proof),
        public_inputs: field::to_integers(&proof.public_inputs),
        vk_hash: Keys::pinned().hash(request.circuit).map_err(failed)?,
    })
}

/// Builds the circuit if need be, fills in the witness and proves, on the current thread pool.
pub(crate) fn run(
    circuit: Circuit,
    cancel: &Cancel,
    fill: impl FnOnce(&Targets, &mut PartialWitness<F>) -> anyhow::Result<()>,
) -> Result<InnerProof, ProveError> {
    let compiled = compile::compiled(circuit).map_err(failed)?;
    check_cancel(cancel)?;
    let (prover, common) = (&compiled.data.prover_only, &compiled.data.common);
    let mut witness = PartialWitness::new();
    fill(&compiled.targets, &mut witness).map_err(|e| ProveError::Failed(one_line(&e)))?;
    let witness = generate_partial_witness(witness, prover, common)
        .map_err(|e| ProveError::Failed(format!("the circuit refuses its witness: {}", one_line(&e))))?;
    check_cancel(cancel)?;
    prove_with_partition_witness(prover, common, witness, &mut TimingTree::default())
        .map_err(|e| ProveError::Failed(one_line(&e)))
}

fn failed(error: KeyError) -> ProveError {
    ProveError::Failed(error.to_string())
}

fn check_cancel(cancel: &Cancel) -> Result<(), ProveError> {
    if cancel.is_cancelled() { Err(ProveError::Cancelled) } else { Ok(()) }
}

/// Whether children and inputs are of the kinds that the circuit takes.
fn check_arity(request: &ProveRequest) -> Result<(), ProveError> {
    let range = |height: u8| vec![range_circuit(height)];
    let kernels = || (1..=kernel::MAX_CALLS).map(|position| Circuit::Kernel { position }).collect();
    let (children, inputs): (Vec<Vec<Circuit>>, usize) = match request.circuit {
        Circuit::Vm => (vec![], 1),
        Circuit::Kernel { position: 1 } => (vec![vec![Circuit::Vm]], 1),
        Circuit::Kernel { position: position @ 2..=kernel::MAX_CALLS } => {
            (vec![vec![Circuit::Kernel { position: position - 1 }], vec![Circuit::Vm]], 0)
        }
        Circuit::Base if request.children.is_empty() => (vec![], 1),
        Circuit::Base => (vec![kernels()], 0),
        Circuit::Root { height: 0 } => (vec![range(0)], 0),
        Circuit::Merge { height: height @ 1..=merge::MAX_HEIGHT }
        | Circuit::Root { height: height @ 1..=crate::root::MAX_HEIGHT } => {
            (vec![range(height - 1), (0..height).map(range_circuit).collect()], 0)
        }
        other => return Err(failed(KeyError::NoCircuit(other))),
    };
    if request.inputs.len() != inputs || request.children.len() != children.len() {
        return Err(ProveError::Failed(format!(
            "{} takes {} children and {inputs} inputs, there are {} and {}",
            request.circuit,
            children.len(),
            request.children.len(),
            request.inputs.len()
        )));
    }
    for (index, (child, allowed)) in request.children.iter().zip(&children).enumerate() {
        if !allowed.contains(&child.circuit) {
            let allowed: Vec<String> = allowed.iter().map(Circuit::to_string).collect();
            let reason = format!("{} takes here {}", request.circuit, allowed.join(" or "));
            return Err(ProveError::BadChild { index, circuit: child.circuit, reason });
        }
    }
    Ok(())
}

/// A witness, checked and ready to be filled in.
enum Job<'a> {
    Vm(CheckedCall),
    FirstKernel(Box<PrivateProof>, &'a InnerProof),
    Kernel(&'a InnerProof, &'a InnerProof),
    Base { kernel: &'a InnerProof, key: &'a VerifierKey },
    PrivateBase { kernel: Box<PrivateProof>, key: &'a VerifierKey, state: [F; 4] },
    Merge { left: &'a InnerProof, right: &'a InnerProof, right_height: u8, right_key: &'a VerifierKey },
    Root { parts: RootParts<'a>, bound: RootInputs<F> },
}

type Planned<'a> = Result<(Job<'a>, Derived<'a>), ProveError>;

fn plan<'a>(request: &'a ProveRequest, children: &'a [InnerProof], circuits: &'a [Circuit]) -> Planned<'a> {
    let circuit = request.circuit;
    let derived = |inputs: &[F], linked: Result<(), Broken>| Derived {
        circuit,
        inputs: field::to_integers(inputs),
        linked,
        origins: link::origins(circuit, circuits.is_empty()),
        children: circuits,
    };
    match (circuit, children) {
        (Circuit::Vm, []) => {
            let (call, inputs) = read_call(request)?;
            Ok((Job::Vm(call), derived(&inputs.to_vec(), Ok(()))))
        }
        (Circuit::Kernel { position }, [vm]) => {
            let private = read_private(request)?;
            let (inputs, linked) = kernel::join(
                &read(&private.proof, KernelInputs::read)?,
                &read(vm, VmInputs::read)?,
                position,
            );
            Ok((Job::FirstKernel(Box::new(private), vm), derived(&inputs.to_vec(), linked)))
        }
        (Circuit::Kernel { position }, [prev, vm]) => {
            let (inputs, linked) =
                kernel::join(&read(prev, KernelInputs::read)?, &read(vm, VmInputs::read)?, position);
            Ok((Job::Kernel(prev, vm), derived(&inputs.to_vec(), linked)))
        }
        (Circuit::Base, []) => {
            let kernel = Box::new(read_private(request)?);
            let state = asked(request, RangeInputs::read)?.before;
            let (inputs, linked) = base::of(&read(&kernel.proof, KernelInputs::read)?, state);
            let key = Keys::pinned().key(kernel::PRIVATE).map_err(failed)?;
            Ok((Job::PrivateBase { kernel, key, state }, derived(&inputs.to_vec(), linked)))
        }
        (Circuit::Base, [kernel]) => {
            let (inputs, linked) = base::of(&read(kernel, KernelInputs::read)?, [F::ZERO; 4]);
            let key = Keys::pinned().key(circuits[0]).map_err(failed)?;
            Ok((Job::Base { kernel, key }, derived(&inputs.to_vec(), linked)))
        }
        (Circuit::Merge { height }, [left, right]) => {
            let (inputs, linked) =
                merge::join(&read(left, RangeInputs::read)?, &read(right, RangeInputs::read)?, height);
            let (right_height, right_key) = right_part(circuits[1])?;
            Ok((Job::Merge { left, right, right_height, right_key }, derived(&inputs.to_vec(), linked)))
        }
        (Circuit::Root { height }, _) => {
            let mut bound = asked(request, RootInputs::read)?;
            let (parts, (range, linked)) = root_parts(height, children, circuits)?;
            bound.range = range;
            Ok((Job::Root { parts, bound }, derived(&bound.to_vec(), linked)))
        }
        _ => Err(failed(KeyError::NoCircuit(circuit))),
    }
}

type Joined = (RangeInputs<F>, Result<(), Broken>);

fn root_parts<'a>(
    height: u8,
    children: &'a [InnerProof],
    circuits: &[Circuit],
) -> Result<(RootParts<'a>, Joined), ProveError> {
    match children {
        [base] => Ok((RootParts::One(base), (read(base, RangeInputs::read)?, Ok(())))),
        [left, right] => {
            let joined =
                merge::join(&read(left, RangeInputs::read)?, &read(right, RangeInputs::read)?, height);
            let (right_height, right_key) = right_part(circuits[1])?;
            Ok((RootParts::Two { left, right, right_height, right_key }, joined))
        }
        _ => Err(failed(KeyError::NoCircuit(Circuit::Root { height }))),
    }
}

fn right_part(circuit: Circuit) -> Result<(u8, &'static VerifierKey), ProveError> {
    let height = range_height(circuit).ok_or_else(|| failed(KeyError::NoCircuit(circuit)))?;
    Ok((height, Keys::pinned().key(circuit).map_err(failed)?))
}

/// A verified proof's public inputs by name; their number was checked when it was decoded.
fn read<T>(proof: &InnerProof, layout: impl Fn(&[F]) -> Option<T>) -> Result<T, ProveError> {
    layout(&proof.public_inputs).ok_or_else(|| ProveError::Failed("public inputs of another layout".into()))
}

/// The asked-for public inputs, where the proof takes something from them that no child says.
fn asked<T>(request: &ProveRequest, layout: impl Fn(&[F]) -> Option<T>) -> Result<T, ProveError> {
    field::to_elements(&request.public_inputs).and_then(|elements| layout(&elements)).ok_or_else(|| {
        ProveError::Failed(format!("{} can't be proven without its public inputs", request.circuit))
    })
}

fn read_call(request: &ProveRequest) -> Result<(CheckedCall, VmInputs<F>), ProveError> {
    let bad = |e: arborist_core::block::BlockError| ProveError::BadInput { index: 0, reason: e.to_string() };
    let json = request.inputs.first().map(Vec::as_slice).unwrap_or_default();
    let call = Call::from_input(json).map_err(bad)?;
    vm::execute("call", &call).map_err(bad)
}

fn read_private(request: &ProveRequest) -> Result<PrivateProof, ProveError> {
    let bytes = request.inputs.first().map(Vec::as_slice).unwrap_or_default();
    PrivateProof::open(bytes).map_err(|reason| ProveError::BadInput { index: 0, reason })
}

impl Job<'_> {
    fn assign(&self, targets: &Targets, w: &mut PartialWitness<F>) -> anyhow::Result<()> {
        match (self, targets) {
            (Job::Vm(call), Targets::Vm(t)) => t.assign(w, call),
            (Job::FirstKernel(private, vm), Targets::Kernel(t)) => t.assign(w, &private.proof, vm),
            (Job::Kernel(prev, vm), Targets::Kernel(t)) => t.assign(w, prev, vm),
            (Job::Base { kernel, key }, Targets::Base(t)) => t.assign(w, kernel, key, [F::ZERO; 4]),
            (Job::PrivateBase { kernel, key, state }, Targets::Base(t)) => {
                t.assign(w, &kernel.proof, key, *state)
            }
            (Job::Merge { left, right, right_height, right_key }, Targets::Merge(t)) => {
                t.assign(w, left, right, *right_height, right_key)
            }
            (Job::Root { parts, bound }, Targets::Root(t)) => t.assign(w, parts, bound),
            _ => anyhow::bail!("the witness is of another circuit"),
        }
    }
}
