//! Multipart bodies (RFC 7578), turned into the same JSON object that a JSON body would have been, and files.
//!
//! Keeps true: every part is read under a bound; `@jsonPayload` parts are merged; a name that occurs twice becomes a list;
//! a file goes to disk as it comes, never into memory, and no further than its field allows; what a refused body still
//! holds is read and thrown away, so that the refusal reaches whoever is sending.
//! Does not do: deciding what a file may be; services say that before the first byte of it is kept.

use crate::http::body::{self, BodyLimits, RecordBody};
use crate::http::extract::Visitor;
use crate::http::problem::Problem;
use crate::kernel::error::{Code, Detail};
use crate::kernel::limits;
use crate::services::files::Upload;
use crate::services::records::uploads;
use crate::services::records::write::WriteVerb;
use actix_multipart::{Field, Multipart, MultipartError};
use actix_web::dev::Payload;
use actix_web::web;
use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::{Map, Value};
use std::time::Duration;

/// The part whose content is a JSON object with any number of members.
const JSON_PAYLOAD: &str = "@jsonPayload";

/// What the body is for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target<'a> {
    /// One record of this collection.
    Record(&'a str, WriteVerb),
    /// A batch, whose files are given to its requests later.
    Batch,
}

/// Reads a whole multipart body.
pub(crate) async fn read(visitor: &Visitor, target: Target<'_>, payload: Payload) -> Result<RecordBody, Problem> {
    let request = visitor.request();
    let limits = request.app_data::<web::Data<BodyLimits>>().ok_or_else(|| Problem::bare(Code::Internal))?.clone();
    body::refuse_announced(request, limits.multipart_bytes_max as u64)?;
    let mut parts = Multipart::new(request.headers(), payload);
    let mut form = Form {
        visitor,
        target,
        body: RecordBody::default(),
        print: Map::new(),
        text_left: limits.json_bytes_max,
        left: limits.multipart_bytes_max,
        limits: &limits,
        count: 0,
    };
    match form.collect(&mut parts).await {
        Ok(()) => {
            let raw = Bytes::from(Value::Object(form.print).to_string());
            Ok(RecordBody { raw, ..form.body })
        }
        Err(problem) => {
            if problem.code() != Code::RequestTimeout {
                drain(&mut parts, form.left, limits.timeout).await;
            }
            Err(problem)
        }
    }
}

/// A form that is being read.
struct Form<'a> {
    visitor: &'a Visitor,
    target: Target<'a>,
    body: RecordBody,
    /// The body with what a file is in the place of how it is stored: the same in every repetition.
    print: Map<String, Value>,
    text_left: usize,
    left: usize,
    limits: &'a BodyLimits,
    count: usize,
}

impl Form<'_> {
    async fn collect(&mut self, parts: &mut Multipart) -> Result<(), Problem> {
        while let Some(part) = timely(self.limits.timeout, parts.next()).await? {
            let mut part = part.map_err(malformed)?;
            self.count += 1;
            if self.count > limits::FIELDS_PER_COLLECTION_MAX {
                return Err(Problem::new(Code::RequestInvalid, "The multipart body has too many parts."));
            }
            let name = part.name().unwrap_or_default().to_owned();
            match file_name(&part) {
                Some(original) => self.take_file(&mut part, &name, &original).await?,
                None => self.take_text(&mut part, &name).await?,
            }
        }
        Ok(())
    }

    async fn next_chunk(&mut self, part: &mut Field) -> Result<Option<Bytes>, Problem> {
        let Some(chunk) = timely(self.limits.timeout, part.next()).await? else { return Ok(None) };
        let chunk = chunk.map_err(malformed)?;
        let max = self.limits.multipart_bytes_max;
        self.left = self.left.checked_sub(chunk.len()).ok_or_else(|| body::too_large(max))?;
        // The disk may have run full since the form began.
        if !self.visitor.has_room() {
            return Err(Problem::bare(Code::StorageFull));
        }
        Ok(Some(chunk))
    }

    async fn take_text(&mut self, part: &mut Field, name: &str) -> Result<(), Problem> {
        let mut content = Vec::new();
        while let Some(chunk) = self.next_chunk(part).await? {
            let max = self.limits.json_bytes_max;
            self.text_left = self.text_left.checked_sub(chunk.len()).ok_or_else(|| body::too_large(max))?;
            content.extend_from_slice(&chunk);
        }
        let content = String::from_utf8(content)
            .map_err(|_| Problem::new(Code::RequestInvalid, "A multipart field is not valid UTF-8."))?;
        put(&mut self.print, name, content.clone())?;
        put(&mut self.body.object, name, content)
    }

    async fn take_file(&mut self, part: &mut Field, name: &str, original: &str) -> Result<(), Problem> {
        let allowed = match self.target {
            Target::Record(collection, verb) => {
                uploads::allowance(&self.visitor.scope(Map::new()), collection, verb, name)?
            }
            Target::Batch => uploads::batch_allowance(&self.visitor.scope(Map::new()))
                .ok_or_else(|| Problem::new(Code::Forbidden, "No collection here takes files from you."))?,
        };
        if self.body.uploads.len() >= limits::UPLOADS_PER_BODY_MAX {
            let message = format!("The body has more than {} files.", limits::UPLOADS_PER_BODY_MAX);
            return Err(Problem::new(Code::RequestInvalid, message));
        }
        let mut file = self.visitor.tenant.stage_file().await?;
        while let Some(chunk) = self.next_chunk(part).await? {
            if file.bytes() + chunk.len() as u64 > allowed {
                return Err(too_long(name, allowed));
            }
            file.write(&chunk).await?;
        }
        // What a form sends for a file input that was left empty.
        if original.is_empty() && file.bytes() == 0 {
            return Ok(());
        }
        let staged = file.finish().await?;
        let upload = Upload::new(name, original, staged, self.visitor.random());
        uploads::name_in(&mut self.print, name, upload.print());
        if let Target::Record(..) = self.target {
            uploads::name_in(&mut self.body.object, name, upload.name().as_str());
        }
        self.body.uploads.push(upload);
        Ok(())
    }
}

fn too_long(member: &str, max: u64) -> Problem {
    let message = format!("The maximum allowed file size is {max} bytes.");
    let field = member.trim_matches('+').trim_end_matches('-');
    let detail = Detail::new(field, "validation_file_size_limit", message.clone());
    Problem::new(Code::ValidationFailed, message).with_detail(detail)
}

/// The bound is on silence, not on the whole: a large file may take as long as it keeps coming.
async fn timely<T>(timeout: Duration, wait: impl Future<Output = T>) -> Result<T, Problem> {
    tokio::time::timeout(timeout, wait).await.map_err(|_| Problem::bare(Code::RequestTimeout))
}

/// Reads what is left, so that a client that is still sending gets to read the answer.
async fn drain(parts: &mut Multipart, mut left: usize, timeout: Duration) {
    while let Ok(Some(Ok(mut part))) = timely(timeout, parts.next()).await {
        while let Ok(Some(Ok(chunk))) = timely(timeout, part.next()).await {
            match left.checked_sub(chunk.len()) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    }
}

fn malformed(error: MultipartError) -> Problem {
    Problem::new(Code::RequestInvalid, format!("The multipart body is malformed: {error}."))
}

/// What the client calls the file; `None` for a part that is none.
fn file_name(part: &Field) -> Option<String> {
    let disposition = part.content_disposition()?;
    let extended = disposition.get_filename_ext().and_then(|value| String::from_utf8(value.value.clone()).ok());
    extended.or_else(|| disposition.get_filename().map(str::to_owned))
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
