//! Time in the language: the `@now` family of macros and `strftime`, computed from a moment handed in.
//!
//! Keeps true: the same moment always gives the same answer; everything is UTC. Does not do: asking for the present.

use crate::kernel::datetime;
use crate::kernel::value::{Cell, Stored};
use jiff::civil;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};

/// A time macro.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Macro {
    /// The present.
    Now,
    /// 24 hours ago.
    Yesterday,
    /// In 24 hours.
    Tomorrow,
    /// 0 to 59.
    Second,
    /// 0 to 59.
    Minute,
    /// 0 to 23.
    Hour,
    /// 0 (Sunday) to 6.
    Weekday,
    /// 1 to 31.
    Day,
    /// 1 to 12.
    Month,
    /// The year.
    Year,
    /// Midnight of today.
    TodayStart,
    /// The last millisecond of today.
    TodayEnd,
    /// The first moment of the month.
    MonthStart,
    /// The last millisecond of the month.
    MonthEnd,
    /// The first moment of the year.
    YearStart,
    /// The last millisecond of the year.
    YearEnd,
}

impl Macro {
    /// Every macro with its name.
    pub const ALL: &'static [(&'static str, Macro)] = &[
        ("@now", Self::Now),
        ("@yesterday", Self::Yesterday),
        ("@tomorrow", Self::Tomorrow),
        ("@second", Self::Second),
        ("@minute", Self::Minute),
        ("@hour", Self::Hour),
        ("@weekday", Self::Weekday),
        ("@day", Self::Day),
        ("@month", Self::Month),
        ("@year", Self::Year),
        ("@todayStart", Self::TodayStart),
        ("@todayEnd", Self::TodayEnd),
        ("@monthStart", Self::MonthStart),
        ("@monthEnd", Self::MonthEnd),
        ("@yearStart", Self::YearStart),
        ("@yearEnd", Self::YearEnd),
    ];

    /// Finds a macro by its name, `@` included.
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, found)| *found)
    }

    /// The macro's value at `now_ms`: text in storage form, or a whole number.
    pub fn value(self, now_ms: i64) -> Stored {
        const DAY_MS: i64 = 86_400_000;
        let Some(now) = civil_of(now_ms) else { return Stored::Null };
        let today = now.date();
        match self {
            Self::Now => Stored::from(datetime::format_ms(now_ms)),
            Self::Yesterday => Stored::from(datetime::format_ms(now_ms.saturating_sub(DAY_MS))),
            Self::Tomorrow => Stored::from(datetime::format_ms(now_ms.saturating_add(DAY_MS))),
            Self::Second => Stored::Integer(now.second().into()),
            Self::Minute => Stored::Integer(now.minute().into()),
            Self::Hour => Stored::Integer(now.hour().into()),
            Self::Weekday => Stored::Integer(today.weekday().to_sunday_zero_offset().into()),
            Self::Day => Stored::Integer(now.day().into()),
            Self::Month => Stored::Integer(now.month().into()),
            Self::Year => Stored::Integer(now.year().into()),
            Self::TodayStart => start_of(today),
            Self::TodayEnd => end_of(today),
            Self::MonthStart => start_of(today.first_of_month()),
            Self::MonthEnd => end_of(today.last_of_month()),
            Self::YearStart => start_of(today.first_of_year()),
            Self::YearEnd => end_of(today.last_of_year()),
        }
    }
}

fn civil_of(ms: i64) -> Option<civil::DateTime> {
    Timestamp::from_millisecond(ms).ok().map(|moment| moment.to_zoned(TimeZone::UTC).datetime())
}

fn ms_of(moment: civil::DateTime) -> Option<i64> {
    moment.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp().as_millisecond())
}

fn start_of(day: civil::Date) -> Stored {
    ms_of(day.at(0, 0, 0, 0)).map_or(Stored::Null, |ms| Stored::from(datetime::format_ms(ms)))
}

fn end_of(day: civil::Date) -> Stored {
    ms_of(day.at(23, 59, 59, 999_000_000)).map_or(Stored::Null, |ms| Stored::from(datetime::format_ms(ms)))
}

