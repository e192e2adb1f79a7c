//! What a tenant's file holds sealed, where, and how it is sealed anew for a copy of the tenant.
//!
//! Keeps true: what this node can open works in a copy too, and is then sealed for the copy alone; what it cannot open stays
//! as it is, opens nothing, and is named to whoever asked for the copy; a second factor that cannot be opened is still
//! asked for. Does not do: sealing what is new (those who store it do).

use super::rows;
use super::system::{SETTINGS, TOTPS};
use crate::kernel::ident::{RecordId, TenantId};
use crate::kernel::random::Random;
use crate::kernel::value::Stored;
use crate::schema::plan::{Plan, Step};
use crate::schema::{Collection, Schema, oauth};
use crate::secrets::seal::Sealer;
use crate::store::{Reader, StoreError, TenantDb, WriteMeta, WriteTx};
use serde_json::Value;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// For which place the password of a tenant's mail server is sealed.
pub const SMTP_PASSWORD_PLACE: &str = "settings/smtp/password";

const ROWS_PER_WRITE: usize = 1_000;

/// For which place the secret of an authenticator app is sealed.
pub fn totp_place(collection: &str, record: &str) -> String {
    format!("totp/{collection}/{record}")
}

/// Seals anew for one tenant what was sealed for another.
#[derive(Clone)]
pub(super) struct Resealer {
    pub(super) sealer: Sealer,
    pub(super) random: Arc<dyn Random>,
    /// What is sealed anew.
    pub(super) of: Sealed,
}

/// Which texts are sealed anew: those of one tenant. What somebody else's file or a text alone says is not enough, or one
/// could have another tenant's secret opened by slipping its sealed text into one's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sealed {
    /// Everything that was sealed for this tenant.
    For(TenantId),
    /// Nothing.
    Nothing,
}

/// Every sealed text that a tenant's file holds, with its place.
fn texts(reader: &Reader<'_>, found: &mut dyn FnMut(&str, &str)) -> Result<(), StoreError> {
    let schema = reader.schema();
    if let Some(settings) = schema.find(SETTINGS) {
        for row in rows::find_by_texts(reader, settings, &[("key", "smtp")])? {
            let smtp: Value = serde_json::from_str(rows::text(settings, &row, "value")).unwrap_or_default();
            found(SMTP_PASSWORD_PLACE, smtp.get("password").and_then(Value::as_str).unwrap_or_default());
        }
    }
    let seen = RefCell::new(found);
    for collection in schema.collections() {
        let nothing_changed = collection.with_client_secrets(&|provider, text| {
            let sealed = text.strip_prefix(oauth::SEALED)?;
            (*seen.borrow_mut())(&oauth::secret_place(&collection.id, provider), sealed);
            None
        });
        debug_assert!(nothing_changed.is_none());
    }
    let found = seen.into_inner();
    let Some(totps) = schema.find(TOTPS) else { return Ok(()) };
    let column = |name| totps.find_field(name).map(|field| field.column());
    let (Some(of), Some(record), Some(sealed)) = (column("collectionRef"), column("recordRef"), column("sealed"))
    else {
        return Ok(());
    };
    reader.for_each(&format!("SELECT {of}, {record}, {sealed} FROM \"{}\"", totps.table()), &[], &mut |row| {
        let [of, record, sealed] = [row.stored(0)?, row.stored(1)?, row.stored(2)?];
        let text = |stored: &Stored| stored.as_text().unwrap_or_default().to_owned();
        found(&totp_place(&text(&of), &text(&record)), &text(&sealed));
        Ok(())
    })
}

/// The tenant for which everything in `db` that this node can open was sealed; nothing if there are several: then somebody
/// put them together.
pub(super) async fn told_by(db: &TenantDb, sealer: &Sealer) -> Result<Sealed, StoreError> {
    let sealer = sealer.clone();
    let named = db.read(move |reader| {
        let mut named = BTreeSet::new();
        texts(reader, &mut |place, text| named.extend(sealer.named(place, text).map(|id| id.to_string())))?;
        Ok::<_, StoreError>(named)
    });
    let mut named = named.await?.into_iter();
    let source = match (named.next(), named.next()) {
        (Some(only), None) => TenantId::parse(&only).ok(),
        _ => None,
    };
    Ok(source.map_or(Sealed::Nothing, Sealed::For))
}

impl Resealer {
    /// Seals everything in `db` anew; the names of what could not be opened.
    pub(super) async fn run(&self, db: &TenantDb) -> Result<Vec<String>, StoreError> {
        let mut unreadable = Vec::from_iter(self.reseal_settings(db).await?);
        unreadable.extend(self.reseal_client_secrets(db).await?);
        unreadable.extend(self.reseal_apps(db).await?);
        Ok(unreadable)
    }

    fn moved(&self, target: &TenantId, place: &str, text: &str) -> Option<String> {
        let Sealed::For(source) = &self.of else { return None };
        self.sealer.move_to(self.random.as_ref(), source, target, place, text)
    }

