//! `arborist block schema`: the JSON schema of a block file, as committed in `docs/block.schema.json`.

use crate::cli::CliError;
use arborist_core::block::Block;
use arborist_system::outln;

/// Prints the schema.
///
/// # Errors
/// It can't be written as JSON.
pub fn run() -> Result<(), CliError> {
    let text = serde_json::to_string_pretty(&schemars::schema_for!(Block))
        .map_err(|e| CliError::failed("write the schema", e))?;
    outln!("{text}");
    Ok(())
}
