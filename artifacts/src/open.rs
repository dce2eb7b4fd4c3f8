//! From a URL to a store.

use crate::backend::Backend;
use crate::error::StoreError;
use crate::http::HttpBackend;
use crate::limited::Limited;
use crate::object::ObjectBackend;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, RetryConfig};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// A block file is the largest object.
const DEFAULT_MAX_OBJECT_BYTES: u64 = arborist_core::block::MAX_BLOCK_BYTES;
const DEFAULT_REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// How to speak to a store, beside its URL.
#[derive(Clone)]
pub struct StoreOptions {
    /// The session token for an operator's own store.
    pub token: Option<String>,
    /// The CA certificates (PEM) that an operator's own store is trusted by; `None` = the system's.
    pub ca_pem: Option<Vec<u8>>,
    /// Settings of a bucket by their names in the environment (`aws_endpoint`, …); they win over it.
    pub bucket_settings: Vec<(String, String)>,
    /// Objects above this many bytes are not read.
    pub max_object_bytes: u64,
    /// How long one request may take.
    pub request_timeout: Duration,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            token: None,
            ca_pem: None,
            bucket_settings: Vec::new(),
            max_object_bytes: DEFAULT_MAX_OBJECT_BYTES,
            request_timeout: DEFAULT_REQUEST_TIMEOUT,
        }
    }
}

impl fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // tokens and bucket settings are secrets
        f.debug_struct("StoreOptions")
            .field("token", &self.token.is_some())
            .field("ca_pem", &self.ca_pem.is_some())
            .field("bucket_settings", &self.bucket_settings.len())
            .field("max_object_bytes", &self.max_object_bytes)
            .field("request_timeout", &self.request_timeout)
            .finish()
    }
}

/// The store at `url` and a name for it that can be logged.
pub(crate) fn open(url: &str, options: &StoreOptions) -> Result<(Arc<dyn Backend>, String), StoreError> {
    let bad = |url: &str, reason: String| StoreError::BadUrl { url: url.to_owned(), reason };
    let parsed = Url::parse(url).map_err(|error| bad(url, error.to_string()))?;
    let name = without_password(&parsed);
    if !matches!(parsed.scheme(), "file" | "memory") {
        // a program that has chosen a provider keeps it
        let _already_chosen = rustls::crypto::ring::default_provider().install_default();
    }
    let store = match parsed.scheme() {
        "file" => open_folder(&parsed),
        "memory" => Ok(Arc::new(InMemory::new()) as Arc<dyn ObjectStore>),
        "s3" | "gs" | "az" => open_bucket(&parsed, options),
        "https" | "http" => {
            let backend = open_operators(&parsed, options).map_err(|reason| bad(&name, reason))?;
            return Ok((limited(Arc::new(backend), &name, options), name));
        }
        other => Err(format!("`{other}://` is unknown")),
    };
    let store = store.map_err(|reason| bad(&name, reason))?;
    let folder = parsed.to_file_path().ok().filter(|_| parsed.scheme() == "file");
    Ok((limited(Arc::new(ObjectBackend::new(store, &name, folder)), &name, options), name))
}

fn limited(backend: Arc<dyn Backend>, name: &str, options: &StoreOptions) -> Arc<dyn Backend> {
    Arc::new(Limited::new(backend, name, options.request_timeout))
}

fn without_password(url: &Url) -> String {
    let mut url = url.clone();
    if url.password().is_some() && url.set_password(None).is_err() {
        return format!("{}://…", url.scheme());
    }
    url.to_string()
}

fn open_folder(url: &Url) -> Result<Arc<dyn ObjectStore>, String> {
    let folder = url.to_file_path().map_err(
        |()| "a folder is written with three slashes and its whole path, file:///var/lib/arborist",
    )?;
    std::fs::create_dir_all(&folder)
        .map_err(|error| format!("the folder {} can't be made: {error}", folder.display()))?;
    let store = LocalFileSystem::new_with_prefix(&folder).map_err(|error| error.to_string())?;
    // without it a proof that was called durable is lost with the power
    Ok(Arc::new(store.with_fsync(true)))
}

fn open_bucket(url: &Url, options: &StoreOptions) -> Result<Arc<dyn ObjectStore>, String> {
    if url.host_str().is_none_or(str::is_empty) {
        return Err("the bucket's name is missing".into());
    }
    // the journal and `with_retry` try again themselves, and know for how long
    let retries =
        RetryConfig { max_retries: 2, retry_timeout: options.request_timeout, ..Default::default() };
    // humantime's notation; first, so that a setting can change it
    let timeout = ("timeout".to_owned(), format!("{}ms", options.request_timeout.as_millis()));
    macro_rules! build {
        ($builder:expr) => {{
            let mut builder = $builder.with_url(url.as_str()).with_retry(retries);
            for (key, value) in std::iter::once(&timeout).chain(&options.bucket_settings) {
                let key = key.to_ascii_lowercase();
                let key = key.parse().map_err(|_| format!("`{key}` is no setting of such a bucket"))?;
                builder = builder.with_config(key, value);
            }
            let store = builder.build().map_err(|error| error.to_string())?;
            below(store, url)
        }};
    }
    match url.scheme() {
        "s3" => build!(AmazonS3Builder::from_env()),
        "gs" => build!(GoogleCloudStorageBuilder::from_env()),
        _ => build!(MicrosoftAzureBuilder::from_env()),
    }
}

fn below(store: impl ObjectStore, url: &Url) -> Result<Arc<dyn ObjectStore>, String> {
    let prefix = Path::from_url_path(url.path()).map_err(|error| error.to_string())?;
    if prefix.as_ref().is_empty() {
        return Ok(Arc::new(store));
    }
    Ok(Arc::new(PrefixStore::new(store, prefix)))
}

fn open_operators(url: &Url, options: &StoreOptions) -> Result<HttpBackend, String> {
    if url.query().is_some() || url.fragment().is_some() || url.password().is_some() {
        return Err("an operator's store is named by host, port and path alone".into());
    }
    HttpBackend::new(url, options)
}
