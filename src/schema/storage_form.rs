//! The persisted form of a collection: what `_tn_collection.definition` and the log hold.
//!
//! Keeps true: `from_storage_json(to_storage_json(c)) == c`, secrets and field numbers included; the form begins with a
//! version. What earlier builds took without a meaning and this one refuses is left out on the way back, so that whatever
//! is shown can be sent. Does not do: other leniency. A definition that does not read back exactly is damaged.

use super::error::{Problems, SchemaError};
use super::field::Field;
use super::{Collection, Index, IndexColumn, IndexCondition, IndexTerm, Rules};
use super::{auth_form, cache_policy, definition, field_form};
use crate::kernel::ident::{CollectionId, CollectionName, FieldId, FieldName, FieldNumber};
use serde_json::{Map, Value, json};
use std::sync::Arc;

const VERSION: u64 = 1;

impl Collection {
    /// The persisted form.
    pub fn to_storage_json(&self) -> Value {
        json!({
            "v": VERSION,
            "id": self.id.as_str(),
            "name": self.name.as_str(),
            "type": definition::kind_name(self.kind),
            "system": self.system,
            "fields": self.fields.iter().map(field_to_storage).collect::<Vec<_>>(),
            "indexes": self.indexes.iter().map(index_to_storage).collect::<Vec<_>>(),
            "rules": definition::named_rules(&self.rules).into_iter()
                .filter_map(|(name, rule)| rule.as_ref().map(|rule| (name.to_owned(), json!(rule))))
                .collect::<serde_json::Map<_, _>>(),
            "auth": self.auth.as_deref().map(auth_form::to_storage),
            "viewQuery": self.view_query,
            "partition": self.partition.map(|number| number.0),
            "cache": self.cache.as_deref(),
            "nextFieldNumber": self.next_field_number,
            "createdMs": self.created_ms,
            "updatedMs": self.updated_ms,
        })
    }

    /// Reads the persisted form back.
    pub fn from_storage_json(value: &Value) -> Result<Self, SchemaError> {
        read(value).map_err(|part| {
            let id = value.get("id").and_then(Value::as_str).unwrap_or("?");
            SchemaError::Damaged(format!("collection {id}: {part}"))
        })
    }
}

type Part<T> = Result<T, &'static str>;

fn read(value: &Value) -> Part<Collection> {
    if value.get("v").and_then(Value::as_u64) != Some(VERSION) {
        return Err("v");
    }
    let kind = definition::parse_kind(text(value, "type")?).ok_or("type")?;
    let rule = |name: &str| value.get("rules").and_then(|rules| rules.get(name)).and_then(Value::as_str).map(Arc::from);
    Ok(Collection {
        id: CollectionId::parse(text(value, "id")?).map_err(|_| "id")?,
        name: CollectionName::parse(text(value, "name")?).map_err(|_| "name")?,
        kind,
        system: value.get("system").and_then(Value::as_bool).ok_or("system")?,
        fields: list(value, "fields")?.iter().map(field_from_storage).collect::<Part<_>>()?,
        indexes: list(value, "indexes")?.iter().map(index_from_storage).collect::<Part<_>>()?,
        rules: Rules {
            list: rule("listRule"),
            view: rule("viewRule"),
            create: rule("createRule"),
            update: rule("updateRule"),
            delete: rule("deleteRule"),
            manage: rule("manageRule"),
            auth: rule("authRule"),
        },
        auth: match value.get("auth") {
            None | Some(Value::Null) => None,
            Some(auth) => Some(Arc::new(auth_form::from_storage(auth).ok_or("auth")?)),
        },
        view_query: value.get("viewQuery").and_then(Value::as_str).map(Arc::from),
        partition: match value.get("partition") {
            None | Some(Value::Null) => None,
            Some(_) => Some(number(value, "partition")?),
        },
        cache: value.get("cache").filter(|cache| !cache.is_null()).map(|cache| Arc::new(policy_from_storage(cache))),
        next_field_number: number(value, "nextFieldNumber")?.0,
        created_ms: value.get("createdMs").and_then(Value::as_i64).ok_or("createdMs")?,
        updated_ms: value.get("updatedMs").and_then(Value::as_i64).ok_or("updatedMs")?,
    })
}

