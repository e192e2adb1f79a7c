//! What the engines say about themselves, in the words of `/health` and `/metrics`.
//!
//! Keeps true: reading these never waits for an engine. Does not do: counting; engines count.

use crate::cache::kv::Kv;
use crate::cache::stamp::Touched;
use crate::cache::{self, Cache, CommitSummary};
use crate::kernel::ident::TenantId;
use crate::services::purging::PurgeHook;
use crate::services::tenants::Registry;
use crate::store::{self, Commit, CommitObserver};
use crate::telemetry::health::HealthSource;
use crate::telemetry::metrics::{Exposition, MetricSource};
use std::path::PathBuf;
use std::sync::Arc;

/// Free space below which the disk counts as ill, bytes.
const FREE_BYTES_MIN: u64 = 64 * 1024 * 1024;

/// The disk under the data folder.
pub(super) struct DiskHealth(pub(super) PathBuf);

impl HealthSource for DiskHealth {
    fn name(&self) -> &'static str {
        "disk"
    }

    fn check(&self) -> Result<(), String> {
        match store::free_bytes(&self.0) {
            Ok(free) if free >= FREE_BYTES_MIN => Ok(()),
            Ok(free) => Err(format!("{} MiB free", free / (1024 * 1024))),
            Err(_) => Err("free space cannot be read".to_owned()),
        }
    }
}

/// The open-handle table and its writers.
pub(super) struct StoreWatch(pub(super) Arc<store::Tenants>);

impl HealthSource for StoreWatch {
    fn name(&self) -> &'static str {
        "database"
    }

    fn check(&self) -> Result<(), String> {
        let stats = self.0.stats();
        let written = stats.commits > 0 || stats.commit_failures == 0;
        written.then_some(()).ok_or_else(|| "no commit has succeeded".to_owned())
    }
}

impl MetricSource for StoreWatch {
    fn collect(&self, out: &mut Exposition) {
        let stats = self.0.stats();
        let rows: [(&str, &str, &str, u64); 13] = [
            ("tenantry_store_commits_total", "counter", "Group commits.", stats.commits),
            ("tenantry_store_commit_failures_total", "counter", "Group commits that failed.", stats.commit_failures),
            ("tenantry_store_commit_microseconds_total", "counter", "Time in COMMIT.", stats.commit_micros),
            ("tenantry_store_requests_committed_total", "counter", "Writes committed.", stats.requests_committed),
            (
                "tenantry_store_requests_refused_total",
                "counter",
                "Writes refused by a full queue.",
                stats.requests_refused,
            ),
            (
                "tenantry_store_reads_inline_total",
                "counter",
                "Reads answered on the asking thread.",
                stats.reads_inline,
            ),
            (
                "tenantry_store_reads_pooled_total",
                "counter",
                "Reads answered on the blocking pool.",
                stats.reads_pooled,
            ),
            ("tenantry_store_reads_refused_total", "counter", "Reads past their budget.", stats.reads_too_expensive),
            ("tenantry_store_reads_cancelled_total", "counter", "Reads nobody waited for.", stats.reads_cancelled),
            ("tenantry_store_checkpoints_total", "counter", "Checkpoints run.", stats.checkpoints),
            ("tenantry_store_wal_frames_max", "gauge", "Largest write-ahead log seen.", stats.wal_frames_max),
            ("tenantry_store_open_tenants", "gauge", "Tenants with an open handle.", stats.open_tenants),
            ("tenantry_store_writer_backlog", "gauge", "Tenants waiting for a writer thread.", stats.writer_backlog),
        ];
        rows.into_iter().for_each(|(name, kind, help, value)| out.single(name, kind, help, value));
    }
}

/// Tells the cache of commits, before anybody is acknowledged.
pub(super) struct CacheFeed(pub(super) Cache);

