//! L2: SQLite files, one per tenant.
