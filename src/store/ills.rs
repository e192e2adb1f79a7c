//! Which tenants' files were found damaged or missing, so that the log and `/health` name them.
//!
//! Keeps true: the log hears of a tenant once until it is well again, with the file and where to look further; what kept a
//! file from being opened is forgotten when it opens, what was met inside it only when the file goes or the process ends. What
//! the node lacks for the moment (descriptors, memory, a right) is no damage.
//! Does not do: looking (`check`), repair.

use super::StoreError;
use super::connection::{APPLICATION_ID, FILE_MAGIC};
use super::table::{Tenants, file_path};
use crate::kernel::ident::TenantId;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

/// Where in the first bytes of a file the application id stands ("Database File Format", sqlite.org).
const APPLICATION_ID_AT: usize = 68;

/// The ill tenants of one store; shared by everybody who reads or writes. At most one entry per tenant.
#[derive(Debug)]
pub(super) struct Ills {
    data_dir: PathBuf,
    found: Mutex<BTreeMap<TenantId, Ill>>,
}

#[derive(Debug)]
struct Ill {
    /// Whether the file could not be opened; otherwise something in it was damaged.
    shut: bool,
}

impl Ills {
    pub(super) fn new(data_dir: &Path) -> Self {
        Self { data_dir: data_dir.to_owned(), found: Mutex::default() }
    }

    /// A read or a write met `error`; notes it if it says that the file is damaged.
    pub(super) fn met(&self, tenant: &TenantId, error: &StoreError) {
        if matches!(error, StoreError::Damaged(_)) {
            self.note(tenant, error, Ill { shut: false });
        }
    }

    /// The file of `tenant` opened.
    pub(super) fn opened(&self, tenant: &TenantId) {
        let mut found = self.found.lock();
        if found.get(tenant).is_some_and(|ill| ill.shut) {
            found.remove(tenant);
            tracing::info!({ tenant.id = %tenant }, "the file of the tenant can be opened again");
        }
    }

    /// The file of `tenant` is gone or another.
    pub(super) fn forget(&self, tenant: &TenantId) {
        self.found.lock().remove(tenant);
    }

    fn note(&self, tenant: &TenantId, error: &StoreError, ill: Ill) {
        let mut found = self.found.lock();
        if found.contains_key(tenant) {
            return;
        }
        let file = file_path(&self.data_dir, tenant);
        tracing::error!(
            { tenant.id = %tenant, file = %file.display(), %error },
            "the file of tenant {tenant} is damaged or missing; `tenantry doctor` says more"
        );
        found.insert(tenant.clone(), ill);
    }
}

/// Whether a file is at `path`; an error where that cannot be told now.
pub(super) fn is_there(path: &Path) -> Result<bool, StoreError> {
    match fs::metadata(path) {
        Ok(found) => Ok(found.is_file()),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

impl Tenants {
    /// The file of `tenant`, which should have one, did not open for `error`: tells the log and [`Tenants::list_ill`] if
    /// that is the file's fault, which then is called [`StoreError::Damaged`].
    pub fn note_unusable(&self, tenant: &TenantId, error: StoreError) -> StoreError {
        let error = match error {
            StoreError::TenantMissing(_) => StoreError::damaged("the file is missing"),
            StoreError::NotATenant(why) => StoreError::Damaged(why),
            other => other,
        };
        // A node that runs out of file descriptors or memory, or that may not read a folder, has no damaged tenants. A
        // statement of the opening that is refused misses a table or a value.
        if matches!(error, StoreError::Damaged(_) | StoreError::Sql(_)) {
            self.shared.ills.note(tenant, &error, Ill { shut: true });
        }
        error
    }

    /// Whether the file of `tenant` is there and begins as one of ours; reads a hundred bytes and opens nothing.
    pub fn check_head(&self, tenant: &TenantId) -> Result<(), StoreError> {
        let path = self.path(tenant);
        if !is_there(&path)? {
            return Err(StoreError::TenantMissing(tenant.clone()));
        }
        let mut head = [0_u8; APPLICATION_ID_AT + 4];
        let read = match File::open(path)?.read_exact(&mut head) {
            Ok(()) => true,
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => false,
            Err(error) => return Err(error.into()),
        };
        let ours = head.ends_with(&APPLICATION_ID.to_be_bytes());
        if read && head.starts_with(FILE_MAGIC) && ours {
            Ok(())
        } else {
            Err(StoreError::damaged("it begins as no tenant"))
        }
    }

    /// The tenants whose files were found damaged or missing and are not known to be well again, in the order of ids.
    pub fn list_ill(&self) -> Vec<TenantId> {
        self.shared.ills.found.lock().keys().cloned().collect()
    }
}
