//! HTTP to addresses that users of the cluster name: sources of blocks, targets of reports.
//!
//! Whoever may write a ProvingJob (or the Secret it names) chooses an address that the operator then speaks to, with
//! the operator's place in the network. Cluster addresses are legitimate. The machine itself and what is reachable by
//! link-local addresses, cloud metadata services above all, are not: names are resolved here and such addresses
//! dropped before a connection is made, at every redirect too. No proxy is used, since a proxy would resolve names
//! out of reach of this check.

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, ClientBuilder};
use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::OnceLock;
use std::time::Duration;
use url::{Host, Url};

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(10);
/// The most redirects followed.
const REDIRECTS: usize = 5;

/// Metadata services at addresses that are not link-local: AWS (IPv6), Google (IPv6), Alibaba, Azure's wire server.
const METADATA: [IpAddr; 4] = [
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x0254)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
];

/// Which addresses may be spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// All but the machine itself, link-local ones and metadata services.
    Network,
    /// All; for a single machine and for tests.
    Everything,
}

impl Reach {
    /// By the operator's setting.
    pub const fn of(allow_local_addresses: bool) -> Self {
        if allow_local_addresses { Self::Everything } else { Self::Network }
    }

    fn allows(self, address: IpAddr) -> bool {
        self == Self::Everything || !is_local(address)
    }
}

/// Why an address is not spoken to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Forbidden {
    /// Only HTTP is spoken.
    #[error("`{0}://` is not http:// or https://")]
    Scheme(String),
    /// The URL names no host.
    #[error("the URL has no host")]
    NoHost,
    /// The host is this machine, link-local or a metadata service.
    #[error(
        "{0} is this machine, link-local or a metadata service: the operator does not speak to such addresses"
    )]
    Local(String),
}

/// Why there is no client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The certificates given can't be read.
    #[error("ca.crt: {0}")]
    Ca(String),
    /// TLS can't be set up.
    #[error("TLS: {0}")]
    Tls(String),
}

/// Whether an address is this machine, link-local or a metadata service; also when it is written as an IPv6 address
/// that stands for an IPv4 one.
fn is_local(address: IpAddr) -> bool {
    let local = match address {
        IpAddr::V4(v4) => is_local_v4(v4),
        IpAddr::V6(v6) => {
            v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_unicast_link_local()
                || v6.is_multicast()
                || embedded(v6).is_some_and(is_local_v4)
        }
    };
    local || METADATA.contains(&address)
}

fn is_local_v4(v4: Ipv4Addr) -> bool {
    v4.octets()[0] == 0
        || v4.is_loopback()
        || v4.is_link_local()
        || v4.is_multicast()
        || v4.is_broadcast()
        || METADATA.contains(&IpAddr::V4(v4))
}

/// The IPv4 address inside a mapped, compatible, NAT64 or 6to4 one.
fn embedded(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let s = v6.segments();
    let of = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match s {
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(of(high, low)),
        [0x2002, high, low, ..] => Some(of(high, low)),
        _ => None,
    }
}

/// Checks what of a URL can be checked without resolving its host.
///
/// # Errors
/// See [`Forbidden`].
pub fn check(url: &Url, reach: Reach) -> Result<(), Forbidden> {
    if !matches!(url.scheme(), "http" | "https") {
        return Err(Forbidden::Scheme(url.scheme().to_owned()));
    }
    let address = match url.host().ok_or(Forbidden::NoHost)? {
        Host::Domain(_) => return Ok(()),
        Host::Ipv4(v4) => IpAddr::V4(v4),
        Host::Ipv6(v6) => IpAddr::V6(v6),
    };
    if reach.allows(address) { Ok(()) } else { Err(Forbidden::Local(address.to_string())) }
}

/// A URL as it may be shown: without user, password and query, which may hold secrets.
pub fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    // only a URL without a host has neither, and keeps what it has
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.to_string()
}

/// A client's settings. Redirects are followed where `follow` says so, to HTTP and allowed addresses only.
/// Servers are trusted by the system's certificates (Mozilla's, where the system has none, as in an image with
/// nothing but the program) and those of `ca_pem`.
///
/// # Errors
/// See [`ClientError`].
pub fn client(reach: Reach, follow: bool, ca_pem: Option<&[u8]>) -> Result<ClientBuilder, ClientError> {
    // a program that has chosen a provider keeps it
    let _already_chosen = rustls::crypto::ring::default_provider().install_default();
    let mut trusted = roots().to_vec();
    if let Some(pem) = ca_pem {
        let more = Certificate::from_pem_bundle(pem).map_err(|e| ClientError::Ca(chain(&e)))?;
        if more.is_empty() {
            return Err(ClientError::Ca("it holds no certificate in PEM".into()));
        }
        trusted.extend(more);
    }
    let policy =
        if follow { Policy::custom(move |attempt| redirect(attempt, reach)) } else { Policy::none() };
    Ok(Client::builder()
        .no_proxy()
        .redirect(policy)
        .dns_resolver(Guard(reach))
        .connect_timeout(CONNECT)
        .user_agent(concat!("arborist/", env!("CARGO_PKG_VERSION")))
        .tls_certs_only(trusted))
}

