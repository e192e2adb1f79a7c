//! Failures on the wire: the one place where a [`Kind`] becomes a status code.
//!
//! A body is `application/problem+json` (RFC 9457) that also carries the `message` and `data` members PocketBase
//! clients read. Keeps true: an internal failure shows nothing of itself; its chain goes to the log once, at the edge.
//! Does not do: deciding what failed; every error below the edge says that itself through [`Fault`].

use crate::kernel::error::{Code, Detail, Fault, Kind, clip};
use crate::kernel::limits;
use actix_web::http::StatusCode;
use actix_web::{HttpResponse, ResponseError};
use serde_json::{Map, Value, json};
use std::fmt;

/// The media type of every failure.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// A failure on its way to a client.
#[derive(Debug)]
pub struct Problem {
    code: Code,
    message: Box<str>,
    details: Vec<Detail>,
    members: Box<[(&'static str, Value)]>,
    retry_after_s: Option<u32>,
    /// What of a file there would have been.
    content_range: Option<Box<str>>,
    /// The failed request of a batch: its place and its own failure.
    inner: Option<Box<(usize, Problem)>>,
    /// The chain of causes, kept only for failures that the edge logs.
    chain: Option<Box<str>>,
}

/// The status code of a family of failures. The only such mapping.
pub const fn status_of(kind: Kind) -> StatusCode {
    match kind {
        Kind::Invalid => StatusCode::BAD_REQUEST,
        Kind::Unauthenticated => StatusCode::UNAUTHORIZED,
        Kind::Forbidden => StatusCode::FORBIDDEN,
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        Kind::TimedOut => StatusCode::REQUEST_TIMEOUT,
        Kind::Conflict => StatusCode::CONFLICT,
        Kind::Precondition => StatusCode::PRECONDITION_FAILED,
        Kind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Kind::OutOfRange => StatusCode::RANGE_NOT_SATISFIABLE,
        Kind::Unprocessable => StatusCode::UNPROCESSABLE_ENTITY,
        Kind::Limited => StatusCode::TOO_MANY_REQUESTS,
        Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Kind::StorageFull => StatusCode::INSUFFICIENT_STORAGE,
    }
}

impl Problem {
    /// A failure that the edge itself found; `message` is one sentence for the caller.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: clip(message.into(), limits::REFUSAL_CHARS_MAX).into_boxed_str(),
            details: Vec::new(),
            members: Box::default(),
            retry_after_s: None,
            content_range: None,
            inner: None,
            chain: None,
        }
    }

    /// A refusal of one member or parameter of the request: what it may be.
    pub fn about(field: impl Into<String>, message: impl Into<String>) -> Self {
        let message = message.into();
        let detail = Detail::new(field, "validation_invalid_value", message.clone());
        Self::new(Code::ParameterInvalid, message).with_detail(detail)
    }

    /// A failure whose code says everything.
    pub fn bare(code: Code) -> Self {
        Self::new(code, code.explanation())
    }

    /// A defect or a failing machine; only the log learns which.
    pub fn internal(error: &dyn std::error::Error) -> Self {
        Self { chain: Some(chain_of(error).into()), ..Self::bare(Code::Internal) }
    }

    /// Says when trying again makes sense.
    #[must_use]
    pub fn with_retry_after_s(mut self, seconds: u32) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// Says which request of a batch failed, and how it would have been answered alone.
    #[must_use]
    pub fn with_failed_request(mut self, index: usize, inner: Problem) -> Self {
        self.inner = Some(Box::new((index, inner)));
        self
    }

    /// Adds a member to the body, beside those that every failure has.
    #[must_use]
    pub fn with_member(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        let mut members = std::mem::take(&mut self.members).into_vec();
        members.push((name, value.into()));
        self.members = members.into_boxed_slice();
        self
    }

    /// Says how large the file is whose part was asked for.
    #[must_use]
    pub fn with_content_range(mut self, text: String) -> Self {
        self.content_range = Some(text.into_boxed_str());
        self
    }

    /// The value of `Content-Range`, where there is one.
    pub fn content_range(&self) -> Option<&str> {
        self.content_range.as_deref()
    }

    /// Adds one refused field.
    #[must_use]
    pub fn with_detail(mut self, detail: Detail) -> Self {
        self.details.push(detail);
        self
    }