/// The policy without key paths that were read as empty, and without values of directives that have none.
pub(crate) fn policy_from_storage(stored: &Value) -> Value {
    let mut policy = stored.clone();
    if let Some(paths) = policy.get_mut("key").and_then(Value::as_array_mut) {
        paths.retain(|path| path.as_str().is_none_or(cache_policy::is_key_path));
    }
    if let Some(control) = policy.get_mut("cacheControl") {
        take_values(control);
    }
    for of_route in policy.as_object_mut().into_iter().flat_map(Map::values_mut) {
        if let Some(control) = of_route.get_mut("cacheControl") {
            take_values(control);
        }
    }
    policy
}

fn take_values(control: &mut Value) {
    let Value::String(text) = control else { return };
    let plain = |directive: &'_ str| match directive.split_once('=') {
        Some((name, _)) if cache_policy::FLAGS.contains(&name.trim().to_ascii_lowercase().as_str()) => name.to_owned(),
        _ => directive.to_owned(),
    };
    *text = text.split(',').map(plain).collect::<Vec<_>>().join(",");
}

fn text<'a>(value: &'a Value, key: &'static str) -> Part<&'a str> {
    value.get(key).and_then(Value::as_str).ok_or(key)
}

fn list<'a>(value: &'a Value, key: &'static str) -> Part<&'a [Value]> {
    value.get(key).and_then(Value::as_array).map(Vec::as_slice).ok_or(key)
}

fn number(value: &Value, key: &'static str) -> Part<FieldNumber> {
    value.get(key).and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok()).map(FieldNumber).ok_or(key)
}

fn flag(value: &Value, key: &'static str) -> Part<bool> {
    value.get(key).and_then(Value::as_bool).ok_or(key)
}

fn field_to_storage(field: &Field) -> Value {
    let mut map = field_form::write(field);
    map.insert("number".to_owned(), json!(field.number.0));
    Value::Object(map)
}

fn field_from_storage(value: &Value) -> Part<Field> {
    let mut found = Vec::new();
    let input = field_form::read(value, &mut Problems::new(&mut found)).filter(|_| found.is_empty()).ok_or("fields")?;
    Ok(Field {
        id: input.id.as_deref().and_then(|id| FieldId::parse(id).ok()).ok_or("fields.id")?,
        number: number(value, "number")?,
        name: FieldName::parse(&input.name).map_err(|_| "fields.name")?,
        kind: input.kind,
        system: input.system,
        hidden: input.hidden,
        presentable: input.presentable,
        required: input.required,
        searchable: input.searchable,
        read_rule: input.read_rule,
        write_rule: input.write_rule,
    })
}

fn index_to_storage(index: &Index) -> Value {
    json!({
        "name": index.name,
        "unique": index.unique,
        "columns": index.columns.iter()
            .map(|column| json!({"field": column.field.0, "desc": column.descending, "nocase": column.nocase}))
            .collect::<Vec<_>>(),
        "where": index.condition.as_ref().map(|condition| condition.0.iter()
            .map(|term| json!({"field": term.field.0, "op": term.operator, "literal": term.literal}))
            .collect::<Vec<_>>()),
    })
}

fn index_from_storage(value: &Value) -> Part<Index> {
    let column = |value: &Value| {
        Ok(IndexColumn {
            field: number(value, "field")?,
            descending: flag(value, "desc")?,
            nocase: flag(value, "nocase")?,
        })
    };
    let term = |value: &Value| {
        let (operator, literal) = (Arc::from(text(value, "op")?), Arc::from(text(value, "literal")?));
        Ok(IndexTerm { field: number(value, "field")?, operator, literal })
    };
    Ok(Index {
        name: Arc::from(text(value, "name")?),
        unique: flag(value, "unique")?,
        columns: list(value, "columns")?.iter().map(column).collect::<Part<_>>()?,
        condition: match value.get("where") {
            None | Some(Value::Null) => None,
            Some(_) => Some(IndexCondition(list(value, "where")?.iter().map(term).collect::<Part<_>>()?)),
        },
    })
}
