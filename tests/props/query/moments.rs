//! `strftime` against SQLite's own.
//!
//! Keeps true: for every moment, format and list of modifiers that both take, both write the same; so rules and filters
//! mean what the SQLite documentation says.
//! Does not do: `now`, `utc` and `localtime`, which SQLite asks the machine for.

use crate::query::equivalence::Dice;
use crate::query::world::World;
use proptest::prelude::*;
use rusqlite::params_from_iter;

const PARTS: &[&str] = &[
    "%d", "%e", "%f", "%F", "%G", "%g", "%H", "%I", "%j", "%k", "%l", "%m", "%M", "%p", "%P", "%R", "%s", "%S", "%T",
    "%u", "%U", "%V", "%w", "%W", "%Y", "%%", "-", "x", "%J",
];
const UNITS: &[&str] = &["second", "seconds", "minute", "hours", "day", "days", "month", "months", "year", "years"];
const WORDS: &[&str] =
    &["start of day", "start of month", "start of year", "floor", "ceiling", "Start Of Day", "nonsense", "subsec"];
const AMOUNTS: &[&str] = &["1", "+1", "-1", "11", "-25", "+400", "1.5", "-0.25", "+0", "99999", "-1200.75"];

fn modifier(dice: &Dice) -> String {
    match dice.below(11) {
        8..=10 => {
            let sign = dice.pick(&["+", "-", "+", "-", "+", "-", ""]);
            let years = match dice.below(8) {
                0 => format!("{:05}", dice.below(15_000)),
                1 => format!("{:04}", dice.below(10_000)),
                _ => format!("{:04}", dice.below(40)),
            };
            let (month, day) = (dice.below(13), dice.below(33));
            let time = match dice.below(5) {
                0 => format!(" {:02}:{:02}", dice.below(24), dice.below(60)),
                1 => format!(" {:02}:{:02}:{:02}.25", dice.below(24), dice.below(60), dice.below(60)),
                2 if day % 4 == 0 => dice.pick(&["x", " ", " 1:2", "T10:00", "  10:00"]).to_owned(),
                _ => String::new(),
            };
            format!("{sign}{years}-{month:02}-{day:02}{time}")
        }
        0 | 1 => dice.pick(WORDS).to_owned(),
        2 => format!("weekday {}", dice.below(8)),
        3 => format!("{}{:02}:{:02}", dice.pick(&["", "+", "-"]), dice.below(24), dice.below(60)),
        4 => format!("{}{:02}:{:02}:{:02}", dice.pick(&["+", "-"]), dice.below(24), dice.below(60), dice.below(60)),
        _ => format!("{} {}", dice.pick(AMOUNTS), dice.pick(UNITS)),
    }
}

/// A moment as text or number, with what says which number it is.
fn moment(dice: &Dice) -> (String, Option<&'static str>) {
    let day = format!("{:04}-{:02}-{:02}", 1 + dice.below(9_000), 1 + dice.below(12), 1 + dice.below(28));
    let near_end =
        format!("{:04}-{}", 1890 + dice.below(300), dice.pick(&["01-31", "12-31", "02-28", "01-01", "10-31"]));
    let time = format!("{:02}:{:02}:{:02}.{:03}", dice.below(24), dice.below(60), dice.below(60), dice.below(1_000));
    match dice.below(7) {
        0 => (day, None),
        1 => (near_end, None),
        2 => (format!("{near_end}T{time}Z"), None),
        3 => (time, None),
        4 => ((dice.below(4_000_000_000)).to_string(), Some(dice.pick(&["unixepoch", "auto"]))),
        5 => (format!("{}.5", dice.below(5_000_000)), Some(dice.pick(&["julianday", "auto"]))),
        _ => (format!("{day} {time}Z"), None),
    }
}

fn check(world: &World, seed: u64) -> Result<(), TestCaseError> {
    let dice = Dice::new(seed);
    let format: String = (0..1 + dice.below(4)).map(|_| dice.pick(PARTS)).collect();
    let (time, first) = moment(&dice);
    let mut arguments = vec![format, time];
    arguments.extend(first.map(str::to_owned));
    arguments.extend((0..dice.below(4)).map(|_| modifier(&dice)));
    let places = vec!["?"; arguments.len()].join(", ");
    let ask = |function: &str| -> Option<String> {
        let sql = format!("SELECT {function}({places})");
        world.file.query_row(&sql, params_from_iter(&arguments), |row| row.get(0)).unwrap()
    };
    prop_assert_eq!(ask("tn_strftime"), ask("strftime"), "{:?}", arguments);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: super::cases(2_000), max_shrink_iters: 0, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn moments_are_written_as_sqlite_writes_them(seed in any::<u64>()) {
        thread_local! { static WORLD: World = World::new(); }
        WORLD.with(|world| check(world, seed))?;
    }
}
