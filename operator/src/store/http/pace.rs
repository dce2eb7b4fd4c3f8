//! Bodies that have to move: who sends or reads too slowly does not hold memory that others need.

use super::share::Memory;
use super::{Limits, Refusal};
use axum::body::Body;
use axum::http::StatusCode;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream};
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

/// Objects are sent in parts of this size.
const PART_BYTES: usize = 64 << 10;

/// By when a body has to have come how far.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    began: Instant,
    slack: Duration,
    bytes_per_second: u64,
}

impl Pace {
    pub(super) fn new(limits: &Limits) -> Self {
        let bytes_per_second = limits.min_bytes_per_second.max(1);
        Self { began: Instant::now(), slack: limits.slack, bytes_per_second }
    }

    /// When the next part is due after so many bytes.
    fn due(&self, bytes: u64) -> Instant {
        self.began + self.slack + Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64)
    }
}

/// Reads a body of `length` bytes, taking memory for what has come.
pub(super) async fn read_body(
    body: Body,
    length: u64,
    memory: &mut Memory,
    mut pace: Pace,
) -> Result<Bytes, Refusal> {
    let bad = |text: String| Refusal(StatusCode::BAD_REQUEST, text);
    let mut parts = body.into_data_stream();
    let mut whole = BytesMut::new();
    loop {
        let part = timeout_at(pace.due(whole.len() as u64), parts.next()).await;
        let Ok(part) = part else {
            return Err(Refusal(StatusCode::REQUEST_TIMEOUT, "the body comes too slowly".into()));
        };
        let Some(part) = part else { break };
        let part = part.map_err(|error| bad(error.to_string()))?;
        let bytes = (whole.len() + part.len()) as u64;
        if bytes > length {
            return Err(bad("the body is longer than announced".into()));
        }
        // the time that others' requests cost is not the sender's
        pace.began += memory.grow_to(bytes).await?;
        whole.extend_from_slice(&part);
    }
    if (whole.len() as u64) < length {
        return Err(bad("the body is shorter than announced".into()));
    }
    Ok(whole.freeze())
}

/// A body with these bytes. Their memory is given back with the last part, when the reader goes away, or when
/// it reads too slowly: then the body ends early.
pub(super) fn paced(whole: Bytes, memory: Memory, pace: Pace) -> Body {
    if whole.len() <= PART_BYTES {
        return Body::from(whole);
    }
    let (parts, mut rest) = mpsc::channel(1);
    tokio::spawn(async move {
        let _held = memory;
        let mut sent = 0;
        for part in whole.chunks(PART_BYTES) {
            // a part of its own: one that is stuck at a reader must not keep the whole
            let part = Bytes::copy_from_slice(part);
            let bytes = part.len() as u64;
            match timeout_at(pace.due(sent), parts.send(part)).await {
                Ok(Ok(())) => sent += bytes,
                Ok(Err(_gone)) => return,
                Err(_late) => return tracing::warn!(sent, "an object was read too slowly"),
            }
        }
    });
    Body::from_stream(stream::poll_fn(move |context| rest.poll_recv(context)).map(Ok::<_, Infallible>))
}
