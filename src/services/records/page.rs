//! One page of a list: by number or by cursor, with or without a total.
//!
//! Keeps true: walking by cursor visits every record that stays where it is exactly once, whatever is inserted beside
//! it; a cursor is good only for the tenant, collection, filter, search and sort it was made for.
//! Does not do: choosing the order (that is `query::plan`).

use super::embed::Objects;
use super::plans::{Access, ListWork};
use super::read::{ExportPage, ListRequest};
use super::{Answer, PageLinks, RecordError, Scope};
use crate::kernel::value::{Cell, Stored};
use crate::query::error::{Problem, QueryError, Surface};
use crate::query::list::ListQuery;
use crate::query::page::{Cursor, CursorBinding, CursorSealer, Direction, sort_text};
use crate::query::plan::Position;
use crate::schema::{Collection, json};
use crate::secrets::keys::KeyPurpose;
use crate::secrets::steady::SteadyKey;
use crate::store::Reader;
use std::sync::Arc;

/// Which page is wanted.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Place {
    /// By its number.
    Page,
    /// The first one, to go on by cursor.
    First,
    /// The one beyond a cursor.
    From(Cursor),
}

struct Sealer(SteadyKey);

impl CursorSealer for Sealer {
    fn seal(&self, bound: &[u8], plain: &[u8]) -> Vec<u8> {
        self.0.seal(bound, plain)
    }

    fn open(&self, bound: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        self.0.open(bound, sealed)
    }
}

fn sealer(scope: &Scope) -> Sealer {
    Sealer(SteadyKey::new(&scope.tools.secret, scope.tenant.id(), KeyPurpose::Cursor))
}

impl Place {
    /// Reads the cursor of `request`, if it has one.
    pub(super) fn find(scope: &Scope, collection: &Collection, request: &ListRequest) -> Result<Self, RecordError> {
        if let Some(cursor) = &request.resumed {
            return Ok(Self::From(cursor.clone()));
        }
        let query = &request.query;
        match query.cursor.as_deref() {
            None => Ok(Self::Page),
            Some("") => Ok(Self::First),
            Some(text) => {
                let sort = sort_text(&query.sort);
                let binding = binding(scope, collection, query, &sort);
                Ok(Self::From(Cursor::decode(text.as_bytes(), &sealer(scope), &binding)?))
            }
        }
    }

    pub(super) fn position(&self) -> Position {
        match self {
            Self::Page => Position::Offset,
            Self::First => Position::First,
            Self::From(cursor) => Position::From(cursor.direction),
        }
    }

    /// The arguments of the page's statement. By cursor one row more is read, to know whether there is more.
    pub(super) fn arguments(&self, query: &ListQuery) -> Vec<Stored> {
        let number = |count: usize| Stored::Integer(i64::try_from(count).unwrap_or(i64::MAX));
        match self {
            Self::Page => vec![number(query.per_page), number(query.offset())],
            Self::First => vec![number(query.per_page + 1)],
            Self::From(cursor) => {
                std::iter::once(number(query.per_page + 1)).chain(cursor.keys.iter().cloned()).collect()
            }
        }
    }
}

fn binding<'b>(scope: &'b Scope, collection: &'b Collection, query: &'b ListQuery, sort: &'b str) -> CursorBinding<'b> {
    CursorBinding {
        tenant: scope.tenant.id().as_str(),
        collection: collection.id.as_str(),
        filter: query.filter.as_deref().unwrap_or_default(),
        search: query.search.as_deref().unwrap_or_default(),
        sort,
    }
}

/// The rows of a page, in the order of the answer, and what lies beside them.
struct Loaded {
    objects: Objects,
    /// Places in `objects`, in the order of the answer.
    order: Vec<usize>,
    beside: Beside,
}

/// Where the pages after and before a page begin.
#[derive(Default)]
struct Beside {
    next: Option<Cursor>,
    prev: Option<Cursor>,
}

/// A page that is about to be read from one snapshot.
pub(super) struct PageLoad<'a> {
    pub(super) reader: &'a Reader<'a>,
    pub(super) scope: &'a Scope,
    pub(super) collection: &'a Collection,
    pub(super) query: &'a ListQuery,
    pub(super) place: &'a Place,
    pub(super) work: &'a ListWork,
}

