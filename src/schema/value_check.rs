//! From the JSON of a request to what SQLite stores, field by field, with the codes PocketBase clients know.
//!
//! Keeps true: what [`check_value`] returns fits the column and every option of the field. Casting is as generous as
//! PocketBase where a value has an obvious meaning ("12" for a number) and refuses the rest.
//! Does not do: looking up related records, hashing passwords (the plain text comes back), storing files.

use super::field::{
    AutodateOptions, DateOptions, DomainOptions, Field, FieldKind, NumberOptions, RelationOptions, SelectOptions,
    Storage, TextOptions,
};
use super::{generate, pattern};
use crate::kernel::datetime;
use crate::kernel::error::Detail;
use crate::kernel::ident::RecordId;
use crate::kernel::limits;
use crate::kernel::random::Random;
use crate::kernel::value::{self, Stored};
use serde_json::Value;
use std::sync::Arc;

/// How a body member changes its field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Modifier {
    /// `field`: the value replaces the old one.
    Set,
    /// `field+`: numbers add up, lists grow at the end.
    Append,
    /// `+field`: lists grow at the front.
    Prepend,
    /// `field-`: numbers go down, lists lose values.
    Remove,
}

/// Splits a body key into the field's name and what happens to it.
pub fn split_modifier(key: &str) -> (&str, Modifier) {
    if let Some(name) = key.strip_prefix('+') {
        (name, Modifier::Prepend)
    } else if let Some(name) = key.strip_suffix('+') {
        (name, Modifier::Append)
    } else if let Some(name) = key.strip_suffix('-') {
        (name, Modifier::Remove)
    } else {
        (key, Modifier::Set)
    }
}

/// What a checked value is measured against beside its field.
#[derive(Debug, Clone, Copy, Default)]
pub struct ValueContext<'a> {
    /// What the record holds now; `None` on create.
    pub current: Option<&'a Stored>,
    /// Names of files that came with this request, in the final form they are stored under.
    pub uploaded: &'a [Arc<str>],
}

type Checked<T> = Result<T, Refusal>;

/// A refusal before it knows its field.
#[derive(Debug)]
struct Refusal {
    code: &'static str,
    message: String,
}

fn refuse<T>(code: &'static str, message: impl Into<String>) -> Checked<T> {
    Err(Refusal { code, message: message.into() })
}

/// Casts `value` for `field`, applies `modifier` to the current value, and checks every option of the field.
///
/// The detail carries the field's name as its path.
pub fn check_value(
    field: &Field,
    value: &Value,
    modifier: Modifier,
    context: ValueContext<'_>,
) -> Result<Stored, Detail> {
    let checked = cast(field, value)
        .and_then(|given| apply(field, modifier, given, context.current))
        .and_then(|stored| check_options(field, stored, context));
    checked.map_err(|refusal| Detail::new(field.name.as_str(), refusal.code, refusal.message))
}

/// What `value` makes of `current`, whatever the options of the field say about it; `None` where the field cannot hold it.
pub fn combine(field: &Field, value: &Value, modifier: Modifier, current: &Stored) -> Option<Stored> {
    cast(field, value).and_then(|given| apply(field, modifier, given, Some(current))).ok()
}

/// Checks a stored value again, as it is: defaults on create, generated texts, results of an increment.
pub fn check_stored(field: &Field, stored: &Stored, context: ValueContext<'_>) -> Result<(), Detail> {
    check_options(field, stored.clone(), context)
        .map(|_| ())
        .map_err(|refusal| Detail::new(field.name.as_str(), refusal.code, refusal.message))
}

/// The amount by which `field+` or `field-` moves a number, so that it can be logged as an increment.
pub fn increment(field: &Field, value: &Value, modifier: Modifier) -> Option<f64> {
    let FieldKind::Number(_) = field.kind else { return None };
    let amount = cast(field, value).ok()?.as_number()?;
    match modifier {
        Modifier::Append | Modifier::Prepend => Some(amount),
        Modifier::Remove => Some(-amount),
        Modifier::Set => None,
    }
}

