//! Multipart bodies (RFC 7578), turned into the same JSON object that a JSON body would have been.
//!
//! Keeps true: a part is read under the body bound; `@jsonPayload` parts are merged; a name that occurs twice becomes a
//! list. Does not do: files. Until uploads are stored, a part with a file name is refused by name, never dropped.

use crate::http::body::{self, BodyLimits};
use crate::http::problem::Problem;
use crate::kernel::error::{Code, Detail};
use crate::kernel::limits;
use actix_multipart::{Field, Multipart, MultipartError};
use actix_web::dev::Payload;
use actix_web::{HttpRequest, web};
use futures_util::StreamExt;
use serde_json::{Map, Value};

/// The part whose content is a JSON object with any number of members.
const JSON_PAYLOAD: &str = "@jsonPayload";

/// Reads a whole multipart body into one object.
pub(crate) async fn read_object(request: &HttpRequest, payload: Payload) -> Result<Map<String, Value>, Problem> {
    let limits = request.app_data::<web::Data<BodyLimits>>().ok_or_else(|| Problem::bare(Code::Internal))?.clone();
    body::refuse_announced(request, limits.multipart_bytes_max)?;
    let late = |_| Problem::bare(Code::RequestTimeout);
    let parts = Multipart::new(request.headers(), payload);
    tokio::time::timeout(limits.timeout, collect(parts, limits.json_bytes_max)).await.map_err(late)?
}

async fn collect(mut parts: Multipart, bytes_max: usize) -> Result<Map<String, Value>, Problem> {
    let mut object = Map::new();
    let mut left = bytes_max;
    let mut count = 0;
    while let Some(part) = parts.next().await {
        let mut part = part.map_err(malformed)?;
        count += 1;
        if count > limits::FIELDS_PER_COLLECTION_MAX {
            return Err(Problem::new(Code::RequestInvalid, "The multipart body has too many parts."));
        }
        let name = part.name().unwrap_or_default().to_owned();
        refuse_file(&part, &name)?;
        let content = read_part(&mut part, left, bytes_max).await?;
        left -= content.len();
        put(&mut object, &name, content)?;
    }
    Ok(object)
}

fn malformed(error: MultipartError) -> Problem {
    Problem::new(Code::RequestInvalid, format!("The multipart body is malformed: {error}."))
}

fn refuse_file(part: &Field, name: &str) -> Result<(), Problem> {
    let is_file = part.content_disposition().is_some_and(|disposition| disposition.get_filename().is_some());
    if !is_file {
        return Ok(());
    }
    let message = "This version stores no uploaded files; send the field without a file.";
    let detail = Detail::new(name, "validation_file_unsupported", message);
    Err(Problem::new(Code::ValidationFailed, message).with_detail(detail))
}

async fn read_part(part: &mut Field, left: usize, bytes_max: usize) -> Result<String, Problem> {
    let mut content = Vec::new();
    while let Some(chunk) = part.next().await {
        let chunk = chunk.map_err(malformed)?;
        if content.len() + chunk.len() > left {
            return Err(body::too_large(bytes_max));
        }
        content.extend_from_slice(&chunk);
    }
    String::from_utf8(content).map_err(|_| Problem::new(Code::RequestInvalid, "A multipart field is not valid UTF-8."))
}

fn put(object: &mut Map<String, Value>, name: &str, content: String) -> Result<(), Problem> {
    if name == JSON_PAYLOAD {
        object.append(&mut body::parse::<Map<String, Value>>(content.as_bytes())?);
        return Ok(());
    }
    let value = infer(content);
    match object.get_mut(name) {
        None => drop(object.insert(name.to_owned(), value)),
        Some(Value::Array(values)) => values.push(value),
        Some(first) => *first = Value::Array(vec![first.take(), value]),
    }
    Ok(())
}

/// The JSON value that a form text stands for, as PocketBase reads it: booleans, null, plain numbers, lists and objects.
fn infer(text: String) -> Value {
    let plain_number = text.len() < 18
        && text.bytes().any(|byte| byte.is_ascii_digit())
        && text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'-'));
    let structured = text.starts_with(['{', '[']);
    if (plain_number || structured || matches!(text.as_str(), "true" | "false" | "null"))
        && let Ok(value) = serde_json::from_str::<Value>(&text)
    {
        return value;
    }
    Value::String(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn form_texts_become_the_values_they_stand_for() {
        for (text, value) in [
            ("true", json!(true)),
            ("12.5", json!(12.5)),
            ("-3", json!(-3)),
            ("007", json!("007")),
            ("1.2.3", json!("1.2.3")),
            ("[1,\"a\"]", json!([1, "a"])),
            ("{broken", json!("{broken")),
            ("", json!("")),
            ("hello", json!("hello")),
        ] {
            assert_eq!(infer(text.to_owned()), value, "{text:?}");
        }
    }

    #[test]
    fn repeated_names_become_lists_and_payloads_merge() {
        let mut object = Map::new();
        for (name, text) in [("tag", "a"), ("tag", "b"), ("@jsonPayload", "{\"n\":1}"), ("tag", "c")] {
            put(&mut object, name, text.to_owned()).unwrap();
        }
        assert_eq!(Value::Object(object), json!({ "tag": ["a", "b", "c"], "n": 1 }));
        assert!(put(&mut Map::new(), JSON_PAYLOAD, "[".to_owned()).is_err());
    }
}