    async fn reseal_settings(&self, db: &TenantDb) -> Result<Option<String>, StoreError> {
        let (this, tenant) = (self.clone(), db.id().clone());
        let done = db.write(WriteMeta::system("copy"), move |tx| {
            let Some(settings) = tx.schema().find(SETTINGS).cloned() else { return Ok(true) };
            let Some(row) = rows::find_by_texts(tx, &settings, &[("key", "smtp")])?.pop() else { return Ok(true) };
            let mut smtp: Value = serde_json::from_str(rows::text(&settings, &row, "value")).unwrap_or_default();
            let Some(Value::String(password)) = smtp.get_mut("password") else { return Ok(true) };
            if password.is_empty() {
                return Ok(true);
            }
            let Some(moved) = this.moved(&tenant, SMTP_PASSWORD_PLACE, password) else { return Ok(false) };
            *password = moved;
            let changes = rows::changes(&settings, &[("value", Stored::from(smtp.to_string()))]);
            tx.update(&settings, &row.id, &changes)?;
            Ok::<_, StoreError>(true)
        });
        Ok((!done.await?.value).then(|| "smtp.password".to_owned()))
    }

    async fn reseal_client_secrets(&self, db: &TenantDb) -> Result<Vec<String>, StoreError> {
        let (this, tenant) = (self.clone(), db.id().clone());
        let done = db.write(WriteMeta::system("copy"), move |tx| {
            let (plan, unreadable) = this.plan(tx.schema(), &tenant);
            if let Some(plan) = plan {
                tx.apply_schema(&plan)?;
            }
            Ok::<_, StoreError>(unreadable)
        });
        Ok(done.await?.value)
    }

    fn plan(&self, schema: &Arc<Schema>, tenant: &TenantId) -> (Option<Plan>, Vec<String>) {
        let unreadable = RefCell::new(Vec::new());
        let mut steps = Vec::new();
        let resealed = |collection: &Arc<Collection>| {
            collection.with_client_secrets(&|provider, text| {
                let sealed = text.strip_prefix(oauth::SEALED)?;
                let moved = self.moved(tenant, &oauth::secret_place(&collection.id, provider), sealed);
                if moved.is_none() {
                    unreadable.borrow_mut().push(format!("{}.oauth2.{provider}.clientSecret", collection.name));
                }
                Some(format!("{}{}", oauth::SEALED, moved?))
            })
        };
        let collections = schema.collections().iter().map(|before| match resealed(before) {
            Some(after) => {
                let after = Arc::new(after);
                steps.push(Step::AlterTable { before: Arc::clone(before), after: Arc::clone(&after) });
                after
            }
            None => Arc::clone(before),
        });
        let next = Schema::new(schema.version() + 1, collections.collect());
        let plan = Plan { steps, previous: Arc::clone(schema), next: Arc::new(next) };
        (Some(plan).filter(|plan| !plan.steps.is_empty()), unreadable.into_inner())
    }

    async fn reseal_apps(&self, db: &TenantDb) -> Result<Vec<String>, StoreError> {
        let mut unreadable: BTreeMap<String, usize> = BTreeMap::new();
        let mut last = String::new();
        loop {
            let (this, tenant, after) = (self.clone(), db.id().clone(), last.clone());
            let done = db.write(WriteMeta::system("copy"), move |tx| this.reseal_some(tx, &tenant, &after));
            let (reached, some) = done.await?.value;
            for name in some {
                *unreadable.entry(name).or_default() += 1;
            }
            match reached {
                Some(id) => last = id,
                None => break,
            }
        }
        Ok(unreadable.into_iter().map(|(name, count)| format!("{name}.totp ({count})")).collect())
    }

    /// Goes on after row `after`: the last row that was looked at, and whose collections' apps could not be opened.
    fn reseal_some(
        &self,
        tx: &mut WriteTx<'_>,
        tenant: &TenantId,
        after: &str,
    ) -> Result<(Option<String>, Vec<String>), StoreError> {
        let Some(totps) = tx.schema().find(TOTPS).cloned() else { return Ok((None, Vec::new())) };
        let (mut reached, mut unreadable) = (None, Vec::new());
        for id in ids_after(tx, &totps, after)? {
            let Some(row) = tx.find_record(&totps, id.as_str())? else { continue };
            let text = |name: &str| rows::text(&totps, &row, name);
            let place = totp_place(text("collectionRef"), text("recordRef"));
            match self.moved(tenant, &place, text("sealed")) {
                Some(moved) => tx.update(&totps, &id, &rows::changes(&totps, &[("sealed", Stored::from(moved))]))?,
                None => {
                    let named = tx.schema().find(text("collectionRef")).map(|accounts| accounts.name.to_string());
                    unreadable.push(named.unwrap_or_else(|| text("collectionRef").to_owned()));
                }
            }
            reached = Some(id.to_string());
        }
        Ok((reached, unreadable))
    }
}

fn ids_after(reader: &Reader<'_>, collection: &Collection, after: &str) -> Result<Vec<RecordId>, StoreError> {
    let sql = format!("SELECT id FROM \"{}\" WHERE id > ?1 ORDER BY id LIMIT {ROWS_PER_WRITE}", collection.table());
    let mut ids = Vec::new();
    reader.for_each(&sql, &[Stored::text(after)], &mut |row| {
        ids.extend(row.stored(0)?.as_text().and_then(|id| RecordId::parse(id).ok()));
        Ok(())
    })?;
    Ok(ids)
}
