//! The handlers, by capability. A pure list.

pub(super) mod ops;
