//! The Secret `arborist-ca`: the authority that signs, the next one and the one before.

use super::rotation::{Authorities, VALID_DAYS, Validity};
use crate::kubernetes::secrets::Data;
use crate::kubernetes::{CA_KEY, CA_SECRET};
use crate::tls::{Authority, TlsError};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

const KEY: &str = "ca.key";
const NEXT: &str = "next.crt";
const NEXT_KEY: &str = "next.key";
const NEXT_PUBLISHED: &str = "next.published";
const PREVIOUS: &str = "previous.crt";

/// Why the Secret can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The API server refuses, or does not answer.
    #[error("Secret {CA_SECRET}: {0}")]
    Api(#[from] kube::Error),
    /// A value is missing or not what it should be.
    #[error("Secret {CA_SECRET}: `{key}`: {problem}")]
    Bad {
        /// The value's key.
        key: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// Certificate and key do not fit.
    #[error("Secret {CA_SECRET}: {0}")]
    Tls(#[from] TlsError),
}

/// A certificate and its key, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pair {
    pub certificate: String,
    pub key: String,
}

impl Pair {
    fn generate() -> Result<Self, TrustError> {
        let (certificate, key) = Authority::generate(VALID_DAYS)?;
        Ok(Self { certificate, key })
    }
}

/// What the Secret holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Content {
    pub current: Pair,
    /// With the time at which it was published.
    pub next: Option<(Pair, Timestamp)>,
    /// Its certificate.
    pub previous: Option<String>,
}

impl Content {
    /// A first authority.
    pub fn make() -> Result<Self, TrustError> {
        Ok(Self { current: Pair::generate()?, next: None, previous: None })
    }

    pub fn read(secret: &Secret) -> Result<Self, TrustError> {
        let text = |key: &'static str| -> Result<Option<String>, TrustError> {
            let Some(value) = secret.data.as_ref().and_then(|data| data.get(key)) else { return Ok(None) };
            let text = String::from_utf8(value.0.clone());
            text.map(Some).map_err(|_| TrustError::Bad { key, problem: "is no text".into() })
        };
        let needed = |key: &'static str| {
            text(key)?.ok_or_else(|| TrustError::Bad { key, problem: "is missing".into() })
        };
        let next = match text(NEXT)? {
            None => None,
            Some(certificate) => {
                let published = needed(NEXT_PUBLISHED)?.parse().map_err(|error: jiff::Error| {
                    TrustError::Bad { key: NEXT_PUBLISHED, problem: error.to_string() }
                })?;
                Some((Pair { certificate, key: needed(NEXT_KEY)? }, published))
            }
        };
        let current = Pair { certificate: needed(CA_KEY)?, key: needed(KEY)? };
        Ok(Self { current, next, previous: text(PREVIOUS)? })
    }

    pub fn data(&self) -> Data {
        let mut values = vec![(CA_KEY, self.current.certificate.clone()), (KEY, self.current.key.clone())];
        if let Some((pair, published)) = &self.next {
            values.push((NEXT, pair.certificate.clone()));
            values.push((NEXT_KEY, pair.key.clone()));
            values.push((NEXT_PUBLISHED, published.to_string()));
        }
        values.extend(self.previous.clone().map(|certificate| (PREVIOUS, certificate)));
        values.into_iter().map(|(key, value)| (key.to_owned(), ByteString(value.into_bytes()))).collect()
    }

    /// Every certificate that workers are to trust; the one that signs comes first.
    pub fn bundle(&self) -> String {
        let all = [
            Some(&self.current.certificate),
            self.next.as_ref().map(|(pair, _)| &pair.certificate),
            self.previous.as_ref(),
        ];
        let mut bundle = String::new();
        for certificate in all.into_iter().flatten() {
            bundle.push_str(certificate.trim_end());
            bundle.push('\n');
        }
        bundle
    }

    pub fn authorities(&self) -> Result<Authorities, TrustError> {
        let previous = match &self.previous {
            Some(certificate) => Some(validity(PREVIOUS, certificate)?.until),
            None => None,
        };
        Ok(Authorities {
            current: validity(CA_KEY, &self.current.certificate)?,
            next: self.next.as_ref().map(|(_, published)| *published),
            previous,
        })
    }

    /// The next authority is made, and published at `now`.
    pub fn publish(self, now: Timestamp) -> Result<Self, TrustError> {
        // a whole second, as it is written
        let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
        Ok(Self { next: Some((Pair::generate()?, now)), ..self })
    }

    /// The next authority signs.
    pub fn switch(self) -> Self {
        match self.next {
            Some((next, _)) => Self { current: next, next: None, previous: Some(self.current.certificate) },
            None => self,
        }
    }

    /// The previous authority is trusted no more.
    pub fn forget(self) -> Self {
        Self { previous: None, ..self }
    }
}