impl CommitObserver for CacheFeed {
    fn committed(&self, tenant: &TenantId, commit: &Commit) {
        let touches: Vec<Touched> = commit
            .touches
            .iter()
            .map(|touch| Touched {
                collection: touch.collection.clone(),
                record: touch.record.clone(),
                partitions: touch.partitions.clone(),
                lsn: touch.lsn,
            })
            .collect();
        let (lsn, mark, schema_changed) = (commit.lsn_last, commit.mark_last, commit.schema_changed);
        self.0.on_commit(&CommitSummary { tenant, lsn, mark, schema_changed, touches: &touches });
    }
}

/// The cache.
pub(super) struct CacheWatch(pub(super) Cache);

impl HealthSource for CacheWatch {
    fn name(&self) -> &'static str {
        "cache"
    }

    fn check(&self) -> Result<(), String> {
        match self.0.health() {
            cache::Health::Ok => Ok(()),
            cache::Health::Degraded(why) => Err(why),
        }
    }
}

impl MetricSource for CacheWatch {
    fn collect(&self, out: &mut Exposition) {
        let report = self.0.stats();
        let disk = &report.disk;
        let rows: [(&str, &str, &str, u64); 26] = [
            ("tenantry_cache_l1_hits_total", "counter", "Answers from memory.", report.total.l1_hits),
            ("tenantry_cache_l2_hits_total", "counter", "Answers from disk.", report.total.l2_hits),
            ("tenantry_cache_misses_total", "counter", "Answers that had to be loaded.", report.total.misses),
            ("tenantry_cache_bypasses_total", "counter", "Answers loaded past the cache.", report.total.bypasses),
            ("tenantry_cache_joined_total", "counter", "Misses that shared another's load.", report.total.joined),
            ("tenantry_cache_stale_total", "counter", "Answers found that a write had aged.", report.total.stale),
            ("tenantry_cache_expired_total", "counter", "Answers found whose time was over.", report.total.expired),
            ("tenantry_cache_swept_total", "counter", "Such answers removed by upkeep.", report.total.swept),
            ("tenantry_cache_trims_total", "counter", "Answers over their tenant's share.", report.total.trims),
            ("tenantry_cache_rejected_total", "counter", "Answers too large to keep.", report.total.rejected),
            ("tenantry_cache_decisions_total", "counter", "Times the cache adapted itself.", report.decided),
            ("tenantry_cache_stamp_bytes", "gauge", "Bytes of the tables that tell freshness.", report.stamp_bytes),
            ("tenantry_cache_memory_bytes", "gauge", "Bytes of answers in memory.", report.memory_bytes),
            ("tenantry_cache_memory_entries", "gauge", "Answers in memory.", report.memory_entries),
            (
                "tenantry_cache_evictions_total",
                "counter",
                "Answers that left for lack of room.",
                report.total.evictions,
            ),
            ("tenantry_cache_verified_total", "counter", "Hits recomputed and compared.", report.total.verified),
            ("tenantry_cache_mismatches_total", "counter", "Hits that differed.", report.total.mismatches),
            ("tenantry_cache_disk_writes_total", "counter", "Answers written to disk.", disk.writes),
            (
                "tenantry_cache_disk_refused_total",
                "counter",
                "Answers not written because their tenant had its share.",
                report.total.disk_refused,
            ),
            ("tenantry_cache_disk_dropped_total", "counter", "Answers not written for lack of time.", disk.dropped),
            ("tenantry_cache_disk_timeouts_total", "counter", "Reads from disk that came late.", disk.timeouts),
            ("tenantry_cache_disk_corrupt_total", "counter", "Answers found damaged on disk.", disk.corrupt),
            ("tenantry_cache_disk_resets_total", "counter", "Times the disk tier broke.", disk.resets),
            (
                "tenantry_cache_disk_swept_total",
                "counter",
                "Answers removed because nobody could be given them.",
                disk.swept,
            ),
            ("tenantry_cache_disk_rotations_total", "counter", "Times it outgrew its budget.", disk.rotations),
            ("tenantry_cache_disk_bytes", "gauge", "Bytes in the disk tier.", disk.bytes),
        ];
        rows.into_iter().for_each(|(name, kind, help, value)| out.single(name, kind, help, value));
    }
}

