//! Bytes of an import, in whatever pieces they arrive, become rows with their line numbers.
//!
//! Keeps true: a row is whole before it is handed out, a malformed row costs itself and not its neighbours, and what
//! waits for its end is bounded.
//! Does not do: field types. A CSV cell is text, except where it is given as JSON (`[1]`, `{"a":1}`, `true`).

use crate::kernel::limits;
use serde_json::{Map, Value};

/// How rows are written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON object per line.
    Ndjson,
    /// RFC 4180 with a header line of field names.
    Csv,
}

/// One row, or why there is none on this line.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    /// The line on which it starts, from 1.
    pub(super) line: u64,
    /// Its members.
    pub(super) members: Result<Map<String, Value>, String>,
}

/// Cuts a stream into rows.
#[derive(Debug)]
pub(super) struct Splitter {
    format: Format,
    pending: Vec<u8>,
    /// Bytes of `pending` already searched for an end of row, and where in a cell they end.
    searched: usize,
    cell: Cell,
    /// Where the last whole row in `pending` ends.
    whole: usize,
    header: Option<Vec<String>>,
    line: u64,
}

/// A place in a cell of a CSV, as the reader of rows sees it: a quote means something where a cell begins, and in what it
/// began there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cell {
    Beginning,
    Plain,
    Quoted,
    /// Behind a quote in a quoted cell: it ends there, unless another one follows.
    Closing,
}

impl Cell {
    fn after(self, byte: u8) -> Self {
        match (self, byte) {
            (Self::Quoted, b'"') => Self::Closing,
            (Self::Quoted, _) | (Self::Beginning | Self::Closing, b'"') => Self::Quoted,
            (_, b',' | b'\n' | b'\r') => Self::Beginning,
            _ => Self::Plain,
        }
    }
}

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

impl Splitter {
    pub(super) fn new(format: Format) -> Self {
        Self { format, pending: Vec::new(), searched: 0, cell: Cell::Beginning, whole: 0, header: None, line: 1 }
    }

    /// The names of the columns, once they are known; rows of JSON name their own.
    pub(super) fn header(&self) -> Option<&[String]> {
        self.header.as_deref()
    }

    /// Takes the next piece of the stream. Refuses a row longer than the bound.
    pub(super) fn push(&mut self, piece: &[u8]) -> Result<(), String> {
        self.pending.extend_from_slice(piece);
        for (at, byte) in self.pending.iter().enumerate().skip(self.searched) {
            if self.format == Format::Csv {
                let marks = self.line == 1 && BYTE_ORDER_MARK.get(at) == Some(byte) && self.cell == Cell::Beginning;
                self.cell = if marks { Cell::Beginning } else { self.cell.after(*byte) };
            }
            if *byte == b'\n' && self.cell != Cell::Quoted {
                self.whole = at + 1;
            }
        }
        self.searched = self.pending.len();
        if self.pending.len() - self.whole > limits::IMPORT_LINE_BYTES_MAX {
            return Err(format!("line {} is longer than {} bytes", self.line, limits::IMPORT_LINE_BYTES_MAX));
        }
        Ok(())
    }

    /// Bytes of whole rows that wait to be taken.
    pub(super) fn waiting(&self) -> usize {
        self.whole
    }

    /// Every whole row so far.
    pub(super) fn take(&mut self) -> Vec<Row> {
        let rest = self.pending.split_off(self.whole);
        let ready = std::mem::replace(&mut self.pending, rest);
        self.searched = self.pending.len();
        self.whole = 0;
        self.read(&ready)
    }

    /// The rows that are left when the stream has ended. Refuses a stream that was cut inside a quoted cell: what it holds
    /// of it, and maybe of rows behind it, would be taken for a value.
    pub(super) fn finish(&mut self) -> Result<Vec<Row>, String> {
        if self.cell == Cell::Quoted {
            let before = self.pending.get(..self.whole).unwrap_or_default();
            let line = self.line + before.iter().filter(|byte| **byte == b'\n').count() as u64;
            return Err(format!("the row that begins on line {line} ends inside a quoted cell: the file is cut short"));
        }
        self.whole = self.pending.len();
        Ok(self.take())
    }

