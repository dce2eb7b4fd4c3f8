//! Reading requests, strictly: bounded, of the right type, every field known and none twice.

use super::refusal::Refusal;
use crate::cli::prove::parse_duration;
use crate::cli::submit::now_millis;
use crate::intake::{Budget, Collect, NotCollected, Reserved};
use arborist_circuits::Prover;
use arborist_core::block::MAX_BLOCK_BYTES;
use axum::body::{Bytes, to_bytes};
use axum::extract::Request;
use axum::http::{StatusCode, Uri, header};
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, de};
use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

/// The most bytes of a request in JSON that is no block file.
pub const MAX_JSON_BYTES: usize = 256 << 10;
/// How long a body may take to come.
const BODY_TIME: Duration = Duration::from_secs(120);
/// How long a block file waits for memory before whoever sends it is told to come back.
const INTAKE_PATIENCE: Duration = Duration::from_secs(30);
/// The most bytes of a query.
const MAX_QUERY_BYTES: usize = 4 << 10;

/// Something written as an object: serde takes an array of the fields' values for one, too.
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OnlyMap<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for OnlyMap<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<T, M::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }
        deserializer.deserialize_map(OnlyMap(PhantomData)).map(Object)
    }
}

/// The body of a request, if it is of one of these types and not too long. No type at all is taken for the right one.
pub async fn read(request: Request, types: &[&str], max_bytes: usize) -> Result<Bytes, Refusal> {
    check_type(&request, types)?;
    let too_long = || {
        let text = format!("more than the {max_bytes} bytes that are allowed");
        Refusal::of(StatusCode::PAYLOAD_TOO_LARGE, "body", text)
    };
    if length(&request).is_some_and(|length| length > max_bytes as u64) {
        return Err(too_long());
    }
    match tokio::time::timeout(BODY_TIME, to_bytes(request.into_body(), max_bytes)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if is_length(&error) => Err(too_long()),
        Ok(Err(error)) => Err(Refusal::bad("body", error)),
        Err(_) => {
            let text = format!("it did not come within {} s", BODY_TIME.as_secs());
            Err(Refusal::of(StatusCode::REQUEST_TIMEOUT, "body", text))
        }
    }
}

fn check_type(request: &Request, types: &[&str]) -> Result<(), Refusal> {
    let Some(found) = request.headers().get(header::CONTENT_TYPE) else { return Ok(()) };
    let found = found.to_str().unwrap_or_default();
    let essence = found.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if types.contains(&essence.as_str()) {
        return Ok(());
    }
    let text = format!("`{essence}`, allowed is {}", types.join(" or "));
    Err(Refusal::of(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content-type", text))
}

/// How long the body says it is.
fn length(request: &Request) -> Option<u64> {
    request.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The block file of a request, as soon as there is memory for it: not a byte of it is read before.
pub async fn block_file(
    request: Request,
    types: &[&str],
    budget: &Budget,
) -> Result<(Bytes, Reserved), Refusal> {
    check_type(&request, types)?;
    let bytes = length(&request).unwrap_or_else(|| budget.unknown());
    let too_long = |text: String| Refusal::of(StatusCode::PAYLOAD_TOO_LARGE, "body", text);
    if bytes > MAX_BLOCK_BYTES {
        return Err(too_long(format!("{bytes} bytes, allowed are at most {MAX_BLOCK_BYTES}")));
    }
    let reserved = match tokio::time::timeout(INTAKE_PATIENCE, budget.reserve(bytes)).await {
        Ok(reserved) => reserved.map_err(|never| too_long(never.to_string())),
        Err(_) => Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, budget.why_waiting(bytes))),
    };
    let mut reserved = reserved?;
    let body = request.into_body().into_data_stream();
    match Collect::default().all(body, &mut reserved).await {
        Ok(json) => Ok((json, reserved)),
        Err(error @ NotCollected::TooLong(_)) => Err(too_long(error.to_string())),
        Err(error) => Err(Refusal::of(StatusCode::REQUEST_TIMEOUT, "body", error)),
    }
}

fn is_length(error: &axum::Error) -> bool {
    use std::error::Error;
    error.source().is_some_and(|source| source.is::<http_body_util::LengthLimitError>())
}

/// A JSON object of a known form.
pub fn object<T: DeserializeOwned>(json: &[u8]) -> Result<T, Refusal> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let Object(value): Object<T> = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let text = error.inner().to_string();
        Refusal::bad(field(&error.path().to_string(), &text), text)
    })?;
    deserializer.end().map_err(|error| Refusal::bad("body", error))?;
    Ok(value)
}

/// The field that an error is about: where it is, and for one that is unknown, missing or doubled also which.
fn field(path: &str, text: &str) -> String {
    let named = ["unknown field `", "missing field `", "duplicate field `"];
    let named = named.iter().find_map(|start| text.strip_prefix(start)?.split('`').next());
    // "?" is a key that was not read to its end
    let mut parts: Vec<&str> = path.split('.').filter(|part| !part.is_empty() && *part != "?").collect();
    let Some(named) = named else {
        return if parts.is_empty() { "body".to_owned() } else { parts.join(".") };
    };
    if parts.last() == Some(&named) {
        parts.pop();
    }
    parts.push(named);
    parts.join(".")
}

