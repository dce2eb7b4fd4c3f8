//! What a coordinator checks of a report.

use super::desk::Posted;
use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, VerifyingKey};
use serde_json::Value;

/// Checks a report's signature with the key that it names; the report and that key.
///
/// # Errors
/// A header is missing or malformed, or the signature does not hold for the body.
pub fn checked(report: &Posted) -> Result<(Value, VerifyingKey)> {
    let key: [u8; 32] = ed25519(report, "Arborist-Key")?.try_into().ok().context("a key has 32 bytes")?;
    let key = VerifyingKey::from_bytes(&key).context("Arborist-Key")?;
    let signature =
        Signature::from_slice(&ed25519(report, "Arborist-Signature")?).context("Arborist-Signature")?;
    key.verify_strict(&report.body, &signature).context("the report's signature")?;
    ensure!(header(report, "Idempotency-Key")?.len() == 64, "an idempotency key of another length");
    Ok((serde_json::from_slice(&report.body).context("the report's body")?, key))
}

/// A header's value.
///
/// # Errors
/// It is missing.
pub fn header<'a>(report: &'a Posted, name: &str) -> Result<&'a str> {
    let value = report.headers.get(name).with_context(|| format!("no header {name}"))?;
    value.to_str().with_context(|| name.to_owned())
}

fn ed25519(report: &Posted, name: &str) -> Result<Vec<u8>> {
    let text =
        header(report, name)?.strip_prefix("ed25519=").with_context(|| format!("{name} is not ed25519"))?;
    STANDARD.decode(text).with_context(|| name.to_owned())
}