/// `strftime(format, time, modifiers…)` as SQLite documents it, for UTC; NULL for what is no moment.
///
/// Source: SQLite "Date And Time Functions". `localtime` and `utc` change nothing because everything is UTC.
pub fn strftime(arguments: &[Cell<'_>]) -> Stored {
    let (Some(Cell::Text(format)), Some(time)) = (arguments.first(), arguments.get(1)) else { return Stored::Null };
    moment_of(*time, arguments.get(2..).unwrap_or_default())
        .filter(|moment| moment.at >= FIRST)
        .and_then(|moment| write_moment(format, moment))
        .map_or(Stored::Null, Stored::from)
}

/// The moment from which on Julian days are counted.
const FIRST: civil::DateTime = civil::datetime(-4_713, 11, 24, 12, 0, 0, 0);

fn moment_of(time: Cell<'_>, modifiers: &[Cell<'_>]) -> Option<Shifted> {
    let words: Option<Vec<String>> = modifiers
        .iter()
        .map(|modifier| match modifier {
            Cell::Text(text) => Some(text.to_ascii_lowercase()),
            _ => None,
        })
        .collect();
    let mut words = words?;
    let unit = words.first().and_then(|first| Unit::find(first));
    if unit.is_some() {
        words.remove(0);
    }
    let mut shifted = Shifted { at: read_moment(time, unit)?, over: 0, fine: false };
    for word in &words {
        shifted = shifted.by(word)?;
    }
    Some(shifted)
}

/// What a bare number counts, as the first modifier says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    UnixSeconds,
    JulianDays,
    /// Small numbers are days, others seconds.
    Either,
}

impl Unit {
    fn find(word: &str) -> Option<Self> {
        match word {
            "unixepoch" => Some(Self::UnixSeconds),
            "julianday" => Some(Self::JulianDays),
            "auto" => Some(Self::Either),
            _ => None,
        }
    }
}

fn read_moment(time: Cell<'_>, unit: Option<Unit>) -> Option<civil::DateTime> {
    /// The day after the last one that has a Julian day number here.
    const JULIAN_DAYS_END: f64 = 5_373_484.5;
    let number = match time {
        Cell::Text(text) => match text_moment(text) {
            // Only a number can count seconds or days.
            Some(moment) => return Some(moment).filter(|_| matches!(unit, None | Some(Unit::Either))),
            None => text.trim().parse::<f64>().ok()?,
        },
        #[expect(clippy::cast_precision_loss, reason = "seconds and day numbers are far below 2^53")]
        Cell::Integer(value) => value as f64,
        Cell::Real(value) => value,
        Cell::Null | Cell::Blob(_) => return None,
    };
    let days = match unit {
        Some(Unit::UnixSeconds) => false,
        Some(Unit::Either) => (0.0..JULIAN_DAYS_END).contains(&number),
        None | Some(Unit::JulianDays) => true,
    };
    if days && !(0.0..JULIAN_DAYS_END).contains(&number) {
        return None;
    }
    let ms = if days { (number - 2_440_587.5) * 86_400_000.0 } else { number * 1_000.0 };
    if !ms.is_finite() || ms.abs() > 1e15 {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, reason = "bounded above")]
    civil_of(ms.round() as i64)
}

/// A moment, or a time of day, which is that of 2000-01-01.
fn text_moment(text: &str) -> Option<civil::DateTime> {
    let by_itself = |time| Some(civil::date(2000, 1, 1).to_datetime(time));
    datetime::parse_ms(text).and_then(civil_of).or_else(|| {
        let text = text.trim();
        (text.len() >= 5 && text.as_bytes().get(2) == Some(&b':')).then_some(text)?.parse().ok().and_then(by_itself)
    })
}

/// A moment under way.
#[derive(Debug, Clone, Copy)]
struct Shifted {
    at: civil::DateTime,
    /// Days by which the last change of month or year went past the end of its month; what counts other units, or rounds up,
    /// forgets them.
    over: i64,
    /// Seconds since 1970 are written with their fraction.
    fine: bool,
}

impl Shifted {
    fn at(self, at: civil::DateTime) -> Option<Self> {
        Some(Self { at, ..self })
    }

    /// Before the first Julian day SQLite counts days and seconds, but knows no dates.
    fn known(self) -> Option<Self> {
        (self.at >= FIRST).then_some(self)
    }

