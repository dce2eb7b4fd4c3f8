//! The state folder: for its owner alone, and free of what a killed process left in it.

use super::CliError;
use crate::operator_key::KEY_FILE;
use crate::tls::{CA_FILE, CA_KEY_FILE, TOKEN_FILE};
use arborist_system::private;
use nix::unistd::geteuid;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The token for `/jobs`.
pub const ADMIN_TOKEN_FILE: &str = "admin-token";
/// The built-in store's folder.
pub const STORE: &str = "store";
/// Whoever works in the folder holds this lock, shared; who has it alone may clean up.
const LOCK_FILE: &str = "lock";
/// What a state folder holds, by the beginnings of the names.
const OURS: [&str; 7] = [LOCK_FILE, STORE, ADMIN_TOKEN_FILE, CA_FILE, CA_KEY_FILE, TOKEN_FILE, KEY_FILE];
/// What a file system makes at its root for itself: a disk of its own may be mounted as the state folder.
const OF_THE_DISK: &str = "lost+found";
/// How long another process may take to clean up.
const PATIENCE: Duration = Duration::from_secs(10);
/// How deep the store's folders lie.
const DEPTH: u32 = 4;
const STICKY: u32 = 0o1000;

/// A state folder in use, for as long as this lives.
#[derive(Debug)]
pub struct StateFolder {
    _lock: File,
    /// Nobody else worked in it when it was opened.
    pub alone: bool,
}

impl StateFolder {
    /// Makes the folder, or tightens the rights of one that is there; removes leftovers of processes that were killed,
    /// if no process works in it.
    ///
    /// # Errors
    /// It can't be made, is somebody else's, or is open to others and not ours alone.
    pub fn open(path: &Path) -> Result<Self, CliError> {
        let fail = |e: io::Error| unusable(path, e);
        private::make_folder(path).map_err(fail)?;
        keep_others_out(path)?;
        let lock_path = path.join(LOCK_FILE);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let lock = options.open(&lock_path).map_err(|e| unusable(&lock_path, e))?;
        let alone = lock.try_lock().is_ok();
        if alone {
            clean(path);
        }
        share(&lock, path)?;
        Ok(Self { _lock: lock, alone })
    }
}

/// Why a folder can't be used: exit code 2 when another one has to be named, 1 when the machine is to blame.
pub fn unusable(path: &Path, error: io::Error) -> CliError {
    use io::ErrorKind as K;
    match error.kind() {
        K::NotADirectory | K::AlreadyExists | K::PermissionDenied | K::ReadOnlyFilesystem => {
            CliError::input(path, format!("folder: {error}; expected is a folder that can be written"))
        }
        _ => CliError::failed(format!("make the folder {}", path.display()), error),
    }
}

/// Takes others' rights away. A folder that may be needed by others is refused instead.
fn keep_others_out(path: &Path) -> Result<(), CliError> {
    let metadata = path.metadata().map_err(|e| unusable(path, e))?;
    let (owner, us) = (metadata.uid(), geteuid());
    if owner != us.as_raw() && !us.is_root() {
        let problem =
            format!("folder: belongs to user {owner}, this is user {us}; expected is one of your own");
        return Err(CliError::input(path, problem));
    }
    if metadata.mode() & 0o077 == 0 {
        return tighten_content(path);
    }
    let foreign = if metadata.mode() & STICKY != 0 { Some("everybody's".to_owned()) } else { foreign(path) };
    if let Some(foreign) = foreign {
        let problem = format!(
            "folder: open to others (mode {:o}) and holds other things ({foreign}); expected is a folder for this \
             alone, or one with mode 700",
            metadata.mode() & 0o7777
        );
        return Err(CliError::input(path, problem));
    }
    private::tighten(path).map_err(|e| unusable(path, e))?;
    tracing::warn!(folder = %path.display(), "it was open to others, and is its owner's alone now");
    tighten_content(path)
}

/// Something in the folder that no state folder has.
fn foreign(path: &Path) -> Option<String> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let mut names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.find(|name| {
        name != OF_THE_DISK && !is_draft(name) && !OURS.iter().any(|ours| name.starts_with(ours))
    })
}

/// What lies in the folder itself and the store's folders; what is deeper nobody else reaches.
fn tighten_content(path: &Path) -> Result<(), CliError> {
    for folder in [path.to_owned(), path.join(STORE)] {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            // not where a link leads
            let plain = entry.file_type().is_ok_and(|kind| kind.is_dir() || kind.is_file());
            let entry = entry.path();
            if plain && private::is_open(&entry).unwrap_or(false) {
                private::tighten(&entry).map_err(|e| unusable(&entry, e))?;
            }
        }
    }
    Ok(())
}

