//! The log of a tenant as JSON: what changed since a position, and what happened to one record.
//!
//! Keeps true: only superusers read the log; passwords, token keys, digests and sealed secrets never leave it; a deleted record appears as a
//! tombstone with what it held, so that a reader who follows the positions misses nothing.
//! Does not do: live events (those start where this ends), undoing.

use super::shape::{key, push_key, push_text_member};
use super::{Answer, RecordError, Scope};
use crate::kernel::datetime;
use crate::kernel::ident::{CollectionId, FieldNumber, RecordId};
use crate::kernel::limits;
use crate::kernel::value::{Stored, write_json_number};
use crate::schema::field::{Field, Storage};
use crate::schema::record::RecordImage;
use crate::schema::{Collection, Schema, json};
use crate::store::{LogOp, LoggedTx};
use std::io::Write as _;
use std::sync::Arc;

/// Transactions read from the log in one step while looking for one record.
const HISTORY_STEP: usize = 1_000;
/// Entries of a history at most; older ones are reached with `before`.
const HISTORY_LEN_MAX: usize = 200;

/// The transactions after position `since`, at most `limit` of them (`limits::CHANGES_PAGE_MAX`).
///
/// `{"position":N,"next":N,"items":[{lsn,time,actor,requestId,schema,ops:[…]}]}`; ask again with `since=next` until
/// `next` equals `position`.
pub async fn list_changes(scope: &Scope, since: i64, limit: Option<usize>) -> Result<Answer, RecordError> {
    require_superuser(scope)?;
    let limit = limit.unwrap_or(limits::PAGE_LEN_DEFAULT).clamp(1, limits::CHANGES_PAGE_MAX);
    let body = scope
        .tenant
        .read(move |reader| {
            let changes = reader.changes(since, limit)?;
            let next = changes.last().map_or(since, |change| change.lsn);
            let mut out = format!("{{\"position\":{},\"next\":{next},\"items\":[", reader.lsn()).into_bytes();
            for (index, change) in changes.iter().enumerate() {
                separate(&mut out, index);
                Printer { schema: reader.schema(), redact_hidden: false }.transaction(&mut out, change, |_, _| true);
            }
            out.extend_from_slice(b"]}");
            Ok::<_, RecordError>(out)
        })
        .await?;
    Ok(Answer::new(body))
}

/// What happened to one record, oldest first: `{"items":[{lsn,time,actor,requestId,schema,ops:[…]}]}`.
///
/// The log is walked from position `since`; a record that is not in it has an empty history.
pub async fn list_history(scope: &Scope, collection: &str, id: &str, since: i64) -> Result<Answer, RecordError> {
    require_superuser(scope)?;
    let schema = scope.tenant.schema();
    let found = schema.find(collection).ok_or_else(|| RecordError::UnknownCollection(collection.to_owned()))?;
    let (collection, id) = (found.id.clone(), RecordId::parse(id).map_err(|_| RecordError::NotFound)?);
    let body = scope
        .tenant
        .read(move |reader| {
            let mut out = b"{\"items\":[".to_vec();
            let (mut at, mut count) = (since, 0);
            while count < HISTORY_LEN_MAX {
                let changes = reader.changes(at, HISTORY_STEP)?;
                let Some(last) = changes.last() else { break };
                at = last.lsn;
                for change in changes.iter().filter(|change| touches(change, &collection, &id)) {
                    separate(&mut out, count);
                    let printer = Printer { schema: reader.schema(), redact_hidden: false };
                    printer.transaction(&mut out, change, |of, record| *of == collection && *record == id);
                    count += 1;
                }
            }
            out.extend_from_slice(format!("],\"next\":{at}}}").as_bytes());
            Ok::<_, RecordError>(out)
        })
        .await?;
    Ok(Answer::new(body))
}

pub(super) fn require_superuser(scope: &Scope) -> Result<(), RecordError> {
    if scope.is_superuser() { Ok(()) } else { Err(RecordError::LogLocked) }
}

pub(super) fn separate(out: &mut Vec<u8>, index: usize) {
    if index > 0 {
        out.push(b',');
    }
}

fn touches(change: &LoggedTx, collection: &CollectionId, id: &RecordId) -> bool {
    change.frame.ops.iter().any(|op| place(op).is_some_and(|(of, record)| of == collection && record == id))
}

/// Which record an operation is about; `None` for schema changes.
pub(super) fn place(op: &LogOp) -> Option<(&CollectionId, &RecordId)> {
    match op {
        LogOp::New { collection, record } | LogOp::Undel { collection, record } => Some((collection, &record.id)),
        LogOp::Set { collection, id, .. } | LogOp::Inc { collection, id, .. } => Some((collection, id)),
        LogOp::Del { collection, before } => Some((collection, &before.id)),
        LogOp::Schema(_) => None,
    }
}

