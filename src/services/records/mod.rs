//! Records: what a caller may do.

mod batch_request;
mod plan_cache;
mod references;
mod selection;
mod transfer;
