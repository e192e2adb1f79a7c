//! Collections in JSON as clients send and receive them: the PocketBase shape with our `partition` and `cache`.
//!
//! Keeps true: secrets never leave through [`to_wire`]; members that were not sent stay `None`, so that a PATCH changes
//! only what it names; a member that is not known is refused. Does not do: deciding whether a definition makes sense (that is `build`), the persisted form
//! (that is `storage_form`).

use super::error::{Problems, SchemaError};
use super::field_form::{self, FieldInput, Members};
use super::{Collection, CollectionKind, Rules, auth_form, index_sql};
use crate::kernel::datetime;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// A collection body as somebody sent it: shape checked, meaning not yet. `None` is "not mentioned".
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CollectionInput {
    /// The id; generated from kind and name when absent.
    pub id: Option<String>,
    /// The wanted name.
    pub name: Option<String>,
    /// Base, auth or view.
    pub kind: Option<CollectionKind>,
    /// Marks collections of Tenantry itself; callers that act for people must not pass it through.
    pub system: bool,
    /// All fields; those of the present collection that are missing here go away.
    pub fields: Option<Vec<FieldInput>>,
    /// All indexes as SQL text.
    pub indexes: Option<Vec<String>>,
    /// The rules that were mentioned.
    pub rules: RulesInput,
    /// The login options that were mentioned, as sent.
    pub auth: Map<String, Value>,
    /// The SELECT of a view.
    pub view_query: Option<Arc<str>>,
    /// Name of the partition field; `Some(None)` takes the partition away.
    pub partition: Option<Option<String>>,
    /// Cache policy; `Some(None)` goes back to the default.
    pub cache: Option<Option<Value>>,
}

/// A rule of a body: `None` not mentioned, `Some(None)` superusers only, `Some(text)` the rule.
pub type RuleInput = Option<Option<Arc<str>>>;

/// The rules of a body.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RulesInput {
    /// `listRule`.
    pub list: RuleInput,
    /// `viewRule`.
    pub view: RuleInput,
    /// `createRule`.
    pub create: RuleInput,
    /// `updateRule`.
    pub update: RuleInput,
    /// `deleteRule`.
    pub delete: RuleInput,
    /// `manageRule`.
    pub manage: RuleInput,
    /// `authRule`.
    pub auth: RuleInput,
}

impl RulesInput {
    /// The rules that result on top of `before`.
    pub(crate) fn over(&self, before: &Rules) -> Rules {
        let pick = |input: &RuleInput, old: &Option<Arc<str>>| input.clone().unwrap_or_else(|| old.clone());
        Rules {
            list: pick(&self.list, &before.list),
            view: pick(&self.view, &before.view),
            create: pick(&self.create, &before.create),
            update: pick(&self.update, &before.update),
            delete: pick(&self.delete, &before.delete),
            manage: pick(&self.manage, &before.manage),
            auth: pick(&self.auth, &before.auth),
        }
    }
}

/// The rules with their wire names, in wire order.
pub fn named_rules(rules: &Rules) -> [(&'static str, &Option<Arc<str>>); 7] {
    [
        ("listRule", &rules.list),
        ("viewRule", &rules.view),
        ("createRule", &rules.create),
        ("updateRule", &rules.update),
        ("deleteRule", &rules.delete),
        ("authRule", &rules.auth),
        ("manageRule", &rules.manage),
    ]
}

/// The kind's name on the wire.
pub const fn kind_name(kind: CollectionKind) -> &'static str {
    match kind {
        CollectionKind::Base => "base",
        CollectionKind::Auth => "auth",
        CollectionKind::View => "view",
    }
}

/// Reads a kind's wire name.
pub fn parse_kind(name: &str) -> Option<CollectionKind> {
    [CollectionKind::Base, CollectionKind::Auth, CollectionKind::View].into_iter().find(|kind| kind_name(*kind) == name)
}

/// Reads the body of a create or update request; every problem of shape is reported together.
pub fn parse(body: &Value) -> Result<CollectionInput, SchemaError> {
    let mut found = Vec::new();
    let input = read(body, &mut Problems::new(&mut found));
    match input {
        Some(input) if found.is_empty() => Ok(input),
        _ => Err(SchemaError::Invalid(found)),
    }
}

/// Reads the body of an import: `{"collections":[…]}` or the bare array.
pub fn parse_many(body: &Value) -> Result<Vec<CollectionInput>, SchemaError> {
    let mut found = Vec::new();
    let inputs = read_many(body, &mut Problems::new(&mut found));
    if found.is_empty() { Ok(inputs) } else { Err(SchemaError::Invalid(found)) }
}

/// As [`parse_many`]; what is wrong is among the problems.
pub(crate) fn read_many(body: &Value, problems: &mut Problems<'_>) -> Vec<CollectionInput> {
    let mut problems = problems.at("collections");
    let Some(list) = body.get("collections").unwrap_or(body).as_array() else {
        problems.add("validation_required", "Must be the list of collections to import.");
        return Vec::new();
    };
    list.iter().enumerate().filter_map(|(at, item)| read(item, &mut problems.at(at))).collect()
}

