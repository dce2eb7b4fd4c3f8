//! Reports by HTTP POST.

use super::{MAX_ANSWER, Receipt, ReportError, Reporter, SignedReport, Target};
use crate::api::conditions::cut;
use crate::egress::{self, Reach, chain};
use futures::future::BoxFuture;
use reqwest::{Response, StatusCode, header};
use std::time::Duration;

/// How long an attempt may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The most bytes read of an answer.
const READ: usize = 4 << 10;

/// Posts reports as JSON. A redirect is not followed: the credentials were meant for the address given.
#[derive(Debug, Clone)]
pub struct HttpReporter {
    reach: Reach,
    timeout: Duration,
}

impl HttpReporter {
    /// A reporter that speaks to these addresses.
    pub const fn new(reach: Reach) -> Self {
        Self { reach, timeout: TIMEOUT }
    }

    /// The same with another bound on an attempt's time.
    #[must_use]
    pub const fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    async fn post(&self, target: &Target, report: &SignedReport) -> Result<Receipt, ReportError> {
        let unavailable = |text: String| ReportError::Unavailable(text);
        egress::check(&target.url, self.reach).map_err(|e| unavailable(e.to_string()))?;
        // attempts are seconds apart: a client of its own for each keeps no connection and no old certificate
        let client = egress::client(self.reach, false, target.ca_pem.as_deref())
            .map_err(|e| unavailable(e.to_string()))?
            .timeout(self.timeout)
            .build()
            .map_err(|e| unavailable(chain(&e)))?;
        let mut request = client
            .post(target.url.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header("Idempotency-Key", &report.idempotency_key)
            .header("Arborist-Signature", format!("ed25519={}", report.signature))
            .header("Arborist-Key", format!("ed25519={}", report.public_key));
        if let Some(authorization) = &target.authorization {
            let mut value = header::HeaderValue::from_str(authorization)
                .map_err(|_| unavailable("`authorization` can't stand in a header".into()))?;
            value.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, value);
        }
        let answer = request.body(report.body.clone()).send().await.map_err(|e| unavailable(chain(&e)))?;
        judge(answer).await
    }
}

impl Reporter for HttpReporter {
    fn send<'a>(
        &'a self,
        target: &'a Target,
        report: &'a SignedReport,
    ) -> BoxFuture<'a, Result<Receipt, ReportError>> {
        Box::pin(self.post(target, report))
    }
}

async fn judge(answer: Response) -> Result<Receipt, ReportError> {
    let status = answer.status();
    let text = first_line(answer).await;
    let answer = if text.is_empty() { status.to_string() } else { format!("{}: {text}", status.as_u16()) };
    let answer = cut(&answer, MAX_ANSWER);
    match status {
        _ if status.is_success() => Ok(Receipt { answer }),
        _ if is_refusal(status) => Err(ReportError::Refused(answer)),
        _ => Err(ReportError::Unavailable(answer)),
    }
}

/// Whether a status is about this report, so that sending it again won't help. Credentials, path and method are
/// about the way to the target: an edit of its Secret mends them, and so they are tried again. That the first request of
/// this idempotency key is still being worked on (409, 423, 425) passes by itself.
fn is_refusal(status: StatusCode) -> bool {
    status.is_client_error()
        && !matches!(status.as_u16(), 401 | 403 | 404 | 405 | 407 | 408 | 409 | 421 | 423 | 425 | 429)
}

