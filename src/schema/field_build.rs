//! From the fields of a request to the fields of a collection: identity, system fields, options that make sense.
//!
//! Keeps true: a field keeps its number as long as its data can stay in its column; a number is never used twice.
//! Does not do: anything that needs the other collections (that is `build`).

use super::error::Problems;
use super::field::{Field, FieldKind, PasswordOptions, TextOptions};
use super::field_form::FieldInput;
use super::{Collection, CollectionKind, convert, generate, pattern};
use crate::kernel::datetime;
use crate::kernel::ident::{FieldId, FieldName, FieldNumber};
use crate::kernel::limits;
use std::collections::HashSet;
use std::sync::Arc;

/// The fields of the next version of a collection.
pub(crate) struct BuiltFields {
    pub(crate) fields: Vec<Field>,
    pub(crate) next_number: u32,
    /// Old and new number of fields whose data moves into another column.
    pub(crate) moved: Vec<(FieldNumber, FieldNumber)>,
    /// Where in the request each field stood, for problems that are found later.
    pub(crate) sent_at: Vec<(FieldId, usize)>,
}

/// Names no field may have: members that every record carries, and words of the query language.
const RESERVED: &[&str] =
    &["expand", "collectionid", "collectionname", "null", "true", "false", "rowid", "oid", "_rowid_"];
/// Names that auth requests use beside the fields.
const RESERVED_AUTH: &[&str] = &["passwordconfirm", "oldpassword"];
const NAME_CHARS: &str = "a letter or _ followed by letters, digits or _, at most 100 characters";

/// CRC-32 (IEEE 802.3), by which PocketBase derives ids from names; equal ids keep imports and exports stable.
pub(crate) fn crc32(text: &str) -> u32 {
    !text.bytes().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 })
    })
}

/// Builds the fields; problems are noted under `fields`.
pub(crate) fn build(
    before: Option<&Collection>,
    kind: CollectionKind,
    inputs: &[FieldInput],
    problems: &mut Problems<'_>,
) -> BuiltFields {
    let mut built = BuiltFields {
        fields: Vec::new(),
        next_number: before.map_or(1, |old| old.next_field_number),
        moved: Vec::new(),
        sent_at: Vec::new(),
    };
    let mut problems = problems.at("fields");
    let mut used_ids = HashSet::new();
    let mut used_names = HashSet::new();
    for (at, input) in with_system_fields(before, kind, inputs) {
        let mut problems = problems.at(at);
        let Some(field) = build_one(before, kind, &input, &mut built, &mut problems) else { continue };
        if !used_names.insert(field.name.as_str().to_ascii_lowercase()) {
            let message = format!("There is more than one field {:?}.", field.name.as_str());
            problems.add_at("name", "validation_duplicated_field_name", message);
        }
        if !used_ids.insert(field.id.clone()) {
            problems.add_at("id", "validation_duplicated_field_id", format!("The id {} is used twice.", field.id));
        }
        built.sent_at.push((field.id.clone(), at));
        built.fields.push(field);
    }
    if built.next_number as usize > limits::FIELDS_PER_COLLECTION_MAX {
        let message = format!("A collection may have {} fields over its life.", limits::FIELDS_PER_COLLECTION_MAX);
        problems.add("validation_too_many_fields", message);
    }
    check_system_fields_kept(before, &built.fields, &mut problems);
    built.fields.sort_by_key(|field| field.number.0 != 0);
    built
}

/// The inputs with their position, with the system fields of the kind added where they are not mentioned.
fn with_system_fields(
    before: Option<&Collection>,
    kind: CollectionKind,
    inputs: &[FieldInput],
) -> Vec<(usize, FieldInput)> {
    let mut out: Vec<(usize, FieldInput)> = Vec::with_capacity(inputs.len() + 6);
    let fresh = if before.is_none() { system_fields(kind) } else { Vec::new() };
    for system in fresh {
        if !inputs.iter().any(|input| input.name == system.name) {
            out.push((inputs.len(), system));
        }
    }
    for (at, input) in inputs.iter().enumerate() {
        let mut input = input.clone();
        // What the sender says about `system` counts for nothing: the names decide.
        input.system = is_system_name(kind, &input.name);
        force_system_options(&mut input);
        out.push((at, input));
    }
    out
}

