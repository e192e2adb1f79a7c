//! From a request to a complete collection: names, fields, rules, indexes, options, checked against all others.
//!
//! Keeps true: what leaves here satisfies every invariant that [`crate::schema::Schema`] states; all problems are reported together.
//! Does not do: views' columns (that is `view`), steps and DDL (that is `plan`).

use super::cache_policy::Policy;
use super::definition::{self, CollectionInput};
use super::error::Problems;
use super::field::FieldKind;
use super::field_build::{self, BuiltFields};
use super::{AuthOptions, Collection, CollectionKind, Index, IndexColumn, Rules, auth_form, index_sql};
use crate::kernel::ident::{CollectionId, CollectionName, FieldId, FieldNumber};
use crate::kernel::limits;
use crate::kernel::random::Random;
use std::collections::HashMap;
use std::sync::Arc;

/// Characters in the SELECT of a view.
const VIEW_QUERY_CHARS_MAX: usize = 10_000;

/// A collection whose relation targets may still be names and whose index texts are still to be read.
pub(crate) struct Draft {
    pub(crate) before: Option<Arc<Collection>>,
    pub(crate) collection: Collection,
    index_texts: Option<Vec<String>>,
    partition: Option<Option<String>>,
    /// Where in the request each field stood.
    sent_at: Vec<(FieldId, usize)>,
    /// The id the sender uses for it.
    pub(crate) sent_id: Option<String>,
    /// Where problems of this draft are reported.
    pub(crate) path: Option<usize>,
}

/// First half: everything that needs no other collection.
pub(crate) fn draft(
    before: Option<&Arc<Collection>>,
    input: &CollectionInput,
    source: &dyn Random,
    now_ms: i64,
    problems: &mut Problems<'_>,
) -> Option<Draft> {
    let old = before.map(Arc::as_ref);
    let kind = pick_kind(old, input, problems);
    let name = pick_name(old, input, problems)?;
    let id = pick_id(old, input, kind, &name, problems)?;
    let fields = pick_fields(old, kind, input, problems);
    let auth = (kind == CollectionKind::Auth).then(|| Arc::new(pick_auth(old, &fields, input, source, problems)));
    let view_query = pick_view_query(old, kind, input, problems);
    let cache = match &input.cache {
        None => old.and_then(|old| old.cache.clone()),
        Some(None) => None,
        Some(Some(policy)) => match Policy::parse(policy) {
            Ok(_) => Some(Arc::new(policy.clone())),
            Err(refused) => {
                let (message, mut at) = (format!("{}.", refused.problem), problems.at("cache"));
                match refused.member.as_str() {
                    "" => at.add("validation_invalid_value", message),
                    member => at.add_at(member, "validation_invalid_value", message),
                }
                None
            }
        },
    };
    let moved_to =
        |number: FieldNumber| fields.moved.iter().find(|(from, _)| *from == number).map_or(number, |(_, to)| *to);
    let collection = Collection {
        id,
        name,
        kind,
        system: old.map_or(input.system, |old| old.system),
        partition: old.and_then(|old| old.partition).map(moved_to),
        indexes: old
            .map(|old| old.indexes.iter().map(|index| moved_index(index, &moved_to)).collect())
            .unwrap_or_default(),
        rules: pick_rules(old, kind, input, problems),
        auth,
        view_query,
        cache,
        next_field_number: fields.next_number,
        created_ms: old.map_or(now_ms, |old| old.created_ms),
        updated_ms: now_ms,
        fields: fields.fields,
    };
    Some(Draft {
        before: before.cloned(),
        collection,
        index_texts: input.indexes.clone(),
        partition: input.partition.clone(),
        sent_at: fields.sent_at,
        sent_id: input.id.clone(),
        path: None,
    })
}

