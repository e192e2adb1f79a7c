//! Positions under real threads: one writer, readers that check while it commits. What the simulation takes for one step
//! happens here in the middle of others.

use super::truth::{partition, posts, record_id};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use tenantry::cache::mutation::Mutation;
use tenantry::cache::stamp::{Dependencies, Positions, Touched};

/// What is noticed here.
pub(super) const MUTATIONS: &[Mutation] = &[Mutation::PositionPublishedFirst, Mutation::ProofAdvancedPastCheck];

const READERS: usize = 3;
/// More than one table of slots holds at first, so that tables grow meanwhile.
const RECORDS: usize = 64;
const COMMITS: i64 = 20_000;

/// The last acknowledged position of each record.
struct Acknowledged(Vec<AtomicI64>);

/// What a reader watches: one record, the whole collection, or a partition; which records make it move.
fn watched(turn: usize) -> (Dependencies, Vec<usize>) {
    let record = turn % RECORDS;
    match turn % 3 {
        0 => (Dependencies::new().record(&posts(), &record_id(record)), vec![record]),
        1 => (Dependencies::new().collection(&posts()), (0..RECORDS).collect()),
        _ => {
            let part = record % 2;
            let inside = (0..RECORDS).filter(|other| other % 2 == part).collect();
            (Dependencies::new().partition(&posts(), &partition(part)), inside)
        }
    }
}

/// Commits from one thread while others check; how often an answer was called current after it had been overtaken.
fn stale_answers(mutation: Option<Mutation>) -> u64 {
    let positions = Arc::new(Positions::unseeded(mutation));
    let acknowledged = Acknowledged((0..RECORDS).map(|_| AtomicI64::new(0)).collect());
    let (done, stale) = (AtomicBool::new(false), AtomicI64::new(0));
    std::thread::scope(|threads| {
        for reader in 0..READERS {
            let (positions, acknowledged, done, stale) = (&positions, &acknowledged, &done, &stale);
            threads.spawn(move || {
                let mut turn = reader;
                while !done.load(Ordering::Acquire) {
                    turn += READERS;
                    let (dependencies, records) = watched(turn);
                    let stamp = positions.stamp();
                    let proof = positions.prove(stamp, &dependencies, Box::default());
                    // As an answer in memory: checked again and again, each success moves it on.
                    for _ in 0..40 {
                        let known: i64 =
                            records.iter().map(|record| acknowledged.0[*record].load(Ordering::Acquire)).max().unwrap();
                        if known > stamp.at && proof.is_current() {
                            stale.fetch_add(1, Ordering::AcqRel);
                        }
                        let _ = proof.is_current();
                    }
                }
            });
        }
        for lsn in 1..=COMMITS {
            let written = usize::try_from(lsn).unwrap() * 7 % RECORDS;
            let touched = Touched {
                collection: posts(),
                record: record_id(written),
                partitions: vec![partition(written % 2)],
                lsn,
            };
            positions.on_commit(lsn, false, &[touched]);
            acknowledged.0[written].store(lsn, Ordering::Release);
            if mutation.is_some() && stale.load(Ordering::Acquire) > 0 {
                break;
            }
        }
        done.store(true, Ordering::Release);
    });
    u64::try_from(stale.into_inner()).unwrap()
}

#[test]
fn no_thread_calls_an_answer_current_that_an_acknowledged_commit_has_overtaken() {
    assert_eq!(stale_answers(None), 0);
}

#[test]
fn a_position_that_is_published_before_its_touches_or_taken_after_the_check_is_noticed() {
    for mutation in MUTATIONS {
        let noticed = (0..20).any(|_| stale_answers(Some(*mutation)) > 0);
        assert!(noticed, "{mutation:?}: readers never met a commit in the middle of their check");
    }
}