/// What a field holds when nothing was given: the column's default.
pub fn default_value(field: &Field) -> Stored {
    match field.kind.storage() {
        Storage::Text => Stored::text(""),
        Storage::Number => Stored::Real(0.0),
        Storage::Bool => Stored::Integer(0),
        Storage::List => Stored::text("[]"),
        Storage::Json => Stored::Null,
        Storage::Point => Stored::text("{\"lon\":0,\"lat\":0}"),
    }
}

/// A generated value for a text field that has a pattern for it and was left empty.
pub fn autogenerate(field: &Field, source: &dyn Random) -> Option<Stored> {
    match &field.kind {
        FieldKind::Text(options) if !options.autogenerate_pattern.is_empty() => {
            Some(Stored::from(generate::draw(&options.autogenerate_pattern, source)))
        }
        _ => None,
    }
}

/// Whether a record is being made or changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// The record is new.
    Create,
    /// The record changes.
    Update,
}

/// The moment an autodate field takes on this occasion; `None` leaves it alone.
pub fn autodate(field: &Field, occasion: Occasion, now_ms: i64) -> Option<Stored> {
    let FieldKind::Autodate(AutodateOptions { on_create, on_update }) = field.kind else { return None };
    let takes = match occasion {
        Occasion::Create => on_create,
        Occasion::Update => on_update,
    };
    takes.then(|| Stored::from(datetime::format_ms(now_ms)))
}

/// The values of a list field, or the one value of a single field; empty texts are no values.
pub fn items(stored: &Stored) -> Vec<String> {
    match stored.as_text() {
        None | Some("") => Vec::new(),
        Some(text) if text.starts_with('[') => serde_json::from_str(text).unwrap_or_default(),
        Some(text) => vec![text.to_owned()],
    }
}

/// Whether a stored value counts as blank for `required`.
pub fn is_blank(field: &Field, stored: &Stored) -> bool {
    match stored {
        Stored::Null => true,
        Stored::Integer(number) => *number == 0,
        Stored::Real(number) => *number == 0.0,
        Stored::Text(text) => match field.kind.storage() {
            Storage::List => &**text == "[]" || text.is_empty(),
            Storage::Json => matches!(&**text, "" | "null" | "\"\"" | "[]" | "{}"),
            Storage::Point => &**text == "{\"lon\":0,\"lat\":0}",
            _ => text.is_empty(),
        },
        Stored::Blob(bytes) => bytes.is_empty(),
    }
}

/// The JSON that a multipart form's texts for `field` stand for; forms know only text.
pub fn form_value(field: &Field, texts: &[&str]) -> Value {
    let all = || Value::Array(texts.iter().filter(|text| !text.is_empty()).map(|text| Value::from(*text)).collect());
    let last = texts.last().copied().unwrap_or_default();
    match &field.kind {
        FieldKind::Json { .. } => serde_json::from_str(last).unwrap_or_else(|_| Value::from(last)),
        FieldKind::GeoPoint => serde_json::from_str(last).unwrap_or(Value::Null),
        FieldKind::Select(_) | FieldKind::File(_) | FieldKind::Relation(_) => match serde_json::from_str(last) {
            Ok(list @ Value::Array(_)) if texts.len() == 1 => list,
            _ if texts.len() > 1 || field.kind.is_list() => all(),
            _ => Value::from(last),
        },
        _ => Value::from(last),
    }
}

fn cast(field: &Field, value: &Value) -> Checked<Stored> {
    match &field.kind {
        FieldKind::Number(_) => cast_number(value),
        FieldKind::Bool => cast_bool(value),
        FieldKind::Date(_) | FieldKind::Autodate(_) => cast_date(value),
        FieldKind::Select(_) | FieldKind::File(_) | FieldKind::Relation(_) => cast_items(field, value),
        FieldKind::Json { .. } => cast_json(value),
        FieldKind::GeoPoint => cast_point(value),
        FieldKind::Email(_) | FieldKind::Url(_) => cast_text(value).map(|text| Stored::text(text.trim())),
        FieldKind::Text(_) | FieldKind::Editor { .. } | FieldKind::Password(_) => cast_text(value).map(Stored::from),
    }
}

