//! Account and obtained certificates on disk, one folder per authority.
//!
//! Keeps true: every file is readable by its owner alone from its first byte and is exchanged whole; a file that cannot
//! be used is passed over and obtained again. Does not do: deciding what to obtain.

use super::super::TlsError;
use super::super::files::{self, Loaded};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const ACCOUNT: &str = "account.json";
const ENDING: &str = ".pem";

/// The folder of one authority.
#[derive(Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn open(root: &Path, directory_url: &str) -> io::Result<Self> {
        let name = directory_url.split_once("://").map_or(directory_url, |(_, rest)| rest);
        let name = name.replace(|letter: char| !letter.is_ascii_alphanumeric() && letter != '.', "_");
        let path = root.join(name);
        DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    /// What was obtained before, by name.
    pub(super) fn load_all(&self) -> Vec<(String, Loaded)> {
        let entries = fs::read_dir(&self.0).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(ENDING)?.to_owned()));
        names
            .filter_map(|name| match self.load(&name) {
                Ok(loaded) => Some((name, loaded)),
                Err(error) => {
                    tracing::warn!({ tls.name = name, %error }, "an obtained certificate cannot be used");
                    None
                }
            })
            .collect()
    }

    fn load(&self, name: &str) -> Result<Loaded, TlsError> {
        let path = self.path(name);
        let text = fs::read(&path).map_err(|source| TlsError::Read { file: path.clone(), source })?;
        files::load(&text, &path, &text, &path)
    }

    /// Keeps a chain and its key in one file, if they belong together.
    pub(super) fn save(&self, name: &str, chain: &str, key: &str) -> Result<Loaded, TlsError> {
        let path = self.path(name);
        let loaded = files::load(chain.as_bytes(), &path, key.as_bytes(), &path)?;
        write_private(&path, format!("{key}\n{chain}").as_bytes())?;
        Ok(loaded)
    }

    pub(super) fn remove(&self, name: &str) {
        // A file that stays is loaded, found expired and removed at the next start.
        let _ = fs::remove_file(self.path(name));
    }

    pub(super) fn load_account(&self) -> io::Result<Option<String>> {
        match fs::read_to_string(self.0.join(ACCOUNT)) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn save_account(&self, text: &str) -> io::Result<()> {
        write_private(&self.0.join(ACCOUNT), text.as_bytes())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}{ENDING}"))
    }
}

/// Writes a file that its owner alone may read, whole or not at all.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = path.with_extension("new");
    // A draft that a crash left may have other rights; only a new file has those asked for.
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}
