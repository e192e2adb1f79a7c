//! Facts about this machine: the node's identity beside the control database, and its limit of open files.
//!
//! Keeps true: the identity survives restarts and does not travel with a copied tenant file.
//! Does not do: anything per tenant.

use super::StoreError;
use super::snapshot;
use crate::kernel::ident::NodeId;
use crate::kernel::random::Random;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::path::Path;

const FILE: &str = "node.id";

/// Reads `node.id` in the data folder, or makes it.
pub fn load_or_create_node_id(data_dir: &Path, random: &dyn Random) -> Result<NodeId, StoreError> {
    let path = data_dir.join(FILE);
    match std::fs::read_to_string(&path) {
        Ok(text) => parse(text.trim()).ok_or_else(|| StoreError::damaged("node.id is not 32 hexadecimal digits")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let mut bytes = [0_u8; 16];
            random.fill(&mut bytes);
            let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            std::fs::create_dir_all(data_dir)?;
            snapshot::write_atomically(&path, text.as_bytes())?;
            Ok(NodeId(bytes))
        }
        Err(error) => Err(error.into()),
    }
}

fn parse(text: &str) -> Option<NodeId> {
    let mut bytes = [0_u8; 16];
    if text.len() != 32 || !text.is_ascii() {
        return None;
    }
    for (index, slot) in bytes.iter_mut().enumerate() {
        *slot = u8::from_str_radix(text.get(index * 2..index * 2 + 2)?, 16).ok()?;
    }
    Some(NodeId(bytes))
}

/// Raises the soft limit of open files to the hard one; returns what holds now.
///
/// An open tenant takes three descriptors for the writer and up to three for each reader.
pub fn raise_file_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let now = if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current };
    now.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::random::SeededRandom;

    #[test]
    fn the_identity_survives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let first = load_or_create_node_id(folder.path(), &SeededRandom::new(1)).unwrap();
        assert_eq!(load_or_create_node_id(folder.path(), &SeededRandom::new(2)).unwrap(), first);
        std::fs::write(folder.path().join(FILE), "not an id").unwrap();
        assert!(load_or_create_node_id(folder.path(), &SeededRandom::new(2)).is_err());
    }
}
