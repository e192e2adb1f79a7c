//! Warming: what was asked for often is read again, after a start and after writes, before somebody has to wait for it.
//!
//! Keeps true: at most one read every [`PACE`], hottest first, through the ordinary read path and as somebody of the class
//! that asked; a tenant is opened for this after a start only. Does not do: remembering what is hot; the cache does.

use crate::cache::Cache;
use crate::cache::disk::DiskState;
use crate::cache::warm::{HotKey, Refill};
use crate::kernel::ident::TenantId;
use crate::services::records::{RecordTools, replay};
use crate::services::tenants::Registry;
use crate::store;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

/// From one refill to the next: two hundred a second leave the node to its users.
const PACE: Duration = Duration::from_millis(5);
/// How often keys that writes or time have emptied are looked for.
const ROUND_EVERY: Duration = Duration::from_secs(5);
/// Keys refilled after a start.
const START_LEN_MAX: usize = 1_024;
/// Keys looked at per round.
const ROUND_LEN_MAX: usize = 64;
/// Faded hits below which a key waits for its next reader.
const SCORE_MIN: f64 = 16.0;
/// Looks at a disk tier that is still opening.
const DISK_LOOKS: u32 = 50;
const DISK_PAUSE: Duration = Duration::from_millis(100);

/// The background task; ends when it is aborted.
pub(super) struct Warming {
    pub(super) cache: Cache,
    pub(super) tools: Arc<RecordTools>,
    pub(super) registry: Registry,
    pub(super) store: Arc<store::Tenants>,
}

impl Warming {
    pub(super) async fn run(self) {
        self.after_start().await;
        let mut ticks = tokio::time::interval(ROUND_EVERY);
        loop {
            ticks.tick().await;
            let open: HashSet<TenantId> = self.store.list_open().into_iter().collect();
            let mut keys = self.cache.hot_keys();
            keys.retain(|hot| hot.score >= SCORE_MIN && open.contains(&hot.tenant));
            keys.truncate(ROUND_LEN_MAX);
            self.fill(keys).await;
        }
    }

    async fn after_start(&self) {
        let mut pauses = tokio::time::interval(DISK_PAUSE);
        for _ in 0..DISK_LOOKS {
            pauses.tick().await;
            if self.cache.stats().disk.state != DiskState::Opening {
                break;
            }
        }
        let mut keys = self.cache.hot_keys_of_last_run().await;
        keys.truncate(START_LEN_MAX);
        if keys.is_empty() {
            return;
        }
        let report = self.fill(keys).await;
        let (filled, present, failed) = (report.filled, report.present, report.failed);
        tracing::info!({ filled, present, failed }, "the cache is warm");
    }

    async fn fill(&self, keys: Vec<HotKey>) -> crate::cache::warm::WarmReport {
        self.cache.warm(keys, PACE, |hot| self.refill(hot)).await
    }

    async fn refill(&self, hot: HotKey) -> Refill {
        match self.registry.open_tenant(&hot.tenant).await {
            Ok(tenant) => replay::refill(&self.tools, &tenant, &hot).await,
            // Gone or suspended since.
            Err(_) => Refill::Failed,
        }
    }
}
