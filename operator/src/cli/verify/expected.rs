//! What a caller of `verify` expects the proof to be about, and the result for machines.

use super::invalid;
use crate::cli::outputs::PublicFile;
use crate::cli::{CliError, block};
use arborist_circuits::{Prover, Published, Statements};
use arborist_system::outln;
use serde_json::{Value, json};
use std::path::PathBuf;

/// Options of `arborist verify` beyond the files.
#[derive(Debug, clap::Args)]
pub struct Expected {
    /// The prover that the proof must be bound to: a name, or 0x and the 64 digits of an id
    #[arg(long)]
    prover: Option<Prover>,
    /// The block file that the proof must be of
    #[arg(long)]
    block: Option<PathBuf>,
    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

impl Expected {
    /// Checks a statement whose proof is valid against what is expected.
    ///
    /// # Errors
    /// [`CliError::Invalid`] for another prover or block; [`CliError::Input`] when the block file can't be used.
    pub fn check(&self, statement: &Published) -> Result<(), CliError> {
        if let Some(prover) = &self.prover
            && prover.word != statement.prover_id
        {
            let problem =
                format!("the proof is bound to {}, not to {} ({prover})", statement.prover_id, prover.word);
            return Err(invalid("prover", problem));
        }
        let Some(file) = &self.block else { return Ok(()) };
        let block = block::stream(file)?;
        let statements = Statements::new(&block, statement.prover_id)
            .map_err(|source| CliError::Block { file: file.clone(), source })?;
        match differing(statement, &statements.published()) {
            None => Ok(()),
            Some(text) => Err(invalid("block", text)),
        }
    }

    /// Prints the result as JSON, if it is wanted so; says whether it was.
    pub fn print(&self, result: &Result<PublicFile, CliError>) -> bool {
        if self.json {
            outln!("{}", self.answer(result));
        }
        self.json
    }

    fn answer(&self, result: &Result<PublicFile, CliError>) -> Value {
        match result {
            Ok(public) => json!({
                "valid": true, "checked_prover": self.prover.is_some(), "checked_block": self.block.is_some(),
                "backend": public.backend, "circuits": public.circuits, "task": public.task,
                "statement": public.statement,
            }),
            Err(CliError::Invalid { check, problem }) => {
                json!({"valid": false, "check": check, "error": problem})
            }
            // nothing is said about the proof
            Err(error) => json!({"valid": null, "check": null, "error": error.one_line()}),
        }
    }
}

/// The first field in which a proof's statement and a block's differ.
fn differing(proof: &Published, block: &Published) -> Option<String> {
    let rows = |s: &Published| {
        [
            ("chain_id", s.chain_id.to_string()),
            ("block_number", s.block_number.to_string()),
            ("transactions", s.transactions.to_string()),
            ("state_before", s.state_before.to_string()),
            ("state_after", s.state_after.to_string()),
            ("transactions_commitment", s.transactions_commitment.to_string()),
        ]
    };
    let pairs = rows(proof).into_iter().zip(rows(block));
    let (proof, block) = pairs.into_iter().find(|(proof, block)| proof != block)?;
    Some(format!("{}: the proof says {}, the block {}", proof.0, proof.1, block.1))
}
