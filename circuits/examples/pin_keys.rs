//! Writes the pinned verification keys anew, or with `--check` compares the committed ones with the code.

use arborist_circuits::keys;
use std::time::Instant;

fn main() -> anyhow::Result<()> {
    let check = std::env::args().any(|a| a == "--check");
    let mut last = Instant::now();
    let text = keys::generate(|circuit, row_bits, hash| {
        println!(
            "{circuit:10} 2^{row_bits} rows  {:5} ms  {}",
            last.elapsed().as_millis(),
            hex::encode(hash)
        );
        last = Instant::now();
    })?;
    if check {
        anyhow::ensure!(keys::is_pinned(&text), "the circuits differ from keys/mini-rollup-v1.json");
        println!("every circuit is the pinned one");
        return Ok(());
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/keys/mini-rollup-v1.json");
    std::fs::write(path, text)?;
    println!("wrote {path}");
    Ok(())
}
