//! Registrations that wait for their address to be confirmed: collections with `quietRegistration`.
//!
//! Keeps true: until the address is confirmed nothing is made and nothing looks whether somebody has it, so answer, time,
//! log position, caches and unique values are the same for an address that has an account and one that has none. What the
//! create rule says of the account is decided when it registers; what the fields say, then and when it is confirmed; what must
//! be unique, when it is confirmed, which ends every other registration of the address.
//! Does not do: mails and their tokens (`auth::registration`).

use super::gate;
use super::write::{WriteRequest, WriteSource, check_references};
use super::{Answer, RecordError, Scope};
use crate::access::Action;
use crate::kernel::datetime;
use crate::kernel::error::Detail;
use crate::kernel::ident::{FieldNumber, RecordId};
use crate::kernel::limits;
use crate::kernel::random::Random;
use crate::kernel::value::Stored;
use crate::query::request::{AuthRecord, RequestContext};
use crate::schema::field::{Field, FieldKind};
use crate::schema::record::RecordImage;
use crate::schema::value_check::{self, Occasion, ValueContext};
use crate::schema::{Collection, Schema};
use crate::services::login_guard::GuessRefused;
use crate::services::tenants::rows;
use crate::services::tenants::system::REGISTRATIONS;
use crate::services::throttle::address_group;
use crate::store::{Reader, StoreError, WriteTx};
use serde_json::{Value, json};
use std::fmt;
use std::sync::Arc;

/// Whether accounts of `collection` are made only once their address is confirmed.
pub fn is_quiet(collection: &Collection) -> bool {
    let said = collection.auth.as_ref().and_then(|auth| auth.rest.get("quietRegistration")?.get("enabled")?.as_bool());
    collection.is_auth() && said == Some(true)
}

/// Counts mails to those who register, by who asks and for which address, never by who has an account. Must not wait for
/// anything.
pub trait CountMail: Send + Sync {
    /// Counts one to `email`, or refuses it. Asked inside the write: what it refuses is undone as a whole, and what is
    /// refused for another reason, only tried, or answered from a receipt is not counted.
    fn ask(&self, email: &str) -> Result<(), GuessRefused>;

    /// What [`Self::ask`] would say now; counts nothing.
    fn look(&self, email: &str) -> Result<(), GuessRefused>;
}

/// Whom a write asks that may become a registration.
#[derive(Clone)]
pub struct MailGate(Arc<dyn CountMail>);

impl MailGate {
    /// A gate that asks `count`.
    pub fn new(count: Arc<dyn CountMail>) -> Self {
        Self(count)
    }
}

impl fmt::Debug for MailGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MailGate")
    }
}

/// A registration that waits.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// Its row.
    pub id: RecordId,
    /// The account as it will be, its address not confirmed.
    pub account: Arc<AuthRecord>,
}

/// Refuses what cannot wait; looks at the request alone.
pub(super) fn check(request: &WriteRequest, accounts: &Collection, record: &RecordImage) -> Result<(), RecordError> {
    let mut details = Vec::from_iter((request.source != WriteSource::Alone).then(comes_alone));
    let mut refuse = |field: &str, code, message: &str| details.push(Detail::new(field, code, message));
    if request.body.get("id").is_some_and(|id| !id.is_null() && id.as_str() != Some("")) {
        refuse("id", "validation_not_allowed", "Is chosen by the server.");
    }
    if !request.uploads.is_empty() {
        refuse("files", "validation_not_allowed", "Are added once the address is confirmed.");
    }
    if rows::text(accounts, record, "email").is_empty() {
        refuse("email", "validation_required", "Cannot be blank.");
    }
    if encode(record).len() > limits::REGISTRATION_BYTES_MAX {
        refuse("body", "validation_length_too_long", "Is too long; add more once the address is confirmed.");
    }
    if details.is_empty() { Ok(()) } else { Err(RecordError::Invalid(details)) }
}

