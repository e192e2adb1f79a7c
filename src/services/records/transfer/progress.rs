//! How far an import with an `Idempotency-Key` has come, noted by the very transactions that bring it there.
//!
//! Keeps true: a row counts as done exactly when its chunk is committed, and what one stream of rows began is never
//! continued with another. Does not do: cutting rows out of a stream, writing them.

use super::import::{ImportRefusal, ImportReport};
use super::rows::Row;
use crate::kernel::digest::hex;
use crate::services::records::{Idempotency, RecordError};
use crate::store::{Reader, WriteTx};
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

/// What a receipt says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    /// The line of the last row that is done.
    line: u64,
    created: u64,
    updated: u64,
    refused: u64,
    refusals: Vec<(u64, String)>,
    /// Digest of every row up to `line`.
    rows: String,
}

/// The progress of one import.
#[derive(Clone)]
pub(super) struct Progress {
    key: Idempotency,
    /// Every row so far.
    rows: Context,
    /// What the receipt says as far as this import knows.
    noted: Option<Note>,
    /// Rows up to here are those that were noted; they still have to show that they are the same.
    unproven: bool,
}

impl Progress {
    /// Finds what an import with the same key has done already.
    pub(super) fn find(reader: &Reader<'_>, key: Idempotency, now_ms: i64) -> Result<Self, RecordError> {
        let noted = key.find_at(reader, now_ms)?.map(|note| read(&note)).transpose()?;
        Ok(Self { key, rows: Context::new(&SHA256), unproven: noted.is_some(), noted })
    }

    /// The line of the last row that is done.
    pub(super) fn line(&self) -> u64 {
        self.noted.as_ref().map_or(0, |note| note.line)
    }

    /// The report of what is done already.
    pub(super) fn report(&self) -> ImportReport {
        let Some(note) = &self.noted else { return ImportReport::default() };
        let refusal = |(line, reason): &(u64, String)| ImportRefusal { line: *line, reason: reason.clone() };
        ImportReport {
            created: note.created,
            updated: note.updated,
            refused: note.refused,
            refusals: note.refusals.iter().map(refusal).collect(),
            last_line: note.line,
            ..ImportReport::default()
        }
    }

    /// Takes note of the next row of the stream; refused where it is not the row that was there before.
    pub(super) fn see(&mut self, row: &Row) -> Result<(), RecordError> {
        let done = self.line();
        if row.line > done {
            self.prove()?;
        }
        let text = match &row.members {
            Ok(members) => serde_json::to_string(members).unwrap_or_default(),
            Err(reason) => reason.clone(),
        };
        for part in [row.line, text.len() as u64] {
            self.rows.update(&part.to_le_bytes());
        }
        self.rows.update(text.as_bytes());
        if row.line == done { self.prove() } else { Ok(()) }
    }

    /// The rows up to the noted line are over: they must be those that were noted.
    pub(super) fn prove(&mut self) -> Result<(), RecordError> {
        if !self.unproven {
            return Ok(());
        }
        self.unproven = false;
        let noted = self.noted.as_ref().map(|note| note.rows.as_str());
        if noted == Some(&*self.digest()) { Ok(()) } else { Err(RecordError::IdempotencyMismatch) }
    }

    fn digest(&self) -> String {
        hex(self.rows.clone().finish().as_ref())
    }

    /// Notes in the transaction of a chunk how far the import is with it; refused where a twin of it came further.
    pub(super) fn note(&self, tx: &mut WriteTx<'_>, report: &ImportReport) -> Result<Vec<u8>, RecordError> {
        let found = self.key.find(tx)?.map(|note| read(&note)).transpose()?;
        if found != self.noted {
            return Err(RecordError::IdempotencyMismatch);
        }
        let note = Note {
            line: report.last_line,
            created: report.created,
            updated: report.updated,
            refused: report.refused,
            refusals: report.refusals.iter().map(|refusal| (refusal.line, refusal.reason.clone())).collect(),
            rows: self.digest(),
        };
        let bytes = serde_json::to_vec(&note).map_err(|error| RecordError::Defect(error.to_string()))?;
        self.key.save(tx, &bytes)?;
        Ok(bytes)
    }

    /// The chunk is committed.
    pub(super) fn advance(&mut self, note: &[u8]) -> Result<(), RecordError> {
        self.noted = Some(read(note)?);
        Ok(())
    }
}

impl std::fmt::Debug for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Progress").field("noted", &self.noted).finish_non_exhaustive()
    }
}

fn read(note: &[u8]) -> Result<Note, RecordError> {
    serde_json::from_slice(note).map_err(|_| RecordError::Defect("damaged receipt of an import".into()))
}