/// The members of a collection beside those of [`auth_form`]. `created` and `updated` are shown and come back.
const MEMBERS: &[&str] = &[
    "id",
    "name",
    "type",
    "system",
    "fields",
    "indexes",
    "listRule",
    "viewRule",
    "createRule",
    "updateRule",
    "deleteRule",
    "manageRule",
    "authRule",
    "viewQuery",
    "partition",
    "cache",
    "created",
    "updated",
];

fn read(body: &Value, problems: &mut Problems<'_>) -> Option<CollectionInput> {
    let Some(map) = body.as_object() else {
        problems.add("validation_invalid_type", "A collection must be a JSON object.");
        return None;
    };
    problems.refuse_unknown(map, "a collection", &[MEMBERS, auth_form::MEMBERS]);
    let mut input = CollectionInput::default();
    {
        let mut members = Members::new(map, problems);
        input.id = members.text("id").filter(|id| !id.is_empty()).map(str::to_owned);
        input.name = members.text("name").map(str::to_owned);
        input.system = members.flag("system");
        input.view_query = members.text("viewQuery").map(|query| Arc::from(query.trim()));
        let mut rule = |key: &str| map.contains_key(key).then(|| members.rule(key));
        input.rules = RulesInput {
            list: rule("listRule"),
            view: rule("viewRule"),
            create: rule("createRule"),
            update: rule("updateRule"),
            delete: rule("deleteRule"),
            manage: rule("manageRule"),
            auth: rule("authRule"),
        };
        input.partition = map
            .contains_key("partition")
            .then(|| members.text("partition").filter(|p| !p.is_empty()).map(str::to_owned));
    }
    input.cache = map.get("cache").map(|cache| (!cache.is_null()).then(|| cache.clone()));
    read_kind(map, &mut input, problems);
    read_fields(map, &mut input, problems);
    read_indexes(map, &mut input, problems);
    for key in auth_form::MEMBERS {
        if let Some(value) = map.get(*key).filter(|value| !value.is_null()) {
            input.auth.insert((*key).to_owned(), value.clone());
        }
    }
    Some(input)
}

fn read_kind(map: &Map<String, Value>, input: &mut CollectionInput, problems: &mut Problems<'_>) {
    let Some(given) = map.get("type").filter(|value| !value.is_null()) else { return };
    input.kind = given.as_str().and_then(parse_kind);
    if input.kind.is_none() {
        problems.add_at("type", "validation_invalid_value", "Must be base, auth or view.");
    }
}

fn read_fields(map: &Map<String, Value>, input: &mut CollectionInput, problems: &mut Problems<'_>) {
    let Some(given) = map.get("fields").filter(|value| !value.is_null()) else { return };
    let Some(list) = given.as_array() else {
        problems.add_at("fields", "validation_invalid_type", "Must be a list of fields.");
        return;
    };
    let mut problems = problems.at("fields");
    let read = |(at, item): (usize, &Value)| {
        let mut problems = problems.at(at);
        if let Some(map) = item.as_object() {
            problems.refuse_unknown(map, "a field", &[field_form::MEMBERS, field_form::PASSED_OVER]);
        }
        field_form::read(item, &mut problems)
    };
    input.fields = Some(list.iter().enumerate().filter_map(read).collect());
}

fn read_indexes(map: &Map<String, Value>, input: &mut CollectionInput, problems: &mut Problems<'_>) {
    let Some(given) = map.get("indexes").filter(|value| !value.is_null()) else { return };
    let texts: Option<Vec<String>> =
        given.as_array().and_then(|list| list.iter().map(|item| item.as_str().map(str::to_owned)).collect());
    if texts.is_none() {
        problems.add_at("indexes", "validation_invalid_type", "Must be a list of CREATE INDEX texts.");
    }
    input.indexes = texts;
}

/// Writes a collection in wire form. Token and client secrets are left out.
pub fn to_wire(collection: &Collection) -> Value {
    let mut map = Map::new();
    let rule = |rule: &Option<Arc<str>>| json!(rule);
    let partition = collection.partition.and_then(|number| collection.find_field_number(number));
    for (key, value) in [
        ("id", json!(collection.id.as_str())),
        ("listRule", rule(&collection.rules.list)),
        ("viewRule", rule(&collection.rules.view)),
        ("createRule", rule(&collection.rules.create)),
        ("updateRule", rule(&collection.rules.update)),
        ("deleteRule", rule(&collection.rules.delete)),
        ("name", json!(collection.name.as_str())),
        ("type", json!(kind_name(collection.kind))),
        ("fields", collection.fields.iter().map(|field| Value::Object(field_form::write(field))).collect()),
        ("indexes", collection.indexes.iter().map(|index| json!(index_sql::to_sql(collection, index))).collect()),
        ("system", json!(collection.system)),
        ("created", json!(datetime::format_ms(collection.created_ms))),
        ("updated", json!(datetime::format_ms(collection.updated_ms))),
        ("partition", json!(partition.map(|field| field.name.as_str()))),
        ("cache", collection.cache.as_deref().cloned().unwrap_or(Value::Null)),
    ] {
        map.insert(key.to_owned(), value);
    }
    if let Some(auth) = &collection.auth {
        map.insert("authRule".to_owned(), rule(&collection.rules.auth));
        map.insert("manageRule".to_owned(), rule(&collection.rules.manage));
        map.extend(auth_form::to_wire(auth));
    }
    if let Some(query) = &collection.view_query {
        map.insert("viewQuery".to_owned(), json!(query));
    }
    Value::Object(map)
}
