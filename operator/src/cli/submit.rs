//! What the commands submit.

use crate::dispatch::{SubmitRequest, SubmitSource};
use arborist_circuits::prover_word;
use std::time::{SystemTime, UNIX_EPOCH};

/// A request with the usual name, without deadline, of normal priority.
pub fn request(source: SubmitSource, chain_id: u64, block_number: u64, prover: &str) -> SubmitRequest {
    SubmitRequest {
        name: format!("block {block_number} of chain {chain_id}"),
        namespace: String::new(),
        source,
        chain_id,
        block_number,
        prover_id: prover_word(prover).0,
        deadline: None,
        priority: 0,
        suspended: false,
    }
}

/// Milliseconds since 1970.
pub fn now_millis() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}
