//! The harness: a node per test, typed actors, assertions that point at the caller, and a `Drop` that fails on any
//! ERROR log nobody expected.

mod actor;
mod answer;
mod authenticator;
mod authority;
mod logs;
pub(crate) mod notes;
mod outbox;
mod pebble;
mod raw;
mod server;
mod sink;

pub(crate) use actor::Actor;
pub(crate) use answer::Answer;
pub(crate) use authenticator::Authenticator;
pub(crate) use authority::Authority;
pub(crate) use logs::expect_error;
pub(crate) use outbox::{link, mails};
pub(crate) use pebble::Pebble;
pub(crate) use raw::{RawConnection, has_head, more_than_is_buffered};
pub(crate) use server::{PASSWORD, TestServer, User};
pub(crate) use sink::{Manner, Posted, Sink};
