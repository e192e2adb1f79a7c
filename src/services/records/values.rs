//! From the members of a body to the values that are stored.
//!
//! Keeps true: every value that leaves here passed the checks of its field; members that name no field are left alone,
//! as are hidden fields for everyone but superusers, so that their existence cannot be probed by writing.
//! Does not do: what needs the database (unique values, existence of relations, rules).

use super::account::Prepared;
use crate::kernel::datetime;
use crate::kernel::error::Detail;
use crate::kernel::ident::{FieldNumber, RecordId};
use crate::kernel::random::Random;
use crate::kernel::value::Stored;
use crate::schema::Collection;
use crate::schema::body;
use crate::schema::field::{Field, FieldKind};
use crate::schema::record::RecordImage;
use crate::schema::value_check::{self, Modifier, Occasion, ValueContext};
use serde_json::{Map, Value};
use std::sync::Arc;

/// What building values needs besides the body.
pub(super) struct Build<'a> {
    pub(super) collection: &'a Collection,
    pub(super) body: &'a Map<String, Value>,
    pub(super) superuser: bool,
    /// Bulk import by a superuser: autodates in the body are kept.
    pub(super) keep_autodates: bool,
    pub(super) prepared: &'a Prepared,
    pub(super) random: &'a dyn Random,
    pub(super) now_ms: i64,
    /// Stored names of the files that came along.
    pub(super) uploaded: Vec<Arc<str>>,
    /// The body has members such as `field+`; see [`body::has_modifiers`].
    pub(super) modified: bool,
}

/// One field's value, and by how much it moved where the body said `field+` or `field-` on a number.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Change {
    pub(super) field: FieldNumber,
    pub(super) value: Stored,
    pub(super) delta: Option<f64>,
}

