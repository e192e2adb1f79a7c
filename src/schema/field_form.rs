//! Fields in JSON: the wire form of PocketBase with our `searchable`, `readRule` and `writeRule`.
//!
//! Keeps true: `read(write(field))` is the field; a member that no type of field has is a problem where somebody sends it,
//! and so is a wrong type, each with its path. Does not do: checks between fields or collections (that is `build`).

use super::error::Problems;
use super::field::{
    AutodateOptions, DateOptions, DomainOptions, Field, FieldKind, FileOptions, NumberOptions, PasswordOptions,
    RelationOptions, SelectOptions, TextOptions,
};
use crate::kernel::ident::CollectionId;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// A field as somebody sent it: shape checked, meaning not yet.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldInput {
    /// The id, when the sender knows it.
    pub id: Option<String>,
    /// The wanted name.
    pub name: String,
    /// Type and options. A relation's target may still be a collection's name here.
    pub kind: FieldKind,
    /// See [`Field::system`].
    pub system: bool,
    /// See [`Field::hidden`].
    pub hidden: bool,
    /// See [`Field::presentable`].
    pub presentable: bool,
    /// See [`Field::required`].
    pub required: bool,
    /// See [`Field::searchable`].
    pub searchable: bool,
    /// See [`Field::read_rule`].
    pub read_rule: Option<Arc<str>>,
    /// See [`Field::write_rule`].
    pub write_rule: Option<Arc<str>>,
}

/// Every type name of the wire.
pub(crate) const TYPE_NAMES: &str =
    "text, number, bool, email, url, date, autodate, select, file, relation, json, editor, password, geoPoint";

/// The members of fields of every type: a client may send those of another type along.
pub(crate) const MEMBERS: &[&str] = &[
    "id",
    "name",
    "type",
    "system",
    "hidden",
    "presentable",
    "required",
    "searchable",
    "readRule",
    "writeRule",
    "min",
    "max",
    "pattern",
    "autogeneratePattern",
    "primaryKey",
    "onlyInt",
    "exceptDomains",
    "onlyDomains",
    "onCreate",
    "onUpdate",
    "values",
    "maxSelect",
    "minSelect",
    "maxSize",
    "mimeTypes",
    "thumbs",
    "protected",
    "collectionId",
    "cascadeDelete",
];

/// Members that PocketBase and its pages send and that mean nothing here.
pub(crate) const PASSED_OVER: &[&str] = &["cost", "convertURLs", "help", "onMountSelect"];

/// Reads members of a JSON object leniently for absence (and null) and strictly for type.
pub(crate) struct Members<'a, 'list, 'problems> {
    map: &'a Map<String, Value>,
    problems: &'problems mut Problems<'list>,
}

impl<'a, 'list, 'problems> Members<'a, 'list, 'problems> {
    pub(crate) fn new(map: &'a Map<String, Value>, problems: &'problems mut Problems<'list>) -> Self {
        Self { map, problems }
    }

    fn present(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    fn wrong(&mut self, key: &str, wanted: &str) {
        self.problems.add_at(key, "validation_invalid_type", format!("Must be {wanted}."));
    }

    pub(crate) fn text(&mut self, key: &str) -> Option<&'a str> {
        let value = self.present(key)?;
        let text = value.as_str();
        if text.is_none() {
            self.wrong(key, "a text");
        }
        text
    }

    pub(crate) fn flag(&mut self, key: &str) -> bool {
        match self.present(key) {
            None => false,
            Some(Value::Bool(flag)) => *flag,
            Some(_) => {
                self.wrong(key, "true or false");
                false
            }
        }
    }

    pub(crate) fn count(&mut self, key: &str) -> u64 {
        match self.present(key) {
            None => 0,
            Some(value) => match value.as_u64().or_else(|| whole(value)) {
                Some(count) => count,
                None => {
                    self.wrong(key, "a whole number, 0 or more");
                    0
                }
            },
        }
    }