/// Keeps a registration from the address `ip` until its own address is confirmed or its time is over; where there are too
/// many, one of whoever has most waiting goes.
pub(super) fn keep(
    tx: &mut WriteTx<'_>,
    accounts: &Collection,
    record: &RecordImage,
    ip: Option<&str>,
    random: &dyn Random,
) -> Result<RecordId, RecordError> {
    let registrations = registrations(tx.schema())?;
    make_room(tx, &registrations)?;
    let id = RecordId::generate(random);
    let (now_ms, age_ms) = (tx.now_ms(), duration_ms(accounts));
    let origin = ip.and_then(|text| text.parse().ok()).map(|address| address_group(address).to_string());
    let values = [
        ("origin", Stored::from(origin.unwrap_or_default())),
        ("collectionRef", Stored::text(&accounts.id)),
        ("recordRef", Stored::text(&record.id)),
        ("record", Stored::from(encode(record))),
        ("expires", Stored::from(datetime::format_ms(now_ms.saturating_add(age_ms)))),
    ];
    tx.insert(&registrations, &rows::image(&registrations, id.clone(), &values, now_ms))?;
    Ok(id)
}

/// Counts the mail that a registration asks for; refused where there are too many, and then nothing of it is kept.
pub(super) fn count_mail(
    request: &WriteRequest,
    accounts: &Collection,
    record: &RecordImage,
) -> Result<(), RecordError> {
    let gate = request.mail_gate.as_ref().ok_or_else(|| RecordError::Defect("nobody counts the mail".into()))?;
    Ok(gate.0.ask(rows::text(accounts, record, "email"))?)
}

/// Refuses a creation, before a password is hashed for it, that [`check`] or [`count_mail`] would refuse whatever else is said.
///
/// It is no oracle: it goes by how the request came, by who asks and for which address, so taken and free ones are refused
/// equally soon. Whoever may turn out to manage accounts is let through here, because theirs do not wait.
pub(super) fn refuse_early(
    scope: &Scope,
    schema: &Arc<Schema>,
    accounts: &Arc<Collection>,
    request: &WriteRequest,
    seen: Option<&RequestContext>,
) -> Result<(), RecordError> {
    let asks = matches!(request.source, WriteSource::Alone | WriteSource::Caller);
    if !asks || !is_quiet(accounts) {
        return Ok(());
    }
    let manages = Action::Manage.rule_text(accounts).cloned();
    if !gate::refuses_all(scope, schema, accounts, &manages, seen)? {
        return Ok(());
    }
    if request.source == WriteSource::Caller {
        return Err(RecordError::Invalid(vec![comes_alone()]));
    }
    match (&request.mail_gate, request.body.get("email").and_then(Value::as_str)) {
        (Some(gate), Some(email)) => Ok(gate.0.look(email)?),
        _ => Ok(()),
    }
}

fn comes_alone() -> Detail {
    let message = "Accounts of this collection register one by one, by POST to its records.";
    Detail::new("collection", "validation_registration_alone", message)
}

/// What everybody is answered who registers.
pub(super) fn answer(accounts: &Collection) -> Answer {
    let body = json!({
        "collectionId": accounts.id.as_str(),
        "collectionName": accounts.name.as_str(),
        "code": "confirmation_mailed",
        "message": "A mail was sent to the address; its link completes the registration.",
    });
    Answer::new(body.to_string().into_bytes())
}

/// The registration in row `id`, unless its time is over.
pub fn find(
    reader: &Reader<'_>,
    accounts: &Arc<Collection>,
    id: &str,
    now_ms: i64,
) -> Result<Option<Waiting>, StoreError> {
    let Some(registrations) = reader.schema().find(REGISTRATIONS).cloned() else { return Ok(None) };
    let Some(row) = reader.find_record(&registrations, id)? else { return Ok(None) };
    let is_over = rows::moment_ms(&registrations, &row, "expires").is_none_or(|ms| ms <= now_ms);
    let text = |name: &str| rows::text(&registrations, &row, name);
    if is_over || text("collectionRef") != accounts.id.as_str() {
        return Ok(None);
    }
    let record = RecordId::parse(text("recordRef")).ok().and_then(|id| decode(accounts, id, text("record")));
    let account = record.map(|record| Arc::new(AuthRecord { collection: Arc::clone(accounts), record }));
    Ok(account.map(|account| Waiting { id: row.id, account }))
}

