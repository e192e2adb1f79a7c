//! Planned failures: the points at which a test may stop the world, and the production form that never does.
//!
//! Keeps true: with [`NoFaults`] every point is an empty call.
//! Does not do: deciding what to break; that is the test that passes its own [`Faults`].

use std::fmt;

/// Where a failure can be planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultPoint {
    /// All requests of the group ran, COMMIT did not.
    BeforeCommit,
    /// COMMIT returned, nobody was told.
    AfterCommit,
    /// An observer is about to run.
    InObserver,
    /// A file was written beside its final place and not yet renamed.
    BeforeRename,
}

/// What a point should answer instead of going on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Injected {
    /// The disk is full.
    StorageFull,
    /// The disk answers with an error.
    Io,
}

/// Decides at each point whether to go on, to fail, or not to return at all.
pub trait Faults: Send + Sync + fmt::Debug {
    /// Called at `point`; `None` goes on.
    fn at(&self, point: FaultPoint) -> Option<Injected>;
}

/// Production: nothing fails on purpose.
#[derive(Debug, Default, Clone, Copy)]
pub struct NoFaults;

impl Faults for NoFaults {
    fn at(&self, _point: FaultPoint) -> Option<Injected> {
        None
    }
}

impl From<Injected> for super::StoreError {
    fn from(injected: Injected) -> Self {
        match injected {
            Injected::StorageFull => Self::StorageFull,
            Injected::Io => Self::from(std::io::Error::other("injected disk fault")),
        }
    }
}