/// The values and locks of applications.
pub(super) struct ValuesWatch(pub(super) Kv);

impl MetricSource for ValuesWatch {
    fn collect(&self, out: &mut Exposition) {
        let stats = self.0.stats();
        let whole = |number: usize| number as u64;
        let rows: [(&str, &str, &str, u64); 5] = [
            ("tenantry_values_bytes", "gauge", "Bytes of applications' values and locks.", whole(stats.usage.bytes)),
            ("tenantry_values_keys", "gauge", "Values of applications.", whole(stats.usage.keys)),
            ("tenantry_values_locks", "gauge", "Locks of applications.", whole(stats.usage.locks)),
            ("tenantry_values_tenants", "gauge", "Tenants with values or locks.", whole(stats.tenants)),
            ("tenantry_values_evictions_total", "counter", "Values that left for lack of room.", stats.usage.evictions),
        ];
        rows.into_iter().for_each(|(name, kind, help, value)| out.single(name, kind, help, value));
    }
}

/// The hook that tells caches in front of the node what changed.
pub(super) struct PurgeWatch(pub(super) PurgeHook);

impl HealthSource for PurgeWatch {
    fn name(&self) -> &'static str {
        "purge_hook"
    }

    fn check(&self) -> Result<(), String> {
        match self.0.stats().failing {
            0 => Ok(()),
            failing => Err(format!("{failing} posts in a row failed, the last: {}", self.0.last_failure())),
        }
    }
}

impl MetricSource for PurgeWatch {
    fn collect(&self, out: &mut Exposition) {
        let stats = self.0.stats();
        let rows: [(&str, &str, &str, u64); 5] = [
            ("tenantry_purge_hook_posts_total", "counter", "Posts that were accepted.", stats.posts),
            ("tenantry_purge_hook_tags_total", "counter", "Tags or addresses that were accepted.", stats.posted),
            ("tenantry_purge_hook_failures_total", "counter", "Attempts that failed.", stats.failures),
            ("tenantry_purge_hook_dropped_total", "counter", "Tags or addresses given up.", stats.dropped),
            ("tenantry_purge_hook_waiting", "gauge", "Tenants with changes not posted yet.", stats.waiting),
        ];
        rows.into_iter().for_each(|(name, kind, help, value)| out.single(name, kind, help, value));
    }
}

/// The registry.
pub(super) struct TenantsWatch(pub(super) Registry);

impl HealthSource for TenantsWatch {
    fn name(&self) -> &'static str {
        "tenants"
    }

    /// Names them by id: a slug would tell a stranger who is a customer here.
    fn check(&self) -> Result<(), String> {
        const NAMED: usize = 5;
        let ill = self.0.list_ill();
        if ill.is_empty() {
            return Ok(());
        }
        let named: Vec<&str> = ill.iter().take(NAMED).map(TenantId::as_str).collect();
        let more = if ill.len() > NAMED { format!(" and {} more", ill.len() - NAMED) } else { String::new() };
        Err(format!("damaged or missing files: {}{more}; `tenantry doctor` says more", named.join(", ")))
    }
}

impl MetricSource for TenantsWatch {
    fn collect(&self, out: &mut Exposition) {
        let query = crate::services::tenants::TenantQuery { per_page: 1, ..Default::default() };
        out.single("tenantry_tenants", "gauge", "Tenants of this node.", self.0.list(&query).total);
        let (name, help) = ("tenantry_tenants_damaged", "Tenants whose files were found damaged or missing.");
        out.single(name, "gauge", help, self.0.list_ill().len());
    }
}

/// Statements that took long go to the log.
#[derive(Debug)]
pub(super) struct SlowQueryLog;

impl store::SlowQuerySink for SlowQueryLog {
    fn slow(&self, slow: &store::SlowQuery<'_>) {
        let duration_ms = slow.duration.as_millis();
        tracing::warn!({ tenant.id = %slow.tenant, duration_ms, rows = slow.rows, sql = slow.sql }, "slow query");
    }
}
