//! `Range` requests: which single part of a body is wanted (RFC 9110, 14).
//!
//! Keeps true: what is no single range of bytes asks for everything, as the standard allows; a part never lies outside.
//! Does not do: several ranges in one answer; deciding whether the body is still the one that the client has a part of.

use crate::http::problem::Problem;
use crate::kernel::error::Code;

/// Which part is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Range {
    /// Everything; also the answer to what is no single range of bytes, as the standard allows.
    Whole,
    /// From the first byte to the last, both included.
    Part(u64, u64),
    /// Nothing that the file has.
    Outside,
}

impl Range {
    /// Reads the value of the header for a body of `size` bytes.
    pub(crate) fn parse(text: &str, size: u64) -> Self {
        let single = text.trim().strip_prefix("bytes=").filter(|ranges| !ranges.contains(','));
        let Some((first, last)) = single.and_then(|range| range.trim().split_once('-')) else { return Self::Whole };
        let (first, last) = match (first.trim(), last.trim()) {
            ("", suffix) => match suffix.parse::<u64>() {
                Ok(0) => return Self::Outside,
                Ok(len) => (size.saturating_sub(len), size.saturating_sub(1)),
                Err(_) => return Self::Whole,
            },
            (first, "") => match first.parse() {
                Ok(first) => (first, size.saturating_sub(1)),
                Err(_) => return Self::Whole,
            },
            (first, last) => match (first.parse(), last.parse::<u64>()) {
                (Ok(first), Ok(last)) if first <= last => (first, last.min(size.saturating_sub(1))),
                _ => return Self::Whole,
            },
        };
        if first >= size { Self::Outside } else { Self::Part(first, last) }
    }
}

/// 416: the range lies outside a body of `size` bytes.
pub(crate) fn outside(size: u64) -> Problem {
    let message = format!("There are {size} bytes; the range lies outside.");
    Problem::new(Code::RangeNotSatisfiable, message).with_content_range(format!("bytes */{size}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_standard_says() {
        for (text, size, range) in [
            ("bytes=0-3", 10, Range::Part(0, 3)),
            ("bytes=5-", 10, Range::Part(5, 9)),
            ("bytes=-4", 10, Range::Part(6, 9)),
            ("bytes=-40", 10, Range::Part(0, 9)),
            ("bytes=8-40", 10, Range::Part(8, 9)),
            ("bytes=10-", 10, Range::Outside),
            ("bytes=-0", 10, Range::Outside),
            ("bytes=0-0", 0, Range::Outside),
            ("bytes=3-1", 10, Range::Whole),
            ("bytes=0-1,4-5", 10, Range::Whole),
            ("lines=0-1", 10, Range::Whole),
            ("bytes=a-b", 10, Range::Whole),
            ("bytes=-", 10, Range::Whole),
        ] {
            assert_eq!(Range::parse(text, size), range, "{text} of {size}");
        }
    }
}
