//! What a body says about a record: its members as a write understands them.
//!
//! Keeps true: there is one understanding of a body. Rules, the checks of accounts and the values that are stored all go
//! through it, so no spelling of a value (`chips+`, `"on"`, a list for a single value) shows a rule anything else than
//! what is stored. Does not do: checking the options of fields (that is `value_check`), deciding who may set what.

use super::Collection;
use super::field::{Field, FieldKind, Storage};
use super::json::write_cell_json;
use super::record::RecordImage;
use super::value_check::{self, Modifier};
use crate::kernel::ident::RecordId;
use crate::kernel::value::Stored;
use serde_json::{Map, Value};

/// Whether some member of the body is more than a field's name.
pub fn has_modifiers(body: &Map<String, Value>) -> bool {
    body.keys().any(|key| value_check::split_modifier(key).1 != Modifier::Set)
}

/// What `body` says about `field`, assignments first.
pub fn operations<'body>(field: &Field, body: &'body Map<String, Value>) -> Vec<(Modifier, &'body Value)> {
    let name = field.name.as_str();
    let set = body.get(name).map(|given| (Modifier::Set, given));
    let others = body.iter().filter_map(|(key, given)| match value_check::split_modifier(key) {
        (_, Modifier::Set) => None,
        (of, modifier) => (of == name).then_some((modifier, given)),
    });
    set.into_iter().chain(others).collect()
}

/// Whether somebody who is no superuser sets `field` by naming it in a body.
pub fn is_settable(field: &Field) -> bool {
    match &field.kind {
        FieldKind::Autodate(_) => false,
        FieldKind::Password(_) => true,
        _ => !field.hidden,
    }
}

/// `body` as rules read it: every field that it sets under its bare name with the value that would be stored, passwords
/// in plain text.
///
/// `current` is the record before an update. Fields for which `is_open` does not hold are left out, because naming them
/// changes nothing; members that name no field stay as they are, and so does a value that no field of its kind can hold,
/// which the write refuses anyway.
pub fn interpret(
    collection: &Collection,
    body: &Map<String, Value>,
    current: Option<&RecordImage>,
    is_open: impl Fn(&Field) -> bool,
) -> Map<String, Value> {
    let mut seen: Map<String, Value> = Map::new();
    for (key, given) in body {
        let named = collection.find_field(value_check::split_modifier(key).0);
        // An id that is no text is drawn anew, as if it had not been sent.
        if named.is_none_or(|field| field.number.0 == 0 && given.is_string()) {
            seen.insert(key.clone(), given.clone());
        }
    }
    for field in collection.fields.iter().filter(|field| field.number.0 != 0 && is_open(field)) {
        let operations = operations(field, body);
        if !operations.is_empty() {
            seen.insert(field.name.to_string(), outcome(field, &operations, current));
        }
    }
    seen
}

/// The record that `body` would make, as far as it says: what it leaves out is blank, and no option of a field is checked.
pub fn would_be(collection: &Collection, id: RecordId, body: &Map<String, Value>) -> RecordImage {
    let plain = collection.fields.iter().filter(|field| field.number.0 != 0);
    let value = |field: &Field| {
        let operations = if is_settable(field) { operations(field, body) } else { Vec::new() };
        fold(field, &operations, None).unwrap_or_else(|_| value_check::default_value(field))
    };
    RecordImage::new(id, plain.map(|field| (field.number, value(field))))
}

fn outcome(field: &Field, operations: &[(Modifier, &Value)], current: Option<&RecordImage>) -> Value {
    match fold(field, operations, current) {
        Ok(value) => to_json(field, &value),
        Err(unfit) => unfit.clone(),
    }
}

/// The value after all `operations`, or the first member that the field cannot hold.
fn fold<'body>(
    field: &Field,
    operations: &[(Modifier, &'body Value)],
    current: Option<&RecordImage>,
) -> Result<Stored, &'body Value> {
    // Of a password the first member counts.
    let considered = if matches!(field.kind, FieldKind::Password(_)) { 1 } else { operations.len() };
    let before = current.and_then(|record| record.get(field.number)).cloned();
    let before = before.unwrap_or_else(|| value_check::default_value(field));
    operations.iter().take(considered).try_fold(before, |value, (modifier, given)| {
        value_check::combine(field, given, *modifier, &value).ok_or(*given)
    })
}

