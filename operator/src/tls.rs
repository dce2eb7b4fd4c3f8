//! TLS of the operator: a certificate authority of its own, made at the first start, the server's
//! certificate, and the token that workers log in with when there is no Kubernetes to vouch for them.

use jiff::civil::Date;
use jiff::{Timestamp, ToSpan, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData,
};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig, version::TLS13};
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

/// The authority's certificate: what workers trust.
pub const CA_FILE: &str = "ca.pem";
pub const CA_KEY_FILE: &str = "ca-key.pem";
/// The static token of local workers.
pub const TOKEN_FILE: &str = "worker-token";
/// The dispatcher's name in every server certificate, whatever its address is.
pub const SERVER_NAME: &str = "arborist-dispatcher";

const CA_YEARS: i16 = 20;
const SERVER_DAYS: i64 = 90;
/// A server certificate with fewer days left is replaced.
const RENEW_DAYS: i64 = 30;
const TOKEN_BYTES: usize = 32;

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file of the state folder can't be read or written.
    #[error("{path}: {error}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// A key or certificate can't be made or read.
    #[error("certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// A host's name can't stand in a certificate, or TLS can't be set up.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// A certificate authority's certificate and key are no such pair.
    #[error("the certificate authority: {0}")]
    BadAuthority(String),
    /// The token's file is empty or too long.
    #[error("{path}: a token has 16 to 4096 characters, this has {length}", path = path.display())]
    BadToken {
        /// The file.
        path: PathBuf,
        /// Characters found.
        length: usize,
    },
}

/// The operator's own certificate authority. It may be replaced while servers run.
pub struct Authority {
    current: RwLock<Arc<Issuing>>,
}

/// An authority's certificate and key.
struct Issuing {
    issuer: Issuer<'static, KeyPair>,
    ca_pem: String,
    not_after: Timestamp,
    /// Grows with each replacement.
    generation: u64,
}

impl Issuing {
    fn from_pem(ca_pem: &str, key_pem: &str, generation: u64) -> Result<Self, TlsError> {
        let bad = |text: String| TlsError::BadAuthority(text);
        let key = KeyPair::from_pem(key_pem)?;
        for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
            let certificate = certificate.map_err(|error| bad(format!("its certificate: {error:?}")))?;
            let (_, parsed) = x509_parser::parse_x509_certificate(&certificate)
                .map_err(|error| bad(format!("its certificate: {error}")))?;
            if parsed.public_key().raw != key.subject_public_key_info() {
                continue;
            }
            if !parsed.is_ca() {
                return Err(bad("its certificate is none of an authority".into()));
            }
            let not_after = Timestamp::from_second(parsed.validity().not_after.timestamp())
                .map_err(|error| bad(format!("its certificate's end: {error}")))?;
            let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
            return Ok(Self { issuer, ca_pem: ca_pem.to_owned(), not_after, generation });
        }
        Err(bad("none of its certificates is of its key".into()))
    }
}

impl Authority {
    /// An authority from its certificate and key in PEM. The certificate's text may hold others too, as
    /// while one takes over from another; the one that is of the key signs.
    ///
    /// # Errors
    /// The texts hold no such pair.
    pub fn from_pem(ca_pem: &str, key_pem: &str) -> Result<Self, TlsError> {
        Ok(Self { current: RwLock::new(Arc::new(Issuing::from_pem(ca_pem, key_pem, 0)?)) })
    }

    /// Makes an authority that is valid from yesterday for so many days: its certificate and its key, in
    /// PEM.
    ///
    /// # Errors
    /// There is no randomness.
    pub fn generate(valid_days: u16) -> Result<(String, String), TlsError> {
        let key = KeyPair::generate()?;
        let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
        let params = ca_params(today - 1.day(), today + i64::from(valid_days).days());
        Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
    }

