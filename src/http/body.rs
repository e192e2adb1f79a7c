//! Request bodies: read under a size and a time bound, checked, and only then parsed.
//!
//! Keeps true: a body that is too large is refused before it is buffered, one that is too deep before it is parsed, and
//! every refusal names what is wrong and where. Does not do: multipart, that is `multipart`; meaning, that is services'.

mod json_place;

use crate::http::extract::Visitor;
use crate::http::multipart::{self, Target};
use crate::http::problem::Problem;
use crate::kernel::error::{Code, Detail, clip};
use crate::kernel::limits;
use crate::services::files::Upload;
use actix_web::dev::Payload;
use actix_web::http::header;
use actix_web::{FromRequest, HttpRequest, web};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::future::LocalBoxFuture;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::fmt::Display;
use std::time::Duration;

/// The bounds of bodies, from the configuration.
#[derive(Debug, Clone)]
pub(crate) struct BodyLimits {
    pub(crate) json_bytes_max: usize,
    pub(crate) multipart_bytes_max: usize,
    pub(crate) tenant_import_bytes_max: u64,
    pub(crate) timeout: Duration,
}

/// A JSON body of type `T`; an absent body counts as `{}`.
#[derive(Debug)]
pub(crate) struct Json<T>(pub(crate) T);

/// The body of everything that writes records: a JSON object, or a multipart form that stands for one.
#[derive(Debug, Default)]
pub(crate) struct RecordBody {
    pub(crate) object: Map<String, Value>,
    /// Files that came along; those of a single record are named in `object`.
    pub(crate) uploads: Vec<Upload>,
    /// What makes two bodies the same request for an idempotency key.
    pub(crate) raw: Bytes,
}

impl RecordBody {
    /// Reads the body of a visitor's write; `target` decides where files may belong.
    pub(crate) async fn read(visitor: &Visitor, target: Target<'_>, payload: web::Payload) -> Result<Self, Problem> {
        let (request, payload) = (visitor.request(), payload.into_inner());
        if is_multipart(request) {
            return visitor.outlast(multipart::read(visitor, target, payload)).await;
        }
        let raw = visitor.outlast(read_all(request, payload)).await?;
        check_media_type(request, &raw)?;
        Ok(Self { object: parse(&raw)?, uploads: Vec::new(), raw })
    }
}

fn is_multipart(request: &HttpRequest) -> bool {
    let value = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    value.is_some_and(|text| text.trim_start().to_ascii_lowercase().starts_with("multipart/form-data"))
}

/// The whole number that query parameter `name` has, if it is there.
pub(crate) fn number(parameters: &[(String, String)], name: &str) -> Result<Option<i64>, Problem> {
    let Some((_, text)) = parameters.iter().find(|(key, text)| key == name && !text.is_empty()) else {
        return Ok(None);
    };
    text.parse().map(Some).map_err(|_| {
        let message = format!("The parameter {name} is {text:?}; a whole number is expected.");
        let detail = Detail::new(name, "validation_not_a_number", message.clone());
        Problem::new(Code::ParameterInvalid, message).with_detail(detail)
    })
}

impl<T: DeserializeOwned + 'static> FromRequest for Json<T> {
    type Error = Problem;
    type Future = LocalBoxFuture<'static, Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let request = request.clone();
        let payload = payload.take();
        Box::pin(async move {
            let bytes = read_all(&request, payload).await?;
            check_media_type(&request, &bytes)?;
            parse(&bytes).map(Self)
        })
    }
}

/// Reads the whole body under the JSON bound.
pub(crate) async fn read_all(request: &HttpRequest, payload: Payload) -> Result<Bytes, Problem> {
    let limits = request.app_data::<web::Data<BodyLimits>>().ok_or_else(|| Problem::bare(Code::Internal))?;
    let max = limits.json_bytes_max;
    refuse_announced(request, max as u64)?;
    let read = collect(payload, max);
    let late = |_| {
        let seconds = limits.timeout.as_secs_f32();
        Problem::new(Code::RequestTimeout, format!("The body did not arrive within {seconds} seconds."))
    };
    tokio::time::timeout(limits.timeout, read).await.map_err(late)?
}

/// Refuses a body whose announced length is past the bound, before a byte of it is read.
pub(crate) fn refuse_announced(request: &HttpRequest, max: u64) -> Result<(), Problem> {
    let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    match announced.and_then(|text| text.parse::<u64>().ok()) {
        Some(length) if length > max => Err(too_large(max)),
        _ => Ok(()),
    }
}

pub(crate) fn too_large(max: impl Display) -> Problem {
    Problem::new(Code::BodyTooLarge, format!("The body is larger than {max} bytes."))
}

async fn collect(mut payload: Payload, max: usize) -> Result<Bytes, Problem> {
    let mut all = BytesMut::new();
    while let Some(chunk) = payload.next().await {
        let chunk =
            chunk.map_err(|error| Problem::new(Code::RequestInvalid, format!("The body is damaged: {error}.")))?;
        if all.len() + chunk.len() > max {
            return Err(too_large(max));
        }
        all.extend_from_slice(&chunk);
    }
    Ok(all.freeze())
}

