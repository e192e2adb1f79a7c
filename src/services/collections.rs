//! Collection changes on a live tenant.
