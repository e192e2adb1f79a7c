//! The request as rules see it: who asks, how, and with which body.
//!
//! Keeps true: a lookup answers NULL for whatever is not there and never fails. Does not do: parsing of a transport's
//! request; whoever builds a [`RequestContext`] has already lower-cased header names and put `_` for `-`.

use crate::kernel::ident::{CollectionId, FieldNumber};
use crate::kernel::value::Stored;
use crate::query::moment::Macro;
use crate::query::value::{self, Shape};
use crate::schema::Collection;
use crate::schema::field::Storage;
use crate::schema::record::RecordImage;
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A logged-in record and its collection.
#[derive(Debug, Clone, PartialEq)]
pub struct AuthRecord {
    /// The auth collection.
    pub collection: Arc<Collection>,
    /// The record as stored.
    pub record: RecordImage,
}

/// What `@request.*` reads.
#[derive(Debug, Clone, Default)]
pub struct RequestContext {
    /// `default`, `realtime`, `oauth2`, `otp`, `password`, `protectedFile`, `expand`.
    pub context: Arc<str>,
    /// Upper-case HTTP method.
    pub method: Arc<str>,
    /// Query parameters.
    pub query: BTreeMap<String, String>,
    /// Headers, names in lower case with `_` for `-`.
    pub headers: BTreeMap<String, String>,
    /// The submitted body.
    pub body: serde_json::Map<String, Json>,
    /// The record that rules are asked about is made by this very request: nothing in the body changes it.
    pub fresh: bool,
    /// The logged-in record, superusers included; `None` is a stranger.
    pub auth: Option<Arc<AuthRecord>>,
    /// The present, milliseconds since the Unix epoch.
    pub now_ms: i64,
}

/// The part of the caller on which the text of a plan depends.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CallerClass {
    /// Nobody is logged in.
    Anonymous,
    /// A record of this auth collection.
    Auth(CollectionId),
    /// A superuser: no rule applies, hidden fields show.
    Superuser,
}

/// One fact about the request that a rule reads.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestPath {
    /// Where it is found.
    pub place: Place,
    /// Set for `:isset`, `:changed` and `:length`.
    pub aspect: Aspect,
}

/// Where a fact about the request is found.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// `@request.context`
    Context,
    /// `@request.method`
    Method,
    /// `@request.query.<name>`
    Query(Arc<str>),
    /// `@request.headers.<name>`
    Header(Arc<str>),
    /// `@request.auth.id`
    AuthId,
    /// `@request.auth.collectionId`
    AuthCollectionId,
    /// `@request.auth.collectionName`
    AuthCollectionName,
    /// `@request.auth.<field>`, optionally a path into its JSON.
    AuthField(FieldNumber, Vec<Arc<str>>),
    /// `@request.body.<name>…`
    Body(Vec<Arc<str>>),
}

/// What is asked about the fact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Aspect {
    /// Its value.
    #[default]
    Value,
    /// Whether it was sent at all.
    IsSet,
    /// Whether it was sent for a record that was there before.
    Replaces,
    /// How many elements it has.
    Length,
}

impl RequestPath {
    /// The value at `place`.
    pub fn value(place: Place) -> Self {
        Self { place, aspect: Aspect::Value }
    }
}

/// Something a statement needs filled in before it runs.
#[derive(Debug, Clone, PartialEq)]
pub enum Bind {
    /// Known when the plan was made.
    Value(Stored),
    /// A fact about the request.
    Request(RequestPath, Shape),
    /// A moment.
    Clock(Macro, Shape),
    /// The n-th argument of the run: limit, offset, id, ids, cursor keys.
    Argument(usize),
}

impl Bind {
    /// The value for one run.
    pub fn fill(&self, request: &RequestContext, arguments: &[Stored]) -> Stored {
        match self {
            Self::Value(value) => value.clone(),
            Self::Request(path, shape) => shape.apply(request.look_up(path)),
            Self::Clock(clock, shape) => shape.apply(clock.value(request.now_ms)),
            Self::Argument(at) => arguments.get(*at).cloned().unwrap_or(Stored::Null),
        }
    }
}

impl RequestContext {
    /// The class of this caller; `superuser` says that the logged-in record is one.
    pub fn class_of(auth: Option<&AuthRecord>) -> CallerClass {
        match auth {
            None => CallerClass::Anonymous,
            Some(auth) if auth.collection.name.as_str() == "_superusers" => CallerClass::Superuser,
            Some(auth) => CallerClass::Auth(auth.collection.id.clone()),
        }
    }

    /// The fact that `path` names; NULL when it is not there.
    pub fn look_up(&self, path: &RequestPath) -> Stored {
        match path.aspect {
            Aspect::Value => self.value_at(&path.place),
            Aspect::IsSet => Stored::bool(self.is_set(&path.place)),
            Aspect::Replaces => Stored::bool(!self.fresh && self.is_set(&path.place)),
            Aspect::Length => value::list_len(&self.value_at(&path.place)),
        }
    }

    fn value_at(&self, place: &Place) -> Stored {
        let auth = self.auth.as_deref();
        match place {
            Place::Context => Stored::text(&self.context),
            Place::Method => Stored::text(&self.method),
            Place::Query(name) => self.query.get(&**name).map_or(Stored::Null, Stored::text),
            Place::Header(name) => self.headers.get(&**name).map_or(Stored::Null, Stored::text),
            Place::AuthId => auth.map_or(Stored::Null, |auth| Stored::text(&auth.record.id)),
            Place::AuthCollectionId => auth.map_or(Stored::Null, |auth| Stored::text(&auth.collection.id)),
            Place::AuthCollectionName => auth.map_or(Stored::Null, |auth| Stored::text(&auth.collection.name)),
            Place::AuthField(FieldNumber(0), _) => self.value_at(&Place::AuthId),
            Place::AuthField(number, path) => auth.map_or(Stored::Null, |auth| auth_field(auth, *number, path)),
            Place::Body(path) => self.body_at(path).map_or(Stored::Null, value::from_json),
        }
    }

    fn is_set(&self, place: &Place) -> bool {
        match place {
            Place::Body(path) => self.body_at(path).is_some(),
            Place::Query(name) => self.query.contains_key(&**name),
            Place::Header(name) => self.headers.contains_key(&**name),
            other => !matches!(self.value_at(other), Stored::Null),
        }
    }

    fn body_at(&self, path: &[Arc<str>]) -> Option<&Json> {
        let (first, rest) = path.split_first()?;
        let mut found = self.body.get(&**first)?;
        for segment in rest {
            found = match found {
                Json::Array(items) => items.get(segment.parse::<usize>().ok()?)?,
                Json::Object(map) => map.get(&**segment)?,
                _ => return None,
            };
        }
        Some(found)
    }
}

fn auth_field(auth: &AuthRecord, number: FieldNumber, path: &[Arc<str>]) -> Stored {
    let storage = auth.collection.find_field_number(number).map(|field| field.kind.storage());
    let stored = match (auth.record.get(number), storage) {
        (Some(stored), _) => stored.clone(),
        (None, Some(storage)) => value::default_of(storage),
        (None, None) => Stored::Null,
    };
    if path.is_empty() && storage != Some(Storage::Json) { stored } else { value::json_extract(&stored, path) }
}
