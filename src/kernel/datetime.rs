//! Moments as text: the wire and storage form `2006-01-02 15:04:05.000Z`, always UTC, always milliseconds.
//!
//! Keeps true: the text form sorts like the moment it names (years 0 to 9999).
//! Does not do: time zones other than reading an offset; asking for the present (that is `clock`).

use jiff::civil;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

/// Writes `ms` (milliseconds since the Unix epoch) in storage form; out-of-range moments become the empty text.
pub fn format_ms(ms: i64) -> String {
    Timestamp::from_millisecond(ms)
        .map(|moment| moment.to_zoned(TimeZone::UTC))
        .ok()
        .filter(|zoned| (0..=9999).contains(&zoned.year()))
        .map(|zoned: Zoned| zoned.strftime("%Y-%m-%d %H:%M:%S.%3fZ").to_string())
        .unwrap_or_default()
}

/// Reads a moment: RFC 3339 or its form with a space, with or without fraction, offset or time of day (UTC then).
///
/// Returns milliseconds since the Unix epoch.
pub fn parse_ms(text: &str) -> Option<i64> {
    let text = text.trim();
    if !(10..=64).contains(&text.len()) || !text.is_ascii() {
        return None;
    }
    if let Ok(moment) = text.parse::<Timestamp>() {
        return Some(moment.as_millisecond());
    }
    let civil = match text.parse::<civil::DateTime>() {
        Ok(civil) => civil,
        Err(_) => text.parse::<civil::Date>().ok()?.to_datetime(civil::Time::midnight()),
    };
    civil.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp().as_millisecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_accepted_form_names_the_same_moment() {
        for text in
            ["2024-02-29 12:30:00.000Z", "2024-02-29T12:30:00Z", "2024-02-29 12:30:00", "2024-02-29T13:30:00+01:00"]
        {
            assert_eq!(parse_ms(text).map(format_ms).as_deref(), Some("2024-02-29 12:30:00.000Z"), "{text}");
        }
        assert_eq!(parse_ms("2024-02-29").map(format_ms).as_deref(), Some("2024-02-29 00:00:00.000Z"));
        for text in ["", "yesterday", "2024-13-01", "2023-02-29", "12:30:00"] {
            assert_eq!(parse_ms(text), None, "{text}");
        }
    }
}
