//! The data folder as one process's own: the lock, the address of the running node, the administrator key.
//!
//! Keeps true: two processes never serve one folder (flock on `node.lock`, held for the life of the process, released
//! by the kernel even after SIGKILL); `node.key` is readable by its owner alone.
//! Does not do: anything inside tenants.

use crate::kernel::random::{self, Random};
use crate::secrets::Secret;
use crate::secrets::keys::NODE_SECRET_FILE;
use rustix::fs::{FlockOperation, Mode, flock};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const LOCK_FILE: &str = "node.lock";
const KEY_FILE: &str = "node.key";
/// Characters of the administrator key: 40 of 36 letters, about 206 bits.
const KEY_LEN: usize = 40;

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Another process serves it.
    #[error("the data folder {} is in use by a running node{}", folder.display(), at(url))]
    InUse {
        /// The folder.
        folder: PathBuf,
        /// Where that node answers, once it does.
        url: Option<String>,
    },
    /// No node ever used it.
    #[error("{} holds no control.db, so it is no data folder; check --data-dir", folder.display())]
    NotOne {
        /// The folder.
        folder: PathBuf,
    },
    /// The machine refused.
    #[error("the data folder {} cannot be used: {source}", folder.display())]
    Io {
        /// The folder.
        folder: PathBuf,
        /// What the machine said.
        source: io::Error,
    },
}

fn at(url: &Option<String>) -> String {
    url.as_ref().map(|url| format!(" at {url}")).unwrap_or_default()
}

/// Lets only the owner of this process read what it makes from now on: databases hold password hashes and sessions.
pub fn keep_to_owner() {
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
}

/// Refuses a folder that no node ever used.
pub fn require_folder(folder: &Path) -> Result<(), FolderError> {
    if folder.join("control.db").is_file() { Ok(()) } else { Err(FolderError::NotOne { folder: folder.to_owned() }) }
}

/// Tells the log, before a new secret is made, that a folder which was used before comes without its own.
pub(super) fn tell_of_missing_secret(folder: &Path) {
    if require_folder(folder).is_err() || folder.join(NODE_SECRET_FILE).exists() {
        return;
    }
    let file = folder.join(NODE_SECRET_FILE);
    tracing::error!(
        { file = %file.display() },
        "{NODE_SECRET_FILE} is missing from a data folder that was used before, so a new one is made. With the old one end \
         all tokens, sessions, mailed links and list cursors, and what was sealed with it cannot be opened: authenticator \
         apps, passwords of mail servers, client secrets of identity providers. To have them back, stop the node, put the \
         old {NODE_SECRET_FILE} (mode 0600) into the folder and start again, before anybody sets up anew what is lost"
    );
}

/// The lock on a folder; dropping it lets the next process in.
#[derive(Debug)]
pub(super) struct FolderLock(File);

impl FolderLock {
    /// Takes the lock on a folder that a node has used, or says who has it; makes nothing but the lock's file.
    pub(super) fn take_existing(folder: &Path) -> Result<Self, FolderError> {
        require_folder(folder)?;
        Self::take(folder)
    }

    /// Makes the folder if it is not there and takes the lock, or says who has it.
    pub(super) fn take(folder: &Path) -> Result<Self, FolderError> {
        let refused = |source| FolderError::Io { folder: folder.to_owned(), source };
        fs::create_dir_all(folder).map_err(refused)?;
        let path = folder.join(LOCK_FILE);
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(refused)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                // A node that was killed left its address; whoever answers there now is somebody else.
                file.set_len(0).map_err(refused)?;
                Ok(Self(file))
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                Err(FolderError::InUse { folder: folder.to_owned(), url: read_url(file) })
            }
            Err(error) => Err(refused(error.into())),
        }
    }

    /// Tells other processes where this node answers.
    pub(super) fn announce(&mut self, url: &str) -> io::Result<()> {
        self.0.set_len(0)?;
        self.0.rewind()?;
        self.0.write_all(url.as_bytes())?;
        self.0.flush()
    }
}

impl Drop for FolderLock {
    fn drop(&mut self) {
        // An address that no longer answers would only mislead; the lock itself goes with the file handle.
        let _ = self.0.set_len(0);
    }
}

fn read_url(mut file: File) -> Option<String> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// The key by which somebody who may read the folder administrates the node; made on first use.
pub fn load_or_create_key(folder: &Path, random: &dyn Random) -> io::Result<Secret> {
    let path = folder.join(KEY_FILE);
    match fs::read_to_string(&path) {
        Ok(text) if text.trim().len() == KEY_LEN => return Ok(Secret::new(text.trim())),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let key = random::lowercase_id(random, KEY_LEN);
    let draft = folder.join("node.key.new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(key.as_bytes())?;
    file.sync_all()?;
    fs::rename(&draft, &path)?;
    File::open(folder)?.sync_all()?;
    Ok(Secret::new(key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::random::SystemRandom;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_folder_serves_one_node_at_a_time_and_says_where() {
        let folder = tempfile::tempdir().unwrap();
        let mut lock = FolderLock::take(folder.path()).unwrap();
        lock.announce("http://127.0.0.1:1").unwrap();
        match FolderLock::take(folder.path()) {
            Err(FolderError::InUse { url, .. }) => assert_eq!(url.as_deref(), Some("http://127.0.0.1:1")),
            other => panic!("{other:?}"),
        }
        drop(lock);
        FolderLock::take(folder.path()).unwrap();
    }

    #[test]
    fn the_key_stays_and_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let random = SystemRandom::default();
        let key = load_or_create_key(folder.path(), &random).unwrap();
        assert!(load_or_create_key(folder.path(), &random).unwrap() == key);
        let mode = fs::metadata(folder.path().join(KEY_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
