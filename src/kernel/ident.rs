//! Validated identifiers: once one of these exists, its text is well formed.
//!
//! Keeps true: a [`TenantId`] is safe as a folder name, a [`CollectionId`] as part of an SQL identifier.
//! Does not do: existence. Whether the named thing is there is the registry's or the schema's question.

use crate::kernel::random::{self, Random};
use std::fmt;
use std::sync::Arc;

/// Length of generated identifiers, as in the PocketBase wire format.
pub const GENERATED_ID_LEN: usize = 15;

/// Why a text is not the identifier it was offered as.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {text:?} is not allowed: {expected}")]
pub struct IdentError {
    /// Which identifier was wanted.
    pub what: &'static str,
    /// The offered text, cut to 80 characters.
    pub text: String,
    /// What would be right.
    pub expected: &'static str,
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident, $what:literal, $expected:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks `text`.
            pub fn parse(text: &str) -> Result<Self, IdentError> {
                let check: fn(&str) -> bool = $check;
                if check(text) {
                    Ok(Self(Arc::from(text)))
                } else {
                    Err(IdentError { what: $what, text: text.chars().take(80).collect(), expected: $expected })
                }
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

fn all(text: &str, min: usize, max: usize, allowed: fn(u8) -> bool) -> bool {
    (min..=max).contains(&text.len()) && text.bytes().all(allowed)
}

fn is_name(text: &str, max: usize) -> bool {
    all(text, 1, max, |byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !text.starts_with(|first: char| first.is_ascii_digit())
}

identifier!(
    /// The unchanging name of a tenant: folder name, cache partition, token audience. `[a-z0-9_]{1,32}`.
    TenantId, "tenant id", "1 to 32 characters of a-z, 0-9, _",
    |text| all(text, 1, 32, |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
);
identifier!(
    /// The name by which people and URLs address a tenant; it may change. A DNS label: `[a-z0-9-]`, 1 to 63.
    TenantSlug, "tenant slug", "1 to 63 characters of a-z, 0-9 and -, neither first nor last a -",
    |text| all(text, 1, 63, |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !text.starts_with('-') && !text.ends_with('-')
);
identifier!(
    /// The unchanging id of a collection; part of its table's name. `[a-zA-Z0-9_]{1,64}`.
    CollectionId, "collection id", "1 to 64 characters of a-z, A-Z, 0-9, _",
    |text| all(text, 1, 64, |byte| byte.is_ascii_alphanumeric() || byte == b'_')
);
identifier!(
    /// The name of a collection; it may change. `[a-zA-Z_][a-zA-Z0-9_]*`, at most 100.
    CollectionName, "collection name", "a letter or _ followed by letters, digits or _, at most 100",
    |text| is_name(text, 100)
);
identifier!(
    /// The name of a field; it may change. `[a-zA-Z_][a-zA-Z0-9_]*`, at most 100.
    FieldName, "field name", "a letter or _ followed by letters, digits or _, at most 100",
    |text| is_name(text, 100)
);
identifier!(
    /// The unchanging id of a field inside its collection. `[a-zA-Z0-9_]{1,64}`.
    FieldId, "field id", "1 to 64 characters of a-z, A-Z, 0-9, _",
    |text| all(text, 1, 64, |byte| byte.is_ascii_alphanumeric() || byte == b'_')
);
identifier!(
    /// The id of a record inside its collection. 1 to 255 printable characters without `/`, `\`, quotes or spaces;
    /// the collection's `id` field may demand more (15 of `[a-z0-9]` by default).
    RecordId, "record id", "1 to 255 letters, digits or - _ . ~ : @ +",
    |text| (1..=255).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~:@+".contains(&byte))
        && text != "." && text != ".."
);

identifier!(
    /// The name of an uploaded file inside its record's folder. 1 to 200 of `[a-zA-Z0-9_.-]`, no `.` in front.
    FileName, "file name", "1 to 200 letters, digits or _ . -, not beginning with .",
    |text| all(text, 1, 200, |byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte)) && !text.starts_with('.')
);

impl TenantId {
    /// The reserved tenant that holds tenants, superusers, blueprints and node settings.
    pub fn control() -> Self {
        Self(Arc::from("_control"))
    }

    /// Whether this is the control database.
    pub fn is_control(&self) -> bool {
        &*self.0 == "_control"
    }

    /// Draws a new id.
    pub fn generate(source: &dyn Random) -> Self {
        Self(Arc::from(random::lowercase_id(source, GENERATED_ID_LEN)))
    }
}

impl RecordId {
    /// Draws a new id: 15 characters of `[a-z0-9]`.
    pub fn generate(source: &dyn Random) -> Self {
        Self(Arc::from(random::lowercase_id(source, GENERATED_ID_LEN)))
    }
}

impl CollectionId {
    /// Draws a new id.
    pub fn generate(source: &dyn Random) -> Self {
        Self(Arc::from(format!("pbc_{}", random::from_alphabet(source, b"0123456789", 10))))
    }
}

/// The number of a field inside its collection: the stable id that columns (`f7`), clocks and the log use.
///
/// Never reused; 0 is the record's `id`. Kept small because the row clock spends one byte on numbers below 128.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FieldNumber(pub u32);

/// The identity of this node: 16 random bytes kept beside the control database, not inside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NodeId(pub [u8; 16]);

/// The identity of one lineage of writes into one tenant file (REPLICATION.md 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OriginUid(pub [u8; 16]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_refuse_what_could_leave_a_folder_or_a_quote() {
        for text in ["", "..", "a/b", "a\\b", "a b", "a\"b", "a'b", "Ä", "a\0b"] {
            assert!(TenantId::parse(text).is_err(), "{text:?}");
            assert!(CollectionId::parse(text).is_err(), "{text:?}");
            assert!(RecordId::parse(text).is_err(), "{text:?}");
            assert!(FieldName::parse(text).is_err(), "{text:?}");
            assert!(FileName::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn slugs_are_dns_labels() {
        for (text, allowed) in
            [("demo-org", true), ("a", true), ("-a", false), ("a-", false), ("A", false), ("a_b", false)]
        {
            assert_eq!(TenantSlug::parse(text).is_ok(), allowed, "{text:?}");
        }
    }
}
