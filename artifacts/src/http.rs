//! The store that an operator serves itself, spoken to in plain HTTP.

use crate::backend::{Answer, Backend, Created, Entry, Opened};
use crate::error::{StoreError, chain};
use crate::open::StoreOptions;
use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream, StreamExt};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;
use tokio::time::timeout;
use url::Url;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// What reads has to begin to get its answer within this time, and to get each next part: a connection may acknowledge
/// everything and bring nothing, and the next one is better. A write may take all the time there is.
const SILENCE: Duration = Duration::from_secs(12);
const MAX_REASON_CHARS: usize = 300;

pub(crate) struct HttpBackend {
    client: Client,
    base: String,
    token: RwLock<Option<String>>,
}

impl HttpBackend {
    pub(crate) fn new(url: &Url, options: &StoreOptions) -> Result<Self, String> {
        let mut client = Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(options.request_timeout);
        if let Some(pem) = &options.ca_pem {
            let certificates = reqwest::Certificate::from_pem_bundle(pem)
                .map_err(|error| format!("its CA certificate: {}", chain(&error)))?;
            if certificates.is_empty() {
                return Err("its CA file holds no certificate".into());
            }
            client = client.tls_certs_only(certificates);
        }
        let client = client.build().map_err(|error| chain(&error))?;
        let base = url.as_str().trim_end_matches('/').to_owned();
        Ok(Self { client, base, token: RwLock::new(options.token.clone()) })
    }

    fn action(&self, verb: &str, key: &str) -> String {
        format!("{verb} {key} at {}", self.base)
    }

    fn request(&self, method: Method, key: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}/artifacts/{key}", self.base));
        match &*self.token.read().unwrap_or_else(PoisonError::into_inner) {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    async fn send(&self, verb: &str, key: &str, request: RequestBuilder) -> Result<Response, StoreError> {
        request.send().await.map_err(|error| self.failed(verb, key, &error))
    }

    /// Waits for an answer to a question that changes nothing.
    async fn ask(&self, verb: &str, key: &str, method: Method) -> Result<Response, StoreError> {
        let asked = self.send(verb, key, self.request(method, key));
        heard(self.action(verb, key), asked).await
    }

    fn failed(&self, verb: &str, key: &str, error: &reqwest::Error) -> StoreError {
        failed(self.action(verb, key), error)
    }

    async fn refused(&self, verb: &str, key: &str, response: Response) -> StoreError {
        let status = response.status();
        let text = response.text().await.unwrap_or_default();
        let text: String = text.trim().chars().take(MAX_REASON_CHARS).collect();
        StoreError::of_answer(self.action(verb, key), status.as_u16(), &text, format!("{status}: {text}"))
    }

    async fn create_once(&self, key: &str, bytes: Bytes) -> Result<Created, StoreError> {
        let response = self.send("create", key, self.request(Method::PUT, key).body(bytes)).await?;
        match response.status() {
            StatusCode::CREATED => Ok(Created::New),
            StatusCode::CONFLICT => Ok(Created::Exists),
            _ => Err(self.refused("create", key, response).await),
        }
    }

    async fn open_bounded(&self, key: &str, max_bytes: u64) -> Result<Option<Opened>, StoreError> {
        let response = self.ask("get", key, Method::GET).await?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            _ => return Err(self.refused("get", key, response).await),
        }
        let bytes = response.content_length().unwrap_or(0);
        let action = self.action("get", key);
        if bytes > max_bytes {
            return Err(StoreError::TooLarge { action, bytes, max_bytes });
        }
        Ok(Some(Opened { bytes, content: Box::pin(read_bounded(response, action, max_bytes)) }))
    }

