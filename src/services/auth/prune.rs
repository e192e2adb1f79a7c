//! Removing what has expired: sessions nobody refreshed, one-time codes nobody used, logins and registrations nobody
//! finished, suspensions whose time is over, old events.
//!
//! Keeps true: only rows that mean nothing to any login any more go; a file that holds none is read and not written.
//! Does not do: deciding when; `app` does.

use super::Auth;
use super::error::AuthError;
use crate::kernel::datetime;
use crate::kernel::ident::RecordId;
use crate::kernel::limits;
use crate::kernel::value::Stored;
use crate::schema::Collection;
use crate::schema::record::RecordImage;
use crate::services::tenants::rows;
use crate::services::tenants::system::{AUTH_EVENTS, MFAS, OTPS, REGISTRATIONS, SESSIONS, SUSPENSIONS};
use crate::store::{Reader, StoreError, TenantDb, WriteMeta};

/// What ends, and the field that says when. A session or code without an end is over; a suspension without one is not.
const ENDS: [(&str, &str); 6] = [
    (SESSIONS, "expires"),
    (OTPS, "expires"),
    (MFAS, "expires"),
    (REGISTRATIONS, "expires"),
    (AUTH_EVENTS, "expires"),
    (SUSPENSIONS, UNTIL),
];
const UNTIL: &str = "until";

impl Auth {
    /// Removes expired sessions and codes of one tenant, or of the control database; returns how many.
    pub async fn prune_expired(&self, tenant: &TenantDb) -> Result<usize, AuthError> {
        let now_ms = self.0.clock.now_ms();
        let mut gone = 0;
        self.tell_events(tenant).await?;
        for (name, end) in ENDS {
            gone += prune(tenant, name, end, now_ms).await?;
        }
        // What strangers cause makes room for what they cause later.
        let kept_max = limits::AUTH_EVENTS_CHEAP_MAX.saturating_sub(limits::UPKEEP_ROWS_MAX);
        Ok(gone + self.trim_events(tenant, kept_max).await?)
    }
}

async fn prune(tenant: &TenantDb, name: &'static str, end: &'static str, now_ms: i64) -> Result<usize, StoreError> {
    let schema = tenant.schema();
    let Some(collection) = schema.find(name).cloned() else { return Ok(0) };
    let wanted = collection.clone();
    let found = tenant.read(move |reader| expired(reader, &wanted, end, now_ms)).await?;
    if found.is_empty() {
        return Ok(0);
    }
    let written = tenant.write(WriteMeta::system("expired"), move |tx| {
        let mut gone = 0;
        for id in &found {
            // It may have been refreshed, or removed, since it was read.
            if tx.find_record(&collection, id.as_str())?.is_some_and(|row| is_over(&collection, &row, end, now_ms)) {
                tx.delete(&collection, id)?;
                gone += 1;
            }
        }
        Ok::<_, StoreError>(gone)
    });
    Ok(written.await?.value)
}

fn is_over(collection: &Collection, row: &RecordImage, end: &str, now_ms: i64) -> bool {
    rows::moment_ms(collection, row, end).map_or(end != UNTIL, |end_ms| end_ms <= now_ms)
}

fn expired(reader: &Reader<'_>, collection: &Collection, end: &str, now_ms: i64) -> Result<Vec<RecordId>, StoreError> {
    let Some(field) = collection.find_field(end) else { return Ok(Vec::new()) };
    let (column, but) = (field.column(), if end == UNTIL { "<> ''" } else { "IS NOT NULL" });
    // Moments are stored in one form of fixed length, so their order as text is their order in time.
    let sql = format!(
        "SELECT id FROM \"{}\" WHERE {column} <= ?1 AND {column} {but} LIMIT {}",
        collection.table(),
        limits::UPKEEP_ROWS_MAX
    );
    let mut ids = Vec::new();
    reader.for_each(&sql, &[Stored::from(datetime::format_ms(now_ms))], &mut |row| {
        ids.extend(row.stored(0)?.as_text().and_then(|id| RecordId::parse(id).ok()));
        Ok(())
    })?;
    Ok(ids)
}
