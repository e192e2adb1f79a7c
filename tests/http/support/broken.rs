//! A disk on which one commit fails, when a test says so.
//!
//! Keeps true: every other commit is as it would be. Does not do: anything at the other points; announcing the error, which
//! `TestServer::expect_errors` does for one tenant.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use tenantry::app::Parts;
use tenantry::store::{FaultPoint, Faults, Injected};

/// Fails one commit; see [`Broken::fail_commit`].
#[derive(Debug, Default)]
pub(crate) struct Broken(AtomicI64);

impl Broken {
    /// The parts of a node on this disk.
    pub(crate) fn parts(self: &Arc<Self>) -> Parts {
        Parts { faults: Arc::clone(self) as Arc<dyn Faults>, ..Parts::default() }
    }

    /// The `nth` commit from now fails; 1 is the next.
    pub(crate) fn fail_commit(&self, nth: i64) {
        self.0.store(nth, Ordering::Relaxed);
    }

    /// Whether the commit that was to fail has failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.0.load(Ordering::Relaxed) <= 0
    }
}

impl Faults for Broken {
    fn at(&self, point: FaultPoint) -> Option<Injected> {
        (point == FaultPoint::BeforeCommit && self.0.fetch_sub(1, Ordering::Relaxed) == 1).then_some(Injected::Io)
    }
}
