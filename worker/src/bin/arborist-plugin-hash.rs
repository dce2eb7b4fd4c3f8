//! The reference plug-in of docs/process-backend.md: obeys the contract, its proofs are hashes.

fn main() -> std::process::ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    arborist_worker::plugin::serve(&args)
}
