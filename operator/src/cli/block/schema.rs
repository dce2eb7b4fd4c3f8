//! `arborist block schema`: the JSON schema of a block file, as committed in `docs/block.schema.json`.

use crate::cli::CliError;
use arborist_core::block::Block;
use std::io::Write;

/// Prints the schema.
///
/// # Errors
/// Standard output is closed.
pub fn run() -> Result<(), CliError> {
    let text = serde_json::to_string_pretty(&schemars::schema_for!(Block))
        .map_err(|e| CliError::failed("write the schema", e))?;
    writeln!(std::io::stdout(), "{text}").map_err(|e| CliError::failed("print the schema", e))
}
