//! One page of a list: by number or by cursor, with or without a total.
//!
//! Keeps true: walking by cursor visits every record that stays where it is exactly once, whatever is inserted beside
//! it; a cursor is good only for the tenant, collection, filter, search and sort it was made for.
//! Does not do: choosing the order (that is `query::plan`).

use super::embed::Objects;
use super::plans::{Access, ListWork};
use super::read::ExportPage;
use super::{Answer, PageLinks, RecordError, Scope};
use crate::kernel::value::{Cell, Stored};
use crate::query::list::ListQuery;
use crate::query::page::{Cursor, CursorBinding, CursorSigner, Direction, sort_text};
use crate::query::plan::Position;
use crate::schema::{Collection, json};
use crate::secrets::keys::{KeyPurpose, MacKey};
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

struct Signer(MacKey);

impl CursorSigner for Signer {
    fn sign(&self, message: &[u8]) -> [u8; 32] {
        self.0.sign(message)
    }
}

fn signer(scope: &Scope) -> Signer {
    Signer(scope.tools.secret.derive(scope.tenant.id(), KeyPurpose::Cursor))
}

impl Place {
    /// Reads the cursor of `query`, if it has one.
    pub(super) fn find(scope: &Scope, collection: &Collection, query: &ListQuery) -> Result<Self, RecordError> {
        match query.cursor.as_deref() {
            None => Ok(Self::Page),
            Some("") => Ok(Self::First),
            Some(text) => {
                let sort = sort_text(&query.sort);
                let binding = binding(scope, collection, query, &sort);
                Ok(Self::From(Cursor::decode(text.as_bytes(), &signer(scope), &binding)?))
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
    links: PageLinks,
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
            for (name, cursor) in [("nextCursor", &loaded.links.next), ("prevCursor", &loaded.links.prev)] {
                out.extend_from_slice(format!(",\"{name}\":").as_bytes());
                match cursor {
                    Some(cursor) => json::write_string(&mut out, cursor),
                    None => out.extend_from_slice(b"null"),
                }
            }
        }
        out.push(b'}');
        Ok(Answer { links: loaded.links, ..Answer::new(out) })
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
        Ok(ExportPage { lines, columns, next_cursor: loaded.links.next })
    }

    fn rows(&self) -> Result<Loaded, RecordError> {
        let Self { reader, scope, query, place, work, .. } = *self;
        if work.access != Access::Checked {
            return Ok(Loaded { objects: Objects::default(), order: Vec::new(), links: PageLinks::default() });
        }
        let mut keys: Vec<Vec<Stored>> = Vec::new();
        let arguments = place.arguments(query);
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
        let links = self.links(&keys, more);
        Ok(Loaded { objects, order, links })
    }

    /// Cursors to the pages after and before this; `keys` in the order of the answer, `more` in the direction of reading.
    fn links(&self, keys: &[Vec<Stored>], more: bool) -> PageLinks {
        let (has_next, has_prev) = match self.place {
            Place::Page => return PageLinks::default(),
            Place::First => (more, false),
            Place::From(Cursor { direction: Direction::Forward, .. }) => (more, true),
            Place::From(Cursor { direction: Direction::Backward, .. }) => (true, more),
        };
        let sort = sort_text(&self.query.sort);
        let (signer, binding) = (signer(self.scope), binding(self.scope, self.collection, self.query, &sort));
        let cursor = |direction, keys: Option<&Vec<Stored>>| {
            let keys = keys?.clone();
            Some(Arc::from(Cursor { direction, keys }.encode(&signer, &binding)))
        };
        PageLinks {
            next: if has_next { cursor(Direction::Forward, keys.last()) } else { None },
            prev: if has_prev { cursor(Direction::Backward, keys.first()) } else { None },
        }
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
        let binds = work.plan.count.fill(&scope.request, &[]);
        let counted = reader.find_one(&work.plan.count.sql, &binds, |row| match row.cell(0)? {
            Cell::Integer(count) => Ok(count),
            _ => Ok(0),
        })?;
        Ok(Some(counted.unwrap_or(0)))
    }
}
