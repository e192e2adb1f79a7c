//! Coherence of the cache: no read older than the last acknowledged write, no caller receives another class's bytes.
//!
//! Everything is the real cache except the tenant's file (`truth`), the disk tier (`disk`) and time. Reads are polled by
//! hand, step by step, between steps of writers, rule and role changes, restarts, restores and purges.
//! Each rule of the cache, and each duty of its caller, has a switch that breaks it; the suite must notice every one.

mod disk;
mod purges;
mod reader;
mod tally;
mod threads;
mod troubles;
mod truth;
mod world;

use tenantry::cache::mutation::Mutation;
use world::{Breach, Defect};

/// Steps of one run.
const STEPS: usize = 1_200;
/// Runs within which a defect must show.
const NOTICED_WITHIN: u64 = 1_500;

fn cases() -> u64 {
    std::env::var("TENANTRY_SIM_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(160)
}

fn first_breach(defect: Option<Defect>, seeds: impl IntoIterator<Item = u64>) -> Option<(u64, Breach)> {
    seeds.into_iter().find_map(|seed| world::run(seed, STEPS, defect).err().map(|breach| (seed, breach)))
}

/// A defect must show, and how soon it does is worth knowing.
fn must_show(defect: Defect) {
    let noticed = first_breach(Some(defect), 0..NOTICED_WITHIN);
    let Some((seed, _)) = noticed else { panic!("{defect:?} went unnoticed in {NOTICED_WITHIN} runs") };
    println!("{defect:?} shows in run {}", seed + 1);
}

#[test]
fn no_read_is_older_than_the_last_acknowledged_write_nor_meant_for_another_caller() {
    if let Some(seed) = std::env::var("TENANTRY_SIM_SEED").ok().and_then(|text| text.parse().ok()) {
        world::run(seed, STEPS, None).unwrap();
        return;
    }
    if let Some((seed, breach)) = first_breach(None, 0..cases()) {
        panic!("{breach}\nreplay with: TENANTRY_SIM_SEED={seed} cargo test --test sim");
    }
}

#[test]
fn hits_from_both_tiers_shared_loads_and_every_trouble_do_occur() {
    let mut seen = tally::Tally::default();
    for seed in 0..40 {
        seen.add(&world::run(seed, STEPS, None).unwrap());
    }
    assert!(seen.reads > 1_000 && seen.memory > 200 && seen.disk > 50 && seen.joined > 20, "{seen:?}");
    assert!(seen.remembered > 100 && seen.bypassed > 50 && seen.verified > 20 && seen.evicted > 50, "{seen:?}");
    // And what goes wrong on disk does go wrong.
    let store = &seen.store;
    let troubles =
        [store.failed_reads, store.refused_writes, store.uncertain_writes, store.lost_writes, store.discards];
    assert!(troubles.iter().all(|times| *times > 5), "{seen:?}");
    assert!(store.swept > 50 && seen.installed > 20, "{seen:?}");
    assert_eq!(seen.mismatches, 0, "no hit differs from its recomputation");
}

#[test]
fn every_broken_rule_of_the_cache_is_noticed() {
    // What a run of one step after the other cannot see, and what takes more than one trouble at a time.
    let seen_elsewhere = [threads::MUTATIONS, purges::MUTATIONS].concat();
    for mutation in Mutation::ALL.iter().filter(|mutation| !seen_elsewhere.contains(mutation)) {
        must_show(Defect::Cache(*mutation));
    }
}

#[test]
fn every_neglected_duty_of_the_caller_is_noticed() {
    for defect in [
        Defect::MissingDependency,
        Defect::ValueLeftOut,
        Defect::LoadsUnderAnotherRule,
        Defect::AcknowledgesBeforeObservers,
        Defect::SeedWithoutTail,
        Defect::MoveTellsNewPartitionAlone,
    ] {
        must_show(defect);
    }
}