    fn number(&mut self, key: &str) -> Option<f64> {
        let value = self.present(key)?;
        let number = value.as_f64().filter(|number| number.is_finite());
        if number.is_none() {
            self.wrong(key, "a number or null");
        }
        number
    }

    fn arc(&mut self, key: &str) -> Arc<str> {
        Arc::from(self.text(key).unwrap_or_default())
    }

    fn texts(&mut self, key: &str) -> Vec<Arc<str>> {
        let Some(value) = self.present(key) else { return Vec::new() };
        let texts: Option<Vec<Arc<str>>> =
            value.as_array().and_then(|items| items.iter().map(|item| item.as_str().map(Arc::from)).collect());
        if texts.is_none() {
            self.wrong(key, "a list of texts");
        }
        texts.unwrap_or_default()
    }

    /// A rule: absent and null are both `None`.
    pub(crate) fn rule(&mut self, key: &str) -> Option<Arc<str>> {
        self.text(key).map(|text| Arc::from(text.trim()))
    }
}

fn whole(value: &Value) -> Option<u64> {
    let number = value.as_f64()?;
    let fits = number.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(&number);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded just above")]
    fits.then_some(number as u64)
}

/// Reads one field; `None` when it has no usable type (the problem is noted).
pub(crate) fn read(value: &Value, problems: &mut Problems<'_>) -> Option<FieldInput> {
    let Some(map) = value.as_object() else {
        problems.add("validation_invalid_type", "Must be an object with at least name and type.");
        return None;
    };
    let mut members = Members::new(map, problems);
    let id = members.text("id").filter(|id| !id.is_empty()).map(str::to_owned);
    let name = members.text("name").unwrap_or_default().to_owned();
    let kind = read_kind(&mut members)?;
    Some(FieldInput {
        id,
        name,
        kind,
        system: members.flag("system"),
        hidden: members.flag("hidden"),
        presentable: members.flag("presentable"),
        required: members.flag("required"),
        searchable: members.flag("searchable"),
        read_rule: members.rule("readRule"),
        write_rule: members.rule("writeRule"),
    })
}

fn read_kind(members: &mut Members<'_, '_, '_>) -> Option<FieldKind> {
    let type_name = members.text("type").unwrap_or_default();
    Some(match type_name {
        "text" => FieldKind::Text(TextOptions {
            min: members.count("min"),
            max: members.count("max"),
            pattern: members.arc("pattern"),
            autogenerate_pattern: members.arc("autogeneratePattern"),
            primary_key: members.flag("primaryKey"),
        }),
        "number" => FieldKind::Number(NumberOptions {
            min: members.number("min"),
            max: members.number("max"),
            only_int: members.flag("onlyInt"),
        }),
        "bool" => FieldKind::Bool,
        "email" => FieldKind::Email(read_domains(members)),
        "url" => FieldKind::Url(read_domains(members)),
        "date" => FieldKind::Date(DateOptions { min: members.arc("min"), max: members.arc("max") }),
        "autodate" => FieldKind::Autodate(AutodateOptions {
            on_create: members.flag("onCreate"),
            on_update: members.flag("onUpdate"),
        }),
        "select" => FieldKind::Select(SelectOptions {
            values: members.texts("values"),
            max_select: members.count("maxSelect").max(1),
        }),
        "file" => FieldKind::File(FileOptions {
            max_select: members.count("maxSelect").max(1),
            max_size: members.count("maxSize"),
            mime_types: members.texts("mimeTypes"),
            thumbs: members.texts("thumbs"),
            protected: members.flag("protected"),
        }),
        "relation" => FieldKind::Relation(read_relation(members)?),
        "json" => FieldKind::Json { max_size: members.count("maxSize") },
        "editor" => FieldKind::Editor { max_size: members.count("maxSize") },
        "password" => FieldKind::Password(PasswordOptions {
            min: members.count("min"),
            max: members.count("max"),
            pattern: members.arc("pattern"),
        }),
        "geoPoint" => FieldKind::GeoPoint,
        "" => {
            members.problems.add_at("type", "validation_required", format!("Must be one of {TYPE_NAMES}."));
            return None;
        }
        other => {
            let message = format!("There is no field type {other:?}; use one of {TYPE_NAMES}.");
            members.problems.add_at("type", "validation_unknown_type", message);
            return None;
        }
    })
}