fn cast_text(value: &Value) -> Checked<String> {
    match value {
        Value::Null => Ok(String::new()),
        Value::String(text) if text.contains('\0') => {
            refuse("validation_invalid_value", "Cannot contain NUL characters.")
        }
        Value::String(text) => Ok(text.clone()),
        Value::Bool(flag) => Ok(flag.to_string()),
        Value::Number(number) => {
            let mut out = Vec::new();
            value::write_json_number(&mut out, number.as_f64().unwrap_or(0.0));
            Ok(number.as_i64().map_or_else(|| String::from_utf8_lossy(&out).into_owned(), |whole| whole.to_string()))
        }
        Value::Array(_) | Value::Object(_) => refuse("validation_invalid_value", "Must be a text."),
    }
}

fn cast_number(value: &Value) -> Checked<Stored> {
    let number = match value {
        Value::Null => Some(0.0),
        Value::Bool(flag) => Some(f64::from(u8::from(*flag))),
        Value::Number(number) => number.as_f64(),
        Value::String(text) if text.trim().is_empty() => Some(0.0),
        Value::String(text) => text.trim().parse().ok(),
        Value::Array(_) | Value::Object(_) => None,
    };
    match number.filter(|number| number.is_finite()) {
        // -0 would print as 0 and compare as equal, but differ in an ETag of the stored bytes.
        Some(number) => Ok(Stored::Real(number + 0.0)),
        None => refuse("validation_not_a_number", "Must be a number."),
    }
}

fn cast_bool(value: &Value) -> Checked<Stored> {
    let flag = match value {
        Value::Null => Some(false),
        Value::Bool(flag) => Some(*flag),
        Value::Number(number) => number.as_f64().map(|number| number != 0.0),
        Value::String(text) => match text.trim().to_ascii_lowercase().as_str() {
            "" | "0" | "f" | "false" | "off" | "no" => Some(false),
            "1" | "t" | "true" | "on" | "yes" => Some(true),
            _ => None,
        },
        Value::Array(_) | Value::Object(_) => None,
    };
    flag.map(Stored::bool).map_or_else(|| refuse("validation_invalid_value", "Must be true or false."), Ok)
}

fn cast_date(value: &Value) -> Checked<Stored> {
    let text = match value {
        Value::Null => return Ok(Stored::text("")),
        Value::String(text) if text.trim().is_empty() => return Ok(Stored::text("")),
        Value::String(text) => datetime::parse_ms(text).or_else(|| unix_ms(text.trim().parse().ok()?)),
        Value::Number(number) => number.as_f64().and_then(unix_ms),
        _ => None,
    }
    .map(datetime::format_ms)
    .filter(|text| !text.is_empty());
    text.map(Stored::from)
        .map_or_else(|| refuse("validation_invalid_date", "Must be a date such as 2026-01-31 12:00:00.000Z."), Ok)
}

/// A bare number is seconds since the Unix epoch, as PocketBase reads it.
fn unix_ms(seconds: f64) -> Option<i64> {
    #[expect(clippy::cast_possible_truncation, reason = "bounded right here")]
    (seconds.abs() < 253_402_300_800.0).then_some((seconds * 1_000.0) as i64)
}

fn cast_items(field: &Field, value: &Value) -> Checked<Stored> {
    let given: Vec<String> = match value {
        Value::Null => Vec::new(),
        Value::Array(list) => list.iter().map(cast_text).collect::<Checked<_>>()?,
        // A list may come as the text of a JSON array, as forms and query parameters send it.
        Value::String(text) if text.starts_with('[') => {
            serde_json::from_str(text).unwrap_or_else(|_| vec![text.clone()])
        }
        other => vec![cast_text(other)?],
    };
    let mut unique: Vec<String> = Vec::with_capacity(given.len());
    for item in given {
        if !item.is_empty() && !unique.contains(&item) {
            unique.push(item);
        }
    }
    Ok(store_items(field, unique))
}

