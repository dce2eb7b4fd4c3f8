//! What can go wrong with a store, told apart by what one can do about it.

use object_store::client::HttpError;
use std::error::Error;
use std::io;

/// Why an operation on the artifact store failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It could not be reached or is overloaded: try again later.
    #[error("the artifact store did not answer ({action}): {reason}")]
    Unavailable {
        /// What was tried: verb, key and store.
        action: String,
        /// What the store or the network said.
        reason: String,
    },
    /// No space is left: try again when there is.
    #[error("the artifact store is full ({action}): {reason}")]
    Full {
        /// What was tried.
        action: String,
        /// What the store said.
        reason: String,
    },
    /// The credentials are missing, wrong or don't allow it.
    #[error("the artifact store refused ({action}): {reason}")]
    Denied {
        /// What was tried.
        action: String,
        /// What the store said.
        reason: String,
    },
    /// An object is not what its key says.
    #[error("a damaged object in the artifact store ({action}): {reason}")]
    Corrupt {
        /// What was tried.
        action: String,
        /// How it differs.
        reason: String,
    },
    /// An object is larger than allowed.
    #[error("{action}: {bytes} bytes, and at most {max_bytes} are allowed")]
    TooLarge {
        /// What was tried.
        action: String,
        /// The object's size, or as much of it as was seen.
        bytes: u64,
        /// The limit.
        max_bytes: u64,
    },
    /// The URL names no store.
    #[error(
        "`{url}` is no artifact store: {reason}. Allowed are file:///folder, s3://bucket/prefix, \
         gs://bucket/prefix, az://container/prefix and the https://host:port of an operator"
    )]
    BadUrl {
        /// The URL as given, without a password.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The store lacks what Arborist needs.
    #[error(
        "{store} cannot keep Arborist's proofs: {reason}. Needed is a store whose conditional create holds \
         (S3: PutObject with `If-None-Match: *`)"
    )]
    Unfit {
        /// The store.
        store: String,
        /// What it did wrong.
        reason: String,
    },
    /// Anything else; trying again won't help.
    #[error("the artifact store failed ({action}): {reason}")]
    Other {
        /// What was tried.
        action: String,
        /// What happened.
        reason: String,
    },
}

impl StoreError {
    /// Whether the same call may succeed later without anybody changing it.
    pub fn is_retryable(&self) -> bool {
        matches!(self, StoreError::Unavailable { .. } | StoreError::Full { .. })
    }

    /// The error that an HTTP status stands for; 2xx and 404 are the caller's to handle.
    pub(crate) fn of_status(action: String, status: u16, reason: String) -> Self {
        match status {
            401 | 403 => StoreError::Denied { action, reason },
            507 => StoreError::Full { action, reason },
            408 | 425 | 429 | 500.. => StoreError::Unavailable { action, reason },
            _ => StoreError::Other { action, reason },
        }
    }

    pub(crate) fn of_object_store(action: String, error: object_store::Error) -> Self {
        use object_store::Error as E;
        let reason = error.to_string();
        match &error {
            E::PermissionDenied { .. } | E::Unauthenticated { .. } => StoreError::Denied { action, reason },
            E::Generic { .. } => Self::of_source(action, reason, &error),
            // not `Exists`: the caller saw to it that nothing is there, so somebody else is writing
            E::AlreadyExists { .. } | E::Precondition { .. } => StoreError::Unavailable { action, reason },
            _ => StoreError::Other { action, reason },
        }
    }

    fn of_source(action: String, reason: String, error: &(dyn Error + 'static)) -> Self {
        let mut current = Some(error);
        while let Some(error) = current {
            if let Some(error) = error.downcast_ref::<HttpError>() {
                let built = error.source().and_then(|source| source.downcast_ref::<reqwest::Error>());
                return if built.is_some_and(reqwest::Error::is_builder) {
                    StoreError::Other { action, reason: chain(error) }
                } else {
                    StoreError::Unavailable { action, reason }
                };
            }
            if let Some(error) = error.downcast_ref::<io::Error>() {
                return Self::of_io(action, reason, error.kind());
            }
            current = error.source();
        }
        // object_store keeps the type that holds the status to itself; its text is all there is
        match status_in(&reason) {
            Some(status) => Self::of_status(action, status, reason),
            None => StoreError::Other { action, reason },
        }
    }

    fn of_io(action: String, reason: String, kind: io::ErrorKind) -> Self {
        use io::ErrorKind as K;
        match kind {
            K::StorageFull | K::QuotaExceeded => StoreError::Full { action, reason },
            K::PermissionDenied | K::ReadOnlyFilesystem => StoreError::Denied { action, reason },
            K::ConnectionRefused
            | K::ConnectionReset
            | K::ConnectionAborted
            | K::NotConnected
            | K::HostUnreachable
            | K::NetworkUnreachable
            | K::NetworkDown
            | K::TimedOut
            | K::Interrupted
            | K::ResourceBusy
            | K::StaleNetworkFileHandle => StoreError::Unavailable { action, reason },
            _ => StoreError::Other { action, reason },
        }
    }
}

fn status_in(text: &str) -> Option<u16> {
    let (_, rest) = text.split_once("status code: ")?;
    rest.get(..3)?.parse().ok()
}

/// An error with all its causes in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let part = error.to_string();
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(source: impl Error + Send + Sync + 'static) -> StoreError {
        let error = object_store::Error::Generic { store: "S3", source: Box::new(source) };
        StoreError::of_object_store("create k".into(), error)
    }

    #[test]
    fn io_errors_are_told_apart() {
        for (kind, expected) in [
            (io::ErrorKind::StorageFull, "Full"),
            (io::ErrorKind::QuotaExceeded, "Full"),
            (io::ErrorKind::PermissionDenied, "Denied"),
            (io::ErrorKind::ReadOnlyFilesystem, "Denied"),
            (io::ErrorKind::ConnectionRefused, "Unavailable"),
            (io::ErrorKind::TimedOut, "Unavailable"),
            (io::ErrorKind::InvalidData, "Other"),
        ] {
            let error = generic(io::Error::from(kind));
            assert!(format!("{error:?}").starts_with(expected), "{kind:?} became {error:?}");
        }
    }

    #[test]
    fn statuses_are_told_apart() {
        for (status, expected, retryable) in [
            (401, "Denied", false),
            (403, "Denied", false),
            (400, "Other", false),
            (429, "Unavailable", true),
            (500, "Unavailable", true),
            (503, "Unavailable", true),
            (507, "Full", true),
        ] {
            let error = StoreError::of_status("get k".into(), status, String::new());
            assert!(format!("{error:?}").starts_with(expected), "{status} became {error:?}");
            assert_eq!(error.is_retryable(), retryable, "{status}");
        }
    }
}
