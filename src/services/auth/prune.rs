//! Removing what has expired: sessions nobody refreshed, one-time codes nobody used, logins nobody finished, old events.
//!
//! Keeps true: only rows that no login could use any more go; a file that holds none is read and not written.
//! Does not do: deciding when; `app` does.

use super::Auth;
use super::error::AuthError;
use crate::kernel::datetime;
use crate::kernel::ident::RecordId;
use crate::kernel::limits;
use crate::kernel::value::Stored;
use crate::schema::Collection;
use crate::services::tenants::system::{AUTH_EVENTS, MFAS, OTPS, SESSIONS};
use crate::store::{Reader, StoreError, TenantDb, WriteMeta};

impl Auth {
    /// Removes expired sessions and codes of one tenant, or of the control database; returns how many.
    pub async fn prune_expired(&self, tenant: &TenantDb) -> Result<usize, AuthError> {
        let now_ms = self.0.clock.now_ms();
        let mut gone = 0;
        self.tell_events(tenant).await?;
        for name in [SESSIONS, OTPS, MFAS, AUTH_EVENTS] {
            gone += prune(tenant, name, now_ms).await?;
        }
        Ok(gone)
    }
}

async fn prune(tenant: &TenantDb, name: &'static str, now_ms: i64) -> Result<usize, StoreError> {
    let schema = tenant.schema();
    let Some(collection) = schema.find(name).cloned() else { return Ok(0) };
    let wanted = collection.clone();
    let found = tenant.read(move |reader| expired(reader, &wanted, now_ms)).await?;
    if found.is_empty() {
        return Ok(0);
    }
    let written = tenant.write(WriteMeta::system("expired"), move |tx| {
        let mut gone = 0;
        for id in &found {
            // It may have been refreshed, or removed, since it was read.
            if tx.find_record(&collection, id.as_str())?.is_some_and(|row| is_over(&collection, &row, now_ms)) {
                tx.delete(&collection, id)?;
                gone += 1;
            }
        }
        Ok::<_, StoreError>(gone)
    });
    Ok(written.await?.value)
}

fn is_over(collection: &Collection, row: &crate::schema::record::RecordImage, now_ms: i64) -> bool {
    crate::services::tenants::rows::moment_ms(collection, row, "expires").is_none_or(|expires| expires <= now_ms)
}

fn expired(reader: &Reader<'_>, collection: &Collection, now_ms: i64) -> Result<Vec<RecordId>, StoreError> {
    let Some(field) = collection.find_field("expires") else { return Ok(Vec::new()) };
    // Moments are stored in one form of fixed length, so their order as text is their order in time.
    let sql = format!(
        "SELECT id FROM \"{}\" WHERE {} <= ?1 LIMIT {}",
        collection.table(),
        field.column(),
        limits::UPKEEP_ROWS_MAX
    );
    let mut ids = Vec::new();
    reader.for_each(&sql, &[Stored::from(datetime::format_ms(now_ms))], &mut |row| {
        ids.extend(row.stored(0)?.as_text().and_then(|id| RecordId::parse(id).ok()));
        Ok(())
    })?;
    Ok(ids)
}
