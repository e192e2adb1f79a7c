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
    pub(super) failed_reads: u64,
    pub(super) refused_writes: u64,
    pub(super) uncertain_writes: u64,
    pub(super) lost_writes: u64,
    pub(super) discards: u64,
    /// Answers that left the disk because they were dead.
    pub(super) swept: u64,
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
        self.failed_reads += other.failed_reads;
        self.refused_writes += other.refused_writes;
        self.uncertain_writes += other.uncertain_writes;
        self.lost_writes += other.lost_writes;
        self.discards += other.discards;
        self.swept += other.swept;
    }

    /// What one process of the cache counted itself.
    pub(super) fn add_cache(&mut self, cache: &Cache) {
        let total = cache.stats().total;
        self.joined += total.joined;
        self.verified += total.verified;
        self.mismatches += total.mismatches;
        self.evicted += total.evictions;
    }

    pub(super) fn add_disk(&mut self, disk: DiskTally) {
        self.failed_reads += disk.failed_reads;
        self.refused_writes += disk.refused_writes;
        self.uncertain_writes += disk.uncertain_writes;
        self.lost_writes += disk.lost_writes;
        self.discards += disk.discards;
        self.swept += disk.swept;
    }
}