    fn read(&mut self, ready: &[u8]) -> Vec<Row> {
        match self.format {
            Format::Ndjson => self.read_ndjson(ready),
            Format::Csv => self.read_csv(ready),
        }
    }

    fn read_ndjson(&mut self, ready: &[u8]) -> Vec<Row> {
        let mut rows = Vec::new();
        for text in ready.split_inclusive(|byte| *byte == b'\n') {
            let line = self.line;
            self.line += 1;
            let text = text.trim_ascii();
            if !text.is_empty() {
                let members = serde_json::from_slice(text).map_err(|error| format!("not a JSON object: {error}"));
                rows.push(Row { line, members });
            }
        }
        rows
    }

    fn read_csv(&mut self, ready: &[u8]) -> Vec<Row> {
        let ready = if self.line == 1 { ready.strip_prefix(BYTE_ORDER_MARK).unwrap_or(ready) } else { ready };
        let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(ready);
        let mut rows = Vec::new();
        let mut lines = Lines { text: ready, at: 0, line: self.line };
        for record in reader.records() {
            match record {
                Ok(record) => {
                    let line = lines.line_at(record.position());
                    match &self.header {
                        None => self.header = Some(record.iter().map(|name| name.trim().to_owned()).collect()),
                        Some(header) => rows.push(Row { line, members: csv_members(header, &record) }),
                    }
                }
                Err(error) => {
                    let line = lines.line_at(error.position());
                    rows.push(Row { line, members: Err(format!("not a CSV record: {error}")) });
                }
            }
        }
        self.line += ready.iter().filter(|byte| **byte == b'\n').count() as u64;
        rows
    }
}

/// Counts lines up to rising positions; the csv reader's own count is one short after `\r\n`.
struct Lines<'text> {
    text: &'text [u8],
    at: usize,
    line: u64,
}

impl Lines<'_> {
    fn line_at(&mut self, position: Option<&csv::Position>) -> u64 {
        let target = position.and_then(|position| usize::try_from(position.byte()).ok()).unwrap_or(self.at);
        while let Some(byte) = self.text.get(self.at) {
            if self.at >= target && !matches!(byte, b'\r' | b'\n') {
                break;
            }
            self.line += u64::from(*byte == b'\n');
            self.at += 1;
        }
        self.line
    }
}

/// The cells under their names. An empty one without a name is left out: spreadsheets end lines with commas.
fn csv_members(header: &[String], record: &csv::StringRecord) -> Result<Map<String, Value>, String> {
    if record.len() != header.len() {
        return Err(format!("{} cells, but the header has {}", record.len(), header.len()));
    }
    let named = header.iter().zip(record).filter(|(name, cell)| !name.is_empty() || !cell.trim().is_empty());
    Ok(named.map(|(name, cell)| (name.clone(), csv_value(cell))).collect())
}

