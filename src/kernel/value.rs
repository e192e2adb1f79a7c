//! The dynamic value of a record's field, and the scalar that SQLite stores for it.
//!
//! Keeps true: [`Stored`] has a total order equal to SQLite's own (NULL < numbers < text < blob, BINARY collation).
//! Does not do: knowing field types; `schema::field` turns JSON into values and values into stored scalars.

use std::cmp::Ordering;
use std::sync::Arc;

/// A scalar as SQLite holds it; the only thing that is ever bound to a statement.
#[derive(Debug, Clone, PartialEq)]
pub enum Stored {
    /// SQL NULL.
    Null,
    /// A 64-bit integer; booleans are 0 and 1.
    Integer(i64),
    /// A double.
    Real(f64),
    /// UTF-8 text; dates, ids and JSON documents are text.
    Text(Arc<str>),
    /// Bytes.
    Blob(Arc<[u8]>),
}

impl Stored {
    /// Text from anything string-like.
    pub fn text(text: impl AsRef<str>) -> Self {
        Self::Text(Arc::from(text.as_ref()))
    }

    /// A boolean as SQLite keeps it.
    pub const fn bool(value: bool) -> Self {
        Self::Integer(value as i64)
    }

    /// The text, if this is text.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The number, if this is a number.
    pub fn as_number(&self) -> Option<f64> {
        match self {
            #[expect(clippy::cast_precision_loss, reason = "record numbers are doubles on the wire")]
            Self::Integer(value) => Some(*value as f64),
            Self::Real(value) => Some(*value),
            _ => None,
        }
    }

    /// Whether this is NULL.
    pub const fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// Borrows the value as a cell.
    pub fn cell(&self) -> Cell<'_> {
        match self {
            Self::Null => Cell::Null,
            Self::Integer(value) => Cell::Integer(*value),
            Self::Real(value) => Cell::Real(*value),
            Self::Text(text) => Cell::Text(text),
            Self::Blob(bytes) => Cell::Blob(bytes),
        }
    }

    /// SQLite's order between storage classes and within them ("Datatypes In SQLite", 4.1 and 6).
    pub fn total_cmp(&self, other: &Self) -> Ordering {
        fn class(value: &Stored) -> u8 {
            match value {
                Stored::Null => 0,
                Stored::Integer(_) | Stored::Real(_) => 1,
                Stored::Text(_) => 2,
                Stored::Blob(_) => 3,
            }
        }
        match (self, other) {
            (Self::Integer(a), Self::Integer(b)) => a.cmp(b),
            (Self::Integer(a), Self::Real(b)) => exact_cmp(*a, *b),
            (Self::Real(a), Self::Integer(b)) => exact_cmp(*b, *a).reverse(),
            (Self::Text(a), Self::Text(b)) => a.as_bytes().cmp(b.as_bytes()),
            (Self::Blob(a), Self::Blob(b)) => a.cmp(b),
            _ => match (self.as_number(), other.as_number()) {
                (Some(a), Some(b)) => a.partial_cmp(&b).unwrap_or(Ordering::Equal),
                _ => class(self).cmp(&class(other)),
            },
        }
    }
}

/// An integer against a double without rounding either, as SQLite does: not every integer beyond 2^53 is a double.
fn exact_cmp(whole: i64, real: f64) -> Ordering {
    const BEYOND: f64 = 9_223_372_036_854_775_808.0;
    if real >= BEYOND {
        return Ordering::Less;
    }
    if real < -BEYOND {
        return Ordering::Greater;
    }
    #[expect(clippy::cast_possible_truncation, reason = "bounded above; what is cut off is compared next")]
    let cut = real as i64;
    whole.cmp(&cut).then_with(|| 0.0_f64.partial_cmp(&real.fract()).unwrap_or(Ordering::Equal))
}

impl From<&str> for Stored {
    fn from(text: &str) -> Self {
        Self::text(text)
    }
}

impl From<String> for Stored {
    fn from(text: String) -> Self {
        Self::Text(Arc::from(text))
    }
}

impl From<i64> for Stored {
    fn from(value: i64) -> Self {
        Self::Integer(value)
    }
}

impl From<f64> for Stored {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

/// One borrowed column of one row, valid until the next row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cell<'row> {
    /// SQL NULL.
    Null,
    /// A 64-bit integer.
    Integer(i64),
    /// A double.
    Real(f64),
    /// UTF-8 text.
    Text(&'row str),
    /// Bytes.
    Blob(&'row [u8]),
}

impl Cell<'_> {
    /// Copies the cell out of its row.
    pub fn to_stored(self) -> Stored {
        match self {
            Self::Null => Stored::Null,
            Self::Integer(value) => Stored::Integer(value),
            Self::Real(value) => Stored::Real(value),
            Self::Text(text) => Stored::text(text),
            Self::Blob(bytes) => Stored::Blob(Arc::from(bytes)),
        }
    }
}

/// Writes `number` as JSON the way JavaScript prints it: no fraction where there is none, `0` for what JSON lacks.
pub fn write_json_number(out: &mut Vec<u8>, number: f64) {
    use std::io::Write as _;
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if !number.is_finite() {
        out.push(b'0');
    } else if number.fract() == 0.0 && number.abs() < EXACT {
        #[expect(clippy::cast_possible_truncation, reason = "bounded by the exact range above")]
        let whole = number as i64;
        // Writing into a Vec cannot fail.
        let _ = write!(out, "{whole}");
    } else if let Some(finite) = serde_json::Number::from_f64(number) {
        let _ = write!(out, "{finite}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_print_without_needless_fractions() {
        for (number, expected) in
            [(0.0, "0"), (-0.0, "0"), (5.0, "5"), (-12.5, "-12.5"), (1e300, "1e+300"), (f64::NAN, "0")]
        {
            let mut out = Vec::new();
            write_json_number(&mut out, number);
            assert_eq!(String::from_utf8_lossy(&out), expected);
        }
    }

    #[test]
    fn the_order_is_sqlites() {
        let ordered = [
            Stored::Null,
            Stored::Real(f64::MIN),
            Stored::Integer(i64::MIN),
            Stored::Integer(-3),
            Stored::Real(-2.5),
            Stored::Integer(7),
            Stored::Real(7.5),
            Stored::Real(9_007_199_254_740_992.0),
            Stored::Integer(9_007_199_254_740_993),
            Stored::Integer(i64::MAX),
            Stored::Real(9_223_372_036_854_775_808.0),
            Stored::text(""),
            Stored::text("A"),
            Stored::text("a"),
            Stored::Blob(Arc::from(&b""[..])),
        ];
        for pair in ordered.windows(2) {
            assert_eq!(pair[0].total_cmp(&pair[1]), Ordering::Less, "{pair:?}");
        }
    }
}
