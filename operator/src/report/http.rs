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
/// about the way to the target: an edit of its Secret mends them, and so they are tried again.
fn is_refusal(status: StatusCode) -> bool {
    status.is_client_error()
        && !matches!(status.as_u16(), 401 | 403 | 404 | 405 | 407 | 408 | 421 | 425 | 429)
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

    #[test]
    fn only_what_is_about_the_report_is_a_refusal() {
        for (status, refused) in [
            (400, true),
            (409, true),
            (410, true),
            (413, true),
            (422, true),
            (401, false),
            (403, false),
            (404, false),
            (408, false),
            (425, false),
            (429, false),
            (301, false),
            (500, false),
            (503, false),
        ] {
            assert_eq!(is_refusal(StatusCode::from_u16(status).unwrap()), refused, "{status}");
        }
    }
}
