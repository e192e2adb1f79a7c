//! What happened in a run, so that a suite can tell that it saw what it is about.

use super::disk::DiskTally;
use tenantry::cache::Cache;

/// What happened in a run that went well.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) reads: u64,
    pub(super) memory: u64,
    pub(super) disk: u64,
    pub(super) joined: u64,
    /// Answers that a worker remembered the way to.
    pub(super) remembered: u64,
    pub(super) bypassed: u64,
    pub(super) verified: u64,
    pub(super) evicted: u64,
    pub(super) mismatches: u64,
    /// Starts of another build of the program.
    pub(super) installed: u64,
    /// How its disk did.
    pub(super) store: DiskTally,
}

impl Tally {
    pub(super) fn add(&mut self, other: &Tally) {
        self.reads += other.reads;
        self.memory += other.memory;
        self.disk += other.disk;
        self.joined += other.joined;
        self.remembered += other.remembered;
        self.bypassed += other.bypassed;
        self.verified += other.verified;
        self.evicted += other.evicted;
        self.mismatches += other.mismatches;
        self.installed += other.installed;
        self.store.add(&other.store);
    }

    /// What one process of the cache counted itself.
    pub(super) fn add_cache(&mut self, cache: &Cache) {
        let total = cache.stats().total;
        self.joined += total.joined;
        self.verified += total.verified;
        self.mismatches += total.mismatches;
        self.evicted += total.evictions;
    }
}
