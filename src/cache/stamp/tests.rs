//! Tests of the parent module.

use super::*;
use proptest::prelude::*;

fn collection(name: &str) -> CollectionId {
    CollectionId::parse(name).unwrap()
}

fn record(name: &str) -> RecordId {
    RecordId::parse(name).unwrap()
}

fn touched(c: &str, r: &str, parts: &[&str], lsn: i64) -> Touched {
    Touched { collection: collection(c), record: record(r), partitions: parts.iter().map(Stored::text).collect(), lsn }
}

fn proof(positions: &Arc<Positions>, dependencies: &Dependencies) -> Proof {
    positions.prove(positions.stamp(), dependencies, Box::new([mark_hash(0, "x")]))
}

#[test]
fn a_write_voids_what_depends_on_it_and_nothing_else() {
    let positions = Arc::new(Positions::unseeded(None));
    let (posts, users) = (collection("posts"), collection("users"));
    let all = |d: Dependencies| proof(&positions, &d);
    let cases = [
        (all(Dependencies::new().record(&posts, &record("a"))), false),
        (all(Dependencies::new().record(&posts, &record("b"))), true),
        (all(Dependencies::new().collection(&posts)), false),
        (all(Dependencies::new().collection(&users)), true),
        (all(Dependencies::new().partition(&posts, &Stored::text("t1"))), false),
        (all(Dependencies::new().partition(&posts, &Stored::text("t2"))), true),
        (all(Dependencies::new().collection(&users).record(&posts, &record("a"))), false),
        (all(Dependencies::new()), true),
    ];
    positions.on_commit(7, false, &[touched("posts", "a", &["t1"], 7)]);
    for (at, (proof, expected)) in cases.iter().enumerate() {
        assert_eq!(proof.is_current(), *expected, "case {at}");
    }
    positions.on_commit(8, true, &[]);
    for (proof, _) in &cases {
        assert!(!proof.is_current(), "a schema change voids everything");
    }
}

#[test]
fn a_load_that_began_before_the_write_is_void_when_it_ends_after_it() {
    let positions = Arc::new(Positions::unseeded(None));
    let stamp = positions.stamp();
    positions.on_commit(1, false, &[touched("posts", "a", &[], 1)]);
    let late = positions.prove(stamp, &Dependencies::new().collection(&collection("posts")), Box::new([]));
    assert!(!late.is_current());
}

/// With one slot for each mark, about two in two thousand answers went along with every purge.
#[test]
fn a_purge_takes_no_answers_of_other_marks_along() {
    let positions = Arc::new(Positions::unseeded(None));
    let proofs: Vec<Proof> = (0..2_000)
        .map(|n| {
            let marks = Box::from([mark_hash(11, &format!("tag{n}"))]);
            positions.prove(positions.stamp(), &Dependencies::new(), marks)
        })
        .collect();
    for n in [3, 500, 1_999] {
        positions.void_mark(mark_hash(11, &format!("tag{n}")));
    }
    let void: Vec<usize> = (0..2_000).filter(|n| !proofs[*n].is_current()).collect();
    assert_eq!(void, [3, 500, 1_999]);
}

#[test]
fn purges_void_by_mark_and_by_tenant() {
    let positions = Arc::new(Positions::unseeded(None));
    let marks = |text: &str| -> Box<[u64]> { Box::new([mark_hash(1, text)]) };
    let (red, blue) = ("red", "blue");
    assert_ne!(slot_of(mark_hash(1, red), PURGE_SLOTS), slot_of(mark_hash(1, blue), PURGE_SLOTS));
    let first = positions.prove(positions.stamp(), &Dependencies::new(), marks(red));
    let second = positions.prove(positions.stamp(), &Dependencies::new(), marks(blue));
    positions.void_mark(mark_hash(1, red));
    assert!(!first.is_current() && second.is_current());
    positions.void_all();
    assert!(!second.is_current());
    let later = positions.prove(positions.stamp(), &Dependencies::new(), marks(red));
    assert!(later.is_current());
    let (purges, table) = positions.purge_table();
    let restarted = Arc::new(Positions::unseeded(None));
    restarted.adopt_purge_table(purges, &table);
    let kept = restarted.prove(Stamp { at: 0, purges: 0 }, &Dependencies::new(), marks(blue));
    assert!(!kept.is_current(), "a purge outlives a restart");
}