    fn by(self, modifier: &str) -> Option<Self> {
        let midnight = civil::Time::midnight();
        let date = self.at.date();
        match modifier {
            "utc" | "localtime" => return Some(self),
            "subsec" | "subsecond" => return Some(Self { fine: true, ..self }),
            "ceiling" => return Some(Self { over: 0, ..self }),
            "floor" => return self.at(self.at.checked_sub(self.over.days()).ok()?),
            "start of day" => return self.known()?.at(date.to_datetime(midnight)),
            "start of month" => return self.known()?.at(date.first_of_month().to_datetime(midnight)),
            "start of year" => return self.known()?.at(date.first_of_year().to_datetime(midnight)),
            _ => {}
        }
        if let Some(wanted) = modifier.strip_prefix("weekday ") {
            let wanted: i8 = wanted.trim().parse().ok().filter(|day| (0..=6).contains(day))?;
            let ahead = (wanted - self.known()?.at.weekday().to_sunday_zero_offset()).rem_euclid(7);
            return self.at(self.at.checked_add(i64::from(ahead).days()).ok()?);
        }
        if let Some(ahead) = Ahead::parse(modifier) {
            return self.by_date(ahead);
        }
        match modifier.split_once([' ', ':']) {
            Some((amount, unit)) if modifier.as_bytes().get(amount.len()) == Some(&b' ') => {
                self.by_amount(amount.parse().ok()?, unit.trim_start())
            }
            Some(_) => self.by_time(modifier.starts_with('-'), modifier.strip_prefix(['+', '-']).unwrap_or(modifier)),
            None => None,
        }
    }

    /// `NNN units`.
    fn by_amount(self, amount: f64, unit: &str) -> Option<Self> {
        // What SQLite takes; more would leave the years it knows.
        let (seconds, most) = match unit.strip_suffix('s').unwrap_or(unit) {
            "second" => (1.0, 4.642_7e14),
            "minute" => (60.0, 7.737_9e12),
            "hour" => (3_600.0, 1.289_7e11),
            "day" => (86_400.0, 5_373_485.0),
            "month" => return self.by_months(amount, 1.0, 30.0),
            "year" => return self.by_months(amount, 12.0, 365.0),
            _ => return None,
        };
        if !(-most..most).contains(&amount) {
            return None;
        }
        Some(Self { at: later(self.at, amount * seconds * 1_000.0)?, over: 0, ..self })
    }

    /// Whole months or years change the month alone; the day goes past its end where it is too short. What is left counts
    /// as a part of so many days.
    fn by_months(self, amount: f64, months: f64, days: f64) -> Option<Self> {
        const MONTHS_END: f64 = 176_546.0;
        if !(-MONTHS_END..MONTHS_END).contains(&(amount * months)) {
            return None;
        }
        #[expect(clippy::cast_possible_truncation, reason = "bounded above")]
        let moved = self.months_on((amount.trunc() * months) as i64)?;
        Some(Self { at: later(moved.at, amount.fract() * days * 86_400_000.0)?, ..moved })
    }

    fn months_on(self, months: i64) -> Option<Self> {
        let first = self.known()?.at.first_of_month().checked_add(months.months()).ok()?;
        if first.year() < FIRST.year() {
            return None;
        }
        let at = first.checked_add((i64::from(self.at.day()) - 1).days()).ok()?;
        let over = i64::from(self.at.day()) - i64::from(first.days_in_month());
        Some(Self { at, over: over.max(0), ..self })
    }

    /// `[+-]YYYY-MM-DD`, with a time behind it or none.
    fn by_date(self, ahead: Ahead<'_>) -> Option<Self> {
        let sign = if ahead.back { -1 } else { 1 };
        let moved = self.months_on(sign * (ahead.years * 12 + ahead.months))?;
        let moved = moved.at(moved.at.checked_add((sign * ahead.days).days()).ok()?)?;
        match ahead.time {
            Some(time) => moved.by_time(ahead.back, time),
            None => Some(moved),
        }
    }

    /// `HH:MM`, `HH:MM:SS` or `HH:MM:SS.SSS`.
    fn by_time(self, back: bool, time: &str) -> Option<Self> {
        let is_time = time.as_bytes().get(2) == Some(&b':')
            && time.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b':' | b'.'));
        let time: civil::Time = time.parse().ok().filter(|_| is_time)?;
        let ahead = time.duration_since(civil::Time::midnight());
        self.at(self.at.checked_add(if back { -ahead } else { ahead }).ok()?)
    }
}