    /// Reads the authority from a state folder; makes it (`ca.pem`, and `ca-key.pem` readable by its
    /// owner only) when there is none.
    ///
    /// # Errors
    /// The files can't be read or written, or hold no key.
    pub fn open(state_dir: &Path) -> Result<Self, TlsError> {
        make_dir(state_dir)?;
        let key_file = state_dir.join(CA_KEY_FILE);
        let key_pem = read_or_create(&key_file, || Ok(KeyPair::generate()?.serialize_pem()))?;
        let ca_pem = read_or_create(&state_dir.join(CA_FILE), || {
            let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
            let params = ca_params(today - 1.day(), today + CA_YEARS.years());
            Ok(params.self_signed(&KeyPair::from_pem(&key_pem)?)?.pem())
        })?;
        Self::from_pem(&ca_pem, &key_pem)
    }

    /// From now on this certificate and key sign: every server that was set up with this authority has a
    /// new certificate at its next handshake. Connections that are open stay. Clients have to trust the
    /// new authority before.
    ///
    /// # Errors
    /// The texts hold no such pair; then nothing changes.
    pub fn replace(&self, ca_pem: &str, key_pem: &str) -> Result<(), TlsError> {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        *current = Arc::new(Issuing::from_pem(ca_pem, key_pem, current.generation + 1)?);
        Ok(())
    }

    fn current(&self) -> Arc<Issuing> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The certificate in PEM, with what else was given along with it: what clients trust.
    pub fn ca_pem(&self) -> String {
        self.current().ca_pem.clone()
    }

    /// When the certificate ends.
    pub fn not_after(&self) -> Timestamp {
        self.current().not_after
    }

    /// TLS 1.3 for a server that is reached under `hosts` (names or addresses; [`SERVER_NAME`],
    /// `localhost`, 127.0.0.1 and ::1 come on top). Its certificate lives in memory and renews itself.
    /// `protocols` are what ALPN offers; none for the dispatcher.
    ///
    /// # Errors
    /// A host that can't stand in a certificate.
    pub fn server_config(
        self: &Arc<Self>,
        hosts: &[String],
        protocols: &[&str],
    ) -> Result<Arc<ServerConfig>, TlsError> {
        let mut names: Vec<String> = [SERVER_NAME, "localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
        // an IPv6 address may be written as in a URL
        let bare = |host: &String| host.trim_matches(['[', ']']).to_owned();
        names.extend(hosts.iter().map(bare).filter(|host| !host.is_empty()));
        names.sort();
        names.dedup();
        let now = Timestamp::now();
        let current = RwLock::new(self.certificate(&names, now)?);
        let renewing = Renewing { authority: self.clone(), names, current };
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&TLS13])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(renewing));
        // connections last for days: tickets to resume them are bytes and time for nothing
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
        Ok(Arc::new(config))
    }

    fn certificate(&self, names: &[String], now: Timestamp) -> Result<Dated, TlsError> {
        let issuing = self.current();
        let mut params = CertificateParams::new(names.to_vec())?;
        params.distinguished_name.push(DnType::CommonName, SERVER_NAME);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let today = now.to_zoned(TimeZone::UTC).date();
        set_days(&mut params, today - 1.day(), today + SERVER_DAYS.days());
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &issuing.issuer)?;
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let signer = ring::sign::any_supported_type(&der)?;
        let certified = CertifiedKey::new(vec![certificate.der().clone()], signer);
        let renew_at = now + (24 * (SERVER_DAYS - RENEW_DAYS)).hours();
        Ok(Dated { certified: Arc::new(certified), renew_at, generation: issuing.generation })
    }
}

fn ca_params(first: Date, last: Date) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Arborist operator");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    set_days(&mut params, first, last);
    params
}

fn set_days(params: &mut CertificateParams, first: Date, last: Date) {
    let day = |d: Date| rcgen::date_time_ymd(i32::from(d.year()), d.month() as u8, d.day() as u8);
    params.not_before = day(first);
    params.not_after = day(last);
}

