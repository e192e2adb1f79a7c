//! Importing records: a stream of rows, written a thousand to a transaction.
//!
//! Keeps true: a row that is refused changes nothing and is reported with its line, the rows beside it go on; an import
//! can be run again, because rows with an id replace what they made before, `skip_lines` starts after what is done, and
//! with a key it goes on by itself where it was cut.
//! Does not do: access rules. Only superusers import; field checks, uniqueness and references hold for them too.

use super::Format;
use super::columns::{self, UnknownColumns};
use super::progress::Progress;
use super::rows::{Row, Splitter};
use crate::kernel::error::Fault;
use crate::kernel::limits;
use crate::services::records::account::{self, Prepared};
use crate::services::records::preparing;
use crate::services::records::read::View;
use crate::services::records::write::{self, Effect, WriteRequest, WriteSource, WriteVerb};
use crate::services::records::{Idempotency, RecordError, Scope};
use crate::store::StoreError;
use serde_json::{Map, Value};

/// How an import is done.
#[derive(Debug, Clone, Copy)]
pub struct ImportOptions {
    /// How the rows are written down.
    pub format: Format,
    /// Every check, no change.
    pub dry_run: bool,
    /// Rows that start on a line up to this one are passed over.
    pub skip_lines: u64,
    /// What is done about columns that are no fields.
    pub unknown: UnknownColumns,
}

/// One refused row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportRefusal {
    /// The line on which the row starts, from 1.
    pub line: u64,
    /// Why, for a person: the sentence, and each field with its own.
    pub reason: String,
}

/// How far an import has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImportReport {
    /// Records made.
    pub created: u64,
    /// Records changed.
    pub updated: u64,
    /// Rows passed over by `skip_lines`.
    pub skipped: u64,
    /// Rows that an earlier import with the same key has done; they are among those made, changed and refused.
    pub done_before: u64,
    /// Rows refused.
    pub refused: u64,
    /// The first refusals, `limits::IMPORT_ERRORS_MAX` at most.
    pub refusals: Vec<ImportRefusal>,
    /// The last line whose row is durable or refused; the `skip_lines` of a resumed import without a key.
    pub last_line: u64,
}

impl ImportReport {
    fn refuse(&mut self, line: u64, reason: String) {
        self.refused += 1;
        if self.refusals.len() < limits::IMPORT_ERRORS_MAX {
            self.refusals.push(ImportRefusal { line, reason });
        }
    }
}

/// An import under way: feed it pieces, then finish it.
#[derive(Debug)]
pub struct Importer {
    scope: Scope,
    collection: String,
    options: ImportOptions,
    splitter: Splitter,
    rows: Vec<Row>,
    report: ImportReport,
    progress: Option<Progress>,
}

/// Bytes of whole rows that are worth cutting out of the stream.
const PARSE_BYTES: usize = 64 * 1024;

impl Importer {
    /// Starts an import into `collection`. Superusers only.
    pub fn new(scope: Scope, collection: &str, options: ImportOptions) -> Result<Self, RecordError> {
        let schema = scope.tenant.schema();
        let found = schema.find(collection).ok_or_else(|| RecordError::UnknownCollection(collection.to_owned()))?;
        if !scope.is_superuser() {
            return Err(RecordError::SuperuserOnly { collection: found.name.clone(), action: "import" });
        }
        if found.is_view() {
            return Err(RecordError::ReadOnly(found.name.clone()));
        }
        let collection = found.id.to_string();
        let splitter = Splitter::new(options.format);
        Ok(Self {
            scope,
            collection,
            options,
            splitter,
            rows: Vec::new(),
            report: ImportReport::default(),
            progress: None,
        })
    }

    /// Goes on where an import with the same key stopped, and notes with every chunk how far it is. A dry run notes nothing.
    pub async fn keyed(mut self, key: Idempotency) -> Result<Self, RecordError> {
        if !self.options.dry_run {
            let now_ms = self.scope.request.now_ms;
            let progress = self.scope.tenant.read(move |reader| Progress::find(reader, key.clone(), now_ms)).await?;
            self.report = progress.report();
            self.progress = Some(progress);
        }
        Ok(self)
    }

    /// How far it has come.
    pub fn report(&self) -> &ImportReport {
        &self.report
    }

    /// Takes the next piece of the stream and writes every full chunk of rows.
    pub async fn push(&mut self, piece: &[u8]) -> Result<(), RecordError> {
        self.splitter.push(piece).map_err(RecordError::Body)?;
        if self.splitter.waiting() >= PARSE_BYTES {
            let rows = self.splitter.take();
            self.check_header()?;
            self.keep(rows)?;
        }
        while self.rows.len() >= limits::IMPORT_CHUNK_LEN {
            let rest = self.rows.split_off(limits::IMPORT_CHUNK_LEN);
            let chunk = std::mem::replace(&mut self.rows, rest);
            self.write(chunk).await?;
        }
        Ok(())
    }

    /// Writes what is left.
    pub async fn finish(&mut self) -> Result<(), RecordError> {
        let rows = self.splitter.finish().map_err(RecordError::Body)?;
        self.check_header()?;
        self.keep(rows)?;
        if let Some(progress) = &mut self.progress {
            progress.prove()?;
        }
        while !self.rows.is_empty() {
            let rest = self.rows.split_off(self.rows.len().min(limits::IMPORT_CHUNK_LEN));
            let chunk = std::mem::replace(&mut self.rows, rest);
            self.write(chunk).await?;
        }
        Ok(())
    }

