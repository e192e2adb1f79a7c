//! Bringing records in and out in bulk.

mod rows;
