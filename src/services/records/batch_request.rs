//! The requests of a batch as they are written down, turned into what they mean.
//!
//! Keeps true: a batch reaches records of its own tenant and nothing else; a URL that means anything else is refused
//! before anything of the batch runs.
//! Does not do: running them.

use super::{references, uploads};
use crate::kernel::error::Detail;
use crate::kernel::limits;
use crate::query::request::RequestContext;
use crate::services::files::Upload;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A batch as it came in.
#[derive(Debug, Clone)]
pub struct BatchRequest {
    /// The requests, in order.
    pub items: Vec<ItemRequest>,
    /// One transaction for all (the default), or each on its own.
    pub transactional: bool,
}

/// One request of a batch.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ItemRequest {
    /// `GET`, `POST`, `PATCH`, `PUT` (upsert) or `DELETE`.
    pub method: String,
    /// A path under `/api/collections/` with its query string; segments may be references such as `$0.id`.
    pub url: String,
    /// Headers: `If-Match`, and what rules read of them.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The record members.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub body: Map<String, Value>,
    /// Files that came along; see [`BatchRequest::attach`].
    #[serde(skip)]
    pub uploads: Vec<Upload>,
}

fn null_is_empty<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Map<String, Value>, D::Error> {
    Ok(Option::<Map<String, Value>>::deserialize(deserializer)?.unwrap_or_default())
}

/// What one item asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    List,
    Get,
    Create,
    Upsert,
    Update,
    Delete,
}

/// One request of a batch, understood up to its references.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) verb: Verb,
    pub(super) collection: String,
    /// The record's segment, possibly a reference.
    pub(super) record: Option<String>,
    pub(super) parameters: Vec<(String, String)>,
    /// Names in lower case with `_` for `-`, as rules name them.
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: Map<String, Value>,
    pub(super) uploads: Vec<Upload>,
}

