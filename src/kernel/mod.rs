//! L0: what every other room may name. Identifiers, values, error codes, time, randomness, bounds.
//!
//! Keeps true: nothing here performs I/O or knows a transport, a database or a schema.
//! Does not do: policy. It is a list of what leaves the folder.

pub mod clock;
pub mod datetime;
pub mod digest;
pub mod error;
pub mod ident;
pub mod limits;
pub mod random;
pub mod value;