/// What `[+-]YYYY-MM-DD HH:MM:SS.SSS` counts: years of four or five digits, months up to 11, days up to 30.
#[derive(Debug, Clone, Copy)]
struct Ahead<'m> {
    back: bool,
    years: i64,
    months: i64,
    days: i64,
    time: Option<&'m str>,
}

impl<'m> Ahead<'m> {
    fn parse(modifier: &'m str) -> Option<Self> {
        let back = modifier.starts_with('-');
        let (years, rest) = modifier.strip_prefix(['+', '-'])?.split_once('-')?;
        let (months, rest) = rest.split_once('-')?;
        let (days, time) = match rest.split_at_checked(2)? {
            (days, "") => (days, None),
            (days, rest) => (days, Some(rest.strip_prefix(|space: char| space.is_ascii_whitespace())?)),
        };
        let count = |digits: &str, len: &[usize], most: i64| {
            let whole = len.contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_digit());
            digits.parse::<i64>().ok().filter(|count| whole && *count <= most)
        };
        Some(Self {
            back,
            years: count(years, &[4, 5], 14_712)?,
            months: count(months, &[2], 11)?,
            days: count(days, &[2], 30)?,
            time,
        })
    }
}

fn later(moment: civil::DateTime, ms: f64) -> Option<civil::DateTime> {
    #[expect(clippy::cast_possible_truncation, reason = "saturates, and the addition is checked")]
    moment.checked_add(SignedDuration::from_millis(ms.round() as i64)).ok()
}

fn write_moment(format: &str, moment: Shifted) -> Option<String> {
    let mut out = String::with_capacity(format.len() + 16);
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        out.push_str(&write_part(chars.next()?, moment)?);
    }
    Some(out)
}

fn write_part(letter: char, Shifted { at: moment, fine, .. }: Shifted) -> Option<String> {
    let hour = moment.hour();
    let twelve = if hour % 12 == 0 { 12 } else { hour % 12 };
    let week = moment.date().iso_week_date();
    let sunday = i16::from(moment.weekday().to_sunday_zero_offset());
    let monday = (sunday + 6) % 7;
    let day_of_year = moment.day_of_year();
    let milli = moment.subsec_nanosecond() / 1_000_000;
    Some(match letter {
        'd' => format!("{:02}", moment.day()),
        'e' => format!("{:2}", moment.day()),
        'f' => format!("{:02}.{milli:03}", moment.second()),
        'F' => format!("{:04}-{:02}-{:02}", moment.year(), moment.month(), moment.day()),
        'G' => format!("{:04}", week.year()),
        'g' => format!("{:02}", week.year() % 100),
        'H' => format!("{hour:02}"),
        'I' => format!("{twelve:02}"),
        'j' => format!("{day_of_year:03}"),
        'J' => julian_day(moment)?,
        'k' => format!("{hour:2}"),
        'l' => format!("{twelve:2}"),
        'm' => format!("{:02}", moment.month()),
        'M' => format!("{:02}", moment.minute()),
        'p' => (if hour < 12 { "AM" } else { "PM" }).to_owned(),
        'P' => (if hour < 12 { "am" } else { "pm" }).to_owned(),
        'R' => format!("{hour:02}:{:02}", moment.minute()),
        's' if fine => {
            let ms = ms_of(moment)?;
            let sign = if ms < 0 { "-" } else { "" };
            format!("{sign}{}.{:03}", ms.unsigned_abs() / 1_000, ms.unsigned_abs() % 1_000)
        }
        's' => ms_of(moment)?.div_euclid(1_000).to_string(),
        'S' => format!("{:02}", moment.second()),
        'T' => format!("{hour:02}:{:02}:{:02}", moment.minute(), moment.second()),
        'u' => (monday + 1).to_string(),
        'U' => format!("{:02}", (day_of_year - 1 + 7 - sunday) / 7),
        'V' => format!("{:02}", week.week()),
        'w' => sunday.to_string(),
        'W' => format!("{:02}", (day_of_year - 1 + 7 - monday) / 7),
        'Y' => format!("{:04}", moment.year()),
        '%' => "%".to_owned(),
        _ => return None,
    })
}