fn store_items(field: &Field, mut unique: Vec<String>) -> Stored {
    if field.kind.is_list() {
        return Stored::from(Value::from(unique).to_string());
    }
    // More than one value for a single field: the last stays, as in PocketBase.
    Stored::from(unique.pop().unwrap_or_default())
}

fn cast_json(value: &Value) -> Checked<Stored> {
    match value {
        Value::Null => Ok(Stored::Null),
        // A text that is itself JSON is taken as that JSON, as PocketBase does.
        Value::String(text) if looks_like_json(text) && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() => {
            Ok(Stored::from(compact(text)))
        }
        other => Ok(Stored::from(other.to_string())),
    }
}

fn looks_like_json(text: &str) -> bool {
    let trimmed = text.trim();
    trimmed.starts_with(['{', '[', '"', '-'])
        || trimmed.starts_with(|c: char| c.is_ascii_digit())
        || matches!(trimmed, "true" | "false" | "null")
}

fn compact(text: &str) -> String {
    serde_json::from_str::<Value>(text).map_or_else(|_| text.to_owned(), |value| value.to_string())
}

fn cast_point(value: &Value) -> Checked<Stored> {
    let read = |map: &serde_json::Map<String, Value>, key: &str| match map.get(key) {
        None | Some(Value::Null) => Some(0.0),
        Some(Value::Number(number)) => number.as_f64(),
        Some(Value::String(text)) => text.trim().parse().ok(),
        Some(_) => None,
    };
    let parsed;
    let map = match value {
        Value::Null => return Ok(store_point(0.0, 0.0)),
        Value::Object(map) => Some(map),
        Value::String(text) => {
            parsed = serde_json::from_str::<Value>(text).unwrap_or(Value::Null);
            parsed.as_object()
        }
        _ => None,
    };
    let Some((lon, lat)) = map.and_then(|map| Some((read(map, "lon")?, read(map, "lat")?))) else {
        return refuse("validation_invalid_geo_point", "Must be an object such as {\"lon\":13.4,\"lat\":52.5}.");
    };
    if !(-90.0..=90.0).contains(&lat) {
        return refuse("validation_invalid_latitude", "Latitude must be between -90 and 90 degrees.");
    }
    if !(-180.0..=180.0).contains(&lon) {
        return refuse("validation_invalid_longitude", "Longitude must be between -180 and 180 degrees.");
    }
    Ok(store_point(lon, lat))
}

fn store_point(lon: f64, lat: f64) -> Stored {
    let mut out = Vec::with_capacity(40);
    out.extend_from_slice(b"{\"lon\":");
    value::write_json_number(&mut out, lon);
    out.extend_from_slice(b",\"lat\":");
    value::write_json_number(&mut out, lat);
    out.push(b'}');
    Stored::from(String::from_utf8_lossy(&out).into_owned())
}

/// Combines the given value with the current one.
fn apply(field: &Field, modifier: Modifier, given: Stored, current: Option<&Stored>) -> Checked<Stored> {
    if modifier == Modifier::Set {
        return Ok(given);
    }
    match &field.kind {
        FieldKind::Number(_) => {
            let old = current.and_then(Stored::as_number).unwrap_or(0.0);
            let amount = given.as_number().unwrap_or(0.0);
            let sum = if modifier == Modifier::Remove { old - amount } else { old + amount };
            if sum.is_finite() {
                Ok(Stored::Real(sum))
            } else {
                refuse("validation_not_a_number", "The result is out of range.")
            }
        }
        FieldKind::Select(_) | FieldKind::File(_) | FieldKind::Relation(_) => {
            let (old, given) = (current.map(items).unwrap_or_default(), items(&given));
            let merged = match modifier {
                Modifier::Remove => old.into_iter().filter(|item| !given.contains(item)).collect(),
                Modifier::Prepend => union(given, old),
                Modifier::Append | Modifier::Set => union(old, given),
            };
            Ok(store_items(field, merged))
        }
        _ => refuse("validation_invalid_modifier", "Only number, select, file and relation fields take + and -."),
    }
}

