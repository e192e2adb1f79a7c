//! What happens by itself: idle tenants close; logs, receipts, sessions and codes past their time go, and so do uploaded
//! files that no record names and the space that deleted records leave.
//!
//! Keeps true: only open tenants are touched, each at most once per `limits::UPKEEP_EVERY_MS`, and upkeep does not keep a
//! tenant open, nor more than one at a time from closing; one tenant that fails does not stop the next. Does not do: backups, retention of records.

use crate::config::DataConfig;
use crate::kernel::clock::Clock;
use crate::kernel::ident::TenantId;
use crate::kernel::limits;
use crate::services::auth::{Auth, AuthError};
use crate::services::budget::Budgets;
use crate::services::records::RecordTools;
use crate::store::{self, TenantDb};
use std::collections::HashMap;
use std::sync::Arc;

const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

/// What one upkeep removed: log records, receipts, sessions and codes, pages of the file.
struct Tidied {
    log: u64,
    receipts: u64,
    logins: usize,
    pages: u64,
}

/// The periodic task; owned by its loop.
pub(super) struct Upkeep {
    store: Arc<store::Tenants>,
    auth: Auth,
    tools: Arc<RecordTools>,
    budgets: Arc<Budgets>,
    clock: Arc<dyn Clock>,
    log_keep_ms: i64,
    log_bytes_max: u64,
    /// When each tenant was last seen to; entries older than the interval are dropped, so it stays as long as the table
    /// of open tenants.
    last_ms: HashMap<TenantId, i64>,
    /// When each tenant's files were last looked through; dropped like the above.
    swept_ms: HashMap<TenantId, i64>,
}

impl Upkeep {
    pub(super) fn new(
        store: Arc<store::Tenants>,
        auth: Auth,
        tools: Arc<RecordTools>,
        budgets: Arc<Budgets>,
        clock: Arc<dyn Clock>,
        config: &DataConfig,
    ) -> Self {
        Self {
            store,
            auth,
            tools,
            budgets,
            clock,
            log_keep_ms: i64::from(config.log_keep_days) * DAY_MS,
            log_bytes_max: config.log_bytes_max,
            last_ms: HashMap::new(),
            swept_ms: HashMap::new(),
        }
    }

    /// One round: what is due, then closing what is idle.
    pub(super) async fn run(&mut self) {
        let now_ms = self.clock.now_ms();
        self.last_ms.retain(|_, last_ms| now_ms - *last_ms < limits::UPKEEP_EVERY_MS);
        self.swept_ms.retain(|_, last_ms| now_ms - *last_ms < limits::FILE_SWEEP_EVERY_MS);
        for id in self.store.list_open() {
            if self.last_ms.contains_key(&id) {
                continue;
            }
            // One handle at a time, so that the others can close meanwhile.
            let Some(tenant) = self.store.find_open(&id) else { continue };
            self.last_ms.insert(id, now_ms);
            match self.tidy(&tenant, now_ms).await {
                Ok(Tidied { log: 0, receipts: 0, logins: 0, pages: 0 }) => {}
                Ok(Tidied { log, receipts, logins, pages }) => {
                    self.budgets.usage(tenant.id()).note_changed();
                    let id = tenant.id();
                    tracing::info!({ tenant.id = %id, log, receipts, logins, pages }, "old entries were removed");
                }
                Err(error) => tracing::warn!({ tenant.id = %tenant.id(), %error }, "upkeep failed; it is tried again"),
            }
            self.sweep_files(&tenant, now_ms).await;
        }
        self.store.sweep().await;
        if let Some(cache) = &self.tools.cache {
            cache.detach_closed(&self.store.list_open().into_iter().collect());
        }
    }

    /// Once a day per tenant, and at its first upkeep after a start, which may have followed a crash.
    async fn sweep_files(&mut self, tenant: &TenantDb, now_ms: i64) {
        if self.swept_ms.contains_key(tenant.id()) {
            return;
        }
        match tenant.sweep_files(now_ms - limits::FILE_ORPHAN_AGE_MS).await {
            Ok(files) => {
                self.swept_ms.insert(tenant.id().clone(), now_ms);
                if files > 0 {
                    tracing::info!({ tenant.id = %tenant.id(), files }, "files that no record names were removed");
                }
            }
            Err(error) => tracing::warn!({ tenant.id = %tenant.id(), %error }, "the files could not be looked through"),
        }
    }

    async fn tidy(&self, tenant: &TenantDb, now_ms: i64) -> Result<Tidied, AuthError> {
        let logins = self.auth.prune_expired(tenant).await?;
        let receipts = tenant.prune_receipts(now_ms - limits::RECEIPT_AGE_MS).await?;
        let log = tenant.truncate_log(now_ms - self.log_keep_ms, self.log_bytes_max).await?;
        let pages = tenant.shrink().await?;
        Ok(Tidied { log, receipts, logins, pages })
    }
}
