//! Walking a dotted path: fields, relations, back-relations, JSON, `@request`, `@collection`, modifiers.
//!
//! Keeps true: an unknown name and a name the caller may not know give the same error, also behind a relation to a
//! collection of which the caller is never shown a record; no path is deeper than `PATH_DEPTH_MAX` relations. Does not do: comparisons.

use crate::kernel::ident::FieldNumber;
use crate::kernel::limits;
use crate::kernel::value::Stored;
use crate::query::error::{Problem, QueryError, Span};
use crate::query::request::{Aspect, CallerClass, Place, RequestPath};
use crate::query::resolve::{Mode, Resolver, Side, is_nameable};
use crate::query::resolved::{Column, Hop, NodeIndex, Operand, ROOT, Slot, Visibility};
use crate::schema::Collection;
use crate::schema::field::{Field, FieldKind, Storage};
use std::borrow::Cow;
use std::sync::Arc;

/// What stands after the colon of the last name of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Modifier {
    None,
    Each,
    Length,
    Lower,
    IsSet,
    Changed,
}

const MODIFIERS: &[(&str, Modifier)] = &[
    ("each", Modifier::Each),
    ("length", Modifier::Length),
    ("lower", Modifier::Lower),
    ("isset", Modifier::IsSet),
    ("changed", Modifier::Changed),
];

