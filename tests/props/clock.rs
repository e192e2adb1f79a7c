//! Our hybrid logical clock against an independent one.
//!
//! Keeps true: with the same walls and the same stamps from elsewhere, both give the same stamps while nothing is received,
//! and never drift apart by more than one step per receipt; a restart of ours is not seen in them.
//! Does not do: the clock in a tenant's file, that is `store`.

use proptest::prelude::*;
use std::cell::Cell;
use std::time::Duration;
use tenantry::kernel::clock::{Hlc, HlcSource};
use uhlc::{HLC, HLCBuilder, ID, NTP64, Timestamp};

thread_local! {
    /// The wall clock of the reference, whose hook takes no argument.
    static WALL: Cell<u64> = const { Cell::new(0) };
}

fn wall() -> NTP64 {
    NTP64(WALL.get())
}

/// Milliseconds in the bits where ours are; what is below them counts, in both.
fn set_wall(ms: i64) {
    WALL.set(u64::try_from(ms).unwrap() << 16);
}

fn reference() -> HLC {
    let id = ID::try_from([1_u8]).unwrap();
    HLCBuilder::new().with_id(id).with_clock(wall).with_max_delta(Duration::from_secs(u64::from(u32::MAX))).build()
}

fn raw(stamp: Hlc) -> u64 {
    u64::try_from(stamp.as_i64()).unwrap()
}

#[derive(Debug, Clone)]
enum Event {
    /// Something is written while the wall clock shows this.
    Tick(i64),
    /// A stamp arrives, and something is written after it.
    Receive(i64, i64),
    /// Ours is made anew from the largest stamp in the file.
    Restart,
}

/// Walls that stand still, fall back and leap.
fn walls() -> impl Strategy<Value = i64> {
    prop_oneof![4 => 1_000_000_i64..1_000_010, 1 => 0_i64..2_000_000, 1 => 0_i64..(1 << 45)]
}

fn event() -> impl Strategy<Value = Event> {
    let seen = prop_oneof![(1_000_000_i64 << 16)..(1_000_010_i64 << 16), 0_i64..(1 << 61)];
    prop_oneof![
        6 => walls().prop_map(Event::Tick),
        2 => (seen, walls()).prop_map(|(seen, wall)| Event::Receive(seen, wall)),
        1 => Just(Event::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn both_clocks_give_the_same_stamps(walls in prop::collection::vec((walls(), any::<bool>()), 1..200)) {
        let (mut ours, theirs) = (HlcSource::seeded(Hlc::ZERO), reference());
        for (ms, restart) in walls {
            if restart {
                ours = HlcSource::seeded(ours.last());
            }
            set_wall(ms);
            prop_assert_eq!(raw(ours.tick(ms)), theirs.new_timestamp().get_time().as_u64());
        }
    }

    #[test]
    fn what_was_received_is_exceeded_by_both_alike(events in prop::collection::vec(event(), 1..200)) {
        let (mut ours, theirs) = (HlcSource::seeded(Hlc::ZERO), reference());
        let mut received = 0;
        for event in events {
            let (mine, other) = match event {
                Event::Restart => {
                    ours = HlcSource::seeded(ours.last());
                    continue;
                }
                Event::Tick(ms) => {
                    set_wall(ms);
                    (ours.tick(ms), theirs.new_timestamp())
                }
                Event::Receive(seen, ms) => {
                    set_wall(ms);
                    received += 1;
                    let time = NTP64(u64::try_from(seen).unwrap());
                    theirs.update_with_timestamp(&Timestamp::new(time, ID::try_from([2_u8]).unwrap())).unwrap();
                    ours.observe(Hlc::from_i64(seen));
                    let stamp = ours.tick(ms);
                    prop_assert!(stamp > Hlc::from_i64(seen));
                    (stamp, theirs.new_timestamp())
                }
            };
            let (mine, other) = (raw(mine), other.get_time().as_u64());
            prop_assert!(mine <= other && other - mine <= received, "{} and {} after {}", mine, other, received);
        }
    }
}