    /// The code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        status_of(self.code.kind())
    }

    /// Seconds after which trying again makes sense.
    pub fn retry_after_s(&self) -> Option<u32> {
        self.retry_after_s.or((self.code.kind() == Kind::Unavailable).then_some(1))
    }

    /// What the log should say, if the edge should log this at all.
    pub fn chain(&self) -> Option<&str> {
        self.chain.as_deref()
    }

    /// The members that PocketBase clients read of a failed request inside a batch, and its code.
    fn to_response(&self) -> Value {
        json!({
            "status": self.status().as_u16(),
            "code": self.code.as_str(),
            "message": self.message,
            "data": nested(&self.details),
        })
    }

    /// The body as JSON.
    pub fn to_json(&self, request_id: &str) -> Value {
        let status = self.status();
        let place = place_of(self.code).filter(|_| self.details.is_empty());
        let place = place.map(|place| Detail::new(place, self.code.as_str(), &*self.message));
        let errors: Vec<Value> = self
            .details
            .iter()
            .chain(&place)
            .map(|detail| json!({ "field": detail.field, "code": detail.code, "message": detail.message }))
            .collect();
        let mut body = json!({
            "type": format!("urn:tenantry:problem:{}", self.code.as_str()),
            "title": status.canonical_reason().unwrap_or("Error"),
            "status": status.as_u16(),
            "detail": self.message,
            "code": self.code.as_str(),
            "requestId": request_id,
            "errors": errors,
            "message": self.message,
            "data": nested(&self.details),
        });
        for (name, value) in &self.members {
            body[*name] = value.clone();
        }
        if let Some((index, inner)) = self.inner.as_deref() {
            body["data"]["requests"][index.to_string()]["response"] = inner.to_response();
        }
        body
    }
}

/// The part of the request that a failure without details is about. It is named in `errors` alone: `data` is about fields.
const fn place_of(code: Code) -> Option<&'static str> {
    match code {
        Code::JsonInvalid | Code::BodyTooLarge => Some("body"),
        Code::PreconditionFailed => Some("If-Match"),
        Code::IdempotencyMismatch => Some("Idempotency-Key"),
        Code::RangeNotSatisfiable => Some("Range"),
        Code::TenantAmbiguous => Some("X-Tenant"),
        _ => None,
    }
}

/// Dotted field paths as the nested objects PocketBase clients expect.
fn nested(details: &[Detail]) -> Map<String, Value> {
    let mut root = Map::new();
    for detail in details.iter().filter(|detail| !detail.field.is_empty()) {
        let mut level = &mut root;
        // The names may be the sender's: as many levels as they like would be more than a stack holds.
        for step in detail.field.splitn(limits::REFUSAL_FIELD_DEPTH_MAX, '.') {
            let entry = level.entry(step).or_insert(Value::Null);
            // `code` and `message` are texts; a field of that name below a refused field takes their place.
            if !entry.is_object() {
                *entry = Value::Object(Map::new());
            }
            level = entry.as_object_mut().expect("invariant: made an object above");
        }
        level.insert("code".to_owned(), json!(detail.code));
        level.insert("message".to_owned(), json!(detail.message));
    }
    root
}

impl<F: Fault> From<F> for Problem {
    fn from(fault: F) -> Self {
        Self::of(&fault)
    }
}

impl Problem {
    /// How `fault` looks on the wire.
    pub fn of(fault: &impl Fault) -> Self {
        let code = fault.code();
        let chain = (code.kind() == Kind::Internal).then(|| chain_of(fault).into());
        Self {
            code,
            message: clip(fault.public().into_owned(), limits::REFUSAL_CHARS_MAX).into(),
            details: fault.details().into_iter().take(limits::REFUSAL_FIELDS_MAX).collect(),
            members: fault.members().into_iter().map(|(name, text)| (name, Value::from(text))).collect(),
            retry_after_s: fault.retry_after_s(),
            content_range: None,
            inner: None,
            chain,
        }
    }
}

fn chain_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.message)
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.status()
    }

    /// Only the status: the edge middleware writes the body, because it alone knows the request id.
    fn error_response(&self) -> HttpResponse {
        HttpResponse::new(self.status())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_nest_by_path() {
        let problem = Problem::new(Code::ValidationFailed, "No.")
            .with_detail(Detail::new("title", "validation_required", "Missing."))
            .with_detail(Detail::new("requests.1.body.n", "validation_min", "Small."));
        let body = problem.to_json("r1");
        assert_eq!(body["data"]["title"]["code"], "validation_required");
        assert_eq!(body["data"]["requests"]["1"]["body"]["n"]["message"], "Small.");
        assert_eq!(body["status"], 400);
        assert_eq!(body["requestId"], "r1");
    }

    #[test]
    fn internal_failures_show_nothing_but_keep_their_chain_for_the_log() {
        #[derive(Debug, thiserror::Error)]
        #[error("row 7 of /secret/path is damaged")]
        struct Damaged;
        impl Fault for Damaged {
            fn code(&self) -> Code {
                Code::Internal
            }
        }
        let problem = Problem::from(Damaged);
        assert!(!problem.to_json("r").to_string().contains("secret"));
        assert_eq!(problem.chain(), Some("row 7 of /secret/path is damaged"));
    }
}
