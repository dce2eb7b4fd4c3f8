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
    /// The bucket or container is not there.
    #[error("the artifact store's bucket or container is not there ({action}): {reason}")]
    NoBucket {
        /// What was tried.
        action: String,
        /// What the store said.
        reason: String,
    },
    /// The store takes no object of this size.
    #[error("the artifact store does not take so large an object ({action}): {reason}")]
    Oversized {
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
         (S3: PutObject with `If-None-Match: *`; a folder: hard links)"
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

    /// The error that an answer in HTTP stands for; 2xx, and what says that a key is free or taken, are the
    /// caller's to handle. `text` is the body, or holds it.
    pub(crate) fn of_answer(action: String, status: u16, text: &str, reason: String) -> Self {
        match Class::of(status, code_in(text)) {
            Class::Unavailable => StoreError::Unavailable { action, reason },
            Class::Full => StoreError::Full { action, reason },
            Class::Denied => StoreError::Denied { action, reason },
            Class::NoBucket => StoreError::NoBucket { action, reason },
            Class::Oversized => StoreError::Oversized { action, reason },
            Class::Lacking | Class::Other => StoreError::Other { action, reason },
        }
    }

    pub(crate) fn of_object_store(action: String, error: object_store::Error) -> Self {
        use object_store::Error as E;
        let text = error.to_string();
        let reason = one_line(&text);
        // object_store keeps the type that holds the answer to itself; its text is all there is
        if let Some((status, body)) = answer_in(&text)
            && !matches!(error, E::AlreadyExists { .. } | E::Precondition { .. })
        {
            return Self::of_answer(action, status, body, reason);
        }
        match &error {
            E::PermissionDenied { .. } | E::Unauthenticated { .. } => StoreError::Denied { action, reason },
            // not `Exists`: the caller saw to it that nothing is there, so somebody else is writing
            E::AlreadyExists { .. } | E::Precondition { .. } => StoreError::Unavailable { action, reason },
            _ => Self::of_source(action, reason, &error),
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
        StoreError::Other { action, reason }
    }

    pub(crate) fn of_io(action: String, reason: String, kind: io::ErrorKind) -> Self {
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

/// What an answer asks of whoever gets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Try again.
    Unavailable,
    Full,
    Denied,
    NoBucket,
    Oversized,
    /// The store does not know how to do this.
    Lacking,
    Other,
}

/// Codes that say more than the status they come with, of S3 and its kin, Google and Azure.
const CODES: [(Class, &[&str]); 6] = [
    (
        Class::Unavailable,
        &[
            // the next credentials, clock or connection is a better one
            "ExpiredToken",
            "ExpiredTokenException",
            "TokenRefreshRequired",
            "RequestExpired",
            "RequestTimeTooSkewed",
            "RequestTimeout",
            "RequestTimeoutException",
            "IncompleteBody",
            "BadDigest",
            "XAmzContentSHA256Mismatch",
            "Md5Mismatch",
            // too much at once, or a store that is not well
            "SlowDown",
            "SlowDownRead",
            "SlowDownWrite",
            "Throttling",
            "ThrottlingException",
            "ThrottledException",
            "RequestThrottled",
            "RequestLimitExceeded",
            "TooManyRequests",
            "TooManyRequestsException",
            "BandwidthLimitExceeded",
            "PriorRequestNotComplete",
            "ServiceUnavailable",
            "InternalError",
            "InternalServerError",
            "ServerBusy",
            "OperationTimedOut",
            "rateLimitExceeded",
            "userRateLimitExceeded",
            "backendError",
            "internalError",
            // others are at the same object or bucket
            "OperationAborted",
            "ConditionalRequestConflict",
            "ContainerBeingDeleted",
            "AccountBeingCreated",
            "conflict",
        ],
    ),
    (
        Class::Full,
        &[
            "QuotaExceeded",
            "quotaExceeded",
            "StorageFull",
            "InsufficientStorage",
            "XMinioStorageFull",
            "XMinioAdminBucketQuotaExceeded",
            "AccountLimitExceeded",
        ],
    ),
    (
        Class::Denied,
        &[
            "AccessDenied",
            "AllAccessDisabled",
            "AccountProblem",
            "InvalidAccessKeyId",
            "InvalidSecurity",
            "InvalidToken",
            "NotSignedUp",
            "SignatureDoesNotMatch",
            "UnauthorizedAccess",
            "AccountIsDisabled",
            "AuthenticationFailed",
            "AuthorizationFailure",
            "AuthorizationPermissionMismatch",
            "InsufficientAccountPermissions",
            "InvalidAuthenticationInfo",
            "NoAuthenticationInformation",
            "authError",
            "forbidden",
            "invalid_client",
            "invalid_grant",
            "unauthorized_client",
        ],
    ),
    (Class::NoBucket, &["NoSuchBucket", "ContainerNotFound", "ResourceGroupNotFound", "AccountNotFound"]),
    (
        Class::Oversized,
        &["EntityTooLarge", "MaxMessageLengthExceeded", "RequestBodyTooLarge", "uploadTooLarge"],
    ),
    (Class::Lacking, &["NotImplemented", "notImplemented", "UnsupportedHeader"]),
];

impl Class {
    fn of(status: u16, code: Option<&str>) -> Self {
        let known = code.and_then(|code| CODES.iter().find(|(_, codes)| codes.contains(&code)));
        if let Some((class, _)) = known {
            return *class;
        }
        match status {
            401 | 403 => Class::Denied,
            413 => Class::Oversized,
            501 => Class::Lacking,
            507 => Class::Full,
            408 | 425 | 429 | 500.. => Class::Unavailable,
            _ => Class::Other,
        }
    }
}

/// Whether an error says that the store does not know what was asked of it.
pub(crate) fn is_lacking(error: &object_store::Error) -> bool {
    let text = error.to_string();
    let answer = answer_in(&text).map(|(status, body)| Class::of(status, code_in(body)));
    matches!(error, object_store::Error::NotImplemented { .. }) || answer == Some(Class::Lacking)
}

/// Whether a 404 is the bucket's and not the object's.
pub(crate) fn is_bucket_gone(error: &object_store::Error) -> bool {
    let text = error.to_string();
    answer_in(&text).is_some_and(|(status, body)| Class::of(status, code_in(body)) == Class::NoBucket)
}

/// Status and body in the text of an object_store error.
fn answer_in(text: &str) -> Option<(u16, &str)> {
    if let Some((_, rest)) = text.split_once("status code: ") {
        return Some((rest.get(..3)?.parse().ok()?, rest));
    }
    // a 200 with an error in its body
    let (_, body) = text.split_once("Server returned error response: ")?;
    Some((200, body))
}

/// The code in the body of an error: XML of S3, Google and Azure, JSON of Google and of those who give out
/// credentials.
fn code_in(body: &str) -> Option<&str> {
    if let Some((_, rest)) = body.split_once("<Code>") {
        return rest.split_once("</Code>").map(|(code, _)| code.trim());
    }
    ["\"reason\"", "\"code\"", "\"error\""].iter().find_map(|field| {
        let (_, rest) = body.split_once(field)?;
        let value = rest.trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')?;
        value.split_once('"').map(|(code, _)| code)
    })
}

const MAX_REASON_CHARS: usize = 1000;

/// A store's words on one line, and not too many.
fn one_line(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").chars().take(MAX_REASON_CHARS).collect()
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

    /// As object_store puts an answer.
    fn answered(status: &str, body: &str) -> StoreError {
        let text = format!(
            "Error performing PUT https://b.example/k in 1.2ms - Server returned non-2xx status code: {status}: {body}"
        );
        let source = Box::<dyn Error + Send + Sync>::from(text);
        let (path, number) = ("k".to_owned(), &status[..3]);
        let error = match number {
            "401" => object_store::Error::Unauthenticated { path, source },
            "403" => object_store::Error::PermissionDenied { path, source },
            "404" => object_store::Error::NotFound { path, source },
            _ => object_store::Error::Generic { store: "S3", source },
        };
        StoreError::of_object_store("create k".into(), error)
    }

    fn xml(code: &str, message: &str) -> String {
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{message}</Message>\
             <RequestId>4442587FB7D0A2F9</RequestId><HostId>x</HostId></Error>"
        )
    }

    #[test]
    fn the_answers_of_real_stores_are_told_apart_by_their_codes() {
        let google = |code: u16, reason: &str| {
            format!(
                "{{\n \"error\": {{\n  \"errors\": [\n   {{\n    \"domain\": \"usageLimits\",\n    \"reason\": \
                 \"{reason}\",\n    \"message\": \"m\"\n   }}\n  ],\n  \"code\": {code},\n  \"message\": \"m\"\n }}\n}}"
            )
        };
        let azure =
            |code: &str| format!("\u{feff}{}", xml(code, "m.\nRequestId:1\nTime:2026-01-01T00:00:00Z"));
        let cases = [
            // S3
            ("400 Bad Request", xml("ExpiredToken", "The provided token has expired."), "Unavailable"),
            ("400 Bad Request", xml("RequestTimeout", "Your socket connection timed out."), "Unavailable"),
            ("400 Bad Request", xml("TokenRefreshRequired", "must be refreshed"), "Unavailable"),
            ("403 Forbidden", xml("RequestTimeTooSkewed", "The difference is too large."), "Unavailable"),
            ("400 Bad Request", xml("IncompleteBody", "You did not provide the bytes"), "Unavailable"),
            ("503 Slow Down", xml("SlowDown", "Please reduce your request rate."), "Unavailable"),
            ("429 Too Many Requests", String::new(), "Unavailable"),
            ("500 Internal Server Error", xml("InternalError", "Please try again."), "Unavailable"),
            ("403 Forbidden", xml("AccessDenied", "Access Denied"), "Denied"),
            ("403 Forbidden", xml("InvalidAccessKeyId", "does not exist"), "Denied"),
            ("403 Forbidden", xml("SignatureDoesNotMatch", "Check your key."), "Denied"),
            ("400 Bad Request", xml("InvalidToken", "malformed or otherwise invalid"), "Denied"),
            ("403 Forbidden", String::new(), "Denied"),
            ("404 Not Found", xml("NoSuchBucket", "The specified bucket does not exist"), "NoBucket"),
            ("404 Not Found", xml("NoSuchKey", "The specified key does not exist."), "Other"),
            ("400 Bad Request", xml("EntityTooLarge", "exceeds the maximum"), "Oversized"),
            ("413 Payload Too Large", "<html>nginx</html>".into(), "Oversized"),
            ("400 Bad Request", xml("InvalidArgument", "x"), "Other"),
            ("501 Not Implemented", xml("NotImplemented", "A header you provided implies"), "Other"),
            // MinIO, Ceph and SeaweedFS
            ("507 Insufficient Storage", xml("XMinioStorageFull", "drive is full"), "Full"),
            ("400 Bad Request", xml("XMinioAdminBucketQuotaExceeded", "quota"), "Full"),
            ("403 Forbidden", xml("QuotaExceeded", ""), "Full"),
            ("502 Bad Gateway", "<html>\n<h1>502</h1></html>".into(), "Unavailable"),
            ("504 Gateway Timeout", String::new(), "Unavailable"),
            // Google: XML, and JSON as of its other interface
            ("401 Unauthorized", xml("AuthenticationRequired", "Authentication required."), "Denied"),
            ("403 Forbidden", google(403, "rateLimitExceeded"), "Unavailable"),
            ("403 Forbidden", google(403, "forbidden"), "Denied"),
            ("401 Unauthorized", google(401, "authError"), "Denied"),
            ("503 Service Unavailable", google(503, "backendError"), "Unavailable"),
            // Azure
            ("503 Service Unavailable", azure("ServerBusy"), "Unavailable"),
            ("500 Operation Timed Out", azure("OperationTimedOut"), "Unavailable"),
            ("409 Conflict", azure("ContainerBeingDeleted"), "Unavailable"),
            ("404 Not Found", azure("ContainerNotFound"), "NoBucket"),
            ("404 Not Found", azure("BlobNotFound"), "Other"),
            ("403 Forbidden", azure("AuthenticationFailed"), "Denied"),
            ("403 Forbidden", azure("AuthorizationPermissionMismatch"), "Denied"),
            ("413 Request Body Too Large", azure("RequestBodyTooLarge"), "Oversized"),
            // who gives out credentials
            ("400 Bad Request", "{\"error\":\"invalid_grant\",\"error_description\":\"x\"}".into(), "Denied"),
            ("400 Bad Request", xml("ExpiredTokenException", "Token expired"), "Unavailable"),
        ];
        for (status, body, expected) in cases {
            let error = answered(status, &body);
            assert!(format!("{error:?}").starts_with(expected), "{status} {body} became {error:?}");
            assert_eq!(error.is_retryable(), ["Unavailable", "Full"].contains(&expected), "{error:?}");
            assert!(!error.to_string().contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_200_with_an_error_in_its_body_is_none() {
        let text = format!("Server returned error response: {}", xml("InternalError", "Please try again."));
        let error = object_store::Error::Generic { store: "S3", source: text.into() };
        assert!(StoreError::of_object_store("delete k".into(), error).is_retryable());
    }

    #[test]
    fn the_operators_own_answers_are_told_apart_by_status() {
        for (status, expected, retryable) in [
            (401, "Denied", false),
            (403, "Denied", false),
            (400, "Other", false),
            (408, "Unavailable", true),
            (413, "Oversized", false),
            (422, "Other", false),
            (429, "Unavailable", true),
            (500, "Unavailable", true),
            (503, "Unavailable", true),
            (507, "Full", true),
        ] {
            let error = StoreError::of_answer("get k".into(), status, "a line\n", String::new());
            assert!(format!("{error:?}").starts_with(expected), "{status} became {error:?}");
            assert_eq!(error.is_retryable(), retryable, "{status}");
        }
    }
}