fn pick_kind(old: Option<&Collection>, input: &CollectionInput, problems: &mut Problems<'_>) -> CollectionKind {
    match (old, input.kind) {
        (Some(old), Some(kind)) if old.kind != kind => {
            let message =
                format!("The type stays {}; create a new collection instead.", definition::kind_name(old.kind));
            problems.add_at("type", "validation_collection_type_change", message);
            old.kind
        }
        (Some(old), _) => old.kind,
        (None, kind) => kind.unwrap_or(CollectionKind::Base),
    }
}

fn pick_name(old: Option<&Collection>, input: &CollectionInput, problems: &mut Problems<'_>) -> Option<CollectionName> {
    let Some(name) = input.name.as_deref().or(old.map(|old| old.name.as_str())).filter(|name| !name.is_empty()) else {
        problems.add_at("name", "validation_required", "Cannot be blank.");
        return None;
    };
    if let Some(old) = old.filter(|old| old.system && old.name.as_str() != name) {
        problems.add_at(
            "name",
            "validation_collection_system_name_change",
            format!("The system collection {:?} keeps its name.", old.name.as_str()),
        );
    }
    let lower = name.to_ascii_lowercase();
    let system = old.map_or(input.system, |old| old.system);
    if !system && (lower.starts_with('_') || lower.starts_with("sqlite_")) || lower.contains("_via_") {
        let message = format!("The name {name:?} is reserved: no _ or sqlite_ in front, no _via_ inside.");
        problems.add_at("name", "validation_reserved_name", message);
    }
    CollectionName::parse(name)
        .map_err(|error| problems.add_at("name", "validation_invalid_format", format!("Must be {}.", error.expected)))
        .ok()
}

fn pick_id(
    old: Option<&Collection>,
    input: &CollectionInput,
    kind: CollectionKind,
    name: &CollectionName,
    problems: &mut Problems<'_>,
) -> Option<CollectionId> {
    let text = match (old, &input.id) {
        (Some(old), _) => return Some(old.id.clone()),
        (None, Some(id)) => id.clone(),
        (None, None) => format!("pbc_{}", field_build::crc32(&format!("{}{name}", definition::kind_name(kind)))),
    };
    CollectionId::parse(&text)
        .map_err(|error| problems.add_at("id", "validation_invalid_format", format!("Must be {}.", error.expected)))
        .ok()
}

fn pick_fields(
    old: Option<&Collection>,
    kind: CollectionKind,
    input: &CollectionInput,
    problems: &mut Problems<'_>,
) -> BuiltFields {
    // The fields of a view follow from its SELECT; `plan` puts them in.
    if kind == CollectionKind::View || (input.fields.is_none() && old.is_some()) {
        return BuiltFields {
            fields: old.map(|old| old.fields.clone()).unwrap_or_default(),
            next_number: old.map_or(1, |old| old.next_field_number),
            moved: Vec::new(),
            sent_at: Vec::new(),
        };
    }
    field_build::build(old, kind, input.fields.as_deref().unwrap_or_default(), problems)
}

fn pick_auth(
    old: Option<&Collection>,
    fields: &BuiltFields,
    input: &CollectionInput,
    source: &dyn Random,
    problems: &mut Problems<'_>,
) -> AuthOptions {
    let mut base = match old.and_then(|old| old.auth.as_deref()) {
        Some(auth) => auth.clone(),
        None => auth_form::defaults(source),
    };
    // Identity fields are kept by name, so they follow a rename.
    if let Some(old) = old {
        for name in &mut base.identity_fields {
            let id = old.find_field(name).map(|field| &field.id);
            if let Some(field) = fields.fields.iter().find(|field| Some(&field.id) == id) {
                *name = Arc::from(field.name.as_str());
            }
        }
    }
    auth_form::merge(&base, &input.auth, problems)
}