/// Writes transactions as JSON.
pub(super) struct Printer<'a> {
    pub(super) schema: &'a Schema,
    /// Whether hidden fields are left out too.
    pub(super) redact_hidden: bool,
}

impl Printer<'_> {
    /// One transaction with those of its operations whose record is `wanted`, and its schema changes.
    pub(super) fn transaction(
        &self,
        out: &mut Vec<u8>,
        change: &LoggedTx,
        wanted: impl Fn(&CollectionId, &RecordId) -> bool,
    ) {
        let frame = &change.frame;
        // Writing into a Vec cannot fail.
        let _ = write!(out, "{{\"lsn\":{},\"seq\":{},\"schema\":{}", change.lsn, frame.seq, frame.schema);
        push_text_member(out, "time", &datetime::format_ms(frame.hlc.millis()));
        push_text_member(out, "actor", &frame.actor);
        push_text_member(out, "requestId", &frame.request_id);
        if let Some(ip) = &frame.ip {
            push_text_member(out, "ip", ip);
        }
        out.extend_from_slice(b",\"ops\":[");
        let ops = frame.ops.iter().filter(|op| place(op).is_none_or(|(collection, id)| wanted(collection, id)));
        for (index, op) in ops.enumerate() {
            separate(out, index);
            self.operation(out, op);
        }
        out.extend_from_slice(b"]}");
    }

    fn operation(&self, out: &mut Vec<u8>, op: &LogOp) {
        out.push(b'{');
        match op {
            LogOp::New { collection, record } => self.image(out, "create", collection, record, "record"),
            LogOp::Undel { collection, record } => self.image(out, "restore", collection, record, "record"),
            LogOp::Del { collection, before } => self.image(out, "delete", collection, before, "before"),
            LogOp::Set { collection, id, field, value, before } => {
                let collection = self.head(out, "update", collection, id);
                self.field(out, collection, *field, &[("value", value), ("before", before)]);
            }
            LogOp::Inc { collection, id, field, delta, before } => {
                let collection = self.head(out, "increment", collection, id);
                push_key(out, &key("delta"));
                write_json_number(out, *delta);
                self.field(out, collection, *field, &[("before", before)]);
            }
            LogOp::Schema(change) => {
                push_text_member(out, "op", "schema");
                push_key(out, &key("collections"));
                let ids: Vec<&str> = change.changed.iter().map(|(id, _, _)| id.as_str()).collect();
                let _ = serde_json::to_writer(&mut *out, &ids);
            }
        }
        out.push(b'}');
    }

    fn is_redacted(&self, field: &Field) -> bool {
        // A field that is gone may have been a secret too; `write_value` sees to that.
        field.is_secret() || (self.redact_hidden && field.hidden)
    }

    /// `op`, the collection, the record id.
    fn head(&self, out: &mut Vec<u8>, op: &str, id: &CollectionId, record: &RecordId) -> Option<&Arc<Collection>> {
        let collection = self.schema.find_id(id);
        push_text_member(out, "op", op);
        push_text_member(out, "collectionId", id.as_str());
        if let Some(collection) = collection {
            push_text_member(out, "collectionName", collection.name.as_str());
        }
        push_text_member(out, "id", record.as_str());
        collection
    }

    fn image(&self, out: &mut Vec<u8>, op: &str, id: &CollectionId, record: &RecordImage, member: &str) {
        let collection = self.head(out, op, id, &record.id);
        push_key(out, &key(member));
        out.push(b'{');
        for (number, value) in record.values() {
            let field = collection.and_then(|collection| collection.find_field_number(*number));
            if field.is_some_and(|field| self.is_redacted(field)) {
                continue;
            }
            push_key(out, &key(&name_of(field, *number)));
            write_value(out, field, value);
        }
        out.push(b'}');
    }

    fn field(
        &self,
        out: &mut Vec<u8>,
        collection: Option<&Arc<Collection>>,
        number: FieldNumber,
        values: &[(&str, &Stored)],
    ) {
        let field = collection.and_then(|collection| collection.find_field_number(number));
        push_text_member(out, "field", &name_of(field, number));
        for (name, value) in values {
            push_key(out, &key(name));
            if field.is_some_and(|field| self.is_redacted(field)) {
                out.extend_from_slice(b"null");
            } else {
                write_value(out, field, value);
            }
        }
    }
}

/// The present name, or `f<number>` for a field that is gone.
fn name_of(field: Option<&Field>, number: FieldNumber) -> String {
    field.map_or_else(|| format!("f{}", number.0), |field| field.name.to_string())
}

fn write_value(out: &mut Vec<u8>, field: Option<&Field>, value: &Stored) {
    match (field, value) {
        (Some(field), value) => json::write_cell_json(out, field.kind.storage(), value.cell()),
        // A value of a field that is gone: text could have been a secret.
        (None, Stored::Text(_) | Stored::Blob(_)) => out.extend_from_slice(b"null"),
        (None, value) => json::write_cell_json(out, Storage::Number, value.cell()),
    }
}