#[test]
fn a_seed_tells_old_from_current() {
    let posts = collection("posts");
    let seed = Seed {
        lineage: [1; 16],
        lsn: 50,
        marks: Vec::new(),
        schema_lsn: 3,
        generations: vec![
            Generation { collection: posts.clone(), partition: None, lsn: 40 },
            Generation { collection: posts.clone(), partition: Some(value_hash(&Stored::text("t1"))), lsn: 20 },
        ],
        unlisted_lsn: 0,
        tail: vec![touched("posts", "a", &["other"], 40)],
        tail_after: 30,
    };
    let positions = Arc::new(Positions::seeded(&seed, None));
    let at = |at: i64, d: Dependencies| positions.prove(Stamp { at, purges: 0 }, &d, Box::new([])).is_current();
    assert!(!at(39, Dependencies::new().collection(&posts)));
    assert!(at(40, Dependencies::new().collection(&posts)));
    assert!(at(20, Dependencies::new().partition(&posts, &Stored::text("t1"))));
    assert!(!at(19, Dependencies::new().partition(&posts, &Stored::text("t1"))));
    assert!(!at(35, Dependencies::new().record(&posts, &record("a"))));
    assert!(at(30, Dependencies::new().record(&posts, &record("b"))));
    assert!(!at(29, Dependencies::new().record(&posts, &record("b"))), "before the tail nothing is known");
    assert!(at(3, Dependencies::new().collection(&collection("other"))));
    assert!(!at(2, Dependencies::new()), "older than the schema");
    let cold = Arc::new(Positions::seeded(&Seed::cold([1; 16], Mark { lsn: 50, stamp: 1 }), None));
    let kept = cold.prove(Stamp { at: 49, purges: 0 }, &Dependencies::new().collection(&posts), Box::new([]));
    assert!(!kept.is_current());
}

#[test]
fn equal_numbers_are_one_partition() {
    assert_eq!(value_hash(&Stored::Integer(5)), value_hash(&Stored::Real(5.0)));
    assert_eq!(value_hash(&Stored::Real(-0.0)), value_hash(&Stored::Integer(0)));
    assert_ne!(value_hash(&Stored::text("5")), value_hash(&Stored::Integer(5)));
    let number = |number: f64| -> Vec<u8> { [1].into_iter().chain(number.to_be_bytes()).collect() };
    assert_eq!(partition_hash(b"\x02t1"), value_hash(&Stored::text("t1")));
    assert_eq!(partition_hash(&number(-0.0)), value_hash(&Stored::Integer(0)));
    assert_eq!(partition_hash(&number(5.0)), value_hash(&Stored::Integer(5)));
    assert_eq!(partition_hash(&[0]), value_hash(&Stored::Null));
}

proptest! {
    /// Against a model that remembers every touch exactly: what the tables call current really is.
    #[test]
    fn tables_never_call_changed_things_current(
        writes in prop::collection::vec((0_usize..2, 0_u16..600, 0_u8..6), 1..400),
        stamps in prop::collection::vec((0_usize..400, 0_usize..2, 0_u16..600, 0_u8..6, 0_u8..3), 1..60),
    ) {
        let names = ["posts", "users"];
        let positions = Arc::new(Positions::unseeded(None));
        let mut proofs = Vec::new();
        for (at, (c, r, p)) in writes.iter().enumerate() {
            for (_, c, r, p, kind) in stamps.iter().filter(|stamp| stamp.0 == at) {
                let id = collection(names[*c]);
                let dependencies = match kind {
                    0 => Dependencies::new().record(&id, &record(&format!("r{r}"))),
                    1 => Dependencies::new().partition(&id, &Stored::text(format!("p{p}"))),
                    _ => Dependencies::new().collection(&id),
                };
                proofs.push((proof(&positions, &dependencies), at, *c, *r, *p, *kind));
            }
            let lsn = i64::try_from(at).unwrap() + 1;
            positions.on_commit(lsn, false, &[touched(names[*c], &format!("r{r}"), &[&format!("p{p}")], lsn)]);
            for (proof, from, c, r, p, kind) in &proofs {
                let changed = writes[*from..=at].iter().any(|(wc, wr, wp)| {
                    wc == c && match kind { 0 => wr == r, 1 => wp == p, _ => true }
                });
                prop_assert!(!(changed && proof.is_current()), "kind {kind} from {from} at {at}");
            }
        }
    }
}

#[test]
fn a_crowded_table_grows_and_stays_precise() {
    let positions = Arc::new(Positions::unseeded(None));
    let posts = collection("posts");
    for lsn in 1..=3_000_i64 {
        positions.on_commit(lsn, false, &[touched("posts", &format!("r{lsn}"), &[], lsn)]);
    }
    let quiet: Vec<Proof> =
        (0..400).map(|n| proof(&positions, &Dependencies::new().record(&posts, &record(&format!("q{n}"))))).collect();
    for lsn in 3_001..=3_040_i64 {
        positions.on_commit(lsn, false, &[touched("posts", &format!("w{lsn}"), &[], lsn)]);
    }
    let kept = quiet.iter().filter(|proof| proof.is_current()).count();
    assert!(kept > 360, "40 writes void few of 400 untouched records, kept {kept}");
}