fn is_system_name(kind: CollectionKind, name: &str) -> bool {
    name == "id"
        || kind == CollectionKind::Auth
            && matches!(name, "password" | "tokenKey" | "email" | "emailVisibility" | "verified")
}

fn force_system_options(input: &mut FieldInput) {
    match (&mut input.kind, input.system, input.name.as_str()) {
        (FieldKind::Text(options), true, "id") => {
            options.primary_key = true;
            input.required = true;
            input.hidden = false;
            if options.pattern.is_empty() {
                options.pattern = Arc::from("^[a-z0-9]+$");
            }
        }
        (FieldKind::Password(_), true, _) | (FieldKind::Text(_), true, "tokenKey") => {
            input.hidden = true;
            input.required = true;
        }
        _ => {}
    }
}

fn plain(name: &str, kind: FieldKind) -> FieldInput {
    FieldInput {
        id: None,
        name: name.to_owned(),
        kind,
        system: true,
        hidden: false,
        presentable: false,
        required: false,
        searchable: false,
        read_rule: None,
        write_rule: None,
    }
}

/// The fields that every collection of `kind` has, as PocketBase makes them.
pub(crate) fn system_fields(kind: CollectionKind) -> Vec<FieldInput> {
    let text = |min, max, pattern: &str, autogenerate: &str, primary_key| {
        FieldKind::Text(TextOptions {
            min,
            max,
            pattern: Arc::from(pattern),
            autogenerate_pattern: Arc::from(autogenerate),
            primary_key,
        })
    };
    let id_form = if kind == CollectionKind::View {
        text(0, 0, "^[a-z0-9]+$", "", true)
    } else {
        text(15, 15, "^[a-z0-9]+$", "[a-z0-9]{15}", true)
    };
    let mut fields = vec![FieldInput { required: true, ..plain("id", id_form) }];
    if kind == CollectionKind::Auth {
        let password = FieldKind::Password(PasswordOptions { min: 8, ..PasswordOptions::default() });
        let token_key = text(30, 60, "", "[a-zA-Z0-9]{50}", false);
        fields.extend([
            FieldInput { required: true, hidden: true, ..plain("password", password) },
            FieldInput { required: true, hidden: true, ..plain("tokenKey", token_key) },
            FieldInput { required: true, ..plain("email", FieldKind::Email(Default::default())) },
            plain("emailVisibility", FieldKind::Bool),
            plain("verified", FieldKind::Bool),
        ]);
    }
    fields
}

fn build_one(
    before: Option<&Collection>,
    kind: CollectionKind,
    input: &FieldInput,
    built: &mut BuiltFields,
    problems: &mut Problems<'_>,
) -> Option<Field> {
    let count = problems.len();
    let name = check_name(&input.name, kind, input.system, problems);
    let old = find_old(before, input);
    if let Some(old) = old.filter(|old| old.system && old.name.as_str() != input.name) {
        problems.add_at(
            "name",
            "validation_system_field_change",
            format!("The system field {:?} keeps its name.", old.name.as_str()),
        );
    }
    let id = match (&input.id, old) {
        (_, Some(old)) => Some(old.id.clone()),
        (Some(id), None) => FieldId::parse(id)
            .map_err(|error| problems.add_at("id", "validation_invalid_format", error.to_string()))
            .ok(),
        (None, None) => FieldId::parse(&format!("{}{}", input.kind.type_name(), crc32(&input.name))).ok(),
    };
    let mut kind_next = input.kind.clone();
    check_options(&mut kind_next, problems);
    check_searchable(input, problems);
    for (key, rule) in [("readRule", &input.read_rule), ("writeRule", &input.write_rule)] {
        if rule.as_ref().is_some_and(|rule| rule.chars().count() > limits::RULE_CHARS_MAX) {
            problems.add_at(
                key,
                "validation_max_text_constraint",
                format!("Must be no more than {} characters.", limits::RULE_CHARS_MAX),
            );
        }
    }
    let number = pick_number(old, &input.name, &kind_next, built, problems);
    if input.name == "id" && !matches!(&kind_next, FieldKind::Text(_)) {
        problems.add_at("type", "validation_invalid_type", "The field id must be of type text.");
    }
    check_auth_type(kind, input, problems);
    (problems.len() == count).then_some(())?;
    Some(Field {
        id: id?,
        number,
        name: name?,
        kind: kind_next,
        system: input.system,
        hidden: input.hidden,
        presentable: input.presentable,
        required: input.required,
        searchable: input.searchable,
        read_rule: input.read_rule.clone(),
        write_rule: input.write_rule.clone(),
    })
}

