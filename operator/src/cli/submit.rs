//! What the commands submit.

use super::CliError;
use crate::dispatch::{SubmitError, SubmitRequest, SubmitSource};
use arborist_circuits::Prover;
use std::time::{SystemTime, UNIX_EPOCH};

/// A request with the usual name, without deadline, of normal priority.
pub fn request(source: SubmitSource, chain_id: u64, block_number: u64, prover: &Prover) -> SubmitRequest {
    SubmitRequest {
        name: format!("block {block_number} of chain {chain_id}"),
        namespace: String::new(),
        source,
        chain_id,
        block_number,
        prover_id: prover.word.0,
        deadline: None,
        priority: 0,
        suspended: false,
    }
}

/// Milliseconds since 1970.
pub fn now_millis() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

/// Why a submit failed: exit code 2 when the block or the options are to blame.
pub fn refused(error: SubmitError) -> CliError {
    match error {
        SubmitError::BadBlock(_)
        | SubmitError::BadShape(_)
        | SubmitError::BadNamespace(_)
        | SubmitError::Unprovable(_)
        | SubmitError::Differs { .. } => CliError::Usage { option: "the block", problem: error.to_string() },
        SubmitError::Store(ref store) if store.is_retryable() => {
            CliError::NotNow(format!("submit the block: {error}"))
        }
        error => CliError::failed("submit the block", error),
    }
}