impl Build<'_> {
    /// Every value of a new record, and its id.
    pub(super) fn new_record(&self) -> Result<RecordImage, Vec<Detail>> {
        let mut details = Vec::new();
        let id = self.new_id().map_err(|detail| details.push(detail)).ok();
        let mut values = Vec::with_capacity(self.collection.fields.len());
        for field in self.collection.fields.iter().filter(|field| field.number.0 != 0) {
            match self.initial(field) {
                Ok(value) => values.push((field.number, value)),
                Err(detail) => details.push(detail),
            }
        }
        match id {
            Some(id) if details.is_empty() => Ok(RecordImage::new(id, values)),
            _ => Err(details),
        }
    }

    /// What the body changes on `current`; at most one change per field.
    pub(super) fn changes(&self, current: &RecordImage) -> Result<Vec<Change>, Vec<Detail>> {
        let mut details = Vec::new();
        let mut changes = Vec::new();
        for field in &self.collection.fields {
            if field.number.0 == 0 {
                details.extend(self.check_same_id(current));
                continue;
            }
            match self.changed(field, current) {
                Ok(change) => changes.extend(change),
                Err(detail) => details.push(detail),
            }
        }
        if details.is_empty() { Ok(changes) } else { Err(details) }
    }

    /// The fields that the body sets, for the write rules of fields.
    pub(super) fn named_fields(&self) -> impl Iterator<Item = &Field> {
        self.collection.fields.iter().filter(|field| self.is_open(field) && !self.operations(field).is_empty())
    }

    /// Whether the caller may set the field at all.
    fn is_open(&self, field: &Field) -> bool {
        match &field.kind {
            FieldKind::Autodate(_) => self.keep_autodates,
            _ => self.superuser || body::is_settable(field),
        }
    }

    /// The body as rules read it; `current` is the record before an update.
    pub(super) fn seen_by_rules(&self, current: Option<&RecordImage>) -> Map<String, Value> {
        body::interpret(self.collection, self.body, current, |field| self.is_open(field))
    }

    fn new_id(&self) -> Result<RecordId, Detail> {
        let given = self.body.get("id").and_then(Value::as_str).unwrap_or_default();
        if let Some(drawn) = self.prepared.id.as_ref().filter(|_| given.is_empty()) {
            return Ok(drawn.clone());
        }
        let field = self.collection.find_field_number(FieldNumber(0));
        let text = match (field, given.is_empty()) {
            (Some(field), true) => value_check::autogenerate(field, self.random),
            (Some(field), false) => {
                Some(value_check::check_value(field, &Value::from(given), Modifier::Set, ValueContext::default())?)
            }
            (None, _) => None,
        };
        let Some(text) = text else { return Ok(RecordId::generate(self.random)) };
        RecordId::parse(text.as_text().unwrap_or_default())
            .map_err(|error| Detail::new("id", "validation_invalid_format", format!("Must be {}.", error.expected)))
    }

    fn check_same_id(&self, current: &RecordImage) -> Option<Detail> {
        let given = self.body.get("id").and_then(Value::as_str).unwrap_or_default();
        (!given.is_empty() && given != current.id.as_str())
            .then(|| Detail::new("id", "validation_pk_change", "The record id cannot be changed."))
    }

    /// The value of a field that has none yet.
    fn initial(&self, field: &Field) -> Result<Stored, Detail> {
        if let FieldKind::Autodate(_) = &field.kind {
            let now = || value_check::autodate(field, Occasion::Create, self.now_ms);
            return Ok(self.kept_autodate(field)?.or_else(now).unwrap_or_else(|| Stored::text("")));
        }
        let mut value = value_check::default_value(field);
        let mut checked = false;
        if self.is_open(field) {
            for (modifier, given) in self.operations(field) {
                let context = ValueContext { current: Some(&value), uploaded: &self.uploaded };
                value = value_check::check_value(field, given, modifier, context)?;
                checked = true;
            }
        }
        if value_check::is_blank(field, &value)
            && let Some(generated) = value_check::autogenerate(field, self.random)
        {
            value = generated;
        } else if !checked && !self.is_filled_later(field) {
            value_check::check_stored(field, &value, ValueContext::default())?;
        }
        self.hashed(field, value)
    }

    /// The token key of an account is drawn after everything else.
    fn is_filled_later(&self, field: &Field) -> bool {
        self.collection.is_auth() && field.system && field.name.as_str() == "tokenKey"
    }

    fn changed(&self, field: &Field, current: &RecordImage) -> Result<Option<Change>, Detail> {
        if let FieldKind::Autodate(_) = &field.kind {
            let now = || value_check::autodate(field, Occasion::Update, self.now_ms);
            let value = self.kept_autodate(field)?.or_else(now);
            return Ok(value.map(|value| Change { field: field.number, value, delta: None }));
        }
        let operations = if self.is_open(field) { self.operations(field) } else { Vec::new() };
        let before = current.get(field.number).cloned().unwrap_or_else(|| value_check::default_value(field));
        if matches!(field.kind, FieldKind::Password(_)) {
            return self.changed_password(field, operations);
        }
        let mut value = before.clone();
        let mut delta = Some(0.0);
        for (modifier, given) in &operations {
            let context = ValueContext { current: Some(&value), uploaded: &self.uploaded };
            value = value_check::check_value(field, given, *modifier, context)?;
            delta = delta.zip(value_check::increment(field, given, *modifier)).map(|(sum, by)| sum + by);
        }
        Ok((value != before).then_some(Change { field: field.number, value, delta }))
    }

    /// An empty password means that it stays.
    fn changed_password(&self, field: &Field, operations: Vec<(Modifier, &Value)>) -> Result<Option<Change>, Detail> {
        let Some((_, given)) = operations.into_iter().next() else { return Ok(None) };
        if given.as_str().is_none_or(str::is_empty) {
            return Ok(None);
        }
        let plain = value_check::check_value(field, given, Modifier::Set, ValueContext::default())?;
        let value = self.hashed(field, plain)?;
        Ok(Some(Change { field: field.number, value, delta: None }))
    }

    fn kept_autodate(&self, field: &Field) -> Result<Option<Stored>, Detail> {
        match self.body.get(field.name.as_str()) {
            Some(Value::String(text)) if self.keep_autodates && !text.is_empty() => match datetime::parse_ms(text) {
                Some(ms) => Ok(Some(Stored::from(datetime::format_ms(ms)))),
                None => Err(Detail::new(field.name.as_str(), "validation_invalid_date", "Must be a date.")),
            },
            _ => Ok(None),
        }
    }

    /// Passwords were checked as text; what is stored is the hash made from them.
    fn hashed(&self, field: &Field, value: Stored) -> Result<Stored, Detail> {
        if !matches!(field.kind, FieldKind::Password(_)) || value_check::is_blank(field, &value) {
            return Ok(value);
        }
        match self.prepared.hash_of(field.number) {
            Some(hash) => Ok(Stored::text(hash)),
            None => Err(self
                .prepared
                .refused
                .clone()
                .filter(|refused| refused.field == field.name.as_str())
                .unwrap_or_else(|| {
                    Detail::new(field.name.as_str(), "validation_invalid_value", "Must be given as plain text.")
                })),
        }
    }

    /// What the body says about `field`, assignments first.
    fn operations(&self, field: &Field) -> Vec<(Modifier, &Value)> {
        if self.modified {
            return body::operations(field, self.body);
        }
        self.body.get(field.name.as_str()).map(|given| (Modifier::Set, given)).into_iter().collect()
    }
}
