//! Errors as answers: a status and `{"error": …, "field": …}`, whatever went wrong.

use crate::dispatch::{JobError, PastError, SubmitError};
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use serde_json::json;

/// The most characters of an error's text.
const MAX_TEXT: usize = 300;

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    status: StatusCode,
    text: String,
    /// What in the request is to blame.
    field: Option<String>,
}

impl Refusal {
    /// Nothing in the request is to blame.
    pub fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: text.into(), field: None }
    }

    /// This part of the request is to blame.
    pub fn of(status: StatusCode, field: impl Into<String>, text: impl std::fmt::Display) -> Self {
        let field = field.into();
        Self { status, text: format!("{field}: {text}"), field: Some(field) }
    }

    /// A value that is not allowed.
    pub fn bad(field: impl Into<String>, text: impl std::fmt::Display) -> Self {
        Self::of(StatusCode::BAD_REQUEST, field, text)
    }
}

/// What came from outside, safe to print.
fn printable(text: &str) -> String {
    let printable = text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c });
    printable.take(MAX_TEXT).collect()
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let field = self.field.as_deref().map(printable);
        let body = Json(json!({"error": printable(&self.text), "field": field}));
        let mut answer = (self.status, body).into_response();
        let added = match self.status {
            StatusCode::UNAUTHORIZED => (header::WWW_AUTHENTICATE, "Bearer"),
            StatusCode::SERVICE_UNAVAILABLE => (header::RETRY_AFTER, "5"),
            _ => return answer,
        };
        answer.headers_mut().insert(added.0, header::HeaderValue::from_static(added.1));
        answer
    }
}

impl From<JobError> for Refusal {
    fn from(error: JobError) -> Self {
        match error {
            JobError::Unknown(_) => Self::of(StatusCode::NOT_FOUND, "id", error),
            JobError::Ended { .. } => Self::of(StatusCode::CONFLICT, "state", error),
            JobError::OtherSystem { .. } => Self::of(StatusCode::CONFLICT, "backend", error),
            JobError::Past(PastError::Lost { .. }) => Self::of(StatusCode::CONFLICT, "id", error),
            JobError::Quota(_) => Self::of(StatusCode::TOO_MANY_REQUESTS, "namespace", error),
            JobError::NotNow(_) | JobError::Stopped | JobError::Past(_) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
            }
        }
    }
}

impl From<SubmitError> for Refusal {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Past(PastError::Lost { .. }) => Self::of(StatusCode::CONFLICT, "block", error),
            SubmitError::Store(_)
            | SubmitError::Unchecked(_)
            | SubmitError::Past(_)
            | SubmitError::Stopped => Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
            SubmitError::Quota(_) => Self::of(StatusCode::TOO_MANY_REQUESTS, "namespace", error),
            SubmitError::NoObject { field, problem } => Self::of(StatusCode::CONFLICT, field, problem),
            SubmitError::Crashed => Self::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
            SubmitError::BadNamespace(_) => Self::of(StatusCode::BAD_REQUEST, "namespace", error),
            SubmitError::Unprovable(_) => Self::of(StatusCode::BAD_REQUEST, "synthetic", error),
            error => Self::of(StatusCode::BAD_REQUEST, "block", error),
        }
    }
}

/// Answers what no route takes in the same form.
pub fn with_json_errors(router: Router) -> Router {
    let unknown = |uri: Uri| async move {
        Refusal::of(StatusCode::NOT_FOUND, "path", format!("`{}` is not served here", uri.path()))
    };
    let wrong_method = |method: Method| async move {
        let text = format!("{method} is not served at this path; `allow` says what is");
        Refusal::of(StatusCode::METHOD_NOT_ALLOWED, "method", text)
    };
    router.fallback(unknown).method_not_allowed_fallback(wrong_method)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arborist_core::engine::JobId;

    #[tokio::test]
    async fn an_answer_is_json_that_names_the_field_and_shows_nothing_raw() {
        let refusal = Refusal::bad("a\u{1b}", format!("`\n{}`", "x".repeat(900)));
        let answer = refusal.into_response();
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
        let body = axum::body::to_bytes(answer.into_body(), 4096).await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["field"], "a\u{fffd}");
        let text = body["error"].as_str().unwrap();
        assert!(text.starts_with("a\u{fffd}: `\u{fffd}xxx") && text.chars().count() == MAX_TEXT, "{text}");
    }

    #[test]
    fn an_ended_job_is_a_conflict_and_an_unknown_one_is_not_found() {
        let ended = Refusal::from(JobError::Ended { job: JobId(7), state: "complete" });
        assert_eq!((ended.status, ended.field.as_deref()), (StatusCode::CONFLICT, Some("state")));
        assert_eq!(Refusal::from(JobError::Unknown(JobId(7))).status, StatusCode::NOT_FOUND);
        assert_eq!(Refusal::from(JobError::Stopped).status, StatusCode::SERVICE_UNAVAILABLE);
    }
}