/// The present field an input speaks of: by id, or by name when it carries no id or an unknown one for a system field.
fn find_old<'a>(before: Option<&'a Collection>, input: &FieldInput) -> Option<&'a Field> {
    let before = before?;
    let by_id = input.id.as_deref().and_then(|id| before.fields.iter().find(|field| field.id.as_str() == id));
    let by_name = || before.find_field(&input.name).filter(|field| input.id.is_none() || field.system);
    by_id.or_else(by_name)
}

fn check_name(name: &str, kind: CollectionKind, system: bool, problems: &mut Problems<'_>) -> Option<FieldName> {
    if name.is_empty() {
        problems.add_at("name", "validation_required", format!("Cannot be blank; use {NAME_CHARS}."));
        return None;
    }
    let lower = name.to_ascii_lowercase();
    let reserved = RESERVED.contains(&lower.as_str())
        || (kind == CollectionKind::Auth && RESERVED_AUTH.contains(&lower.as_str()))
        || (!system && lower == "id");
    if reserved {
        problems.add_at("name", "validation_reserved_name", format!("The name {name:?} is reserved; choose another."));
    }
    if lower.contains("_via_") {
        problems.add_at("name", "validation_reserved_name", "A name cannot contain _via_, which marks back-relations.");
    }
    let parsed = FieldName::parse(name);
    if parsed.is_err() {
        problems.add_at("name", "validation_invalid_format", format!("Must be {NAME_CHARS}."));
    }
    parsed.ok()
}

fn pick_number(
    old: Option<&Field>,
    name: &str,
    kind: &FieldKind,
    built: &mut BuiltFields,
    problems: &mut Problems<'_>,
) -> FieldNumber {
    if name == "id" {
        return FieldNumber(0);
    }
    let mut take = |moved_from: Option<FieldNumber>| {
        let number = FieldNumber(built.next_number);
        built.next_number = built.next_number.saturating_add(1);
        built.moved.extend(moved_from.map(|from| (from, number)));
        number
    };
    let Some(old) = old else { return take(None) };
    match convert::between(&old.kind, kind) {
        convert::Change::SameColumn => old.number,
        convert::Change::NewColumn(_) => take(Some(old.number)),
        convert::Change::Refused(why) => {
            let (from, to) = (old.kind.type_name(), kind.type_name());
            let message = format!(
                "Cannot turn {from} into {to}: {why}. Add the new field under another name, or leave its id out and drop the old one first."
            );
            problems.add_at("type", "validation_field_type_change", message);
            old.number
        }
    }
}

fn check_auth_type(kind: CollectionKind, input: &FieldInput, problems: &mut Problems<'_>) {
    if kind != CollectionKind::Auth || !input.system {
        if matches!(input.kind, FieldKind::Password(_)) && kind == CollectionKind::View {
            problems.add_at("type", "validation_invalid_type", "A view cannot hold passwords.");
        }
        return;
    }
    let wanted = system_fields(kind).into_iter().find(|field| field.name == input.name);
    if let Some(wanted) = wanted.filter(|wanted| wanted.kind.type_name() != input.kind.type_name()) {
        let message = format!("The system field {:?} must be of type {}.", input.name, wanted.kind.type_name());
        problems.add_at("type", "validation_system_field_change", message);
    }
}

fn check_searchable(input: &FieldInput, problems: &mut Problems<'_>) {
    let textual = matches!(
        input.kind,
        FieldKind::Text(_) | FieldKind::Email(_) | FieldKind::Url(_) | FieldKind::Editor { .. } | FieldKind::Select(_)
    );
    if input.searchable && (!textual || input.hidden || input.name == "id") {
        let message = "Only visible text, email, url, editor and select fields can be searchable.";
        problems.add_at("searchable", "validation_invalid_value", message);
    }
}

fn check_system_fields_kept(before: Option<&Collection>, fields: &[Field], problems: &mut Problems<'_>) {
    for old in before.iter().flat_map(|before| &before.fields).filter(|old| old.system) {
        if !fields.iter().any(|field| field.id == old.id) {
            let message = format!("The system field {:?} cannot be removed; send it along.", old.name.as_str());
            problems.add("validation_system_field_change", message);
        }
    }
}