/// The first line of an answer as it may be shown. An answer that breaks off is as good as none: the status counts.
async fn first_line(mut answer: Response) -> String {
    let mut bytes = vec![];
    while bytes.len() < READ
        && let Ok(Some(chunk)) = answer.chunk().await
    {
        bytes.extend_from_slice(&chunk[..chunk.len().min(READ - bytes.len())]);
    }
    let text = String::from_utf8_lossy(&bytes);
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    line.trim().chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::routing::post;
    use bytes::Bytes;
    use ed25519_dalek::SigningKey;
    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use std::sync::Arc;
    use tokio::net::TcpListener;
    use tokio_util::sync::CancellationToken;
    use url::Url;

    #[test]
    fn only_what_is_about_the_report_is_a_refusal() {
        for (status, refused) in [
            (400, true),
            (410, true),
            (413, true),
            (422, true),
            (401, false),
            (403, false),
            (404, false),
            (408, false),
            (409, false),
            (423, false),
            (425, false),
            (429, false),
            (301, false),
            (500, false),
            (503, false),
        ] {
            assert_eq!(is_refusal(StatusCode::from_u16(status).unwrap()), refused, "{status}");
        }
    }

    fn report() -> SignedReport {
        SignedReport::new(Bytes::from_static(b"{}"), &SigningKey::from_bytes(&[1; 32]), "key".into())
    }

    fn target(url: &str) -> Target {
        Target { url: Url::parse(url).unwrap(), authorization: None, ca_pem: None }
    }

    async fn listen() -> (TcpListener, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        (listener, port)
    }

    async fn answers(status: u16, body: &'static str) -> String {
        let (listener, port) = listen().await;
        let status = axum::http::StatusCode::from_u16(status).unwrap();
        let location = [("location", "/elsewhere")];
        let app = Router::new()
            .route("/", post(move || async move { (status, location, body) }))
            .route("/elsewhere", post(|| async { "never" }));
        tokio::spawn(async move { axum::serve(listener, app).await });
        format!("http://127.0.0.1:{port}/")
    }

    #[tokio::test]
    async fn answers_are_receipts_refusals_or_reasons_to_try_again() {
        let reporter = HttpReporter::new(Reach::Everything);
        let long = "x".repeat(5_000).leak();
        for (status, body, expected) in [
            (200, "\n receipt\u{7} 1 \nmore", Ok("200: receipt 1".to_owned())),
            (204, "", Ok("204 No Content".into())),
            (422, "bad report", Err(ReportError::Refused("422: bad report".into()))),
            (503, "later", Err(ReportError::Unavailable("503: later".into()))),
            (307, "", Err(ReportError::Unavailable("307 Temporary Redirect".into()))),
            (200, &*long, Ok(format!("200: {}…", "x".repeat(120)))),
        ] {
            let url = answers(status, body).await;
            let found = reporter.send(&target(&url), &report()).await.map(|receipt| receipt.answer);
            assert_eq!(found, expected, "{status}");
        }
    }

    #[tokio::test]
    async fn who_can_not_be_reached_is_tried_again() {
        let reporter = HttpReporter::new(Reach::Everything).with_timeout(Duration::from_millis(300));
        let (listener, silent) = listen().await;
        let gone = listen().await.1;
        for (url, said) in [
            (format!("http://127.0.0.1:{gone}/"), "refused"),
            (format!("http://127.0.0.1:{silent}/"), "time"),
            ("http://no-such-host.invalid/".to_owned(), ""),
            ("ftp://127.0.0.1/".to_owned(), "is not http"),
        ] {
            match reporter.send(&target(&url), &report()).await {
                Err(ReportError::Unavailable(text)) => assert!(text.contains(said), "{url}: {text}"),
                other => panic!("{url}: {other:?}"),
            }
        }
        drop(listener);
        let careful = HttpReporter::new(Reach::Network);
        let url = answers(200, "").await;
        let error = careful.send(&target(&url), &report()).await.unwrap_err();
        assert!(error.to_string().contains("127.0.0.1 is this machine"), "{error}");
    }

    #[tokio::test]
    async fn a_server_is_trusted_by_the_certificate_in_the_secret() {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        let (listener, port) = listen().await;
        let app = Router::new().route("/", post(|| async { "taken" }));
        let stop = CancellationToken::new();
        tokio::spawn(crate::tls_serve::serve(listener, Some(Arc::new(tls)), app, stop.clone()));
        let reporter = HttpReporter::new(Reach::Everything);
        let mut target = target(&format!("https://localhost:{port}/"));
        assert!(matches!(reporter.send(&target, &report()).await, Err(ReportError::Unavailable(_))));
        target.ca_pem = Some(cert.pem().into_bytes());
        assert_eq!(reporter.send(&target, &report()).await.unwrap().answer, "200: taken");
        stop.cancel();
    }

    #[test]
    fn secrets_are_not_shown() {
        let mut target = target("https://u:word@h/?t=word");
        (target.authorization, target.ca_pem) = (Some("word".into()), None);
        assert!(!format!("{target:?}").contains("word"));
    }
}