/// From now on others may work here too, and nobody cleans up.
fn share(lock: &File, path: &Path) -> Result<(), CliError> {
    let end = Instant::now() + PATIENCE;
    loop {
        match lock.try_lock_shared() {
            Ok(()) => return Ok(()),
            // a file system without locks: two that start at once are told apart by the journal alone
            Err(TryLockError::Error(error)) => {
                tracing::warn!(%error, folder = %path.display(), "the folder can't be locked");
                return Ok(());
            }
            Err(TryLockError::WouldBlock) if Instant::now() >= end => {
                let text = format!("{}: another process is cleaning it up; try again", path.display());
                return Err(CliError::NotNow(text));
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Removes files that were being written when their process was killed. What can't be removed stays and is no harm.
fn clean(path: &Path) {
    let drafts = files(path).filter(|(_, name)| is_draft(name));
    let checks = files(&path.join(STORE).join("check"));
    let mut left: Vec<PathBuf> = drafts.chain(checks).map(|(file, _)| file).collect();
    half_written(&path.join(STORE), DEPTH, &mut left);
    let removed = left.iter().filter(|file| fs::remove_file(file).is_ok()).count();
    if removed > 0 {
        tracing::info!(removed, folder = %path.display(), "files that were never finished");
    }
}

/// Tokens and keys are written beside their names first.
fn is_draft(name: &str) -> bool {
    let rest = OURS.iter().find_map(|ours| name.strip_prefix(ours).or(name.strip_prefix(stem(ours))));
    rest.is_some_and(|rest| rest.starts_with(".new-"))
}

fn stem(name: &str) -> &str {
    name.split_once('.').map_or(name, |(stem, _)| stem)
}

/// Objects that were not renamed to their keys yet: the folder's store calls them `KEY#NUMBER`.
fn half_written(folder: &Path, depth: u32, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && depth > 0 => half_written(&entry.path(), depth - 1, out),
            Ok(kind) if kind.is_file() => {
                let name = entry.file_name();
                let number = name.to_str().and_then(|name| name.rsplit_once('#')).map(|(_, number)| number);
                if number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit())) {
                    out.push(entry.path());
                }
            }
            _ => {}
        }
    }
}

fn files(folder: &Path) -> impl Iterator<Item = (PathBuf, String)> + use<> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let files = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
    files.map(|entry| (entry.path(), entry.file_name().to_string_lossy().into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().mode() & 0o777
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn one_that_is_open_to_others_is_tightened_with_what_it_holds() {
        let parent = tempfile::tempdir().unwrap();
        let state = parent.path().join("state");
        fs::create_dir_all(state.join("store/proofs")).unwrap();
        fs::write(state.join(TOKEN_FILE), "t").unwrap();
        for path in [&state, &state.join("store"), &state.join("store/proofs")] {
            set_mode(path, 0o755);
        }
        set_mode(&state.join(TOKEN_FILE), 0o644);
        StateFolder::open(&state).unwrap();
        for path in ["", "store", "store/proofs"] {
            assert_eq!(mode(&state.join(path)), 0o700, "{path}");
        }
        assert_eq!((mode(&state.join(TOKEN_FILE)), mode(&state.join(LOCK_FILE))), (0o600, 0o600));
    }

    #[test]
    fn a_new_disk_may_be_one() {
        let parent = tempfile::tempdir().unwrap();
        let state = parent.path().join("mounted");
        fs::create_dir_all(state.join(OF_THE_DISK)).unwrap();
        set_mode(&state, 0o755);
        StateFolder::open(&state).unwrap();
        assert_eq!(mode(&state), 0o700);
    }

    #[test]
    fn one_that_others_may_need_is_refused_and_left_as_it_is() {
        for (mode_before, content) in [(0o755, "thesis.tex"), (0o1777, "")] {
            let parent = tempfile::tempdir().unwrap();
            let state = parent.path().join("shared");
            fs::create_dir(&state).unwrap();
            if !content.is_empty() {
                fs::write(state.join(content), "x").unwrap();
            }
            set_mode(&state, mode_before);
            let error = StateFolder::open(&state).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.one_line().contains("open to others"), "{}", error.one_line());
            assert_eq!(state.metadata().unwrap().mode() & 0o7777, mode_before);
        }
        let parent = tempfile::tempdir().unwrap();
        let file = parent.path().join("file");
        fs::write(&file, "").unwrap();
        assert_eq!(StateFolder::open(&file).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn leftovers_are_removed_unless_somebody_works_there() {
        let parent = tempfile::tempdir().unwrap();
        let state = parent.path().join("state");
        let living = StateFolder::open(&state).unwrap();
        assert!(living.alone);
        let leftovers = [
            "store/proofs/ab#1",
            "store/journal/0/7#12",
            "store/check/c0",
            "admin-token.new-7-1",
            "ca.new-7-1",
        ];
        let kept = ["store/proofs/ab", "store/journal/0/7", "admin-token", "ca.pem"];
        for name in leftovers.iter().chain(&kept) {
            let path = state.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        let second = StateFolder::open(&state).unwrap();
        assert!(!second.alone);
        assert!(leftovers.iter().all(|name| state.join(name).exists()), "they may be the living one's");
        drop((living, second));
        let third = StateFolder::open(&state).unwrap();
        assert!(third.alone);
        for name in leftovers {
            assert!(!state.join(name).exists(), "{name}");
        }
        for name in kept {
            assert!(state.join(name).exists(), "{name}");
        }
    }
}