fn union(mut first: Vec<String>, second: Vec<String>) -> Vec<String> {
    for item in second {
        if !first.contains(&item) {
            first.push(item);
        }
    }
    first
}

fn check_options(field: &Field, stored: Stored, context: ValueContext<'_>) -> Checked<Stored> {
    if is_blank(field, &stored) {
        return if field.required { refuse("validation_required", "Cannot be blank.") } else { Ok(stored) };
    }
    let text = stored.as_text().unwrap_or_default();
    match &field.kind {
        FieldKind::Text(options) => check_text(options, text)?,
        FieldKind::Number(options) => check_number(options, stored.as_number().unwrap_or(0.0))?,
        FieldKind::Email(options) => check_email(options, text)?,
        FieldKind::Url(options) => check_url(options, text)?,
        FieldKind::Date(options) => check_date(options, text)?,
        FieldKind::Select(options) => check_select(options, &items(&stored))?,
        FieldKind::File(options) => check_files(options.max_select, &items(&stored), context)?,
        FieldKind::Relation(options) => check_relation(options, &items(&stored))?,
        FieldKind::Json { max_size } => {
            check_size(*max_size, text, "validation_json_size_limit", "The maximum allowed JSON size is")?;
        }
        FieldKind::Editor { max_size } => {
            check_size(*max_size, text, "validation_content_size_limit", "The maximum allowed content size is")?;
        }
        FieldKind::Password(options) => {
            let max = if options.max == 0 { 71 } else { options.max };
            check_length(text, options.min.max(1), max)?;
            if text.len() > limits::PASSWORD_BYTES_MAX {
                return refuse(
                    "validation_max_text_constraint",
                    format!("Must be no more than {} bytes.", limits::PASSWORD_BYTES_MAX),
                );
            }
            check_format(&options.pattern, text)?;
        }
        FieldKind::Bool | FieldKind::Autodate(_) | FieldKind::GeoPoint => {}
    }
    Ok(stored)
}

fn check_length(text: &str, min: u64, max: u64) -> Checked<()> {
    // Counting characters is only needed where bytes leave a doubt.
    let count = if text.is_ascii() { text.len() } else { text.chars().count() } as u64;
    if count < min {
        return refuse("validation_min_text_constraint", format!("Must be at least {min} character(s)."));
    }
    if count > max {
        return refuse("validation_max_text_constraint", format!("Must be no more than {max} character(s)."));
    }
    Ok(())
}

fn check_format(pattern: &Arc<str>, text: &str) -> Checked<()> {
    if pattern.is_empty() || pattern::matches(pattern, text) {
        return Ok(());
    }
    refuse("validation_invalid_format", format!("Must match {pattern}."))
}

fn check_text(options: &TextOptions, text: &str) -> Checked<()> {
    if options.primary_key && RecordId::parse(text).is_err() {
        return refuse("validation_invalid_format", "Must be 1 to 255 letters, digits or - _ . ~ : @ +.");
    }
    let max = if options.max == 0 { limits::TEXT_CHARS_DEFAULT as u64 } else { options.max };
    check_length(text, options.min, max)?;
    check_format(&options.pattern, text)
}

fn check_number(options: &NumberOptions, number: f64) -> Checked<()> {
    if options.only_int && number.fract() != 0.0 {
        return refuse("validation_only_int_constraint", "Decimal numbers are not allowed.");
    }
    if let Some(min) = options.min.filter(|min| number < *min) {
        return refuse("validation_min_number_constraint", format!("Must be {min} or larger."));
    }
    if let Some(max) = options.max.filter(|max| number > *max) {
        return refuse("validation_max_number_constraint", format!("Must be {max} or less."));
    }
    Ok(())
}

fn check_domain(options: &DomainOptions, domain: &str, code: &'static str) -> Checked<()> {
    let listed = |list: &[Arc<str>]| list.iter().any(|known| known.eq_ignore_ascii_case(domain));
    let refused =
        listed(&options.except_domains) || (!options.only_domains.is_empty() && !listed(&options.only_domains));
    if refused { refuse(code, format!("The domain {domain} is not allowed.")) } else { Ok(()) }
}

