//! Warming: what was asked for often is read again, after a start and after writes, before somebody has to wait for it.
//!
//! Keeps true: at most one read every [`PACE`], hottest first, through the ordinary read path and as somebody of the class
//! that asked; a tenant is opened for this after a start only. A disk that opens or answers late delays the warming after a
//! start, and does not end it. Does not do: remembering what is hot; the cache does.

use crate::cache::Cache;
use crate::cache::disk::DiskState;
use crate::cache::warm::{HotKey, Refill, WarmReport};
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
/// Looks at a disk tier that does not answer yet, before they become as rare as the rounds.
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
        let mut looks = tokio::time::interval(DISK_PAUSE);
        let mut started = false;
        for _ in 0..DISK_LOOKS {
            looks.tick().await;
            started = self.after_start().await;
            if started {
                break;
            }
        }
        let mut ticks = tokio::time::interval(ROUND_EVERY);
        loop {
            ticks.tick().await;
            started = started || self.after_start().await;
            let open: HashSet<TenantId> = self.store.list_open().into_iter().collect();
            let mut keys = self.cache.hot_keys();
            keys.retain(|hot| hot.score >= SCORE_MIN && open.contains(&hot.tenant));
            keys.truncate(ROUND_LEN_MAX);
            self.fill(keys).await;
        }
    }

    /// Fills what the last process knew to be hot; `false` if the disk does not tell yet.
    async fn after_start(&self) -> bool {
        match self.cache.stats().disk.state {
            // A read would only run into its deadline.
            DiskState::Opening => return false,
            DiskState::Off => return true,
            DiskState::Ready | DiskState::Degraded(_) => {}
        }
        let Some(mut keys) = self.cache.hot_keys_of_last_run().await else { return false };
        keys.truncate(START_LEN_MAX);
        if !keys.is_empty() {
            let WarmReport { filled, present, failed, reasons } = self.fill(keys).await;
            tracing::info!({ filled, present, failed, cache.why = ?reasons }, "the cache is warm");
        }
        true
    }

    async fn fill(&self, keys: Vec<HotKey>) -> WarmReport {
        self.cache.warm(keys, PACE, |hot| self.refill(hot)).await
    }

    async fn refill(&self, hot: HotKey) -> Refill {
        match self.registry.open_tenant(&hot.tenant).await {
            Ok(tenant) => replay::refill(&self.tools, &tenant, &hot).await,
            // Gone or suspended since.
            Err(_) => Refill::Failed("the tenant is not open"),
        }
    }
}