/// Lists, objects and booleans are read as JSON; everything else stays text, so that `007` keeps its zeros.
fn csv_value(cell: &str) -> Value {
    match cell.as_bytes().first() {
        Some(b'[' | b'{') => serde_json::from_str(cell).unwrap_or_else(|_| Value::from(cell)),
        _ if cell == "true" || cell == "false" => Value::Bool(cell == "true"),
        _ => Value::from(cell),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn rows(format: Format, pieces: &[&[u8]]) -> Vec<Row> {
        let mut splitter = Splitter::new(format);
        let mut rows = Vec::new();
        for piece in pieces {
            splitter.push(piece).expect("short lines");
            rows.extend(splitter.take());
        }
        rows.extend(splitter.finish().expect("no cut cell"));
        rows
    }

    fn lines(rows: &[Row]) -> Vec<(u64, Option<Value>)> {
        rows.iter().map(|row| (row.line, row.members.clone().ok().map(Value::Object))).collect()
    }

    #[test]
    fn ndjson_keeps_line_numbers_over_blank_and_broken_lines() {
        let text = b"{\"a\":1}\n\n{broken\r\n{\"a\":2}";
        assert_eq!(
            lines(&rows(Format::Ndjson, &[text])),
            [(1, Some(json!({"a": 1}))), (3, None), (4, Some(json!({"a": 2})))]
        );
    }

    #[test]
    fn csv_reads_quotes_with_line_breaks_and_reports_short_rows() {
        let text = b"\xef\xbb\xbfid,text,tags\r\na,\"two\nlines, \"\"quoted\"\"\",\"[\"\"x\"\"]\"\nb\nc,007,\n";
        assert_eq!(
            lines(&rows(Format::Csv, &[text])),
            [
                (2, Some(json!({"id": "a", "text": "two\nlines, \"quoted\"", "tags": ["x"]}))),
                (4, None),
                (5, Some(json!({"id": "c", "text": "007", "tags": ""}))),
            ]
        );
    }

    /// Such a file was taken as it stood, with whatever followed the quote in one cell.
    #[test]
    fn a_csv_that_ends_inside_a_quoted_cell_is_refused_by_its_line() {
        let end = |text: &str| {
            let mut splitter = Splitter::new(Format::Csv);
            splitter.push(text.as_bytes()).unwrap();
            splitter.finish().map(|rows| rows.len())
        };
        for whole in
            ["a,b\n1,\"x\"", "a,b\n1,\"x\"\"\"\n", "a,b\n1,5\" pipe\n", "\u{feff}\"a\",b\n1,2", "a,b\r1,\"2\n\""]
        {
            assert_eq!(end(whole), Ok(1), "{whole:?}");
        }
        for (cut, line) in [("a,b\n1,2\n3,\"x\ny\nz,1\n", 3), ("a,b\n\"1\n\",\"2", 2), ("a,\"b", 1), ("\u{feff}\"a", 1)]
        {
            let refused = end(cut).unwrap_err();
            assert!(refused.contains(&format!("line {line} ")), "{cut:?}: {refused}");
        }
    }

    #[test]
    fn a_quote_inside_a_plain_cell_opens_nothing() {
        let mut splitter = Splitter::new(Format::Csv);
        let text = b"a,b\n1,5\" pipe\n2,x\n";
        splitter.push(text).unwrap();
        assert_eq!(splitter.waiting(), text.len(), "every row is whole");
        assert_eq!(splitter.take()[0].members.as_ref().unwrap()["b"], "5\" pipe");
    }

    #[test]
    fn an_endless_line_is_refused() {
        let mut splitter = Splitter::new(Format::Ndjson);
        let piece = vec![b'x'; limits::IMPORT_LINE_BYTES_MAX];
        assert!(splitter.push(&piece).is_ok());
        assert!(splitter.push(b"x").is_err());
    }

    proptest! {
        #[test]
        fn the_cut_of_the_stream_does_not_matter(cut_a in 0_usize..60, cut_b in 0_usize..60, csv in any::<bool>()) {
            let (format, text): (_, &[u8]) = if csv {
                (Format::Csv, b"id,text\na,\"x\ny, \"\"z\"\"\"\nb,plain\nc\nd,\"q\"\n")
            } else {
                (Format::Ndjson, b"{\"a\":\"\xc3\xa4\"}\n\n{\"a\":2}\nnonsense\n{\"a\":3}")
            };
            let (low, high) = (cut_a.min(cut_b).min(text.len()), cut_a.max(cut_b).min(text.len()));
            let whole = rows(format, &[text]);
            let cut = rows(format, &[&text[..low], &text[low..high], &text[high..]]);
            prop_assert_eq!(lines(&whole), lines(&cut));
        }
    }
}