fn read_domains(members: &mut Members<'_, '_, '_>) -> DomainOptions {
    DomainOptions { except_domains: members.texts("exceptDomains"), only_domains: members.texts("onlyDomains") }
}

fn read_relation(members: &mut Members<'_, '_, '_>) -> Option<RelationOptions> {
    let target = members.text("collectionId").unwrap_or_default();
    let Ok(target) = CollectionId::parse(target) else {
        let message = "Must be the id or the name of the collection this relation points at.";
        members.problems.add_at("collectionId", "validation_required", message);
        return None;
    };
    Some(RelationOptions {
        target,
        cascade_delete: members.flag("cascadeDelete"),
        min_select: members.count("minSelect"),
        max_select: members.count("maxSelect").max(1),
    })
}

/// Writes a field in wire form, members in PocketBase's alphabetical order, ours at the end.
pub(crate) fn write(field: &Field) -> Map<String, Value> {
    let mut map = Map::new();
    for (key, value) in [
        ("hidden", json!(field.hidden)),
        ("id", json!(field.id.as_str())),
        ("name", json!(field.name.as_str())),
        ("presentable", json!(field.presentable)),
        ("required", json!(field.required)),
        ("system", json!(field.system)),
        ("type", json!(field.kind.type_name())),
    ] {
        map.insert(key.to_owned(), value);
    }
    write_options(&field.kind, &mut map);
    // Types without `required` in the wire format keep the member off, so that exports compare equal.
    if matches!(field.kind, FieldKind::Autodate(_)) {
        map.shift_remove("required");
    }
    map.sort_keys();
    map.insert("searchable".to_owned(), json!(field.searchable));
    map.insert("readRule".to_owned(), json!(field.read_rule));
    map.insert("writeRule".to_owned(), json!(field.write_rule));
    map
}

fn write_options(kind: &FieldKind, map: &mut Map<String, Value>) {
    let options = match kind {
        FieldKind::Text(o) => json!({"min": o.min, "max": o.max, "pattern": o.pattern,
            "autogeneratePattern": o.autogenerate_pattern, "primaryKey": o.primary_key}),
        FieldKind::Number(o) => {
            json!({"min": o.min.map(plain), "max": o.max.map(plain), "onlyInt": o.only_int})
        }
        FieldKind::Bool | FieldKind::GeoPoint => json!({}),
        FieldKind::Email(o) | FieldKind::Url(o) => {
            json!({"exceptDomains": o.except_domains, "onlyDomains": o.only_domains})
        }
        FieldKind::Date(o) => json!({"min": o.min, "max": o.max}),
        FieldKind::Autodate(o) => json!({"onCreate": o.on_create, "onUpdate": o.on_update}),
        FieldKind::Select(o) => json!({"values": o.values, "maxSelect": o.max_select}),
        FieldKind::File(o) => json!({"maxSelect": o.max_select, "maxSize": o.max_size, "mimeTypes": o.mime_types,
            "thumbs": o.thumbs, "protected": o.protected}),
        FieldKind::Relation(o) => json!({"collectionId": o.target.as_str(), "cascadeDelete": o.cascade_delete,
            "minSelect": o.min_select, "maxSelect": o.max_select}),
        FieldKind::Json { max_size } | FieldKind::Editor { max_size } => json!({"maxSize": max_size}),
        FieldKind::Password(o) => json!({"min": o.min, "max": o.max, "pattern": o.pattern}),
    };
    if let Value::Object(options) = options {
        map.extend(options);
    }
}

/// A bound as JSON, without `.0` on whole numbers.
fn plain(number: f64) -> Value {
    #[expect(clippy::cast_possible_truncation, reason = "only whole numbers inside the exact range are cast")]
    if number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0 { json!(number as i64) } else { json!(number) }
}
