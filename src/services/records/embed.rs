//! Rows with what they embed: each `expand` node is one query per page, whatever the number of rows.
//!
//! Keeps true: the number of queries is one for the rows and one per node of the expand tree; an embedded record is
//! written by the shape that its own rules gave it; the records of all nodes together are bounded.
//! Does not do: choosing what to embed (that is `query::plan`).

use super::RecordError;
use super::shape::{RowWriter, holds, key, push_key};
use crate::kernel::ident::FieldNumber;
use crate::kernel::limits;
use crate::kernel::value::{Cell, Stored};
use crate::query::plan::{Expand, ExpandLink};
use crate::query::request::RequestContext;
use crate::query::statement::{RowShape, Statement};
use crate::store::{Reader, Row, StoreError};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How rows are read, written and completed; made once per plan.
#[derive(Debug)]
pub(super) struct Embedding {
    writer: RowWriter,
    id_at: Option<usize>,
    nodes: Vec<Node>,
    /// Bytes that the rows took last time; the next time they take about as many.
    bytes_hint: AtomicUsize,
}

#[derive(Debug)]
struct Node {
    /// `"name":`
    key: Vec<u8>,
    link: Link,
    statement: Statement,
    inner: Embedding,
}

#[derive(Debug)]
enum Link {
    /// The embedding row holds the ids.
    Forward { value_at: usize, guard_at: Option<usize>, list: bool },
    /// The embedded row holds the ids of the rows that embed it.
    Backward { value_at: usize, list: bool, single: bool },
}

/// Finished objects, one after the other.
#[derive(Debug, Default)]
pub(super) struct Objects {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

/// Bytes that are set aside for rows before the first is read, at most.
const BYTES_HINT_MAX: usize = 64 * 1024;

/// Rows that have been read and not been completed.
struct Rows {
    open: Objects,
    ids: Vec<String>,
    /// For each node, for each row: the ids it embeds.
    links: Vec<Vec<Vec<String>>>,
}

/// What the expand of an answer may still load and write.
struct Allowance {
    records: usize,
    bytes: usize,
}

impl Allowance {
    /// What a whole answer has.
    fn whole() -> Self {
        Self { records: limits::EXPAND_RECORDS_MAX, bytes: limits::EXPAND_BYTES_MAX }
    }

    fn load(&mut self, records: usize) -> Result<(), RecordError> {
        self.records = self.records.checked_sub(records).ok_or(RecordError::ExpandTooLarge)?;
        Ok(())
    }

    /// Before anything is written: a record that a thousand others embed is written a thousand times, on every level.
    fn write(&mut self, bytes: usize) -> Result<(), RecordError> {
        self.bytes = self.bytes.checked_sub(bytes).ok_or(RecordError::ExpandTooLarge)?;
        Ok(())
    }
}

impl Embedding {
    /// Prepares the rows of a statement and what they embed.
    pub(super) fn new(row: &RowShape, expands: &[Expand]) -> Self {
        let nodes = expands.iter().filter_map(|expand| Node::new(row, expand)).collect();
        let bytes_hint = AtomicUsize::new(0);
        Self { writer: RowWriter::of_records(row), id_at: row.find(FieldNumber(0)), nodes, bytes_hint }
    }

