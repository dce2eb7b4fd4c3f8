//! The key that outlives every operator of an installation: what one signs with it, the next one believes.

use crate::store::journal::JournalKey;
use crate::tls::{TlsError, state_file};
use std::fs;
use std::path::{Path, PathBuf};

/// Its file in the state folder.
pub const KEY_FILE: &str = "operator-key";
const KEY_BYTES: usize = 32;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The state folder can't be used.
    #[error(transparent)]
    State(#[from] TlsError),
    /// A file that was named can't be read.
    #[error("{path}: {error}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// It holds something else.
    #[error("{from}: an operator's key is 32 bytes, or 64 hex digits; this has {length} bytes")]
    NoKey {
        /// The file or Secret.
        from: String,
        /// Bytes found.
        length: usize,
    },
}

/// 32 secret bytes. Never used as they are: each use has a key of its own that is derived from them.
#[derive(Clone, PartialEq, Eq)]
pub struct OperatorKey([u8; KEY_BYTES]);

impl std::fmt::Debug for OperatorKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OperatorKey")
    }
}

impl OperatorKey {
    /// A new one.
    pub fn generate() -> Self {
        Self(rand::random())
    }

    /// The key of a state folder, made there at the first start, readable by its owner only.
    ///
    /// # Errors
    /// The file can't be read or written, or holds no key.
    pub fn open(state_dir: &Path) -> Result<Self, KeyError> {
        let path = state_dir.join(KEY_FILE);
        let text = state_file(&path, || Ok(hex::encode(Self::generate().0)))?;
        Self::read(&path.display().to_string(), text.as_bytes())
    }

    /// The key in a file that somebody else keeps.
    ///
    /// # Errors
    /// The file can't be read, or holds no key.
    pub fn from_file(path: &Path) -> Result<Self, KeyError> {
        let bytes = fs::read(path).map_err(|error| KeyError::File { path: path.to_owned(), error })?;
        Self::read(&path.display().to_string(), &bytes)
    }

    /// The key in these bytes: 32 of them, or 64 hex digits. `from` says where they are from.
    ///
    /// # Errors
    /// They are no key.
    pub fn read(from: &str, bytes: &[u8]) -> Result<Self, KeyError> {
        if let Ok(key) = bytes.try_into() {
            return Ok(Self(key));
        }
        let mut key = [0; KEY_BYTES];
        match hex::decode_to_slice(bytes.trim_ascii(), &mut key) {
            Ok(()) => Ok(Self(key)),
            Err(_) => Err(KeyError::NoKey { from: from.to_owned(), length: bytes.len() }),
        }
    }

    /// The bytes, to be kept.
    pub fn to_bytes(&self) -> [u8; KEY_BYTES] {
        self.0
    }

    /// What the journal is sealed with.
    pub fn journal(&self) -> JournalKey {
        JournalKey::new(blake3::derive_key("arborist journal v1", &self.0))
    }

    /// What leases are sealed with, so that an operator that did not give one out knows whose it is.
    pub fn lease(&self) -> [u8; 32] {
        blake3::derive_key("arborist lease v1", &self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_state_folder_has_one_key_that_only_its_owner_reads() {
        let dir = tempfile::tempdir().unwrap();
        let key = OperatorKey::open(dir.path()).unwrap();
        assert_eq!(OperatorKey::open(dir.path()).unwrap(), key);
        assert_eq!(OperatorKey::from_file(&dir.path().join(KEY_FILE)).unwrap(), key);
        let mode = fs::metadata(dir.path().join(KEY_FILE)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        let other = OperatorKey::open(tempfile::tempdir().unwrap().path()).unwrap();
        assert_ne!(other, key);
        assert_ne!(other.lease(), key.lease());
        assert_ne!(key.lease(), key.to_bytes());
        assert_eq!(format!("{key:?}"), "OperatorKey", "it is not shown");
    }

    #[test]
    fn a_key_is_32_bytes_or_their_hex_digits_and_nothing_else() {
        let raw = [7; 32];
        let hex = hex::encode(raw);
        for good in [raw.to_vec(), hex.clone().into_bytes(), format!("{hex}\n").into_bytes()] {
            assert_eq!(OperatorKey::read("it", &good).unwrap().to_bytes(), raw);
        }
        let bad = [vec![], vec![7; 31], vec![7; 64], hex.as_bytes()[1..].to_vec(), vec![b'0'; 65]];
        for bad in bad {
            let error = OperatorKey::read("the file", &bad).unwrap_err().to_string();
            assert!(error.starts_with("the file: ") && error.contains("32 bytes"), "{error}");
        }
        assert!(OperatorKey::from_file(Path::new("/nowhere/key")).is_err());
    }
}
