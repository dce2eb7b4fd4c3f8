//! Reading files that come from the user, bounded.

use super::CliError;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Opens a file of at most `max_bytes`; a longer one is refused before a byte of it is read.
/// `what` says for people what is expected there, e.g. `a block file`.
///
/// # Errors
/// It is missing, unreadable, no file, or too long.
pub fn open_bounded(path: &Path, what: &str, max_bytes: u64) -> Result<File, CliError> {
    let unreadable = |e: std::io::Error| CliError::input(path, format!("file: {e}; expected is {what}"));
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if metadata.is_dir() {
        return Err(CliError::input(path, format!("file: a folder; expected is {what}")));
    }
    if metadata.len() > max_bytes {
        return Err(too_long(path, metadata.len(), max_bytes));
    }
    Ok(file)
}

fn too_long(path: &Path, bytes: u64, max_bytes: u64) -> CliError {
    CliError::input(path, format!("file: {bytes} bytes, allowed are at most {max_bytes}"))
}

/// Reads a whole file of at most `max_bytes`; see [`open_bounded`].
///
/// # Errors
/// It is missing, unreadable, no file, or too long.
pub fn read_bounded(path: &Path, what: &str, max_bytes: u64) -> Result<Vec<u8>, CliError> {
    let unreadable = |e: std::io::Error| CliError::input(path, format!("file: {e}; expected is {what}"));
    let file = open_bounded(path, what, max_bytes)?;
    let mut bytes = Vec::with_capacity(file.metadata().map_err(unreadable)?.len() as usize);
    // pipes and devices have no length
    file.take(max_bytes + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > max_bytes {
        return Err(too_long(path, bytes.len() as u64, max_bytes));
    }
    Ok(bytes)
}

/// Writes a file so that it is either whole or not there: beside it first, then renamed.
///
/// # Errors
/// The folder can't be written or the disk is full.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    let part = part_of(path);
    let written = std::fs::write(&part, bytes).and_then(|()| std::fs::rename(&part, path));
    written.map_err(|error| {
        // of a full disk it would keep what is left
        let _ = std::fs::remove_file(&part);
        CliError::failed(format!("write {}", path.display()), error)
    })
}

/// Where a file is written before it gets its name.
pub fn part_of(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    path.with_file_name(name)
}