/// Of the first certificate of a text.
fn validity(key: &'static str, pem: &str) -> Result<Validity, TrustError> {
    let bad = |problem: String| TrustError::Bad { key, problem };
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| bad(format!("{error:?}")))?;
    let (_, certificate) =
        x509_parser::parse_x509_certificate(&der).map_err(|error| bad(error.to_string()))?;
    let time = |time: x509_parser::time::ASN1Time| {
        Timestamp::from_second(time.timestamp()).map_err(|error| bad(error.to_string()))
    };
    let validity = certificate.validity();
    Ok(Validity { from: time(validity.not_before)?, until: time(validity.not_after)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(content: &Content) -> Secret {
        Secret { data: Some(content.data()), ..Secret::default() }
    }

    #[test]
    fn each_step_survives_being_written_and_read_and_the_bundle_follows() {
        let now: Timestamp = "2027-01-01T00:00:00.7Z".parse().unwrap();
        let first = Content::make().unwrap();
        let published = first.clone().publish(now).unwrap();
        let switched = published.clone().switch();
        let forgotten = switched.clone().forget();
        for (content, certificates) in [(&first, 1), (&published, 2), (&switched, 2), (&forgotten, 1)] {
            assert_eq!(&Content::read(&secret(content)).unwrap(), content);
            let bundle = content.bundle();
            assert_eq!(bundle.matches("BEGIN CERTIFICATE").count(), certificates);
            assert!(bundle.starts_with(content.current.certificate.trim_end()));
            assert!(!bundle.contains("PRIVATE"));
            // the operator can sign with it
            Authority::from_pem(&bundle, &content.current.key).unwrap();
        }
        assert_eq!(switched.current, published.next.unwrap().0);
        assert_eq!(switched.previous, Some(first.current.certificate));
        let authorities = forgotten.authorities().unwrap();
        let days = authorities.current.until.duration_since(authorities.current.from).as_hours() / 24;
        assert!((365..=367).contains(&days), "{days}");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let good = Content::make().unwrap().publish(Timestamp::now()).unwrap();
        for (spoil, text) in [
            (vec![(CA_KEY, None)], "`ca.crt`: is missing"),
            (vec![(KEY, None)], "`ca.key`: is missing"),
            (vec![(KEY, Some(vec![0xff]))], "`ca.key`: is no text"),
            (vec![(NEXT_KEY, None)], "`next.key`: is missing"),
            (vec![(NEXT_PUBLISHED, Some(b"soon".to_vec()))], "`next.published`"),
            (vec![(CA_KEY, Some(b"-----BEGIN".to_vec()))], "`ca.crt`"),
        ] {
            let mut data = good.data();
            for (key, value) in spoil {
                match value {
                    Some(value) => _ = data.insert(key.into(), ByteString(value)),
                    None => _ = data.remove(key),
                }
            }
            let secret = Secret { data: Some(data), ..Secret::default() };
            let read = Content::read(&secret).and_then(|content| content.authorities());
            let found = read.unwrap_err().to_string();
            assert!(found.contains(text), "{found}");
        }
    }
}
