//! Removing files after the commit that let go of them, off the writer's thread.
//!
//! Keeps true: nothing is removed before COMMIT, and nothing while a copy of the tenant is being made, whose database
//! may still name it; a full queue loses a removal, never a file that is needed. Does not do: finding forgotten files.

use super::{FileRef, names_in, remove, root_of};
use crate::kernel::ident::{CollectionId, FieldNumber, RecordId, TenantId};
use crate::kernel::limits;
use crate::kernel::value::Stored;
use crate::schema::Schema;
use crate::schema::field::FieldKind;
use crate::store::changelog::LogOp;
use crate::store::table::file_path;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// What a commit let go of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) enum Released {
    /// One file.
    File(FileRef),
    /// Every file of a collection.
    Collection(CollectionId),
}

/// The files that the operations of one log record let go of. `before` and `after` are the schemas around it.
pub(in crate::store) fn released(before: &Schema, after: &Schema, ops: &[LogOp]) -> Vec<Released> {
    let is_file = |collection: &CollectionId, number: FieldNumber| {
        let found = [before, after].into_iter().find_map(|schema| schema.find_id(collection));
        let field = found.and_then(|collection| collection.find_field_number(number));
        field.is_some_and(|field| matches!(field.kind, FieldKind::File(_)))
    };
    let mut gone = Vec::new();
    let mut release = |collection: &CollectionId, record: &RecordId, old: &Stored, new: Option<&Stored>| {
        let stays: Vec<_> = new.into_iter().flat_map(names_in).collect();
        gone.extend(
            names_in(old)
                .filter(|name| !stays.contains(name))
                .map(|name| Released::File(FileRef { collection: collection.clone(), record: record.clone(), name })),
        );
    };
    let mut dropped = Vec::new();
    for op in ops {
        match op {
            LogOp::Set { collection, id, field, value, before } if is_file(collection, *field) => {
                release(collection, id, before, Some(value));
            }
            LogOp::Del { collection, before } => {
                for (number, value) in before.values().iter().filter(|(number, _)| is_file(collection, *number)) {
                    debug_assert_ne!(number.0, 0);
                    release(collection, &before.id, value, None);
                }
            }
            LogOp::Schema(change) => {
                let removed = change.changed.iter().filter(|(_, _, after)| after.is_none());
                dropped.extend(removed.map(|(id, _, _)| Released::Collection(id.clone())));
            }
            _ => {}
        }
    }
    gone.extend(dropped);
    gone
}

/// What one commit of a tenant let go of.
type Removal = (TenantId, Vec<Released>);

/// How many copies of each tenant are being made.
type Copies = Arc<Mutex<HashMap<TenantId, usize>>>;

/// The thread that removes; ends when the store shuts down or is dropped.
pub(in crate::store) struct FileRemover {
    sender: Mutex<Option<SyncSender<Removal>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    copies: Copies,
}

/// While this lives, no file of the tenant is removed.
pub(in crate::store) struct CopyGuard {
    copies: Copies,
    tenant: TenantId,
}

impl Drop for CopyGuard {
    fn drop(&mut self) {
        let mut copies = self.copies.lock();
        if let Some(count) = copies.get_mut(&self.tenant) {
            *count -= 1;
            if *count == 0 {
                copies.remove(&self.tenant);
            }
        }
    }
}

impl FileRemover {
    /// Starts the thread.
    pub(in crate::store) fn start(data_dir: PathBuf) -> std::io::Result<Self> {
        let (sender, receiver) = sync_channel(limits::FILE_REMOVALS_LEN_MAX);
        let copies = Copies::default();
        let shared = Arc::clone(&copies);
        let thread =
            std::thread::Builder::new().name("tn-files".into()).spawn(move || run(&data_dir, &receiver, &shared))?;
        Ok(Self { sender: Mutex::new(Some(sender)), thread: Mutex::new(Some(thread)), copies })
    }

    /// Takes note of what a commit let go of. Never blocks.
    pub(in crate::store) fn submit(&self, tenant: &TenantId, released: Vec<Released>) {
        if released.is_empty() {
            return;
        }
        if let Some(sender) = &*self.sender.lock()
            && sender.try_send((tenant.clone(), released)).is_err()
        {
            tracing::warn!(tenant.id = %tenant, "too many files wait to be removed; the next sweep finds these");
        }
    }

    /// Keeps the tenant's files as they are, but for new ones, until the guard is dropped.
    pub(in crate::store) fn hold(&self, tenant: &TenantId) -> CopyGuard {
        *self.copies.lock().entry(tenant.clone()).or_default() += 1;
        CopyGuard { copies: Arc::clone(&self.copies), tenant: tenant.clone() }
    }

    /// Runs `removal` unless a copy is being made, and says whether it ran.
    pub(in crate::store) fn unless_copied(&self, tenant: &TenantId, removal: impl FnOnce()) -> bool {
        unless_copied(&self.copies, tenant, removal)
    }

    /// Removes what is waiting and ends the thread. Blocks.
    pub(in crate::store) fn close(&self) {
        self.sender.lock().take();
        if let Some(thread) = self.thread.lock().take() {
            // A panic there has cost a removal, which the sweep makes up for.
            let _ = thread.join();
        }
    }
}

fn unless_copied(copies: &Copies, tenant: &TenantId, removal: impl FnOnce()) -> bool {
    // The lock is kept, so that no copy begins between the look and the removal.
    let copies = copies.lock();
    let free = !copies.contains_key(tenant);
    if free {
        removal();
    }
    free
}

fn run(data_dir: &std::path::Path, receiver: &Receiver<Removal>, copies: &Copies) {
    while let Ok((tenant, released)) = receiver.recv() {
        let root = root_of(&file_path(data_dir, &tenant));
        for one in released {
            unless_copied(copies, &tenant, || match one {
                Released::File(place) => remove(&root, &place),
                Released::Collection(id) => drop(fs::remove_dir_all(root.join(id.as_str()))),
            });
        }
    }
}