fn to_json(field: &Field, stored: &Stored) -> Value {
    match (field.kind.storage(), stored) {
        (Storage::Text, Stored::Text(text)) => Value::from(&**text),
        (storage, stored) => {
            let mut out = Vec::new();
            write_cell_json(&mut out, storage, stored.cell());
            serde_json::from_slice(&out).unwrap_or_default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::random::SeededRandom;
    use crate::schema::plan::{self, PlanContext};
    use crate::schema::{Schema, definition};
    use serde_json::json;
    use std::sync::Arc;

    fn things() -> Arc<Collection> {
        let input = definition::parse(&json!({"name": "things", "type": "base", "fields": [
            {"name": "n", "type": "number"},
            {"name": "flag", "type": "bool"},
            {"name": "text", "type": "text"},
            {"name": "one", "type": "select", "values": ["a", "b"], "maxSelect": 1},
            {"name": "many", "type": "select", "values": ["a", "b", "c"], "maxSelect": 3},
            {"name": "at", "type": "date"},
            {"name": "data", "type": "json"},
            {"name": "place", "type": "geoPoint"},
            {"name": "secret", "type": "text", "hidden": true},
            {"name": "made", "type": "autodate", "onCreate": true},
        ]}));
        let describe = |_: &[String], _: &str| Err("there is no view".to_owned());
        let context = PlanContext { random: &SeededRandom::new(1), now_ms: 0, describe: &describe };
        let plan = plan::plan_create(&Arc::new(Schema::default()), &input.unwrap(), &context).unwrap();
        Arc::clone(plan.next.find("things").unwrap())
    }

    #[test]
    fn every_spelling_is_read_as_what_is_stored() {
        let things = things();
        let number = |name: &str| things.find_field(name).unwrap().number;
        let current = RecordImage::new(
            RecordId::parse("abcdefghijklmno").unwrap(),
            [
                (number("n"), Stored::Real(5.0)),
                (number("one"), Stored::text("a")),
                (number("many"), Stored::text(r#"["a","b"]"#)),
            ],
        );
        for (body, seen) in [
            (json!({"n": "-5"}), json!({"n": -5})),
            (json!({"n": true}), json!({"n": 1})),
            (json!({"n": null}), json!({"n": 0})),
            (json!({"n+": 2}), json!({"n": 7})),
            (json!({"n-": "2"}), json!({"n": 3})),
            (json!({"n": 1, "n+": 1.5}), json!({"n": 2.5})),
            (json!({"flag": "on"}), json!({"flag": true})),
            (json!({"flag": 0}), json!({"flag": false})),
            (json!({"text": 7}), json!({"text": "7"})),
            (json!({"text": null}), json!({"text": ""})),
            (json!({"one": ["b"]}), json!({"one": "b"})),
            (json!({"one+": "b"}), json!({"one": "b"})),
            (json!({"+one": "b"}), json!({"one": "a"})),
            (json!({"one-": "a"}), json!({"one": ""})),
            (json!({"many": "[\"c\"]"}), json!({"many": ["c"]})),
            (json!({"many+": "c"}), json!({"many": ["a", "b", "c"]})),
            (json!({"+many": "c", "many-": ["a"]}), json!({"many": ["c", "b"]})),
            (json!({"at": 0}), json!({"at": "1970-01-01 00:00:00.000Z"})),
            (json!({"data": "{\"role\":\"owner\"}"}), json!({"data": {"role": "owner"}})),
            (json!({"place": {"lon": "1", "lat": 2}}), json!({"place": {"lon": 1, "lat": 2}})),
            // What cannot be stored stays as it was sent; the write refuses it.
            (json!({"n": "many"}), json!({"n": "many"})),
            (json!({"text+": "x"}), json!({"text": "x"})),
            // What is no field, or none that this caller sets.
            (json!({"other+": 1, "oldPassword": "x"}), json!({"other+": 1, "oldPassword": "x"})),
            (json!({"secret": "x", "secret+": "y", "made": "2020-01-01"}), json!({})),
            (json!({"id": "mine"}), json!({"id": "mine"})),
            (json!({"id": 5}), json!({})),
        ] {
            let found = interpret(&things, body.as_object().unwrap(), Some(&current), is_settable);
            assert_eq!(Value::Object(found), seen, "{body}");
        }
    }
}
