//! Who of one tenant may take a thread to read.
//!
//! Keeps true: reads on threads are at most as many as the tenant has read connections, so that a tenant whose reads are
//! slow leaves the threads of the node to the others; whoever waits costs no thread, and those who wait are bounded.
//! Does not do: connections (`readers`), or reads on the asking thread, which do not wait.

use super::StoreError;
use super::options::StoreOptions;
use crate::kernel::limits;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The queue of one tenant.
#[derive(Debug)]
pub(super) struct ReadQueue {
    /// Places for those who read and those who wait; bound: connections and `limits::READERS_WAITING_MAX`.
    places: Arc<Semaphore>,
    /// Places for those who read.
    turns: Arc<Semaphore>,
    patience: Duration,
}

/// The right to read on a thread, given back when dropped.
#[derive(Debug)]
pub(super) struct ReadTurn {
    _turn: OwnedSemaphorePermit,
    _place: OwnedSemaphorePermit,
}

impl ReadQueue {
    pub(super) fn new(options: &StoreOptions) -> Self {
        let readers = usize::try_from(options.readers_max.max(1)).unwrap_or(1);
        Self {
            places: Arc::new(Semaphore::new(readers + limits::READERS_WAITING_MAX)),
            turns: Arc::new(Semaphore::new(readers)),
            patience: options.reader_wait,
        }
    }

    /// Waits for a turn. Too many who wait, or too long a wait: [`StoreError::Busy`].
    pub(super) async fn take_turn(&self) -> Result<ReadTurn, StoreError> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| StoreError::Busy)?;
        let turn = tokio::time::timeout(self.patience, Arc::clone(&self.turns).acquire_owned()).await;
        match turn {
            Ok(Ok(turn)) => Ok(ReadTurn { _turn: turn, _place: place }),
            Ok(Err(_)) | Err(_) => Err(StoreError::Busy),
        }
    }
}