impl Resolver<'_> {
    /// A path over the record itself, or one of the words `null`, `true`, `false`.
    pub(crate) fn path_from_root(&mut self, path: &str, span: Span, side: Side) -> Result<Operand, QueryError> {
        let collection = self.collection_of(ROOT);
        if collection.find_field(path).is_none() {
            let literal = [("null", Stored::Null), ("true", Stored::bool(true)), ("false", Stored::bool(false))];
            if let Some((_, value)) = literal.into_iter().find(|(word, _)| path.eq_ignore_ascii_case(word)) {
                return Ok(Operand::Constant(value));
            }
        }
        let segments: Vec<&str> = path.split('.').collect();
        self.walk(ROOT, &segments, span, side)
    }

    fn collection_of(&self, node: NodeIndex) -> Arc<Collection> {
        let collection = self.nodes.get(node).and_then(|node| node.collection.clone());
        collection.expect("invariant: paths only walk over rows of collections")
    }

    /// Follows `segments` from a row to a value.
    fn walk(&mut self, from: NodeIndex, segments: &[&str], span: Span, side: Side) -> Result<Operand, QueryError> {
        let mut here = from;
        for (depth, segment) in segments.iter().enumerate() {
            let rest = segments.get(depth + 1..).unwrap_or_default();
            let collection = self.collection_of(here);
            if rest.is_empty() {
                return self.last(here, &collection, segment, span, side);
            }
            if let Some(field) = collection.find_field(segment) {
                self.check_nameable(&collection, field, span)?;
                let column = self.column(here, &collection, field);
                match &field.kind {
                    FieldKind::Json { .. } | FieldKind::GeoPoint => return self.inside_json(column, rest, span),
                    FieldKind::Relation(relation) if relation.max_select <= 1 && rest == ["id"] => {
                        return Ok(Operand::Column(column));
                    }
                    FieldKind::Relation(_) => {}
                    _ => {
                        let reason = Cow::Borrowed("is not a relation or JSON field and has nothing inside");
                        return Err(self.error(span, Problem::Unsupported { name: (*segment).to_owned(), reason }));
                    }
                }
            }
            if depth >= limits::PATH_DEPTH_MAX {
                let problem = Problem::TooMany { what: "relations in one path", limit: limits::PATH_DEPTH_MAX };
                return Err(self.error(span, problem));
            }
            here = self.hop(here, &collection, segment, span, side)?;
            self.refuse_closed(here, rest, span)?;
        }
        Err(self.error(span, Problem::Syntax { expected: Cow::Borrowed("a field"), found: String::new() }))
    }

    fn hop(
        &mut self,
        here: NodeIndex,
        collection: &Arc<Collection>,
        segment: &str,
        span: Span,
        side: Side,
    ) -> Result<NodeIndex, QueryError> {
        if let Some(field) = collection.find_field(segment) {
            let link = Operand::Column(self.column(here, collection, field));
            return self.forward(here, field, link, span, side);
        }
        let Some((back, field)) = find_back_relation(self.lens.schema, collection, segment) else {
            return Err(self.unknown_field(collection, segment, span));
        };
        let closed = self.mode == Mode::Client && self.lens.listed(back) == Visibility::Never;
        if closed || !is_nameable(back, field, self.mode) {
            return Err(self.unknown_field(collection, segment, span));
        }
        let list = field.kind.is_list();
        let many = list || !is_unique_alone(back, field);
        let mut link = self.column(self.nodes.len(), back, field);
        // The link is a column of the reached row, whichever number that row gets; 0 keeps equal hops equal.
        link.node = ROOT;
        self.enter(here, Hop::Backward { link, list }, back.clone(), many, (span, side))
    }

    /// Refuses names in a collection of which this class of caller is never shown a record, whether they exist or not.
    fn refuse_closed(&self, node: NodeIndex, rest: &[&str], span: Span) -> Result<(), QueryError> {
        match self.nodes.get(node) {
            Some(node) if node.guard == Visibility::Never => {
                Err(self.unknown("field", rest.first().copied().unwrap_or_default(), span, []))
            }
            _ => Ok(()),
        }
    }

    /// The row or rows that a relation field's value points at.
    fn forward(
        &mut self,
        here: NodeIndex,
        field: &Field,
        link: Operand,
        span: Span,
        side: Side,
    ) -> Result<NodeIndex, QueryError> {
        let FieldKind::Relation(relation) = &field.kind else {
            let reason = Cow::Borrowed("is not a relation");
            return Err(self.error(span, Problem::Unsupported { name: field.name.to_string(), reason }));
        };
        let Some(target) = self.lens.schema.find_id(&relation.target).cloned() else {
            return Err(self.unknown("collection", relation.target.as_str(), span, []));
        };
        let list = field.kind.is_list();
        let hop = if list { Hop::ForwardList { link } } else { Hop::Forward { link } };
        self.enter(here, hop, target, list, (span, side))
    }

    /// The last name of a path, with its modifier.
    fn last(
        &mut self,
        here: NodeIndex,
        collection: &Arc<Collection>,
        segment: &str,
        span: Span,
        side: Side,
    ) -> Result<Operand, QueryError> {
        let (name, modifier) = self.split_modifier(segment, span)?;
        let Some(field) = collection.find_field(name) else {
            return match name {
                "collectionId" => Ok(Operand::Constant(Stored::text(&collection.id))),
                "collectionName" => Ok(Operand::Constant(Stored::text(&collection.name))),
                _ => Err(self.unknown_field(collection, name, span)),
            };
        };
        self.check_nameable(collection, field, span)?;
        let column = self.column(here, collection, field);
        let is_list = field.kind.is_list();
        match modifier {
            Modifier::Each if is_list => Ok(self.elements(here, Operand::Column(column), side)),
            // Without a modifier a list compares as its JSON text; only `?` looks at its elements by itself.
            Modifier::None if is_list && side.any => Ok(self.elements(here, Operand::Column(column), side)),
            Modifier::Length if can_be_list(field) => Ok(Operand::Length(column)),
            Modifier::None | Modifier::Each => Ok(plain(column)),
            Modifier::Lower => Ok(Operand::Lower(Box::new(plain(column)))),
            Modifier::Length => Err(self.modifier_unfit(segment, "needs a field that holds a list", span)),
            Modifier::IsSet | Modifier::Changed => {
                Err(self.modifier_unfit(segment, "only works on @request values", span))
            }
        }
    }

    fn elements(&mut self, here: NodeIndex, list: Operand, side: Side) -> Operand {
        let node = self.enter_list(here, list, side);
        Operand::Column(Column { node, slot: Slot::Element, guard: Visibility::Always, of_view: false })
    }

    fn inside_json(&self, column: Column, rest: &[&str], span: Span) -> Result<Operand, QueryError> {
        let (path, lower) = self.json_path(rest, span)?;
        let value = Operand::Json(column, path);
        Ok(if lower { Operand::Lower(Box::new(value)) } else { value })
    }

    /// The names inside a JSON value, and whether the last of them says `:lower`, the only modifier that fits there.
    fn json_path(&self, rest: &[&str], span: Span) -> Result<(Vec<Arc<str>>, bool), QueryError> {
        let mut path: Vec<Arc<str>> = Vec::with_capacity(rest.len());
        let mut lower = false;
        for (at, segment) in rest.iter().enumerate() {
            let (name, modifier) = self.split_modifier(segment, span)?;
            lower = modifier == Modifier::Lower;
            if name.is_empty() || (modifier != Modifier::None && (at + 1 < rest.len() || !lower)) {
                return Err(self.modifier_unfit(segment, "does not fit inside JSON", span));
            }
            path.push(Arc::from(name));
        }
        Ok((path, lower))
    }

    /// `name[:alias].path` after `@collection.`.
    pub(crate) fn anywhere(&mut self, rest: &str, span: Span, side: Side) -> Result<Operand, QueryError> {
        let mut segments: Vec<&str> = rest.split('.').collect();
        let first = segments.remove(0);
        let (name, alias) = first.split_once(':').unwrap_or((first, ""));
        let Some(collection) = self.lens.schema.find(name).cloned() else {
            let known: Vec<String> =
                self.lens.schema.collections().iter().map(|collection| collection.name.to_string()).collect();
            return Err(self.unknown("collection", name, span, known.iter().map(String::as_str)));
        };
        if segments.is_empty() {
            let expected = Cow::Borrowed("a field of the collection");
            return Err(self.error(span, Problem::Syntax { expected, found: rest.to_owned() }));
        }
        let hop = Hop::Anywhere { alias: Arc::from(alias) };
        let node = self.enter(ROOT, hop, collection, true, (span, side))?;
        self.walk(node, &segments, span, side)
    }

    /// What stands after `@request.`.
    pub(crate) fn request(&mut self, rest: &str, span: Span, side: Side) -> Result<Operand, QueryError> {
        let segments: Vec<&str> = rest.split('.').collect();
        let (first, names) = segments.split_first().map_or(("", &[][..]), |(first, names)| (*first, names));
        let (place, modifier) = match (first, names) {
            ("context", []) => (Place::Context, Modifier::None),
            ("method", []) => (Place::Method, Modifier::None),
            ("query", [name]) => {
                let (name, modifier) = self.split_modifier(name, span)?;
                (Place::Query(Arc::from(name)), modifier)
            }
            ("headers", [name]) => {
                let (name, modifier) = self.split_modifier(name, span)?;
                (Place::Header(Arc::from(name.to_lowercase())), modifier)
            }
            ("auth", [_, ..]) => return self.request_auth(names, span, side),
            ("body" | "data", [_, ..]) => return self.request_body(names, span, side),
            _ => {
                let known = ["context", "method", "query", "headers", "auth", "body"];
                return Err(self.unknown("request value", first, span, known));
            }
        };
        self.request_value(RequestPath::value(place), modifier, span, side)
    }

    fn request_value(
        &mut self,
        mut path: RequestPath,
        modifier: Modifier,
        span: Span,
        side: Side,
    ) -> Result<Operand, QueryError> {
        match modifier {
            Modifier::None => Ok(Operand::Request(path)),
            Modifier::Lower => Ok(Operand::Lower(Box::new(Operand::Request(path)))),
            Modifier::Each => Ok(self.elements(ROOT, Operand::Request(path), side)),
            Modifier::IsSet => {
                path.aspect = Aspect::IsSet;
                Ok(Operand::Request(path))
            }
            Modifier::Length => {
                path.aspect = Aspect::Length;
                Ok(Operand::Request(path))
            }
            Modifier::Changed => Err(self.modifier_unfit(":changed", "only works on @request.body fields", span)),
        }
    }

    fn request_body(&mut self, names: &[&str], span: Span, side: Side) -> Result<Operand, QueryError> {
        let root = self.collection_of(ROOT);
        let (last, modifier) = self.split_modifier(names.last().copied().unwrap_or_default(), span)?;
        let mut path: Vec<Arc<str>> = names.iter().map(|name| Arc::from(*name)).collect();
        if let Some(slot) = path.last_mut() {
            *slot = Arc::from(last);
        }
        let field = names.first().and_then(|first| root.find_field(first.split(':').next().unwrap_or_default()));
        if let (Some(field), [first, rest @ ..]) = (field, names)
            && !rest.is_empty()
            && matches!(field.kind, FieldKind::Relation(_))
        {
            let link = Operand::Request(RequestPath::value(Place::Body(vec![Arc::from(*first)])));
            let node = self.forward(ROOT, field, link, span, side)?;
            return self.walk(node, rest, span, side);
        }
        if modifier != Modifier::Changed {
            return self.request_value(RequestPath::value(Place::Body(path)), modifier, span, side);
        }
        match field {
            Some(field) if names.len() == 1 => {
                self.check_nameable(&root, field, span)?;
                let sent = RequestPath::value(Place::Body(path));
                let is_set = RequestPath { aspect: Aspect::Replaces, ..sent.clone() };
                Ok(Operand::Changed { is_set, sent, column: self.column(ROOT, &root, field) })
            }
            _ => Err(self.unknown_field(&root, last, span)),
        }
    }

    fn request_auth(&mut self, names: &[&str], span: Span, side: Side) -> Result<Operand, QueryError> {
        let first = names.first().copied().unwrap_or_default();
        let (name, modifier) =
            if names.len() == 1 { self.split_modifier(first, span)? } else { (first, Modifier::None) };
        self.check_auth_name(name, span)?;
        let collection = match self.lens.class {
            CallerClass::Auth(id) => self.lens.schema.find_id(id).cloned(),
            CallerClass::Anonymous | CallerClass::Superuser => None,
        };
        if *self.lens.class == CallerClass::Anonymous {
            return Ok(Operand::Constant(if modifier == Modifier::IsSet { Stored::bool(false) } else { Stored::Null }));
        }
        if names.len() == 1 && name == "id" {
            // The node acts as a superuser without being a record, so only there the id may be empty.
            let place = match collection {
                Some(_) => Place::AuthId,
                None => Place::AuthField(FieldNumber(0), Vec::new()),
            };
            return self.request_value(RequestPath::value(place), modifier, span, side);
        }
        let Some(collection) = collection else {
            return Ok(Operand::Constant(match name {
                "collectionName" => Stored::text("_superusers"),
                _ => Stored::Null,
            }));
        };
        match name {
            "collectionId" => return Ok(Operand::Constant(Stored::text(&collection.id))),
            "collectionName" => return Ok(Operand::Constant(Stored::text(&collection.name))),
            _ => {}
        }
        let Some(field) = collection.find_field(name) else {
            if names.len() > 1 && find_back_relation(self.lens.schema, &collection, name).is_some() {
                let link = Operand::Request(RequestPath::value(Place::AuthId));
                let node = self.enter(ROOT, Hop::Forward { link }, collection, false, (span, side))?;
                return self.walk(node, names, span, side);
            }
            // Another auth collection has it; for this class of caller it is empty.
            return Ok(Operand::Constant(Stored::Null));
        };
        self.auth_field(field, names.get(1..).unwrap_or_default(), modifier, span, side)
    }

    /// A field of the logged-in record, or what lies behind it.
    fn auth_field(
        &mut self,
        field: &Field,
        rest: &[&str],
        modifier: Modifier,
        span: Span,
        side: Side,
    ) -> Result<Operand, QueryError> {
        let value = |path| RequestPath::value(Place::AuthField(field.number, path));
        if rest.is_empty() {
            let of_elements = side.any && modifier == Modifier::None && field.kind.is_list();
            return self.request_value(
                value(Vec::new()),
                if of_elements { Modifier::Each } else { modifier },
                span,
                side,
            );
        }
        match &field.kind {
            FieldKind::Relation(_) if rest == ["id"] && !field.kind.is_list() => {
                Ok(Operand::Request(value(Vec::new())))
            }
            FieldKind::Relation(_) => {
                let node = self.forward(ROOT, field, Operand::Request(value(Vec::new())), span, side)?;
                self.walk(node, rest, span, side)
            }
            FieldKind::Json { .. } | FieldKind::GeoPoint => {
                let (path, lower) = self.json_path(rest, span)?;
                let found = Operand::Request(value(path));
                Ok(if lower { Operand::Lower(Box::new(found)) } else { found })
            }
            _ => Err(self.modifier_unfit(field.name.as_str(), "has nothing inside", span)),
        }
    }

    /// Refuses a name that no auth collection knows, whoever asks.
    fn check_auth_name(&self, name: &str, span: Span) -> Result<(), QueryError> {
        const ALWAYS: [&str; 9] = [
            "id",
            "collectionId",
            "collectionName",
            "email",
            "emailVisibility",
            "verified",
            "created",
            "updated",
            "tokenKey",
        ];
        let mut auths = self.lens.schema.collections().iter().filter(|collection| collection.is_auth());
        let known = ALWAYS.contains(&name)
            || auths.clone().any(|collection| {
                collection.find_field(name).is_some_and(|field| is_nameable(collection, field, Mode::Rule))
                    || find_back_relation(self.lens.schema, collection, name).is_some()
            });
        if known {
            return Ok(());
        }
        let names: Vec<String> = auths
            .by_ref()
            .flat_map(|collection| collection.fields.iter().filter(|field| is_nameable(collection, field, Mode::Rule)))
            .map(|field| field.name.to_string())
            .collect();
        Err(self.unknown("field of the caller", name, span, names.iter().map(String::as_str)))
    }

    /// A column of `collection` at `node` as this caller sees it.
    fn column(&self, node: NodeIndex, collection: &Arc<Collection>, field: &Field) -> Column {
        let guard = match self.mode {
            Mode::Client => self.lens.readable(collection, field),
            Mode::Rule | Mode::Superuser => Visibility::Always,
        };
        let slot = if field.number.0 == 0 { Slot::Id } else { Slot::Field(field.number, field.kind.storage()) };
        Column { node, slot, guard, of_view: collection.is_view() }
    }

    fn check_nameable(&self, collection: &Arc<Collection>, field: &Field, span: Span) -> Result<(), QueryError> {
        if is_nameable(collection, field, self.mode) {
            return Ok(());
        }
        Err(self.unknown_field(collection, field.name.as_str(), span))
    }

    fn unknown_field(&self, collection: &Arc<Collection>, name: &str, span: Span) -> QueryError {
        let known = collection
            .fields
            .iter()
            .filter(|field| is_nameable(collection, field, self.mode))
            .map(|field| field.name.as_str())
            .filter(|known| *known != name);
        self.unknown("field", name, span, known)
    }

    fn split_modifier<'t>(&self, segment: &'t str, span: Span) -> Result<(&'t str, Modifier), QueryError> {
        let Some((name, word)) = segment.split_once(':') else { return Ok((segment, Modifier::None)) };
        match MODIFIERS.iter().find(|(known, _)| *known == word) {
            Some((_, modifier)) => Ok((name, *modifier)),
            None => Err(self.unknown("modifier", word, span, MODIFIERS.iter().map(|(known, _)| *known))),
        }
    }

    fn modifier_unfit(&self, name: &str, reason: &'static str, span: Span) -> QueryError {
        self.error(span, Problem::Unsupported { name: name.to_owned(), reason: Cow::Borrowed(reason) })
    }
}