    async fn size(&self, key: &str) -> Result<Option<u64>, StoreError> {
        let response = self.ask("look up", key, Method::HEAD).await?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            _ => return Err(self.refused("look up", key, response).await),
        }
        // not `content_length()`: that is the size of the answer's body, and a HEAD has none
        let size = response.headers().get(reqwest::header::CONTENT_LENGTH);
        let size = size.and_then(|value| value.to_str().ok()?.parse().ok());
        size.map(Some).ok_or_else(|| StoreError::Other {
            action: self.action("look up", key),
            reason: "the answer has no Content-Length".into(),
        })
    }

    fn unsupported(&self, verb: &str, key: &str) -> StoreError {
        StoreError::Other {
            action: self.action(verb, key),
            reason: "an operator's own store lets others only read and create".into(),
        }
    }
}

/// What comes next, if it comes in time.
async fn heard<T>(
    action: String,
    part: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    timeout(SILENCE, part).await.unwrap_or_else(|_| {
        let reason = format!("nothing came for {} s", SILENCE.as_secs());
        Err(StoreError::Unavailable { action, reason })
    })
}

fn failed(action: String, error: &reqwest::Error) -> StoreError {
    let reason = chain(error);
    if error.is_builder() {
        StoreError::Other { action, reason }
    } else {
        StoreError::Unavailable { action, reason }
    }
}

/// Takes memory as the bytes come, whatever was announced.
async fn read_bounded(mut response: Response, action: String, max_bytes: u64) -> Result<Bytes, StoreError> {
    let mut body = BytesMut::new();
    loop {
        let part = async { response.chunk().await.map_err(|error| failed(action.clone(), &error)) };
        let Some(part) = heard(action.clone(), part).await? else { return Ok(body.freeze()) };
        body.extend_from_slice(&part);
        if body.len() as u64 > max_bytes {
            return Err(StoreError::TooLarge { action, bytes: body.len() as u64, max_bytes });
        }
    }
}

impl Backend for HttpBackend {
    fn create<'a>(&'a self, key: &'a str, bytes: Bytes) -> Answer<'a, Created> {
        Box::pin(self.create_once(key, bytes))
    }

    fn open<'a>(&'a self, key: &'a str, max_bytes: u64) -> Answer<'a, Option<Opened>> {
        Box::pin(self.open_bounded(key, max_bytes))
    }

    fn head<'a>(&'a self, key: &'a str) -> Answer<'a, Option<u64>> {
        Box::pin(self.size(key))
    }

    fn delete(&self, keys: Vec<String>) -> Answer<'_, ()> {
        let error = self.unsupported("delete", &keys.join(", "));
        Box::pin(async move { Err(error) })
    }

    fn list(&self, prefix: &str, _after: Option<&str>) -> BoxStream<'static, Result<Entry, StoreError>> {
        let error = self.unsupported("list", prefix);
        stream::once(async move { Err(error) }).boxed()
    }

    fn set_token(&self, token: String) {
        *self.token.write().unwrap_or_else(PoisonError::into_inner) = Some(token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes whatever comes and says this, and nothing after it.
    fn mute(answer: &'static str) -> HttpBackend {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                std::thread::spawn(move || {
                    use std::io::{Read, Write};
                    // an answer before its question would be none
                    let _ = stream.read(&mut [0; 4096]);
                    // the client may have gone meanwhile
                    let _ = stream.write_all(answer.as_bytes());
                    while let Ok(1..) = stream.read(&mut [0; 4096]) {}
                });
            }
        });
        HttpBackend::new(&Url::parse(&url).unwrap(), &StoreOptions::default()).unwrap()
    }

    #[tokio::test]
    async fn reads_leave_a_connection_that_acknowledges_and_brings_nothing() {
        let _already_chosen = rustls::crypto::ring::default_provider().install_default();
        tokio::time::pause();
        for answer in ["", "HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\nsome"] {
            let store = mute(answer);
            let error = match store.open("proofs/x", 10_000).await {
                Ok(opened) => opened.unwrap().content.await.unwrap_err(),
                Err(error) => error,
            };
            assert!(error.is_retryable() && error.to_string().contains("nothing came for 12 s"), "{error}");
        }
        let error = mute("").head("proofs/x").await.unwrap_err();
        assert!(error.is_retryable(), "{error}");
    }
}
