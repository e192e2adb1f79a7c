//! Blueprints: versioned schemas from which tenants are made, with the rule decisions their authors promise.
//!
//! ```json
//! {"name": "notes", "version": 1, "title": "Notes", "description": "…",
//!  "collections": [{"name": "notes", "type": "base", "fields": […], "indexes": […], "listRule": …}],
//!  "ruleTests": [{"name": "strangers read nothing", "as": null, "do": "list", "collection": "notes",
//!                 "record": {"title": "x"}, "expect": "deny"}]}
//! ```
//!
//! Keeps true: a [`Blueprint`] has a well-formed name and collections that parse; every rule test speaks of one of its
//! collections. Does not do: planning against a tenant (that is `plan`), deciding rules (that is `access`).

use super::definition::{self, CollectionInput};
use super::error::{Problems, SchemaError};
use super::{auth_form, storage_form};
use serde_json::{Map, Value};
use std::sync::Arc;

/// Characters in a blueprint's name.
const NAME_CHARS_MAX: usize = 63;
/// Rule tests in one blueprint.
const RULE_TESTS_MAX: usize = 1_000;

/// A blueprint, parsed.
#[derive(Debug, Clone, PartialEq)]
pub struct Blueprint {
    /// The name by which tenants are made from it; a DNS label.
    pub name: Arc<str>,
    /// Rises with every published change.
    pub version: u32,
    /// For people.
    pub title: Arc<str>,
    /// For people, one or two sentences.
    pub description: Arc<str>,
    /// Its collections, which may refer to each other by name or id.
    pub collections: Vec<CollectionInput>,
    /// What its rules must answer.
    pub rule_tests: Vec<RuleTest>,
    /// The file it was read from, for showing and storing it.
    pub source: Arc<Value>,
}

/// What a rule test asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleAction {
    /// The record appears in a list.
    List,
    /// The record can be read by id.
    View,
    /// The record can be made.
    Create,
    /// The record can be changed.
    Update,
    /// The record can be deleted.
    Delete,
    /// The record can be managed as an account.
    Manage,
    /// A field of the record is shown to whoever reads it.
    ReadField,
    /// A field of the record can be set by whoever writes it.
    WriteField,
}

/// One promised decision: `as` may (or may not) `do` this to a record with these values.
#[derive(Debug, Clone, PartialEq)]
pub struct RuleTest {
    /// What is promised, in words.
    pub name: String,
    /// Who asks; `None` is a stranger.
    pub caller: Option<RuleCaller>,
    /// What is asked.
    pub action: RuleAction,
    /// The collection's name.
    pub collection: String,
    /// The field, for an action on one.
    pub field: String,
    /// Values of the record, by field name; what is missing is blank.
    pub record: Map<String, Value>,
    /// The body of an update, a management or the writing of a field, as it would be sent.
    pub body: Map<String, Value>,
    /// Records that exist beside it, such as memberships.
    pub given: Vec<GivenRecord>,
    /// Whether the rule admits it.
    pub allowed: bool,
}

/// The record that asks.
#[derive(Debug, Clone, PartialEq)]
pub struct RuleCaller {
    /// The auth collection's name.
    pub collection: String,
    /// Its values, by field name; `id` names the record.
    pub values: Map<String, Value>,
}

/// A record that exists while a rule test runs.
#[derive(Debug, Clone, PartialEq)]
pub struct GivenRecord {
    /// The collection's name.
    pub collection: String,
    /// Its values, by field name; `id` names the record.
    pub values: Map<String, Value>,
}

const SHIPPED: &[&str] = &[
    include_str!("../../data/blueprints/tournament.json"),
    include_str!("../../data/blueprints/cms.json"),
    include_str!("../../data/blueprints/courses.json"),
    include_str!("../../data/blueprints/business.json"),
];

/// The blueprints inside the binary.
pub fn shipped() -> Vec<Blueprint> {
    SHIPPED
        .iter()
        .map(|text| {
            Blueprint::parse_text(text).expect("invariant: shipped blueprints parse, a test reads each of them")
        })
        .collect()
}

/// A blueprint inside the binary, by name.
pub fn find_shipped(name: &str) -> Option<Blueprint> {
    SHIPPED.iter().filter_map(|text| Blueprint::parse_text(text).ok()).find(|blueprint| &*blueprint.name == name)
}