fn pick_view_query(
    old: Option<&Collection>,
    kind: CollectionKind,
    input: &CollectionInput,
    problems: &mut Problems<'_>,
) -> Option<Arc<str>> {
    if kind != CollectionKind::View {
        return None;
    }
    let query = input.view_query.clone().or_else(|| old.and_then(|old| old.view_query.clone())).unwrap_or_default();
    let query: Arc<str> = Arc::from(query.trim().trim_end_matches(';').trim_end());
    if query.is_empty() {
        problems.add_at(
            "viewQuery",
            "validation_required",
            "A view needs a SELECT, such as SELECT id, title FROM posts.",
        );
    } else if query.chars().count() > VIEW_QUERY_CHARS_MAX {
        problems.add_at(
            "viewQuery",
            "validation_max_text_constraint",
            format!("Must be no more than {VIEW_QUERY_CHARS_MAX} characters."),
        );
    }
    Some(query)
}

fn pick_rules(
    old: Option<&Collection>,
    kind: CollectionKind,
    input: &CollectionInput,
    problems: &mut Problems<'_>,
) -> Rules {
    let mut fresh = Rules::default();
    if kind == CollectionKind::Auth && old.is_none() {
        fresh.auth = Some(Arc::from(""));
    }
    let mut rules = input.rules.over(old.map_or(&fresh, |old| &old.rules));
    match kind {
        CollectionKind::Auth => {}
        CollectionKind::Base => (rules.manage, rules.auth) = (None, None),
        CollectionKind::View => rules = Rules { list: rules.list, view: rules.view, ..Rules::default() },
    }
    for (name, rule) in definition::named_rules(&rules) {
        if rule.as_ref().is_some_and(|rule| rule.chars().count() > limits::RULE_CHARS_MAX) {
            let message = format!("Must be no more than {} characters.", limits::RULE_CHARS_MAX);
            problems.add_at(name, "validation_max_text_constraint", message);
        }
    }
    rules
}

fn moved_index(index: &Index, moved_to: &dyn Fn(FieldNumber) -> FieldNumber) -> Index {
    let mut index = index.clone();
    for column in &mut index.columns {
        column.field = moved_to(column.field);
    }
    for term in index.condition.iter_mut().flat_map(|condition| &mut condition.0) {
        term.field = moved_to(term.field);
    }
    index
}

/// Second half: everything that needs the names and ids of all collections of the next version.
pub(crate) fn finish(draft: &mut Draft, names: &HashMap<String, CollectionId>, problems: &mut Problems<'_>) {
    resolve_relations(draft, names, problems);
    read_partition(draft, problems);
    read_indexes(draft, problems);
    check_indexes(&draft.collection, problems);
    check_identity_fields(&draft.collection, problems);
}

fn resolve_relations(draft: &mut Draft, names: &HashMap<String, CollectionId>, problems: &mut Problems<'_>) {
    let mut problems = problems.at("fields");
    for (at, field) in draft.collection.fields.iter_mut().enumerate() {
        let FieldKind::Relation(relation) = &mut field.kind else { continue };
        match find_target(names, relation.target.as_str()) {
            Some(id) => relation.target = id,
            None => {
                let message =
                    format!("There is no collection {:?}; give the id or the name of one.", relation.target.as_str());
                let sent = draft.sent_at.iter().find(|(id, _)| *id == field.id).map_or(at, |(_, sent)| *sent);
                problems.at(sent).add_at("collectionId", "validation_field_relation_missing_collection", message);
            }
        }
    }
}

fn find_target(names: &HashMap<String, CollectionId>, text: &str) -> Option<CollectionId> {
    let by_id = names.values().find(|id| id.as_str() == text);
    by_id.or_else(|| names.get(&text.to_ascii_lowercase())).cloned()
}

fn read_partition(draft: &mut Draft, problems: &mut Problems<'_>) {
    let collection = &mut draft.collection;
    match &draft.partition {
        None => {
            let kept = collection.partition.filter(|number| collection.find_field_number(*number).is_some());
            collection.partition = kept;
        }
        Some(None) => collection.partition = None,
        Some(Some(name)) => match collection.find_field(name) {
            Some(field) if !field.kind.is_list() && field.number.0 != 0 => collection.partition = Some(field.number),
            Some(_) => problems.add_at(
                "partition",
                "validation_invalid_value",
                format!("The field {name:?} must hold one value per record and not be the id."),
            ),
            None => problems.add_at(
                "partition",
                "validation_invalid_value",
                format!("There is no field {name:?} in this collection."),
            ),
        },
    }
}

