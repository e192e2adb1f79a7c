//! Feeds the budgets: what statements read, what commits change, what lies on disk.
//!
//! Keeps true: observers only count; the disk is looked at beside the requests, for tenants that wrote since, and an
//! upload counts at the next look. Does not do: refusing.

use crate::kernel::clock::Clock;
use crate::kernel::ident::TenantId;
use crate::services::budget::{Budgets, TenantUsage};
use crate::services::tenants::Registry;
use crate::services::tenants::system::AUTH_EVENTS_ID;
use crate::store::{self, Commit, CommitObserver, ReadMeter, ReadMeters};
use crate::telemetry::metrics::{Exposition, MetricSource};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// Time between two looks at what lies on disk.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Milliseconds for which the size of a tenant's uploads is believed.
const FILES_BELIEVED_MS: i64 = 60_000;
/// Tenants that `/metrics` names; the others are in the totals.
const NAMED_MAX: usize = 20;

/// Counts what every tenant's statements read and what its commits change.
pub(super) struct Feed {
    pub(super) budgets: Arc<Budgets>,
    pub(super) clock: Arc<dyn Clock>,
}

struct Meter {
    usage: Arc<TenantUsage>,
    clock: Arc<dyn Clock>,
}

impl ReadMeters for Feed {
    fn meter(&self, tenant: &TenantId) -> Arc<dyn ReadMeter> {
        Arc::new(Meter { usage: self.budgets.usage(tenant), clock: Arc::clone(&self.clock) })
    }
}

impl ReadMeter for Meter {
    fn count(&self, rows: u64, steps: u64) {
        self.usage.count_read(rows, steps, self.clock.now_ms());
    }
}

impl CommitObserver for Feed {
    fn committed(&self, tenant: &TenantId, commit: &Commit) {
        // Strangers cause these: a tenant does not pay for being guessed at.
        let paid = commit.touches.iter().filter(|touch| touch.collection.as_str() != AUTH_EVENTS_ID);
        let records = u64::try_from(paid.count()).unwrap_or(u64::MAX);
        self.budgets.usage(tenant).count_writes(records, self.clock.now_ms());
    }
}

/// Looks at the disk; owned by its task.
pub(super) struct Scales {
    pub(super) store: Arc<store::Tenants>,
    pub(super) budgets: Arc<Budgets>,
    pub(super) clock: Arc<dyn Clock>,
    /// Bytes of uploads and when they were counted; only open tenants stay.
    pub(super) uploads: HashMap<TenantId, (u64, i64)>,
}

impl Scales {
    /// Works until its task is aborted; it only reads.
    pub(super) async fn run(mut self) {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        loop {
            ticks.tick().await;
            self.look().await;
        }
    }

    async fn look(&mut self) {
        let now_ms = self.clock.now_ms();
        let open: HashSet<TenantId> = self.store.list_open().into_iter().collect();
        self.uploads.retain(|id, _| open.contains(id));
        for id in open {
            let usage = self.budgets.usage(&id);
            let known = self.uploads.get(&id).copied();
            if !usage.take_changed() && known.is_some() {
                continue;
            }
            // One handle at a time, so that the others can close meanwhile; a tenant that closed is looked at next time.
            let Some(tenant) = self.store.find_open(&id) else {
                usage.note_changed();
                continue;
            };
            let uploads = match known {
                Some((bytes, counted_ms)) if now_ms - counted_ms < FILES_BELIEVED_MS => bytes,
                _ => {
                    let bytes = tenant.upload_bytes().await;
                    self.uploads.insert(id, (bytes, now_ms));
                    bytes
                }
            };
            usage.measure_storage(tenant.database_bytes().await + uploads);
        }
    }
}

/// The busiest tenants in the words of `/metrics`.
pub(super) struct UsageWatch {
    pub(super) budgets: Arc<Budgets>,
    pub(super) registry: Registry,
    pub(super) clock: Arc<dyn Clock>,
}

impl MetricSource for UsageWatch {
    fn collect(&self, out: &mut Exposition) {
        let now_ms = self.clock.now_ms();
        let entries = self.registry.entries();
        let mut used: Vec<_> =
            entries.iter().map(|entry| (self.budgets.usage(&entry.id).report(now_ms), entry.slug.as_str())).collect();
        used.sort_by_key(|(report, _)| std::cmp::Reverse(report.requests));
        used.truncate(NAMED_MAX);
        type Get = fn(&crate::services::budget::UsageReport) -> u64;
        let rows: [(&str, &str, &str, Get); 8] = [
            ("tenantry_tenant_requests_total", "counter", "Requests, of the busiest tenants.", |used| used.requests),
            ("tenantry_tenant_writes_total", "counter", "Records changed.", |used| used.writes),
            ("tenantry_tenant_rows_total", "counter", "Rows that statements gave.", |used| used.rows),
            ("tenantry_tenant_read_steps_total", "counter", "Steps of SQLite.", |used| used.read_steps),
            ("tenantry_tenant_refused_total", "counter", "Requests refused by a budget.", |used| used.refused),
            ("tenantry_tenant_storage_bytes", "gauge", "Database, log and files.", |used| used.storage_bytes),
            (
                "tenantry_tenant_in_flight",
                "gauge",
                "Requests being answered, without those that memory answers at once.",
                |used| used.concurrent_requests,
            ),
            ("tenantry_tenant_connections", "gauge", "Open connections.", |used| used.connections),
        ];
        for (name, kind, help, get) in rows {
            out.declare(name, kind, help);
            for (report, slug) in &used {
                out.sample(name, &format!("tenant=\"{slug}\""), get(report));
            }
        }
    }
}