fn check_email(options: &DomainOptions, text: &str) -> Checked<()> {
    let Some((local, domain)) = text.rsplit_once('@').filter(|(local, domain)| is_email(local, domain)) else {
        return refuse("validation_is_email", "Must be a valid email address.");
    };
    debug_assert!(!local.is_empty());
    check_domain(options, domain, "validation_email_domain_not_allowed")
}

/// The addresses people have: RFC 5321 dot-atoms before the @, a host name behind it. No quoted local parts, no comments.
fn is_email(local: &str, domain: &str) -> bool {
    let atom = |char: char| char.is_alphanumeric() || "!#$%&'*+/=?^_`{|}~-.".contains(char);
    let dots = |text: &str| !text.starts_with('.') && !text.ends_with('.') && !text.contains("..");
    (1..=64).contains(&local.len()) && local.chars().all(atom) && dots(local) && is_host(domain) && domain.contains('.')
}

fn is_host(host: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.chars().all(|char| char.is_alphanumeric() || char == '-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    (1..=253).contains(&host.len()) && host.split('.').all(label)
}

fn check_url(options: &DomainOptions, text: &str) -> Checked<()> {
    let parsed =
        url::Url::parse(text).ok().filter(|url| text.len() <= 2_083 && matches!(url.scheme(), "http" | "https"));
    match parsed.as_ref().and_then(url::Url::host_str) {
        Some(host) => check_domain(options, host, "validation_url_domain_not_allowed"),
        None => refuse("validation_is_url", "Must be a valid URL that begins with http:// or https://."),
    }
}

fn check_date(options: &DateOptions, text: &str) -> Checked<()> {
    if !options.min.is_empty() && text < &*options.min {
        return refuse(
            "validation_min_greater_equal_than_required",
            format!("Must be no earlier than {}.", options.min),
        );
    }
    if !options.max.is_empty() && text > &*options.max {
        return refuse("validation_max_less_equal_than_required", format!("Must be no later than {}.", options.max));
    }
    Ok(())
}

fn check_count(items: &[String], min: u64, max: u64) -> Checked<()> {
    let count = items.len() as u64;
    if count < min {
        return refuse("validation_not_enough_values", format!("Select at least {min}."));
    }
    if count > max.max(1) {
        return refuse("validation_too_many_values", format!("Select no more than {}.", max.max(1)));
    }
    Ok(())
}

fn check_select(options: &SelectOptions, items: &[String]) -> Checked<()> {
    check_count(items, 0, options.max_select)?;
    match items.iter().find(|item| !options.values.iter().any(|value| **value == ***item)) {
        Some(item) => {
            let short: String = item.chars().take(60).collect();
            refuse(
                "validation_invalid_value",
                format!("Invalid value {short}; choose from {}.", options.values.join(", ")),
            )
        }
        None => Ok(()),
    }
}

fn check_files(max_select: u64, items: &[String], context: ValueContext<'_>) -> Checked<()> {
    check_count(items, 0, max_select)?;
    let present = context.current.map(self::items).unwrap_or_default();
    let known = |item: &String| present.contains(item) || context.uploaded.iter().any(|name| **name == **item);
    match items.iter().find(|item| !known(item)) {
        Some(item) => {
            let short: String = item.chars().take(60).collect();
            refuse("validation_invalid_file", format!("Invalid new file {short}; upload it as multipart form data."))
        }
        None => Ok(()),
    }
}

fn check_relation(options: &RelationOptions, items: &[String]) -> Checked<()> {
    check_count(items, options.min_select, options.max_select)?;
    if items.iter().any(|item| RecordId::parse(item).is_err()) {
        return refuse("validation_missing_rel_records", "Failed to find all relation records with the provided ids.");
    }
    Ok(())
}

fn check_size(max_size: u64, text: &str, code: &'static str, message: &str) -> Checked<()> {
    let max = if max_size == 0 { limits::JSON_BYTES_DEFAULT as u64 } else { max_size };
    if text.len() as u64 > max { refuse(code, format!("{message} {max} bytes.")) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