    /// Columns stand above all rows, so one that is no field refuses them all; one without a name, the rows with a value there.
    fn check_header(&self) -> Result<(), RecordError> {
        let names = self.splitter.header().unwrap_or_default().iter().map(String::as_str);
        self.check_names(names.filter(|name| !name.is_empty())).map_err(RecordError::Body)
    }

    fn check_names<'name>(&self, names: impl Iterator<Item = &'name str>) -> Result<(), String> {
        let schema = self.scope.tenant.schema();
        match schema.find(&self.collection) {
            Some(collection) if self.options.unknown == UnknownColumns::Refused => {
                columns::refuse_unknown(collection, names)
            }
            // That the collection is gone is told by the write.
            _ => Ok(()),
        }
    }

    fn keep(&mut self, rows: Vec<Row>) -> Result<(), RecordError> {
        let done = self.progress.as_ref().map_or(0, Progress::line).max(self.options.skip_lines);
        for row in rows {
            if row.line <= done {
                if let Some(progress) = &mut self.progress {
                    progress.see(&row)?;
                }
                // The report of a keyed import is about the whole, so a row of it counts once.
                let wanted = row.line <= self.options.skip_lines;
                let count = if wanted { &mut self.report.skipped } else { &mut self.report.done_before };
                *count += 1;
            } else {
                self.rows.push(row);
            }
        }
        Ok(())
    }

    async fn write(&mut self, chunk: Vec<Row>) -> Result<(), RecordError> {
        // The disk may have run full since the import began.
        if !self.scope.tools.has_room() {
            return Err(StoreError::StorageFull.into());
        }
        let mut report = self.report.clone();
        report.last_line = chunk.last().map_or(report.last_line, |row| row.line);
        let (mut ready, mut refused) = (Vec::with_capacity(chunk.len()), Vec::new());
        for row in chunk {
            if let Some(progress) = &mut self.progress {
                progress.see(&row)?;
            }
            let members = row.members.and_then(|body| {
                self.check_names(body.keys().map(String::as_str))?;
                Ok(body)
            });
            match members {
                Ok(body) => {
                    let request = self.request(body);
                    let prepared = self.prepare(&request).await?;
                    ready.push((row.line, request, prepared));
                }
                Err(reason) => refused.push((row.line, reason)),
            }
        }
        let (scope, dry_run, progress) = (self.scope.clone(), self.options.dry_run, self.progress.clone());
        let written = self
            .scope
            .tenant
            .write(self.scope.write_meta(), move |tx| {
                if dry_run {
                    tx.dry_run();
                }
                for (line, request, prepared) in &ready {
                    match outcome(write::apply(tx, &scope, request, prepared))? {
                        Ok(Effect::Created) => report.created += 1,
                        Ok(_) => report.updated += 1,
                        Err(reason) => refused.push((*line, reason)),
                    }
                }
                refused.sort_by_key(|(line, _)| *line);
                refused.into_iter().for_each(|(line, reason)| report.refuse(line, reason));
                let note = progress.map(|progress| progress.note(tx, &report)).transpose()?;
                Ok::<_, RecordError>((report, note))
            })
            .await?;
        let (report, note) = written.value;
        self.report = report;
        if let (Some(progress), Some(note)) = (&mut self.progress, note) {
            progress.advance(&note)?;
        }
        Ok(())
    }

    fn request(&self, mut body: Map<String, Value>) -> WriteRequest {
        // Members that answers carry and records do not have, so that an export can be imported as it is.
        for name in columns::OF_ANSWERS {
            body.remove(name);
        }
        let has_id = body.get("id").and_then(Value::as_str).is_some_and(|id| !id.is_empty());
        WriteRequest {
            verb: if has_id { WriteVerb::Upsert } else { WriteVerb::Create },
            collection: self.collection.clone(),
            id: None,
            body,
            uploads: Vec::new(),
            if_match: None,
            view: View::default(),
            dry_run: self.options.dry_run,
            source: WriteSource::Import,
            mail_gate: None,
        }
    }

    async fn prepare(&self, request: &WriteRequest) -> Result<Prepared, RecordError> {
        let schema = self.scope.tenant.schema();
        match schema.find(&request.collection) {
            Some(collection) if account::sets_password(collection, &request.body) => {
                preparing::prepare(&self.scope, request).await
            }
            _ => Ok(Prepared::default()),
        }
    }
}

/// Separates what is wrong with a row from what is wrong with the node: the latter ends the import.
fn outcome(result: Result<write::Done, RecordError>) -> Result<Result<Effect, String>, RecordError> {
    use crate::kernel::error::Kind;
    match result {
        Ok(done) => Ok(Ok(done.effect)),
        Err(error) => match error.code().kind() {
            Kind::Invalid | Kind::Conflict | Kind::NotFound | Kind::TooLarge => Ok(Err(reason(&error))),
            _ => Err(error),
        },
    }
}

fn reason(error: &RecordError) -> String {
    let fields: Vec<String> =
        error.details().into_iter().map(|detail| format!("{}: {}", detail.field, detail.message)).collect();
    if fields.is_empty() { error.public().into_owned() } else { fields.join(" ") }
}