impl PageLoad<'_> {
    /// The page as an answer.
    pub(super) fn answer(&self) -> Result<Answer, RecordError> {
        let (query, loaded) = (self.query, self.rows()?);
        let links = self.links(&loaded.beside);
        let total = self.total(loaded.order.len())?;
        let pages = total.map_or(-1, |total| (total + query.per_page as i64 - 1) / (query.per_page as i64).max(1));
        let mut out = format!(
            "{{\"page\":{},\"perPage\":{},\"totalItems\":{},\"totalPages\":{pages},\"items\":[",
            query.page,
            query.per_page,
            total.unwrap_or(-1)
        )
        .into_bytes();
        loaded.objects.write(&mut out, loaded.order.into_iter(), b',');
        out.push(b']');
        if *self.place != Place::Page {
            for (name, cursor) in [("nextCursor", &links.next), ("prevCursor", &links.prev)] {
                out.extend_from_slice(format!(",\"{name}\":").as_bytes());
                match cursor {
                    Some(cursor) => json::write_string(&mut out, cursor),
                    None => out.extend_from_slice(b"null"),
                }
            }
        }
        out.push(b'}');
        Ok(Answer { links, ..Answer::new(out) })
    }

    /// The page as lines, one object each.
    pub(super) fn lines(&self) -> Result<ExportPage, RecordError> {
        let loaded = self.rows()?;
        let mut lines = Vec::new();
        let any = !loaded.order.is_empty();
        loaded.objects.write(&mut lines, loaded.order.into_iter(), b'\n');
        if any {
            lines.push(b'\n');
        }
        let row = &self.work.plan.row;
        let prefix = [(row.shows_collection_id, "collectionId"), (row.shows_collection_name, "collectionName")];
        let columns = prefix
            .into_iter()
            .filter(|(shown, _)| *shown)
            .map(|(_, name)| name.to_owned())
            .chain(row.columns.iter().filter(|column| column.shown).map(|column| column.name.to_string()))
            .collect();
        Ok(ExportPage { lines, columns, next: loaded.beside.next })
    }

    fn rows(&self) -> Result<Loaded, RecordError> {
        let Self { reader, scope, query, place, work, .. } = *self;
        if work.access != Access::Checked {
            return Ok(Loaded { objects: Objects::default(), order: Vec::new(), beside: Beside::default() });
        }
        let mut keys: Vec<Vec<Stored>> = Vec::new();
        let arguments = self.whole_arguments()?;
        let objects = work.rows.load(reader, &scope.request, &work.plan.page, &arguments, &mut |row| {
            if !work.plan.keys.is_empty() {
                let cells = work.plan.keys.iter().map(|at| row.cell(*at).map(Cell::to_stored));
                keys.push(cells.collect::<Result<_, _>>()?);
            }
            Ok(())
        })?;
        let more = *place != Place::Page && objects.len() > query.per_page;
        let count = objects.len().min(query.per_page);
        keys.truncate(count);
        let mut order: Vec<usize> = (0..count).collect();
        if work.plan.reversed {
            order.reverse();
            keys.reverse();
        }
        let beside = self.beside(&keys, more);
        Ok(Loaded { objects, order, beside })
    }

    /// The arguments of the page, where a cursor holds the beginning of a key with that key as the record has it.
    fn whole_arguments(&self) -> Result<Vec<Stored>, RecordError> {
        let Self { reader, scope, query, place, work, .. } = *self;
        let mut arguments = place.arguments(query);
        let Place::From(cursor) = place else { return Ok(arguments) };
        if cursor.cut.is_empty() {
            return Ok(arguments);
        }
        let moved = || RecordError::Query(QueryError::whole(Surface::Cursor, Problem::MovedCursor));
        let seek = work.plan.seek.as_ref().ok_or_else(moved)?;
        let found = reader.find_one(&seek.sql, &seek.fill(&scope.request, &arguments), |row| {
            (0..cursor.keys.len()).map(|at| row.cell(at).map(Cell::to_stored)).collect::<Result<Vec<_>, _>>()
        })?;
        let found = found.ok_or_else(moved)?;
        for (at, (whole, held)) in found.into_iter().zip(&cursor.keys).enumerate() {
            let same = match (whole.as_text(), held.as_text()) {
                (Some(whole), Some(held)) if cursor.cut.contains(&at) => whole.starts_with(held),
                _ => whole == *held,
            };
            let slot = arguments.get_mut(at + 1).filter(|_| same).ok_or_else(moved)?;
            *slot = whole;
        }
        Ok(arguments)
    }

    /// The places after and before this page; `keys` in the order of the answer, `more` in the direction of reading.
    fn beside(&self, keys: &[Vec<Stored>], more: bool) -> Beside {
        let (has_next, has_prev) = match self.place {
            Place::Page => return Beside::default(),
            Place::First => (more, false),
            Place::From(Cursor { direction: Direction::Forward, .. }) => (more, true),
            Place::From(Cursor { direction: Direction::Backward, .. }) => (true, more),
        };
        let at = |direction, keys: Option<&Vec<Stored>>| Some(Cursor::new(direction, keys?.clone()));
        Beside {
            next: if has_next { at(Direction::Forward, keys.last()) } else { None },
            prev: if has_prev { at(Direction::Backward, keys.first()) } else { None },
        }
    }

    /// The cursors as text.
    fn links(&self, beside: &Beside) -> PageLinks {
        if beside.next.is_none() && beside.prev.is_none() {
            return PageLinks::default();
        }
        let sort = sort_text(&self.query.sort);
        let (sealer, binding) = (sealer(self.scope), binding(self.scope, self.collection, self.query, &sort));
        let text = |cursor: &Cursor| Arc::from(cursor.encode(&sealer, &binding));
        PageLinks { next: beside.next.as_ref().map(text), prev: beside.prev.as_ref().map(text) }
    }

    /// How many records there are; `None` where nobody asked, and beyond the first page of a walk by cursor.
    fn total(&self, shown: usize) -> Result<Option<i64>, RecordError> {
        let Self { reader, scope, query, place, work, .. } = *self;
        if query.skip_total || matches!(place, Place::From(_)) {
            return Ok(None);
        }
        if work.access != Access::Checked {
            return Ok(Some(0));
        }
        // The last page says how many there are without counting.
        let is_last = shown < query.per_page && (shown > 0 || query.offset() == 0);
        if is_last {
            let before = if *place == Place::Page { query.offset() } else { 0 };
            return Ok(i64::try_from(before + shown).ok());
        }
        if work.plan.counts_all {
            return Ok(Some(reader.count_records(self.collection)?));
        }
        let binds = work.plan.count.fill(&scope.request, &[]);
        let counted = reader.find_one(&work.plan.count.sql, &binds, |row| match row.cell(0)? {
            Cell::Integer(count) => Ok(count),
            _ => Ok(0),
        })?;
        Ok(Some(counted.unwrap_or(0)))
    }
}