fn julian_day(moment: civil::DateTime) -> Option<String> {
    /// Milliseconds from the beginning of day 0 to 1970.
    const EPOCH_MS: i64 = 210_866_760_000_000;
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of years up to 9999 are below 2^53")]
    let days = (ms_of(moment)? + EPOCH_MS) as f64 / 86_400_000.0;
    // Sixteen digits, like C's %.16g.
    let whole = format!("{:.0}", days.trunc()).len();
    let text = format!("{days:.*}", 16_usize.saturating_sub(whole));
    Some(text.trim_end_matches('0').trim_end_matches('.').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn macros_read_one_moment() {
        // Thursday.
        let now_ms = datetime::parse_ms("2024-02-29 13:07:05.250Z").expect("a moment");
        for (name, expected) in [
            ("@now", Stored::text("2024-02-29 13:07:05.250Z")),
            ("@yesterday", Stored::text("2024-02-28 13:07:05.250Z")),
            ("@tomorrow", Stored::text("2024-03-01 13:07:05.250Z")),
            ("@second", Stored::Integer(5)),
            ("@minute", Stored::Integer(7)),
            ("@hour", Stored::Integer(13)),
            ("@weekday", Stored::Integer(4)),
            ("@day", Stored::Integer(29)),
            ("@month", Stored::Integer(2)),
            ("@year", Stored::Integer(2024)),
            ("@todayStart", Stored::text("2024-02-29 00:00:00.000Z")),
            ("@todayEnd", Stored::text("2024-02-29 23:59:59.999Z")),
            ("@monthStart", Stored::text("2024-02-01 00:00:00.000Z")),
            ("@monthEnd", Stored::text("2024-02-29 23:59:59.999Z")),
            ("@yearStart", Stored::text("2024-01-01 00:00:00.000Z")),
            ("@yearEnd", Stored::text("2024-12-31 23:59:59.999Z")),
        ] {
            assert_eq!(Macro::find(name).map(|found| found.value(now_ms)), Some(expected), "{name}");
        }
        assert_eq!(Macro::find("@never"), None);
    }

    #[test]
    fn strftime_follows_sqlites_documentation() {
        for (arguments, expected) in [
            (vec!["%Y-%m-%d", "2024-02-29 13:07:05.250Z"], Some("2024-02-29")),
            (vec!["%H:%M:%f", "2024-02-29 13:07:05.250Z"], Some("13:07:05.250")),
            // There is no 31st of February: two days past its end, unless it is to be cut.
            (vec!["%F", "2024-01-31", "+1 month"], Some("2024-03-02")),
            (vec!["%F", "2024-01-31", "+1 month", "floor"], Some("2024-02-29")),
            (vec!["%F", "2024-02-29", "+1 year"], Some("2025-03-01")),
            (vec!["%F", "2024-03-31", "start of month", "-1 month"], Some("2024-02-01")),
            (vec!["%F %T", "2024-02-29", "-01:30"], Some("2024-02-28 22:30:00")),
            (vec!["%F %T", "12:30"], Some("2000-01-01 12:30:00")),
            (vec!["%F", "2024-01-31", "+0001-01-01"], Some("2025-03-04")),
            (vec!["%F", "2024-01-31", "+0001-01-01", "floor"], Some("2025-03-01")),
            (vec!["%F %T", "2024-02-29 13:07:05", "-0000-02-28 13:07"], Some("2023-12-01 00:00:05")),
            (vec!["%F", "2024-01-31", "0001-01-01"], None),
            (vec!["%F", "2024-01-31", "+0001-12-01"], None),
            (vec!["%F", "2024-01-31", "+0001-01-31"], None),
            (vec!["%F", "1709212025", "auto"], Some("2024-02-29")),
            (vec!["%F", "2024-02-29", "unixepoch"], None),
            (vec!["%F", "2024-02-29", "+1 day", "unixepoch"], None),
            (vec!["%F", "2024-02-29", "weekday 0"], Some("2024-03-03")),
            (vec!["%s", "1970-01-02"], Some("86400")),
            (vec!["%F %T", "86400", "unixepoch"], Some("1970-01-02 00:00:00")),
            (vec!["%j %W %w %u", "2024-02-29"], Some("060 09 4 4")),
            (vec!["%F", "2024-02-29", "-1.5 days"], Some("2024-02-27")),
            (vec!["%F", "no moment"], None),
            (vec!["%F", "2024-02-29", "sometime"], None),
        ] {
            let cells: Vec<Cell<'_>> = arguments.iter().map(|text| Cell::Text(text)).collect();
            assert_eq!(strftime(&cells), expected.map_or(Stored::Null, Stored::text), "{arguments:?}");
        }
    }
}
