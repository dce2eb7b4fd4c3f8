//! Folders and files for their owner alone, and scratch folders that a crash does not leave behind.

use nix::sys::stat::{Mode, umask};
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// What names of scratch folders begin with.
const PREFIX: &str = "arborist-scratch-";
/// What names of their locks end with.
const LOCK: &str = ".lock";

/// From now on what this process and its children make is for their owner alone: folders 0700, files 0600.
pub fn keep_others_out() {
    umask(Mode::S_IRWXG | Mode::S_IRWXO);
}

/// Makes a folder, and those above it that are missing, for its owner alone.
///
/// # Errors
/// It can't be made.
pub fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Whether others than the owner may do anything with it.
///
/// # Errors
/// It can't be looked at.
pub fn is_open(path: &Path) -> io::Result<bool> {
    Ok(path.metadata()?.mode() & 0o077 != 0)
}

/// Takes all rights of others than the owner away.
///
/// # Errors
/// It is somebody else's.
pub fn tighten(path: &Path) -> io::Result<()> {
    let metadata = path.metadata()?;
    fs::set_permissions(path, fs::Permissions::from_mode(metadata.mode() & 0o700))
}

/// Opens a file of one's own to append to it; one that is open to others is tightened.
///
/// # Errors
/// It can't be opened.
pub fn append(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_file() && metadata.mode() & 0o077 != 0 {
        file.set_permissions(fs::Permissions::from_mode(metadata.mode() & 0o700))?;
    }
    Ok(file)
}

/// A folder for what is needed for a moment: nobody else may look into it, and it is removed when this is dropped, or
/// when the next process makes one beside it and this one is dead. A lock that the kernel holds says who is dead.
#[derive(Debug)]
pub struct Scratch {
    folder: PathBuf,
    lock: PathBuf,
    _held: File,
}

impl Scratch {
    /// Makes a scratch folder in `parent` (made if missing), and removes those of dead processes there.
    ///
    /// # Errors
    /// The folder or its lock can't be made. Leftovers of others that can't be removed are no error.
    pub fn make(parent: &Path) -> io::Result<Self> {
        make_folder(parent)?;
        remove_dead(parent);
        loop {
            let folder = parent.join(format!("{PREFIX}{:016x}", random()));
            let lock = folder.with_extension(&LOCK[1..]);
            let held = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&lock);
            let held = match held {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                held => held?,
            };
            // until it is locked it looks dead: somebody may have removed it
            if held.try_lock().is_err() || !is_at(&held, &lock) {
                continue;
            }
            make_folder(&folder)?;
            return Ok(Self { folder, lock, _held: held });
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // what stays is removed by the next process; the lock goes last
        if fs::remove_dir_all(&self.folder).is_ok() {
            let _ = fs::remove_file(&self.lock);
        }
    }
}

fn random() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}

fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(file), Ok(there)) => (file.dev(), file.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

/// Best effort: folders of other users stay.
fn remove_dead(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|n| n.starts_with(PREFIX) && n.ends_with(LOCK)) else {
            continue;
        };
        // a link could lead anywhere, a pipe would be waited for
        if !entry.file_type().is_ok_and(|kind| kind.is_file()) {
            continue;
        }
        let lock = entry.path();
        let Ok(file) = OpenOptions::new().write(true).open(&lock) else { continue };
        match file.try_lock() {
            Ok(()) if is_at(&file, &lock) => {
                let folder = parent.join(&name[..name.len() - LOCK.len()]);
                let gone = fs::remove_dir_all(&folder);
                if gone.is_ok() || gone.is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
                    let _ = fs::remove_file(&lock);
                }
            }
            Ok(()) | Err(TryLockError::WouldBlock | TryLockError::Error(_)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap().flatten();
        let mut names: Vec<_> = entries.map(|e| e.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn scratch_of_the_dead_is_removed_and_that_of_the_living_stays() {
        let parent = tempfile::tempdir().unwrap();
        let living = Scratch::make(parent.path()).unwrap();
        fs::write(living.path().join("job"), "x").unwrap();
        assert_eq!(living.path().metadata().unwrap().mode() & 0o777, 0o700);
        // as a killed process leaves it: a folder and a lock that nobody holds
        let dead = parent.path().join("arborist-scratch-00000000000000aa");
        make_folder(&dead.join("job-1/out")).unwrap();
        fs::write(dead.with_extension("lock"), "").unwrap();
        let foreign = parent.path().join("arborist-scratch-of-somebody");
        make_folder(&foreign).unwrap();
        let other = Scratch::make(parent.path()).unwrap();
        assert!(!dead.exists() && !dead.with_extension("lock").exists());
        assert!(living.path().join("job").exists() && foreign.exists());
        drop((living, other));
        assert_eq!(names(parent.path()), ["arborist-scratch-of-somebody"]);
    }

    #[test]
    fn what_was_open_to_others_is_tightened() {
        let parent = tempfile::tempdir().unwrap();
        let (folder, file) = (parent.path().join("a/b"), parent.path().join("log"));
        make_folder(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(is_open(&folder).unwrap());
        tighten(&folder).unwrap();
        assert_eq!(folder.metadata().unwrap().mode() & 0o777, 0o700);
        fs::write(&file, "before\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o664)).unwrap();
        drop(append(&file).unwrap());
        assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600);
    }
}