    /// Reads the rows of `statement` and completes them; `each` sees every row.
    pub(super) fn load(
        &self,
        reader: &Reader<'_>,
        request: &RequestContext,
        statement: &Statement,
        arguments: &[Stored],
        each: &mut dyn FnMut(&Row<'_>) -> Result<(), StoreError>,
    ) -> Result<Objects, RecordError> {
        let rows = self.read(reader, request, statement, arguments, each)?;
        self.complete(reader, request, rows, &mut Allowance::whole())
    }

    fn read(
        &self,
        reader: &Reader<'_>,
        request: &RequestContext,
        statement: &Statement,
        arguments: &[Stored],
        each: &mut dyn FnMut(&Row<'_>) -> Result<(), StoreError>,
    ) -> Result<Rows, RecordError> {
        let bytes = Vec::with_capacity(self.bytes_hint.load(Ordering::Relaxed).min(BYTES_HINT_MAX));
        let open = Objects { bytes, ends: Vec::new() };
        let mut rows = Rows { links: self.nodes.iter().map(|_| Vec::new()).collect(), open, ids: Vec::new() };
        reader.for_each(&statement.sql, &statement.fill(request, arguments), &mut |row| {
            self.writer.write_open(&mut rows.open.bytes, row)?;
            if self.nodes.is_empty() {
                rows.open.bytes.push(b'}');
            } else {
                rows.ids.push(text(row, self.id_at)?);
                for (node, links) in self.nodes.iter().zip(&mut rows.links) {
                    links.push(node.links_of(row)?);
                }
            }
            rows.open.ends.push(rows.open.bytes.len());
            each(row)
        })?;
        self.bytes_hint.store(rows.open.bytes.len(), Ordering::Relaxed);
        Ok(rows)
    }

    /// Adds `expand` to every row and closes it.
    fn complete(
        &self,
        reader: &Reader<'_>,
        request: &RequestContext,
        rows: Rows,
        allowance: &mut Allowance,
    ) -> Result<Objects, RecordError> {
        if self.nodes.is_empty() {
            return Ok(rows.open);
        }
        let mut embedded = Vec::with_capacity(self.nodes.len());
        for (node, links) in self.nodes.iter().zip(&rows.links) {
            embedded.push(node.load(reader, request, &rows.ids, links, allowance)?);
        }
        let mut out = Objects::default();
        for index in 0..rows.open.ends.len() {
            out.bytes.extend_from_slice(rows.open.get(index));
            let mut inside = vec![b'{'];
            for ((node, loaded), links) in self.nodes.iter().zip(&embedded).zip(&rows.links) {
                let own = rows.ids.get(index).map(String::as_str).unwrap_or_default();
                let targets = links.get(index).map(Vec::as_slice).unwrap_or_default();
                node.write(&mut inside, loaded, own, targets, allowance)?;
            }
            if inside.len() > 1 {
                push_key(&mut out.bytes, b"\"expand\":");
                out.bytes.extend_from_slice(&inside);
                out.bytes.push(b'}');
            }
            out.bytes.push(b'}');
            out.ends.push(out.bytes.len());
        }
        Ok(out)
    }
}

/// What one node loaded for a page.
struct Loaded {
    objects: Objects,
    /// Which objects belong to an id, in order.
    by_id: HashMap<String, Vec<usize>>,
}

impl Node {
    fn new(row: &RowShape, expand: &Expand) -> Option<Self> {
        let link = match expand.link {
            ExpandLink::Forward { field, list } => {
                let value_at = row.find(field)?;
                Link::Forward { value_at, guard_at: row.columns.get(value_at)?.guard, list }
            }
            ExpandLink::Backward { column, list, single } => Link::Backward { value_at: column, list, single },
        };
        Some(Self {
            key: key(&expand.name),
            link,
            statement: expand.statement.clone(),
            inner: Embedding::new(&expand.row, &expand.children),
        })
    }

    /// The ids that a row embeds through this node; for a back-relation they stand in the other rows.
    fn links_of(&self, row: &Row<'_>) -> Result<Vec<String>, StoreError> {
        match self.link {
            Link::Forward { value_at, guard_at, list } => match guard_at {
                Some(guard_at) if !holds(row, guard_at)? => Ok(Vec::new()),
                _ => ids(row, value_at, list),
            },
            Link::Backward { .. } => Ok(Vec::new()),
        }
    }

    fn load(
        &self,
        reader: &Reader<'_>,
        request: &RequestContext,
        own: &[String],
        links: &[Vec<String>],
        allowance: &mut Allowance,
    ) -> Result<Loaded, RecordError> {
        let mut wanted: Vec<&str> = match self.link {
            Link::Forward { .. } => links.iter().flatten().map(String::as_str).collect(),
            Link::Backward { .. } => own.iter().map(String::as_str).collect(),
        };
        wanted.sort_unstable();
        wanted.dedup();
        if wanted.is_empty() {
            return Ok(Loaded { objects: Objects::default(), by_id: HashMap::new() });
        }
        let argument = Stored::from(serde_json::Value::from(wanted).to_string());
        let (mut by_id, mut index) = (HashMap::<String, Vec<usize>>::new(), 0);
        let rows = self.inner.read(reader, request, &self.statement, &[argument], &mut |row| {
            let belongs = match self.link {
                Link::Forward { .. } => vec![text(row, self.inner.id_at)?],
                Link::Backward { value_at, list, .. } => ids(row, value_at, list)?,
            };
            for id in belongs {
                by_id.entry(id).or_default().push(index);
            }
            index += 1;
            Ok(())
        })?;
        allowance.load(index)?;
        Ok(Loaded { objects: self.inner.complete(reader, request, rows, allowance)?, by_id })
    }

    /// Writes the member for one row; nothing where nothing is found.
    fn write(
        &self,
        out: &mut Vec<u8>,
        loaded: &Loaded,
        own: &str,
        targets: &[String],
        allowance: &mut Allowance,
    ) -> Result<(), RecordError> {
        let of = |id: &str| loaded.by_id.get(id).map(Vec::as_slice).unwrap_or_default();
        let (found, single): (Vec<usize>, bool) = match self.link {
            Link::Forward { list, .. } => (targets.iter().flat_map(|id| of(id)).copied().collect(), !list),
            Link::Backward { single, .. } => {
                (of(own).iter().copied().take(limits::EXPAND_BACK_LEN_MAX).collect(), single)
            }
        };
        let Some(first) = found.first() else { return Ok(()) };
        let shown = if single { found.get(..1).unwrap_or_default() } else { &found };
        allowance.write(shown.iter().map(|index| loaded.objects.get(*index).len() + 1).sum())?;
        push_key(out, &self.key);
        if single {
            out.extend_from_slice(loaded.objects.get(*first));
            return Ok(());
        }
        out.push(b'[');
        for (place, index) in found.iter().enumerate() {
            if place > 0 {
                out.push(b',');
            }
            out.extend_from_slice(loaded.objects.get(*index));
        }
        out.push(b']');
        Ok(())
    }
}

impl Objects {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    fn get(&self, index: usize) -> &[u8] {
        let start = index.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        self.ends.get(index).and_then(|end| self.bytes.get(start..*end)).unwrap_or_default()
    }

    /// Writes the objects `indexes`, with `separator` between them.
    pub(super) fn write(&self, out: &mut Vec<u8>, indexes: impl Iterator<Item = usize>, separator: u8) {
        out.reserve(self.bytes.len() + self.ends.len());
        for (place, index) in indexes.enumerate() {
            if place > 0 {
                out.push(separator);
            }
            out.extend_from_slice(self.get(index));
        }
    }

    /// The first object alone, if there is one.
    pub(super) fn into_first(mut self) -> Option<Vec<u8>> {
        let end = self.ends.first().copied()?;
        self.bytes.truncate(end);
        Some(self.bytes)
    }
}

fn text(row: &Row<'_>, at: Option<usize>) -> Result<String, StoreError> {
    match at.map(|at| row.cell(at)).transpose()? {
        Some(Cell::Text(text)) => Ok(text.to_owned()),
        _ => Ok(String::new()),
    }
}

/// The ids in a relation column, empty ones left out.
fn ids(row: &Row<'_>, at: usize, list: bool) -> Result<Vec<String>, StoreError> {
    let Cell::Text(held) = row.cell(at)? else { return Ok(Vec::new()) };
    if list {
        // What is stored was checked when it was written; a view may hold anything.
        return Ok(serde_json::from_str(held).unwrap_or_default());
    }
    Ok(if held.is_empty() { Vec::new() } else { vec![held.to_owned()] })
}