impl Verb {
    /// The HTTP method that rules see.
    fn method(self) -> &'static str {
        match self {
            Self::List | Self::Get => "GET",
            // What an upsert turns out to be is known when it is written.
            Self::Create | Self::Upsert => "POST",
            Self::Update => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

impl BatchRequest {
    /// Gives each file to the request that its part names: `requests.0.avatar`, or `requests[0].avatar`.
    pub fn attach(&mut self, uploads: Vec<Upload>) -> Result<(), Detail> {
        for upload in uploads {
            let place = split_member(upload.member()).map(|(index, member)| (index, member.to_owned()));
            let Some((index, member)) = place else {
                let message = "A file in a batch is named requests.N.FIELD, after the request it belongs to.";
                return Err(Detail::new(upload.member(), "validation_invalid_file", message));
            };
            let Some(item) = self.items.get_mut(index) else {
                let message = format!("There is no request {index} for this file.");
                return Err(Detail::new(format!("requests.{index}"), "validation_invalid_file", message));
            };
            uploads::name_in(&mut item.body, &member, upload.name().as_str());
            item.uploads.push(upload.for_member(&member));
        }
        Ok(())
    }

    /// Reads `{requests:[…], transactional?}`. Refused with the path of what is wrong.
    pub fn parse(body: Value) -> Result<Self, Detail> {
        let Value::Object(mut body) = body else {
            return Err(Detail::new("requests", "validation_required", "The body must be an object with requests."));
        };
        let transactional = match body.get("transactional") {
            None | Some(Value::Null) => true,
            Some(Value::Bool(flag)) => *flag,
            Some(_) => return Err(Detail::new("transactional", "validation_is_bool", "Must be true or false.")),
        };
        let Some(Value::Array(requests)) = body.remove("requests") else {
            return Err(Detail::new("requests", "validation_required", "Must be a list of requests."));
        };
        if requests.is_empty() {
            return Err(Detail::new("requests", "validation_required", "At least one request is needed."));
        }
        if requests.len() > limits::BATCH_LEN_MAX {
            let message = format!("At most {} requests are allowed.", limits::BATCH_LEN_MAX);
            return Err(Detail::new("requests", "validation_length_too_long", message));
        }
        let items = requests.into_iter().enumerate().map(|(index, request)| {
            serde_json::from_value(request).map_err(|error| {
                Detail::new(
                    format!("requests.{index}"),
                    "validation_invalid_request",
                    format!("Malformed request: {error}."),
                )
            })
        });
        Ok(Self { items: items.collect::<Result<_, _>>()?, transactional })
    }
}

impl ItemRequest {
    /// Understands method and URL.
    pub(super) fn into_item(self) -> Result<Item, String> {
        let (path, query) = self.url.split_once('?').unwrap_or((&self.url, ""));
        let (collection, record) = parse_path(path)?;
        let verb = match (self.method.to_ascii_uppercase().as_str(), record.is_some()) {
            ("GET", false) => Verb::List,
            ("GET", true) => Verb::Get,
            ("POST", false) => Verb::Create,
            ("PUT", false) => Verb::Upsert,
            ("PATCH", true) => Verb::Update,
            ("DELETE", true) => Verb::Delete,
            _ => return Err(format!("{} {} is not possible in a batch", self.method, self.url)),
        };
        let parameters = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let named = |(name, value): (String, String)| (name.to_ascii_lowercase().replace('-', "_"), value);
        let headers = self.headers.into_iter().map(named).collect();
        Ok(Item { verb, collection, record, parameters, headers, body: self.body, uploads: self.uploads })
    }
}

impl Item {
    /// Whether it changes nothing.
    pub(super) fn is_read(&self) -> bool {
        matches!(self.verb, Verb::List | Verb::Get)
    }

    /// Whether the body says what is stored.
    pub(super) fn sets_members(&self) -> bool {
        matches!(self.verb, Verb::Create | Verb::Upsert | Verb::Update)
    }

    /// The value of `If-Match`.
    pub(super) fn if_match(&self) -> Option<&str> {
        self.headers.get("if_match").map(String::as_str)
    }

    /// The request as rules see it: `outer` is the batch, whose headers an item cannot replace.
    pub(super) fn seen_by_rules(&self, outer: &RequestContext) -> RequestContext {
        let mut headers = self.headers.clone();
        headers.extend(outer.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
        RequestContext {
            method: Arc::from(self.verb.method()),
            query: self.parameters.iter().cloned().collect(),
            headers,
            body: Map::new(),
            ..outer.clone()
        }
    }

    /// Puts the answers of earlier items in the place of references.
    pub(super) fn resolve(&mut self, answers: &[Option<Value>]) -> Result<(), Detail> {
        if let Some(record) = &mut self.record {
            *record = references::resolve_segment(record, answers)?;
        }
        if let Some(tag) = self.headers.get_mut("if_match") {
            *tag = references::resolve_segment(tag, answers)?;
        }
        for (name, value) in &mut self.parameters {
            *value = match name.as_str() {
                "filter" => references::resolve_filter(value, answers)?,
                _ => references::resolve_segment(value, answers)?,
            };
        }
        self.body.values_mut().try_for_each(|member| references::resolve_body(member, answers))
    }
}

/// The request and the member that the name of a part speaks of.
fn split_member(name: &str) -> Option<(usize, &str)> {
    let rest = name.strip_prefix("requests")?;
    let (index, member) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once("].")?,
        None => rest.strip_prefix('.')?.split_once('.')?,
    };
    Some((index.parse().ok()?, member))
}

fn parse_path(path: &str) -> Result<(String, Option<String>), String> {
    let refused = || format!("{path} is not a records path; expected /api/collections/NAME/records or …/records/ID");
    let rest = path.strip_prefix('/').unwrap_or(path).strip_prefix("api/collections/").ok_or_else(refused)?;
    let segments = rest
        .split('/')
        .map(|segment| percent_decode_str(segment).decode_utf8().map(|text| text.into_owned()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| refused())?;
    match segments.as_slice() {
        [collection, records] if records == "records" => Ok((collection.clone(), None)),
        [collection, records, id] if records == "records" && !id.is_empty() => {
            Ok((collection.clone(), Some(id.clone())))
        }
        _ => Err(refused()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn item(method: &str, url: &str) -> Result<Item, String> {
        let request = json!({"method": method, "url": url, "headers": {"IF-Match": "\"x\""}, "body": null});
        serde_json::from_value::<ItemRequest>(request).expect("well formed").into_item()
    }

    #[test]
    fn methods_and_paths_become_verbs() {
        for (method, url, verb) in [
            ("GET", "/api/collections/a/records?page=2&filter=x%3D1", Verb::List),
            ("get", "api/collections/a/records/$0.id", Verb::Get),
            ("POST", "/api/collections/a/records", Verb::Create),
            ("PUT", "/api/collections/a/records", Verb::Upsert),
            ("PATCH", "/api/collections/a/records/b", Verb::Update),
            ("DELETE", "/api/collections/a/records/b", Verb::Delete),
        ] {
            let item = item(method, url).expect("understood");
            assert_eq!((item.verb, item.collection.as_str(), item.if_match()), (verb, "a", Some("\"x\"")));
        }
        let listed = item("GET", "/api/collections/a/records?page=2&filter=x%3D1").expect("understood");
        assert_eq!(listed.parameters, [("page".into(), "2".into()), ("filter".into(), "x=1".into())]);
    }

    #[test]
    fn everything_else_is_refused() {
        for (method, url) in [
            ("POST", "/api/tenants"),
            ("POST", "/t/other/api/collections/a/records"),
            ("PATCH", "/api/collections/a/records"),
            ("DELETE", "/api/collections/a"),
            ("GET", "/api/collections/a/records/b/c"),
            ("GET", "/api/collections/a/records/"),
            ("GET", "/api/collections/a/records/%ff"),
        ] {
            assert!(item(method, url).is_err(), "{method} {url}");
        }
        assert!(BatchRequest::parse(json!({"requests": []})).is_err());
        assert!(BatchRequest::parse(json!({"requests": [{"method": 1}]})).is_err());
        let many = vec![json!({"method": "GET", "url": "/"}); limits::BATCH_LEN_MAX + 1];
        assert!(BatchRequest::parse(json!({"requests": many})).is_err());
    }

    #[test]
    fn partial_mode_is_asked_for() {
        let request = json!({"method": "GET", "url": "/"});
        let parse = |body| BatchRequest::parse(body).map(|batch| batch.transactional);
        assert_eq!(parse(json!({"requests": [request]})), Ok(true));
        assert_eq!(parse(json!({"requests": [request], "transactional": false})), Ok(false));
    }
}