/// The fields of a query: only these, and each once.
pub fn query(uri: &Uri, known: &[&'static str]) -> Result<HashMap<&'static str, String>, Refusal> {
    let text = uri.query().unwrap_or_default();
    if text.len() > MAX_QUERY_BYTES {
        let problem = format!("{} bytes, allowed are at most {MAX_QUERY_BYTES}", text.len());
        return Err(Refusal::of(StatusCode::URI_TOO_LONG, "query", problem));
    }
    let mut fields = HashMap::new();
    for (name, value) in url::form_urlencoded::parse(text.as_bytes()) {
        let Some(known) = known.iter().find(|known| **known == name) else {
            let allowed = if known.is_empty() { "nothing".to_owned() } else { known.join(", ") };
            return Err(Refusal::bad(name, format!("not known here, allowed is {allowed}")));
        };
        if fields.insert(*known, value.into_owned()).is_some() {
            return Err(Refusal::bad(*known, "given twice"));
        }
    }
    Ok(fields)
}

/// A number of a query, within bounds.
pub fn number<N>(fields: &HashMap<&str, String>, name: &'static str, default: N) -> Result<N, Refusal>
where
    N: std::str::FromStr<Err = std::num::ParseIntError>,
{
    let text = fields.get(name);
    text.map_or(Ok(default), |text| text.parse().map_err(|e| Refusal::bad(name, format!("`{text}`: {e}"))))
}

/// A prover, read as everywhere.
pub fn prover(text: &str) -> Result<Prover, Refusal> {
    text.parse().map_err(|error| Refusal::bad("prover", error))
}

/// The most characters of a namespace, as Kubernetes has it.
const MAX_NAMESPACE: usize = 63;

/// A namespace's name, or nothing.
pub fn namespace(text: &str) -> Result<String, Refusal> {
    let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if text.len() <= MAX_NAMESPACE && text.bytes().all(good) {
        return Ok(text.to_owned());
    }
    let text = format!("allowed are at most {MAX_NAMESPACE} lower-case letters, digits and `-`");
    Err(Refusal::bad("namespace", text))
}

/// A deadline such as `10m` from now, in milliseconds since 1970.
pub fn deadline(text: &str) -> Result<u64, Refusal> {
    let left = parse_duration(text).map_err(|error| Refusal::bad("deadline", error))?;
    Ok(now_millis() + left.as_millis() as u64)
}

/// A field that may be `null`, told from one that is not there.
pub fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// At most so many values.
pub fn at_most<'de, D: Deserializer<'de>, T: Deserialize<'de>, const MAX: usize>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    let values = Vec::deserialize(deserializer)?;
    if (1..=MAX).contains(&values.len()) {
        return Ok(values);
    }
    Err(de::Error::custom(format!("{} values, allowed are 1 to {MAX}", values.len())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::response::IntoResponse;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[serde(deserialize_with = "at_most::<_, _, 3>")]
        calls: Vec<u8>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        inner: Object<Inner>,
        #[serde(default, deserialize_with = "present")]
        deadline: Option<Option<String>>,
    }

    async fn refused(json: &str) -> (String, String) {
        let Err(refusal) = object::<Outer>(json.as_bytes()) else { panic!("taken: {json}") };
        let body = to_bytes(refusal.into_response().into_body(), 4096).await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        (text("field"), text("error"))
    }

    #[test]
    fn a_good_object_is_read_and_null_is_not_nothing() {
        let read = |json: &str| object::<Outer>(json.as_bytes()).unwrap();
        let good = read(r#"{"inner": {"calls": [1, 2]}}"#);
        assert_eq!((good.inner.0.calls, good.deadline), (vec![1, 2], None));
        let good = read(r#"{"deadline": null, "inner": {"calls": [1]}} "#);
        assert_eq!(good.deadline, Some(None));
    }

    #[tokio::test]
    async fn every_fault_names_its_field() {
        for (json, field) in [
            ("", "body"),
            ("{", "body"),
            ("[]", "body"),
            (r#"[{"calls": [1]}]"#, "body"),
            ("null", "body"),
            (r#"{"inner": {"calls": [1]}} x"#, "body"),
            ("{}", "inner"),
            (r#"{"inner": [[1]]}"#, "inner"),
            (r#"{"inner": 3}"#, "inner"),
            (r#"{"inner": {}}"#, "inner.calls"),
            (r#"{"inner": {"calls": [1], "colls": 1}}"#, "inner.colls"),
            (r#"{"inner": {"calls": [1], "calls": [1]}}"#, "inner.calls"),
            (r#"{"inner": {"calls": [1, -2]}}"#, "inner.calls[1]"),
            (r#"{"inner": {"calls": [256]}}"#, "inner.calls[0]"),
            (r#"{"inner": {"calls": [1.5]}}"#, "inner.calls[0]"),
            (r#"{"inner": {"calls": []}}"#, "inner.calls"),
            (r#"{"inner": {"calls": [1, 1, 1, 1]}}"#, "inner.calls"),
            (r#"{"inner": {"calls": [1]}, "deadline": 7}"#, "deadline"),
            (r#"{"inner": {"calls": [1]}, "Inner": {}}"#, "Inner"),
        ] {
            let (found, text) = refused(json).await;
            assert_eq!(found, field, "{json}: {text}");
            assert!(text.starts_with(&format!("{field}: ")), "{json}: {text}");
        }
    }

    #[test]
    fn queries_take_what_is_known_once() {
        let known = &["prover", "priority"];
        let fields = |text: &str| query(&format!("/blocks?{text}").parse().unwrap(), known);
        let good = fields("prover=a%20b&priority=-3").unwrap();
        assert_eq!(good["prover"], "a b");
        assert_eq!(number(&good, "priority", 0i32), Ok(-3));
        assert!(number(&fields("priority=x").unwrap(), "priority", 0i32).is_err());
        assert!(number(&fields("priority=3000000000").unwrap(), "priority", 0i32).is_err());
        for bad in ["prover=a&prover=b", "Prover=a", "x", &"prover=a&".repeat(1_000)] {
            assert!(fields(bad).is_err(), "{bad}");
        }
    }
}
