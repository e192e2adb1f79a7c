//! Exporting records: page after page by cursor, so that memory stays flat however many there are.
//!
//! Keeps true: every record that exists throughout the export is in it exactly once; the caller's rules, filter and
//! field selection hold as in a list.
//! Does not do: one snapshot over the whole export. Each page is a snapshot of its own, so that a slow reader never
//! holds the log back.

use super::Format;
use crate::services::records::read::{self, ListRequest};
use crate::services::records::{RecordError, Scope};
use bytes::Bytes;
use serde_json::{Map, Value};

/// An export under way.
#[derive(Debug)]
pub struct Exporter {
    scope: Scope,
    collection: String,
    format: Format,
    parameters: ListRequest,
    header: Option<Vec<String>>,
    ended: bool,
}

impl Exporter {
    /// Starts an export of what a list with `parameters` would show; its paging is ignored.
    pub fn new(scope: Scope, collection: &str, format: Format, parameters: ListRequest) -> Self {
        let parameters = parameters.for_export();
        Self { scope, collection: collection.to_owned(), format, parameters, header: None, ended: false }
    }

    /// The next piece, or `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, RecordError> {
        if self.ended {
            return Ok(None);
        }
        let page = read::export_page(&self.scope, &self.collection, &self.parameters).await?;
        match page.next {
            Some(cursor) => self.parameters.resume(cursor),
            None => self.ended = true,
        }
        match self.format {
            Format::Ndjson => Ok(Some(Bytes::from(page.lines))),
            Format::Csv => self.csv(&page.lines, page.columns).map(Some),
        }
    }

    fn csv(&mut self, lines: &[u8], columns: Vec<String>) -> Result<Bytes, RecordError> {
        let defect = |error: &dyn std::fmt::Display| RecordError::Defect(format!("csv: {error}"));
        let mut writer = csv::Writer::from_writer(Vec::with_capacity(lines.len()));
        if self.header.is_none() {
            writer.write_record(&columns).map_err(|error| defect(&error))?;
            self.header = Some(columns);
        }
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let record: Map<String, Value> = serde_json::from_slice(line).map_err(|error| defect(&error))?;
            let cells = self.header.iter().flatten().map(|name| record.get(name).map(cell).unwrap_or_default());
            writer.write_record(cells).map_err(|error| defect(&error))?;
        }
        writer.into_inner().map(Bytes::from).map_err(|error| defect(&error))
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