/// Whether fields of this type can hold lists; one that holds a single value counts as a list of it.
fn can_be_list(field: &Field) -> bool {
    matches!(field.kind, FieldKind::Select(_) | FieldKind::File(_) | FieldKind::Relation(_))
}

/// The whole value of a column.
pub(crate) fn plain(column: Column) -> Operand {
    match column.slot {
        Slot::Field(_, Storage::Json) => Operand::Json(column, Vec::new()),
        _ => Operand::Column(column),
    }
}

/// `coll_via_field`: the collection and its relation field that points at `target`.
pub(crate) fn find_back_relation<'s>(
    schema: &'s crate::schema::Schema,
    target: &Collection,
    segment: &str,
) -> Option<(&'s Arc<Collection>, &'s Field)> {
    // Names may hold the separator themselves, so every split is tried.
    segment.match_indices("_via_").find_map(|(at, separator)| {
        let collection = schema.find(segment.get(..at)?)?;
        let field = collection.find_field(segment.get(at + separator.len()..)?)?;
        matches!(&field.kind, FieldKind::Relation(relation) if relation.target == target.id)
            .then_some((collection, field))
    })
}

/// Whether an index makes sure that no two records share this field's value.
pub(crate) fn is_unique_alone(collection: &Collection, field: &Field) -> bool {
    collection.indexes.iter().any(|index| {
        index.unique && index.condition.is_none() && matches!(&index.columns[..], [only] if only.field == field.number)
    })
}