fn check_options(kind: &mut FieldKind, problems: &mut Problems<'_>) {
    match kind {
        FieldKind::Text(options) => {
            check_range(options.min, options.max, "max", problems);
            check_pattern(&options.pattern, problems);
            if let Err(why) = generate::check(&options.autogenerate_pattern) {
                problems.add_at("autogeneratePattern", "validation_invalid_regex", why);
            }
        }
        FieldKind::Number(options) => {
            if let (Some(min), Some(max)) = (options.min, options.max)
                && min > max
            {
                problems.add_at("max", "validation_invalid_value", format!("Must not be below min ({min})."));
            }
        }
        FieldKind::Email(options) | FieldKind::Url(options) => {
            if !options.except_domains.is_empty() && !options.only_domains.is_empty() {
                let message = "Use either exceptDomains or onlyDomains, not both.";
                problems.add_at("exceptDomains", "validation_invalid_value", message);
            }
        }
        FieldKind::Date(options) => {
            for (key, bound) in [("min", &mut options.min), ("max", &mut options.max)] {
                if bound.is_empty() {
                    continue;
                }
                match datetime::parse_ms(bound) {
                    Some(ms) => *bound = Arc::from(datetime::format_ms(ms)),
                    None => problems.add_at(
                        key,
                        "validation_invalid_date",
                        "Must be a date such as 2026-01-31 12:00:00.000Z.",
                    ),
                }
            }
            if !options.min.is_empty() && !options.max.is_empty() && options.min > options.max {
                problems.add_at("max", "validation_invalid_value", "Must not be before min.");
            }
        }
        FieldKind::Select(options) => check_select(&options.values, options.max_select, problems),
        FieldKind::File(options) => check_thumbs(&options.thumbs, problems),
        FieldKind::Relation(options) => check_range(options.min_select, options.max_select, "maxSelect", problems),
        FieldKind::Password(options) => {
            check_range(options.min, options.max, "max", problems);
            check_pattern(&options.pattern, problems);
            if options.max > limits::PASSWORD_BYTES_MAX as u64 {
                problems.add_at(
                    "max",
                    "validation_invalid_value",
                    format!("Must be no more than {}.", limits::PASSWORD_BYTES_MAX),
                );
            }
        }
        FieldKind::Bool
        | FieldKind::Autodate(_)
        | FieldKind::Json { .. }
        | FieldKind::Editor { .. }
        | FieldKind::GeoPoint => {}
    }
}

fn check_range(min: u64, max: u64, key: &str, problems: &mut Problems<'_>) {
    if max > 0 && min > max {
        problems.add_at(key, "validation_invalid_value", format!("Must not be below the minimum ({min})."));
    }
}

fn check_pattern(text: &str, problems: &mut Problems<'_>) {
    if let Err(why) = pattern::check(text) {
        problems.add_at("pattern", "validation_invalid_regex", format!("Is not a usable regular expression: {why}"));
    }
}

fn check_select(values: &[Arc<str>], max_select: u64, problems: &mut Problems<'_>) {
    let mut seen = HashSet::new();
    if values.is_empty() {
        problems.add_at("values", "validation_required", "List the values to choose from.");
    }
    for (at, value) in values.iter().enumerate() {
        if value.is_empty() || !seen.insert(value) {
            problems.at("values").add_at(at, "validation_invalid_value", "Values must be different and not empty.");
        }
    }
    if max_select > 1 && max_select > values.len() as u64 && !values.is_empty() {
        problems.add_at(
            "maxSelect",
            "validation_invalid_value",
            format!("Must be no more than the {} values.", values.len()),
        );
    }
}

fn check_thumbs(thumbs: &[Arc<str>], problems: &mut Problems<'_>) {
    for (at, thumb) in thumbs.iter().enumerate() {
        let size = thumb.trim_end_matches(['t', 'b', 'f']);
        let sides = size.split_once('x').and_then(|(w, h)| Some((w.parse::<u16>().ok()?, h.parse::<u16>().ok()?)));
        let whole = thumb.len() - size.len() <= 1 && sides.is_some_and(|(w, h)| w > 0 || h > 0);
        if !whole {
            problems.at("thumbs").add_at(at, "validation_invalid_format", "Must be WxH, WxHt, WxHb, WxHf, 0xH or Wx0.");
        }
    }
}