impl Blueprint {
    /// Reads a blueprint file.
    pub fn parse_text(text: &str) -> Result<Self, SchemaError> {
        let value: Value = serde_json::from_str(text).map_err(|error| {
            SchemaError::one("blueprint", "validation_invalid_json", format!("Is not valid JSON: {error}."))
        })?;
        Self::parse(&value)
    }

    /// Reads a blueprint; all problems are reported together.
    pub fn parse(value: &Value) -> Result<Self, SchemaError> {
        let mut found = Vec::new();
        let blueprint = Self::read(value, &mut Problems::new(&mut found));
        if found.is_empty() { Ok(blueprint) } else { Err(SchemaError::Invalid(found)) }
    }

    /// Reads a blueprint that was published, maybe by an earlier build, which passed over members that it did not know.
    pub fn parse_stored(value: &Value) -> Result<Self, SchemaError> {
        let mut found = Vec::new();
        let mut blueprint = Self::read(value, &mut Problems::of_stored(&mut found));
        for collection in &mut blueprint.collections {
            auth_form::keep_known(&mut collection.auth);
            if let Some(Some(policy)) = &mut collection.cache {
                *policy = storage_form::policy_from_storage(policy);
            }
        }
        match found.first() {
            None => Ok(blueprint),
            Some(first) => {
                let name = &blueprint.name;
                Err(SchemaError::Damaged(format!("blueprint {name:?}: {}: {}", first.field, first.message)))
            }
        }
    }

    fn read(value: &Value, problems: &mut Problems<'_>) -> Self {
        let text = |key: &str| Arc::from(value.get(key).and_then(Value::as_str).unwrap_or_default());
        let name: Arc<str> = text("name");
        if !is_name(&name) {
            let message = format!("Must be 1 to {NAME_CHARS_MAX} characters of a-z, 0-9 and -.");
            problems.add_at("name", "validation_invalid_format", message);
        }
        let version = value.get("version").and_then(Value::as_u64).and_then(|version| u32::try_from(version).ok());
        if version.is_none_or(|version| version == 0) {
            problems.add_at("version", "validation_required", "Must be a whole number from 1 on.");
        }
        let rule_tests = read_rule_tests(value, problems);
        let collections = match value.get("collections") {
            Some(list) => definition::read_many(list, problems),
            None => {
                problems.add_at("collections", "validation_required", "List the collections of the blueprint.");
                Vec::new()
            }
        };
        check_test_collections(&rule_tests, &collections, problems);
        Self {
            name,
            version: version.unwrap_or(1),
            title: text("title"),
            description: text("description"),
            collections,
            rule_tests: rule_tests.into_iter().map(|(_, test)| test).collect(),
            source: Arc::new(value.clone()),
        }
    }
}

/// A blueprint's file with what `change` makes of each secret in the login options of its collections, given its place and
/// its text; `None` leaves it out.
pub fn map_secrets(file: &Value, change: &dyn Fn(&str, &str) -> Option<String>) -> Value {
    let mut file = file.clone();
    let collections = file.get_mut("collections").and_then(Value::as_array_mut).map(Vec::as_mut_slice);
    for (number, collection) in collections.unwrap_or_default().iter_mut().enumerate() {
        for member in auth_form::MEMBERS {
            if let Some(options) = collection.get_mut(*member) {
                *options = auth_form::map_secrets(options, &format!("/collections/{number}/{member}"), change);
            }
        }
    }
    file
}