/// Makes the account of the registration in row `id`, its address confirmed; [`RecordError::NotFound`] if there is none.
pub fn admit(tx: &mut WriteTx<'_>, accounts: &Arc<Collection>, id: &RecordId) -> Result<(), RecordError> {
    let now_ms = tx.now_ms();
    let registrations = registrations(tx.schema())?;
    let waiting = find(tx, accounts, id.as_str(), now_ms)?.ok_or(RecordError::NotFound)?;
    if accounts.rules.create.is_none() {
        // Nobody registers any more.
        return Err(RecordError::NotFound);
    }
    tx.delete(&registrations, id)?;
    let mut record = waiting.account.record.clone();
    for (number, value) in rows::changes(accounts, &[("verified", Stored::bool(true))]) {
        record.set(number, value);
    }
    for field in &accounts.fields {
        if let Some(now) = value_check::autodate(field, Occasion::Create, now_ms) {
            record.set(field.number, now);
        }
    }
    check_values(accounts, &record)?;
    check_references(tx, accounts, record.values())?;
    tx.insert(accounts, &record)?;
    end_others(tx, &registrations, accounts, rows::text(accounts, &record, "email"))
}

/// The fields as they are now, which may ask for more than when the account registered.
fn check_values(accounts: &Collection, record: &RecordImage) -> Result<(), RecordError> {
    let checked = |field: &&Field| field.number.0 != 0 && !matches!(field.kind, FieldKind::Password(_));
    let refusals = accounts.fields.iter().filter(checked).filter_map(|field| {
        let value = record.get(field.number).cloned().unwrap_or_else(|| value_check::default_value(field));
        value_check::check_stored(field, &value, ValueContext::default()).err()
    });
    let details: Vec<Detail> = refusals.collect();
    if details.is_empty() { Ok(()) } else { Err(RecordError::Invalid(details)) }
}

/// Ends every other registration that waits for `email`: whoever made them, the address has its account.
fn end_others(
    tx: &mut WriteTx<'_>,
    registrations: &Arc<Collection>,
    accounts: &Collection,
    email: &str,
) -> Result<(), RecordError> {
    let column = |name| registrations.find_field(name).map(|field| field.column());
    let (Some(of), Some(kept), Some(address)) =
        (column("collectionRef"), column("record"), accounts.find_field("email"))
    else {
        return Ok(());
    };
    let sql = format!(
        "SELECT id FROM \"{}\" AS waiting WHERE {of} = ?1 AND EXISTS (SELECT 1 FROM json_each(waiting.{kept}) AS pair \
         WHERE json_extract(pair.value, '$[0]') = ?2 AND lower(json_extract(pair.value, '$[1]')) = lower(?3))",
        registrations.table()
    );
    let number = Stored::Integer(i64::from(address.number.0));
    let mut others = Vec::new();
    tx.for_each(&sql, &[Stored::text(&accounts.id), number, Stored::text(email)], &mut |row| {
        others.extend(row.stored(0)?.as_text().and_then(|id| RecordId::parse(id).ok()));
        Ok(())
    })?;
    for id in others {
        tx.delete(registrations, &id)?;
    }
    Ok(())
}

