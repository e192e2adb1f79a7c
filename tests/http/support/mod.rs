//! The harness: a node per test, typed actors, assertions that point at the caller, and a `Drop` that fails on any
//! ERROR log nobody expected.

mod actor;
mod answer;
mod authenticator;
mod authority;
mod broken;
mod logs;
pub(crate) mod notes;
mod outbox;
mod pebble;
mod raw;
mod server;
mod sink;

/// Lets a little time pass before a condition is looked at again.
#[expect(clippy::disallowed_methods, reason = "what is behind the wire cannot be waited on")]
pub(crate) async fn pause(span: std::time::Duration) {
    tokio::time::sleep(span).await;
}

pub(crate) use actor::Actor;
pub(crate) use answer::Answer;
pub(crate) use authenticator::Authenticator;
pub(crate) use authority::Authority;
pub(crate) use broken::Broken;
pub(crate) use logs::{errors_with, expect_error};
pub(crate) use outbox::{link, mails};
pub(crate) use pebble::Pebble;
pub(crate) use raw::{RawConnection, has_head, more_than_is_buffered};
pub(crate) use server::{PASSWORD, TestServer, User};
pub(crate) use sink::{Manner, Posted, Sink};