fn is_name(name: &str) -> bool {
    (1..=NAME_CHARS_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// The tests with their place in the file.
fn read_rule_tests(value: &Value, problems: &mut Problems<'_>) -> Vec<(usize, RuleTest)> {
    let Some(given) = value.get("ruleTests").filter(|tests| !tests.is_null()) else { return Vec::new() };
    let mut problems = problems.at("ruleTests");
    let Some(list) = given.as_array().filter(|list| list.len() <= RULE_TESTS_MAX) else {
        problems.add("validation_invalid_type", format!("Must be a list of up to {RULE_TESTS_MAX} tests."));
        return Vec::new();
    };
    let mut tests = Vec::with_capacity(list.len());
    for (at, item) in list.iter().enumerate() {
        match read_rule_test(item) {
            Ok(test) => tests.push((at, test)),
            Err((key, message)) => problems.at(at).add_at(key, "validation_invalid_value", message),
        }
    }
    tests
}

type BadMember = (&'static str, &'static str);

fn read_rule_test(item: &Value) -> Result<RuleTest, BadMember> {
    let text = |key: &'static str| item.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let action = match text("do").as_str() {
        "list" => RuleAction::List,
        "view" => RuleAction::View,
        "create" => RuleAction::Create,
        "update" => RuleAction::Update,
        "delete" => RuleAction::Delete,
        "manage" => RuleAction::Manage,
        "read" => RuleAction::ReadField,
        "write" => RuleAction::WriteField,
        _ => return Err(("do", "Must be list, view, create, update, delete, manage, or read or write of a field.")),
    };
    let on_field = matches!(action, RuleAction::ReadField | RuleAction::WriteField);
    if on_field == text("field").is_empty() {
        return Err(("field", "Must name the field that is read or written, and stand with no other action."));
    }
    let allowed = match text("expect").as_str() {
        "allow" => true,
        "deny" => false,
        _ => return Err(("expect", "Must be allow or deny.")),
    };
    let caller = match item.get("as") {
        None | Some(Value::Null) => None,
        Some(Value::Object(values)) => {
            let (collection, values) =
                split_collection(values).ok_or(("as", "Must name the auth collection in `collection`."))?;
            Some(RuleCaller { collection, values })
        }
        Some(_) => return Err(("as", "Must be null for a stranger, or an object with collection, id and fields.")),
    };
    let given = match item.get("given").and_then(Value::as_array) {
        None => Vec::new(),
        Some(list) => list
            .iter()
            .map(|record| {
                let (collection, values) = record.as_object().and_then(split_collection)?;
                Some(GivenRecord { collection, values })
            })
            .collect::<Option<_>>()
            .ok_or(("given", "Must be a list of objects with collection and fields."))?,
    };
    let map = |key: &str| item.get(key).and_then(Value::as_object).cloned().unwrap_or_default();
    Ok(RuleTest {
        name: text("name"),
        caller,
        action,
        collection: text("collection"),
        field: text("field"),
        record: map("record"),
        body: map("body"),
        given,
        allowed,
    })
}

fn split_collection(values: &Map<String, Value>) -> Option<(String, Map<String, Value>)> {
    let mut values = values.clone();
    let collection = values.shift_remove("collection")?.as_str()?.to_owned();
    Some((collection, values))
}

fn check_test_collections(tests: &[(usize, RuleTest)], collections: &[CollectionInput], problems: &mut Problems<'_>) {
    let known = |name: &str| collections.iter().any(|collection| collection.name.as_deref() == Some(name));
    let mut problems = problems.at("ruleTests");
    for (at, test) in tests {
        let named = std::iter::once(&test.collection)
            .chain(test.caller.iter().map(|caller| &caller.collection))
            .chain(test.given.iter().map(|record| &record.collection));
        for name in named.filter(|name| !known(name)) {
            let message = format!("The blueprint has no collection {name:?}.");
            problems.at(at).add_at("collection", "validation_invalid_value", message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::error::Fault;
    use serde_json::json;

    #[test]
    fn shipped_blueprints_parse_and_promise_something() {
        let names: Vec<_> = shipped().iter().map(|blueprint| blueprint.name.to_string()).collect();
        assert_eq!(names, ["tournament", "cms", "courses", "business"]);
        for blueprint in shipped() {
            assert!(!blueprint.rule_tests.is_empty(), "{}", blueprint.name);
            assert!(blueprint.collections.len() >= 8, "{}", blueprint.name);
        }
    }

    #[test]
    fn all_problems_of_a_blueprint_come_together() {
        let broken = json!({"name": "Bad Name", "version": 0, "collections": [{"name": "a", "fields": [{"name": "x", "type": "txt"}]}],
            "ruleTests": [{"do": "fly", "expect": "allow"}, {"do": "list", "expect": "deny", "collection": "b"},
                {"do": "read", "expect": "allow", "collection": "a"}]});
        let details = Blueprint::parse(&broken).unwrap_err().details();
        let fields: Vec<_> = details.iter().map(|detail| detail.field.as_str()).collect();
        for field in [
            "name",
            "version",
            "ruleTests.0.do",
            "ruleTests.2.field",
            "collections.0.fields.0.type",
            "ruleTests.1.collection",
        ] {
            assert!(fields.contains(&field), "{field} is missing in {fields:?}");
        }
    }
}