struct Dated {
    certified: Arc<CertifiedKey>,
    renew_at: Timestamp,
    /// Of the authority that signed it.
    generation: u64,
}

impl Dated {
    fn is_good(&self, now: Timestamp, generation: u64) -> bool {
        now < self.renew_at && self.generation == generation
    }
}

struct Renewing {
    authority: Arc<Authority>,
    names: Vec<String>,
    current: RwLock<Dated>,
}

impl std::fmt::Debug for Renewing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Renewing").field("names", &self.names).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Renewing {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let now = Timestamp::now();
        let generation = self.authority.current().generation;
        {
            let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
            if current.is_good(now, generation) {
                return Some(current.certified.clone());
            }
        }
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if !current.is_good(now, generation) {
            match self.authority.certificate(&self.names, now) {
                Ok(new) => *current = new,
                Err(error) => tracing::error!(%error, "the server certificate can't be renewed"),
            }
        }
        Some(current.certified.clone())
    }
}

/// TLS for a client that trusts these authorities (PEM) only, as workers do: the other side of
/// [`Authority::server_config`]. The server is asked for as [`SERVER_NAME`].
///
/// # Errors
/// The text holds none, or something that is none.
pub fn client_config(ca_pem: &str) -> Result<ClientConfig, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        let bad = |error| TlsError::BadAuthority(format!("its certificate: {error:?}"));
        roots.add(certificate.map_err(bad)?)?;
    }
    if roots.is_empty() {
        return Err(TlsError::BadAuthority("no certificate".into()));
    }
    Ok(ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

/// The static token that local workers log in with. See [`token`].
///
/// # Errors
/// The file can't be read or written, or holds no token.
pub fn worker_token(state_dir: &Path) -> Result<String, TlsError> {
    token(state_dir, TOKEN_FILE)
}

/// A token from a file of the state folder, where it is made at the first start (32 random bytes in hex, readable by
/// its owner only).
///
/// # Errors
/// The file can't be read or written, or holds no token.
pub fn token(state_dir: &Path, file: &str) -> Result<String, TlsError> {
    make_dir(state_dir)?;
    let path = state_dir.join(file);
    let token = read_or_create(&path, || Ok(hex::encode(rand::random::<[u8; TOKEN_BYTES]>())))?;
    let token = token.trim().to_owned();
    match token.len() {
        16..=4096 => Ok(token),
        length => Err(TlsError::BadToken { path, length }),
    }
}

fn make_dir(dir: &Path) -> Result<(), TlsError> {
    fs::create_dir_all(dir).map_err(|error| TlsError::File { path: dir.to_owned(), error })
}

/// The text of a file in a state folder, which is made if it is missing; see [`read_or_create`].
pub(crate) fn state_file(
    path: &Path,
    make: impl FnOnce() -> Result<String, TlsError>,
) -> Result<String, TlsError> {
    path.parent().map_or(Ok(()), make_dir)?;
    read_or_create(path, make)
}

/// The file's text; when it is missing, what `make` gives, written whole or not at all. Of two
/// processes that start at once both get the first one's.
fn read_or_create(path: &Path, make: impl FnOnce() -> Result<String, TlsError>) -> Result<String, TlsError> {
    let failed = |error| TlsError::File { path: path.to_owned(), error };
    match fs::read_to_string(path) {
        Ok(text) => return Ok(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let text = make()?;
    let draft = path.with_extension(format!("new-{}-{:08x}", std::process::id(), rand::random::<u32>()));
    let written = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(if path.ends_with(CA_FILE) { 0o644 } else { 0o600 })
        .open(&draft)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .and_then(|()| match fs::hard_link(&draft, path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        });
    // a draft that stays behind is of no harm
    let _ = fs::remove_file(&draft);
    written.map_err(failed)?;
    fs::read_to_string(path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_authority_and_the_token_outlive_a_restart_and_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let first = Authority::open(dir.path()).unwrap();
        let token = worker_token(dir.path()).unwrap();
        assert_eq!(token.len(), 64);
        assert_eq!(Authority::open(dir.path()).unwrap().ca_pem(), first.ca_pem());
        assert_eq!(worker_token(dir.path()).unwrap(), token);
        for (name, mode) in [(CA_KEY_FILE, 0o600), (TOKEN_FILE, 0o600)] {
            let found = fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o777;
            assert_eq!(found, mode, "{name}");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3, "no drafts stay behind");
    }

    #[test]
    fn a_certificate_is_renewed_before_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Arc::new(Authority::open(dir.path()).unwrap());
        let names = vec!["localhost".to_owned()];
        let now = Timestamp::now();
        let dated = authority.certificate(&names, now).unwrap();
        let days_to_end = SERVER_DAYS - (dated.renew_at.duration_since(now).as_hours() / 24);
        assert_eq!(days_to_end, RENEW_DAYS);
    }

    #[test]
    fn an_authority_given_as_text_signs_and_may_be_replaced() {
        let (old, new) = (Authority::generate(10).unwrap(), Authority::generate(20).unwrap());
        let both = format!("{}{}", old.0, new.0);
        for (ca, key, days) in [(&old.0, &old.1, 10), (&both, &old.1, 10), (&both, &new.1, 20)] {
            let authority = Authority::from_pem(ca, key).unwrap();
            let hours = authority.not_after().duration_since(Timestamp::now()).as_hours();
            assert!((24 * (days - 1)..=24 * days).contains(&hours), "{hours} hours");
            assert_eq!(&authority.ca_pem(), ca);
        }
        let authority = Authority::from_pem(&old.0, &old.1).unwrap();
        let names = vec!["localhost".to_owned()];
        let dated = authority.certificate(&names, Timestamp::now()).unwrap();
        assert!(dated.is_good(Timestamp::now(), authority.current().generation));
        assert!(authority.replace(&old.0, &new.1).is_err());
        assert!(dated.is_good(Timestamp::now(), authority.current().generation), "nothing changed");
        authority.replace(&new.0, &new.1).unwrap();
        assert!(!dated.is_good(Timestamp::now(), authority.current().generation));
    }

    #[test]
    fn texts_that_are_no_authority_are_refused() {
        let (ca, key) = Authority::generate(10).unwrap();
        let (_, other_key) = Authority::generate(10).unwrap();
        let server = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let server = (server.cert.pem(), server.signing_key.serialize_pem());
        for (ca, key, why) in [
            (ca.as_str(), other_key.as_str(), "none of its certificates is of its key"),
            ("", key.as_str(), "none of its certificates"),
            (server.0.as_str(), server.1.as_str(), "none of an authority"),
            (ca.as_str(), "no key", "certificate"),
        ] {
            let error = Authority::from_pem(ca, key).err().expect("refused").to_string();
            assert!(error.contains(why), "{error}");
        }
        assert!(client_config(&ca).is_ok() && client_config(&format!("{ca}{}", server.0)).is_ok());
        let torn = ca.replace("-----END", "");
        for (ca, why) in [("", "no certificate"), ("no PEM", "no certificate"), (&torn, "its certificate")] {
            let error = client_config(ca).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn hosts_that_fit_no_certificate_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Arc::new(Authority::open(dir.path()).unwrap());
        assert!(
            authority
                .server_config(&["dispatcher.example".into(), "10.0.0.1".into(), "[fd00::1]".into()], &[])
                .is_ok()
        );
        assert!(authority.server_config(&["höst".into()], &[]).is_err());
    }

    #[test]
    fn an_empty_token_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(TOKEN_FILE), "\n").unwrap();
        assert!(matches!(worker_token(dir.path()), Err(TlsError::BadToken { length: 0, .. })));
    }
}
