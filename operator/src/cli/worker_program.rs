//! Where the worker's program is.

use super::CliError;
use std::path::PathBuf;

/// The worker's program.
const PROGRAM: &str = "arborist-worker";

/// Finds the worker's program: `$ARBORIST_WORKER`, beside this program, or on the `PATH`.
///
/// # Errors
/// It is at none of these places.
pub fn find() -> Result<PathBuf, CliError> {
    if let Some(path) = std::env::var_os("ARBORIST_WORKER").map(PathBuf::from) {
        return if path.is_file() {
            Ok(path)
        } else {
            Err(CliError::input(&path, "file: $ARBORIST_WORKER names it, but there is no such program"))
        };
    }
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(PROGRAM)));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join(PROGRAM));
    beside.into_iter().chain(on_path).find(|program| program.is_file()).ok_or_else(|| {
        CliError::Failed(format!(
            "{PROGRAM} is neither beside this program nor on the PATH; set $ARBORIST_WORKER"
        ))
    })
}