/// Where there are [`limits::REGISTRATIONS_MAX`], one goes: one whose time is over, else the oldest of the address that has
/// most waiting. So a flood from one place pushes out itself; from many places, the oldest of all.
fn make_room(tx: &mut WriteTx<'_>, registrations: &Arc<Collection>) -> Result<(), RecordError> {
    let column = |name| registrations.find_field(name).map(|field| field.column());
    let (Some(expires), Some(origin), Some(created)) = (column("expires"), column("origin"), column("created")) else {
        return Ok(());
    };
    let table = registrations.table();
    let waiting = tx.find_one(&format!("SELECT count(*) FROM \"{table}\""), &[], |row| row.stored(0))?;
    #[expect(clippy::cast_precision_loss, reason = "a bound of a few thousand")]
    let is_full = waiting.and_then(|count| count.as_number()).unwrap_or(0.0) >= limits::REGISTRATIONS_MAX as f64;
    if !is_full {
        return Ok(());
    }
    let over = format!("SELECT id FROM \"{table}\" WHERE {expires} <= ?1 ORDER BY {expires} LIMIT 1");
    let mut found = tx.find_one(&over, &[Stored::from(datetime::format_ms(tx.now_ms()))], |row| row.stored(0))?;
    if found.is_none() {
        let most = format!(
            "SELECT {origin} FROM \"{table}\" GROUP BY {origin} ORDER BY count(*) DESC, min({created}) LIMIT 1"
        );
        let oldest = format!("SELECT id FROM \"{table}\" WHERE {origin} IS ({most}) ORDER BY {created} LIMIT 1");
        found = tx.find_one(&oldest, &[], |row| row.stored(0))?;
    }
    if let Some(id) = found.as_ref().and_then(Stored::as_text).and_then(|id| RecordId::parse(id).ok()) {
        tx.delete(registrations, &id)?;
    }
    Ok(())
}

/// How long a registration waits: as long as the link in its mail holds.
fn duration_ms(accounts: &Collection) -> i64 {
    let rest = accounts.auth.as_ref().map(|auth| &auth.rest);
    let seconds = rest.and_then(|rest| rest.get("verificationToken")?.get("duration")?.as_i64()).unwrap_or(259_200);
    seconds.saturating_mul(1_000)
}

/// The values by field number, which no other field ever gets.
fn encode(record: &RecordImage) -> String {
    let values = record.values().iter().map(|(number, value)| match value {
        Stored::Null | Stored::Blob(_) => json!([number.0, null]),
        Stored::Integer(value) => json!([number.0, value]),
        Stored::Real(value) => json!([number.0, value]),
        Stored::Text(text) => json!([number.0, text]),
    });
    Value::Array(values.collect()).to_string()
}

/// The record again, without fields that are gone meanwhile.
fn decode(accounts: &Collection, id: RecordId, text: &str) -> Option<RecordImage> {
    let Ok(Value::Array(pairs)) = serde_json::from_str(text) else { return None };
    let values = pairs.iter().filter_map(|pair| {
        let number = FieldNumber(u32::try_from(pair.get(0)?.as_u64()?).ok()?);
        accounts.find_field_number(number)?;
        let value = match pair.get(1)? {
            Value::String(text) => Stored::text(text),
            Value::Number(number) => match number.as_i64() {
                Some(whole) => Stored::Integer(whole),
                None => Stored::Real(number.as_f64()?),
            },
            _ => Stored::Null,
        };
        Some((number, value))
    });
    Some(RecordImage::new(id, values))
}

fn registrations(schema: &Schema) -> Result<Arc<Collection>, RecordError> {
    let found = schema.find(REGISTRATIONS).cloned();
    found.ok_or_else(|| RecordError::Defect(format!("no collection {REGISTRATIONS}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::random::SeededRandom;
    use crate::services::tenants::system;

    #[test]
    fn what_waits_comes_back_as_it_was_without_fields_that_are_gone() {
        let mut accounts = system::users(&SeededRandom::new(1), 0);
        let id = RecordId::parse("abcdefghijklmno").unwrap();
        let last = accounts.fields.last().unwrap().number;
        let values = [
            (FieldNumber(1), Stored::text("hash \"ü\"")),
            (FieldNumber(2), Stored::Integer(1)),
            (FieldNumber(3), Stored::Real(1.5)),
            (FieldNumber(4), Stored::Real(2.0)),
            (FieldNumber(5), Stored::Null),
            (last, Stored::text("x")),
        ];
        let record = RecordImage::new(id.clone(), values);
        assert_eq!(decode(&accounts, id.clone(), &encode(&record)), Some(record.clone()));
        accounts.fields.pop();
        let shorter = decode(&accounts, id.clone(), &encode(&record)).unwrap();
        assert_eq!(shorter.get(last), None);
        assert_eq!(shorter.values().len(), record.values().len() - 1);
        for nonsense in ["", "{}", "[", "7"] {
            assert_eq!(decode(&accounts, id.clone(), nonsense), None, "{nonsense}");
        }
    }
}
