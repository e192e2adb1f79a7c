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
    let modifiers = arguments.get(2..).unwrap_or_default();
    let from_unix = matches!(modifiers.first(), Some(Cell::Text(text)) if text.eq_ignore_ascii_case("unixepoch"));
    let Some(start) = read_moment(*time, from_unix) else { return Stored::Null };
    let mut moment = start;
    for modifier in modifiers {
        let Cell::Text(modifier) = modifier else { return Stored::Null };
        match shift(moment, &modifier.trim().to_ascii_lowercase()) {
            Some(next) => moment = next,
            None => return Stored::Null,
        }
    }
    write_moment(format, moment).map_or(Stored::Null, Stored::from)
}

fn read_moment(time: Cell<'_>, from_unix: bool) -> Option<civil::DateTime> {
    let number = match time {
        Cell::Text(text) => match datetime::parse_ms(text) {
            Some(ms) => return civil_of(ms),
            None => text.trim().parse::<f64>().ok()?,
        },
        #[expect(clippy::cast_precision_loss, reason = "seconds and day numbers are far below 2^53")]
        Cell::Integer(value) => value as f64,
        Cell::Real(value) => value,
        Cell::Null | Cell::Blob(_) => return None,
    };
    // A bare number is a Julian day number.
    let ms = if from_unix { number * 1_000.0 } else { (number - 2_440_587.5) * 86_400_000.0 };
    if !ms.is_finite() || ms.abs() > 1e15 {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, reason = "bounded above")]
    civil_of(ms.round() as i64)
}

fn shift(moment: civil::DateTime, modifier: &str) -> Option<civil::DateTime> {
    let midnight = civil::Time::midnight();
    match modifier {
        "unixepoch" | "utc" | "localtime" | "auto" | "subsec" | "subsecond" => return Some(moment),
        "start of day" => return Some(moment.date().to_datetime(midnight)),
        "start of month" => return Some(moment.date().first_of_month().to_datetime(midnight)),
        "start of year" => return Some(moment.date().first_of_year().to_datetime(midnight)),
        _ => {}
    }
    if let Some(wanted) = modifier.strip_prefix("weekday ") {
        let wanted: i8 = wanted.trim().parse().ok().filter(|day| (0..=6).contains(day))?;
        let ahead = (wanted - moment.weekday().to_sunday_zero_offset()).rem_euclid(7);
        return moment.checked_add(i64::from(ahead).days()).ok();
    }
    let (amount, unit) = modifier.split_once(' ')?;
    let amount: f64 = amount.parse().ok().filter(|amount: &f64| amount.is_finite() && amount.abs() < 1e12)?;
    let unit = unit.trim().trim_end_matches('s');
    #[expect(clippy::cast_possible_truncation, reason = "bounded above")]
    let whole = amount as i64;
    match unit {
        "year" => moment.checked_add(whole.clamp(-20_000, 20_000).years()).ok(),
        "month" => moment.checked_add(whole.clamp(-240_000, 240_000).months()).ok(),
        "day" | "hour" | "minute" | "second" => {
            let seconds = match unit {
                "day" => 86_400.0,
                "hour" => 3_600.0,
                "minute" => 60.0,
                _ => 1.0,
            };
            #[expect(clippy::cast_possible_truncation, reason = "saturates, and the addition is checked")]
            moment.checked_add(SignedDuration::from_millis((amount * seconds * 1_000.0).round() as i64)).ok()
        }
        _ => None,
    }
}

fn write_moment(format: &str, moment: civil::DateTime) -> Option<String> {
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

fn write_part(letter: char, moment: civil::DateTime) -> Option<String> {
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
        'g' => format!("{:02}", week.year().rem_euclid(100)),
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
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of years 0 to 9999 are below 2^53")]
    let days = ms_of(moment)? as f64 / 86_400_000.0 + 2_440_587.5;
    Some(format!("{days}"))
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
            (vec!["%Y-%m-%d", "2024-01-31", "+1 month", "start of month"], Some("2024-02-01")),
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
