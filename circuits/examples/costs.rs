//! Measures what building, proving and verifying each kind of proof costs, one thread, one proof at a time.

use arborist_circuits::{Plonky2, Published, Sample, Statements, prover_word, sample_block, verify_root};
use arborist_core::backend::{Backend, Cancel, Child, Proof, ProveRequest, PublicInputs};
use arborist_core::block::Block;
use arborist_core::circuit::Circuit;
use std::time::Instant;

/// CPU seconds of this process so far, all threads.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // After the name in parentheses: utime and stime are the 12th and 13th field; a tick is 10 ms.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    ticks as f64 / 100.0
}

fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// Proves twice: the first time builds the circuit too.
fn measure(
    circuit: Circuit,
    public_inputs: PublicInputs,
    inputs: Vec<Vec<u8>>,
    children: &[(Circuit, &Proof)],
) -> anyhow::Result<Proof> {
    let children = children.iter().map(|(c, p)| Child { circuit: *c, proof: (*p).clone() }).collect();
    let request =
        ProveRequest { circuit, public_inputs, inputs, children, threads: 1, cancel: Cancel::default() };
    let backend = Plonky2::new();
    let start = cpu_seconds();
    backend.prove(&request)?;
    let first = cpu_seconds() - start;
    let proof = backend.prove(&request)?;
    let second = cpu_seconds() - start - first;
    let start = Instant::now();
    backend.verify(circuit, &proof)?;
    println!(
        "{:9} build {:5.2} CPU s, prove {second:5.2} CPU s, verify {:3} ms, {} bytes, peak so far {} MiB",
        circuit.to_string(),
        (first - second).max(0.0),
        start.elapsed().as_millis(),
        proof.bytes.len(),
        peak_mib()
    );
    Ok(proof)
}

/// Statements of a block of 61,440 transactions with two calls each; the calls' contents play no part.
fn measure_statements(mut block: Block) -> anyhow::Result<()> {
    block.transactions.truncate(1);
    let calls = &mut block.transactions[0].calls;
    calls.push(calls[0].clone());
    block.transactions = vec![block.transactions[0].clone(); 61_440];
    let start = cpu_seconds();
    let statements = Statements::new(&block, prover_word("me"))?;
    let count = statements.transactions();
    println!("statements of {count} transactions: {:.2} CPU s", cpu_seconds() - start);
    Ok(())
}

fn main() -> anyhow::Result<()> {
    let start = cpu_seconds();
    let Sample { block, private_proofs } = sample_block(&[1, 0], 1, 1, 1, |_| ())?;
    println!("a block of two private proofs: {:.2} CPU s", cpu_seconds() - start);
    let all = Statements::new(&block, prover_word("me"))?;
    let asked = |inputs: Option<PublicInputs>| inputs.ok_or_else(|| anyhow::anyhow!("no such proof"));
    let private = |t: usize| private_proofs[t].clone();
    let call = block.transactions[0].calls[0].to_input();
    let first = Circuit::Kernel { position: 1 };
    let vm = measure(Circuit::Vm, asked(all.vm(0, 0))?, vec![call], &[])?;
    let kernel = measure(first, asked(all.kernel(0, 1))?, vec![private(0)], &[(Circuit::Vm, &vm)])?;
    let left = measure(Circuit::Base, asked(all.base(0))?, vec![], &[(first, &kernel)])?;
    let right = measure(Circuit::Base, asked(all.base(1))?, vec![private(1)], &[])?;
    let parts = [(Circuit::Base, &left), (Circuit::Base, &right)];
    measure(Circuit::Merge { height: 1 }, asked(all.range(0, 2))?, vec![], &parts)?;
    let root = measure(Circuit::Root { height: 1 }, all.root(), vec![], &parts)?;
    verify_root(&Published::of(&block, "me")?, &root)?;
    println!("the root proof holds");
    measure_statements(block)?;
    Ok(())
}