fn check_media_type(request: &HttpRequest, body: &[u8]) -> Result<(), Problem> {
    let Some(value) = request.headers().get(header::CONTENT_TYPE) else { return Ok(()) };
    let text = value.to_str().unwrap_or_default().to_ascii_lowercase();
    let media = text.split(';').next().unwrap_or_default().trim();
    if body.is_empty() || media == "application/json" || media.ends_with("+json") || media == "text/plain" {
        return Ok(());
    }
    let message = format!("The body has the media type {media:?}; send application/json.");
    Err(Problem::new(Code::RequestInvalid, message))
}

/// Parses a JSON text; errors say line and column, wrong encoding and too deep nesting by name.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let message = format!("The body is not valid UTF-8; the first wrong byte is at {}.", error.valid_up_to());
        Problem::new(Code::JsonInvalid, message)
    })?;
    let text = if text.trim().is_empty() { "{}" } else { text };
    if depth(text) > limits::JSON_DEPTH_MAX {
        let message = format!("The body is nested deeper than {} levels.", limits::JSON_DEPTH_MAX);
        return Err(Problem::new(Code::JsonInvalid, message));
    }
    serde_json::from_str(text).map_err(|error| refusal(text, &error))
}

/// Why a text was refused: where it ends being JSON, or which member is not what is expected.
fn refusal(text: &str, error: &serde_json::Error) -> Problem {
    let whole = |said: &str| format!("The body is not the JSON that is expected: {said}.");
    if !error.is_data() {
        return Problem::new(Code::JsonInvalid, whole(&error.to_string()));
    }
    let at = format!(" at line {} column {}", error.line(), error.column());
    let said = error.to_string();
    let said = clip(in_words(said.strip_suffix(&*at).unwrap_or(&said)), limits::REFUSAL_FIELD_CHARS_MAX);
    match json_place::path_at(text, error.line(), error.column()) {
        path if path.is_empty() => Problem::new(Code::JsonInvalid, whole(&said)),
        path => {
            let detail = Detail::new(path.clone(), "validation_invalid_type", format!("{said}{at}."));
            let message = format!("The member {path} of the body is not what is expected: {said}{at}.");
            Problem::new(Code::JsonInvalid, message).with_detail(detail)
        }
    }
}

/// A parser's words for those who do not know its language.
fn in_words(said: &str) -> String {
    let Some((before, expected)) = said.rsplit_once("expected ") else { return said.to_owned() };
    let words = match expected {
        "a map" => "an object",
        "a sequence" => "a list",
        "a boolean" => "true or false",
        "i64" | "i32" => "a whole number",
        "u16" | "u32" | "u64" | "usize" => "a whole number from 0",
        "f64" => "a number",
        // The name of a type of ours.
        text if text.starts_with("struct ") => "an object",
        text => text,
    };
    format!("{before}expected {words}")
}

/// The deepest nesting of brackets outside strings.
fn depth(text: &str) -> usize {
    let (mut now, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                now += 1;
                deepest = deepest.max(now);
            }
            b']' | b'}' if !in_string => now = now.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_counts_brackets_outside_strings() {
        for (text, expected) in [("1", 0), ("{}", 1), (r#"{"a":[[1]]}"#, 3), (r#"["[[[", "\"[[[", {}]"#, 2)] {
            assert_eq!(depth(text), expected, "{text}");
        }
    }

    #[test]
    fn refusals_name_what_is_wrong() {
        let deep = format!("{}{}", "[".repeat(65), "]".repeat(65));
        for (body, said) in [
            (&b"{\"a\": }"[..], "line 1 column 7"),
            (b"{\"a\": \"\xff\"}", "not valid UTF-8"),
            (deep.as_bytes(), "nested deeper"),
            (b"[1]", "expected an object"),
        ] {
            let problem = parse::<Map<String, Value>>(body).unwrap_err();
            assert_eq!(problem.code(), Code::JsonInvalid);
            assert!(problem.to_string().contains(said), "{problem}");
        }
        assert!(parse::<Map<String, Value>>(b"").unwrap().is_empty());
    }

    #[test]
    fn a_wrong_type_is_told_by_member_and_in_words() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        #[expect(dead_code, reason = "only its types matter")]
        struct Form {
            name: String,
            ttl: Option<i64>,
            list: Option<Vec<u32>>,
        }
        for (body, field, said) in [
            (r#"{"name":5}"#, "name", "expected a string"),
            (r#"{"name":"a","ttl":"60"}"#, "ttl", "expected a whole number"),
            (r#"{"name":"a","list":[1,-2]}"#, "list.1", "expected a whole number from 0"),
            (r#"{"name":"a","list":{}}"#, "list", "expected a list"),
            (r#"{"name":"a","nmae":1}"#, "nmae", "unknown field"),
            ("5", "body", "expected an object"),
            ("{}", "body", "missing field `name`"),
        ] {
            let told = parse::<Form>(body.as_bytes()).unwrap_err().to_json("r");
            assert_eq!(told["errors"][0]["field"], field, "{body}: {told}");
            assert!(told["message"].as_str().unwrap().contains(said), "{body}: {told}");
            assert!(!told.to_string().contains("Form") && !told.to_string().contains("i64"), "{told}");
        }
    }
}