fn redirect(attempt: reqwest::redirect::Attempt<'_>, reach: Reach) -> reqwest::redirect::Action {
    if attempt.previous().len() > REDIRECTS {
        return attempt.error(format!("more than {REDIRECTS} redirects"));
    }
    match check(attempt.url(), reach) {
        Ok(()) => attempt.follow(),
        Err(forbidden) => attempt.error(forbidden),
    }
}

fn roots() -> &'static [Certificate] {
    static ROOTS: OnceLock<Vec<Certificate>> = OnceLock::new();
    ROOTS.get_or_init(|| {
        let system = rustls_native_certs::load_native_certs().certs;
        let bundled = webpki_root_certs::TLS_SERVER_ROOT_CERTS;
        let trusted = if system.is_empty() { bundled } else { &system };
        // a certificate of the system that can't be read is one server less that is trusted
        trusted.iter().filter_map(|der| Certificate::from_der(der).ok()).collect()
    })
}

/// Resolves names and drops the addresses that are out of reach.
#[derive(Debug, Clone, Copy)]
struct Guard(Reach);

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = self.0;
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let allowed: Vec<SocketAddr> = found.iter().copied().filter(|a| reach.allows(a.ip())).collect();
            if allowed.is_empty() && !found.is_empty() {
                return Err(Forbidden::Local(name.as_str().to_owned()).into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

/// An error with all its causes in one line, without the URL, whose query may hold secrets.
pub fn chain(error: &reqwest::Error) -> String {
    let mut parts: Vec<String> = vec![];
    let mut next: Option<&(dyn Error + 'static)> = error.source();
    while let Some(cause) = next {
        let part = cause.to_string();
        // some layers only repeat the one below
        if !parts.iter().any(|known| known.contains(&part)) {
            parts.push(part);
        }
        next = cause.source();
    }
    match (parts.is_empty(), error.is_timeout()) {
        (true, true) => "no answer in time".into(),
        (true, false) => error.to_string().split(" for url (").next().unwrap_or_default().to_owned(),
        (false, _) => parts.join(": "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_and_metadata_services_are_out_of_reach_however_written() {
        let forbidden = [
            "http://127.0.0.1/",
            "http://127.8.8.8:8080/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://0.0.0.0/",
            "http://169.254.169.254/latest/meta-data/",
            "http://[::1]/",
            "http://[::]/",
            "http://[::ffff:127.0.0.1]/",
            "http://[::ffff:169.254.169.254]/",
            "http://[64:ff9b::a9fe:a9fe]/",
            "http://[2002:a9fe:a9fe::]/",
            "http://[fe80::a9fe:a9fe]/",
            "http://[fd00:ec2::254]/",
            "http://100.100.100.200/",
            "http://168.63.129.16/",
            "http://224.0.0.1/",
            "http://255.255.255.255/",
        ];
        for text in forbidden {
            let url = Url::parse(text).unwrap();
            assert!(matches!(check(&url, Reach::Network), Err(Forbidden::Local(_))), "{text}");
            assert_eq!(check(&url, Reach::Everything), Ok(()), "{text}");
        }
        for text in
            ["http://10.96.0.1/", "https://192.168.7.7/x", "http://[fd00::7]/", "http://blocks.default.svc/"]
        {
            assert_eq!(check(&Url::parse(text).unwrap(), Reach::Network), Ok(()), "{text}");
        }
        let file = Url::parse("file:///etc/passwd").unwrap();
        assert_eq!(check(&file, Reach::Everything), Err(Forbidden::Scheme("file".into())));
    }

    #[tokio::test]
    async fn a_name_that_means_the_machine_is_out_of_reach_too() {
        let guard = Guard(Reach::Network);
        let error = guard.resolve("localhost".parse().unwrap()).await.err().unwrap();
        assert!(error.to_string().contains("localhost is this machine"), "{error}");
        assert!(
            Guard(Reach::Everything).resolve("localhost".parse().unwrap()).await.unwrap().next().is_some()
        );
    }

    #[test]
    fn what_is_shown_holds_no_secrets() {
        let url = Url::parse("https://user:word@h.example:8443/b.json?X-Amz-Signature=1#f").unwrap();
        assert_eq!(shown(&url), "https://h.example:8443/b.json");
    }

    #[test]
    fn a_bad_certificate_is_named() {
        assert!(matches!(client(Reach::Network, true, Some(b"nothing")), Err(ClientError::Ca(_))));
        assert!(client(Reach::Network, true, None).is_ok());
    }
}