fn read_indexes(draft: &mut Draft, problems: &mut Problems<'_>) {
    let collection = &mut draft.collection;
    if collection.kind == CollectionKind::View {
        if draft.index_texts.as_ref().is_some_and(|texts| !texts.is_empty()) {
            problems.add_at(
                "indexes",
                "validation_invalid_value",
                "A view has no indexes; index the collections it reads.",
            );
        }
        collection.indexes = Vec::new();
        return;
    }
    if let Some(texts) = &draft.index_texts {
        let mut problems = problems.at("indexes");
        let mut indexes = Vec::with_capacity(texts.len());
        for (at, text) in texts.iter().enumerate() {
            let find = |name: &str| {
                collection
                    .fields
                    .iter()
                    .find(|field| field.name.as_str().eq_ignore_ascii_case(name))
                    .map(|field| field.number)
            };
            match index_sql::parse(text, &find) {
                Ok(index) => indexes.push(index),
                Err(why) => problems.add_at(at, "validation_invalid_index_expression", why),
            }
        }
        collection.indexes = indexes;
    }
    if collection.kind == CollectionKind::Auth {
        add_auth_indexes(collection);
    }
}

/// Logging in needs both; they are put back when a request leaves them out.
fn add_auth_indexes(collection: &mut Collection) {
    let id = collection.id.clone();
    for (name, condition) in [("tokenKey", ""), ("email", " WHERE `email` != ''")] {
        let Some(number) = collection.find_field(name).map(|field| field.number) else { continue };
        if has_unique(collection, number) {
            continue;
        }
        let text = format!("CREATE UNIQUE INDEX `idx_{name}_{id}` ON `x` (`{name}`){condition}");
        let find = |name: &str| collection.find_field(name).map(|field| field.number);
        if let Ok(index) = index_sql::parse(&text, &find) {
            collection.indexes.push(index);
        }
    }
}

fn has_unique(collection: &Collection, number: FieldNumber) -> bool {
    collection.indexes.iter().any(|index| {
        index.unique && matches!(index.columns.as_slice(), [IndexColumn { field, .. }] if *field == number)
    })
}

fn check_indexes(collection: &Collection, problems: &mut Problems<'_>) {
    let mut problems = problems.at("indexes");
    if collection.indexes.len() > limits::INDEXES_PER_COLLECTION_MAX {
        let message = format!("A collection may have {} indexes.", limits::INDEXES_PER_COLLECTION_MAX);
        problems.add("validation_too_many_values", message);
    }
    for (at, index) in collection.indexes.iter().enumerate() {
        let used = index
            .columns
            .iter()
            .map(|column| column.field)
            .chain(index.condition.iter().flat_map(|c| c.0.iter().map(|term| term.field)));
        for number in used {
            let field = collection.find_field_number(number);
            if number.0 != 0 && field.is_none() {
                let message =
                    format!("The index {:?} uses a field that goes away; send the indexes without it.", index.name);
                problems.add_at(at, "validation_invalid_index_expression", message);
            }
        }
    }
}

fn check_identity_fields(collection: &Collection, problems: &mut Problems<'_>) {
    let Some(auth) = &collection.auth else { return };
    let mut problems = problems.at("passwordAuth");
    let mut problems = problems.at("identityFields");
    if auth.password_enabled && auth.identity_fields.is_empty() {
        problems.add("validation_required", "Name at least one field to log in with, such as email.");
    }
    for (at, name) in auth.identity_fields.iter().enumerate() {
        match collection.find_field(name) {
            None => problems.add_at(at, "validation_missing_field", format!("There is no field {name:?}.")),
            Some(field) if !has_unique(collection, field.number) => {
                let message = format!("Logging in with {name:?} needs a unique index on that field alone.");
                problems.add_at(at, "validation_missing_unique_constraint", message);
            }
            Some(_) => {}
        }
    }
}
