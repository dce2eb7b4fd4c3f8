//! Reports of completion: what is told, to whom, and how often it is tried. docs/report.md is the contract.

pub mod backoff;
mod body;
mod http;

pub use body::{
    Attribution, Body, JobName, KindCount, MAX_INLINE_PROOF, MAX_SHARES, Proof, Public, REPORT_VERSION, Rest,
    Share, attribution,
};
pub use http::HttpReporter;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use ed25519_dalek::{Signer, SigningKey};
use futures::future::BoxFuture;
use url::Url;

/// Who is told, with what is needed to reach it.
#[derive(Clone)]
pub struct Target {
    /// Where the report is posted.
    pub url: Url,
    /// The value of the header `Authorization`.
    pub authorization: Option<String>,
    /// Certificates (PEM) that its server is trusted by, beside the system's.
    pub ca_pem: Option<Vec<u8>>,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // credentials are secrets, and may stand in the URL too
        f.debug_struct("Target")
            .field("url", &crate::egress::shown(&self.url))
            .field("authorization", &self.authorization.is_some())
            .field("ca_pem", &self.ca_pem.is_some())
            .finish()
    }
}

/// A report as it goes out: these very bytes are signed, and every attempt sends the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedReport {
    /// JSON: a [`Body`].
    pub body: Bytes,
    /// Ed25519 over the body, base64.
    pub signature: String,
    /// The public key that the signature holds for, base64.
    pub public_key: String,
    /// The same for every attempt: the receiver counts a report once.
    pub idempotency_key: String,
}

impl SignedReport {
    /// Signs a body.
    pub fn new(body: Bytes, key: &SigningKey, idempotency_key: String) -> Self {
        Self {
            signature: STANDARD.encode(key.sign(&body).to_bytes()),
            public_key: STANDARD.encode(key.verifying_key().to_bytes()),
            idempotency_key,
            body,
        }
    }
}

/// The idempotency key of a job's report to a target: it changes with the job, with the tree and with the target's
/// name, and with nothing else. 64 hex digits.
pub fn idempotency_key(job_uid: &str, root_task: &arborist_core::ids::TaskId, target: &str) -> String {
    blake3::hash(format!("{job_uid}/{root_task}/{target}").as_bytes()).to_hex().to_string()
}

/// That a target has taken a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// What it answered, for people; at most [`MAX_ANSWER`] bytes.
    pub answer: String,
}

/// The most bytes kept of an answer.
pub const MAX_ANSWER: usize = 128;

/// Why a target has not taken a report.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// The target can't be reached, is overloaded, or wants other credentials: tried again.
    #[error("{0}")]
    Unavailable(String),
    /// The target does not want this report: sending it again won't help.
    #[error("{0}")]
    Refused(String),
}

/// Sends reports. HTTP is one way; a contract on a chain would be another.
pub trait Reporter: Send + Sync + 'static {
    /// Sends a report once. Sending it again does no harm: the receiver knows it by its idempotency key.
    ///
    /// # Errors
    /// See [`ReportError`].
    fn send<'a>(
        &'a self,
        target: &'a Target,
        report: &'a SignedReport,
    ) -> BoxFuture<'a, Result<Receipt, ReportError>>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use arborist_core::ids::TaskId;
    use ed25519_dalek::{Signature, Verifier};

    #[test]
    fn a_signature_holds_for_the_body_and_for_nothing_else() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let report = SignedReport::new(Bytes::from_static(b"{\"version\":1}"), &key, "k".into());
        let bytes = STANDARD.decode(&report.signature).unwrap();
        let signature = Signature::from_slice(&bytes).unwrap();
        assert!(key.verifying_key().verify(&report.body, &signature).is_ok());
        assert!(key.verifying_key().verify(b"{\"version\":2}", &signature).is_err());
        assert_eq!(STANDARD.decode(&report.public_key).unwrap(), key.verifying_key().to_bytes());
        assert_eq!(
            report,
            SignedReport::new(report.body.clone(), &key, "k".into()),
            "the same bytes each time"
        );
    }

    #[test]
    fn the_idempotency_key_is_of_job_tree_and_target() {
        let key = idempotency_key("u", &TaskId([1; 32]), "a");
        assert_eq!(key, idempotency_key("u", &TaskId([1; 32]), "a"));
        assert_eq!(key.len(), 64);
        for other in [
            idempotency_key("v", &TaskId([1; 32]), "a"),
            idempotency_key("u", &TaskId([2; 32]), "a"),
            idempotency_key("u", &TaskId([1; 32]), "b"),
        ] {
            assert_ne!(key, other);
        }
    }
}
