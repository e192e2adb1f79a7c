//! Names → meaning: one resolver for filters, sorts, rules, guards, aggregates and live subscriptions.
//!
//! Keeps true: a [`Mode::Client`] expression can only name what this class of caller may read; whatever it reaches
//! through a relation is bounded by the target's list rule, and a guarded column reads as its visible value. What is
//! known by class alone is folded, so that a rule which does not depend on the record costs nothing per record. A caller
//! who is narrowed to some collections ([`Reach`]) is led into no other by a question of their own; rules are.
//! Does not do: walking paths (that is `path`), rendering, evaluation.

use crate::kernel::ident::CollectionId;
use crate::kernel::limits;
use crate::kernel::value::Stored;
use crate::query::ast::{Comparison, Expr, Operator, Parsed, Resolved, Term, TermKind};
use crate::query::error::{Problem, QueryError, Span, Surface, closest};
use crate::query::functions::{self, KEPT_AS};
use crate::query::lexer::EXACT_END;
use crate::query::moment::Macro;
use crate::query::request::{Aspect, CallerClass, Place, RequestPath};
use crate::query::resolved::{
    Column, Facts, Function, Hop, Node, NodeIndex, Operand, Predicate, Quantifier, ROOT, Slot, Type, Visibility, casts,
};
use crate::query::value::{self, Shape};
use crate::query::{parser, scope};
use crate::schema::Collection;
use crate::schema::Schema;
use crate::schema::field::{Field, Storage};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

/// What an expression may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// A caller's own question.
    Client,
    /// A rule: everything but passwords, `@request` and `@collection` included.
    Rule,
    /// A superuser's question: as a rule, without rows or values being hidden.
    Superuser,
}

/// The collections into which a caller's own questions may lead: all, or those that an API key is narrowed to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Reach(Option<Arc<BTreeSet<CollectionId>>>);

impl Reach {
    /// Nothing is out of reach but by rules.
    pub const EVERYWHERE: Self = Self(None);

    /// These collections and no others.
    pub fn only(collections: impl IntoIterator<Item = CollectionId>) -> Self {
        Self(Some(Arc::new(collections.into_iter().collect())))
    }

    /// Whether `collection` is within reach.
    pub fn admits(&self, collection: &CollectionId) -> bool {
        self.0.as_ref().is_none_or(|only| only.contains(collection))
    }
}

static EVERYWHERE: Reach = Reach::EVERYWHERE;

/// One schema seen by one class of caller.
#[derive(Debug, Clone, Copy)]
pub struct Lens<'s> {
    /// The schema.
    pub schema: &'s Schema,
    /// Who looks.
    pub class: &'s CallerClass,
    /// How far the caller's own questions reach.
    pub reach: &'s Reach,
}

impl<'s> Lens<'s> {
    /// A schema seen by a class of caller.
    pub fn new(schema: &'s Schema, class: &'s CallerClass) -> Self {
        Self { schema, class, reach: &EVERYWHERE }
    }

    /// The same for a caller whose own questions lead no further than `reach`.
    #[must_use]
    pub const fn within(self, reach: &'s Reach) -> Self {
        Self { reach, ..self }
    }

    /// How this class's own questions are resolved.
    pub const fn client_mode(&self) -> Mode {
        match self.class {
            CallerClass::Superuser => Mode::Superuser,
            _ => Mode::Client,
        }
    }

    /// Resolves a client's filter; blank text holds for every record.
    pub fn filter(&self, root: &Arc<Collection>, source: &str) -> Result<Predicate, QueryError> {
        let parsed = parser::parse_filter(source)?.unwrap_or(Expr::Constant(true));
        self.predicate(root, self.client_mode(), Surface::Filter, source, &parsed)
    }

    /// Resolves an access rule; blank text holds for every record.
    pub fn rule(&self, root: &Arc<Collection>, source: &str) -> Result<Predicate, QueryError> {
        let parsed = parser::parse_rule(source)?.unwrap_or(Expr::Constant(true));
        self.predicate(root, Mode::Rule, Surface::Rule, source, &parsed)
    }

    /// Resolves a parsed condition over records of `root`.
    pub fn predicate(
        &self,
        root: &Arc<Collection>,
        mode: Mode,
        surface: Surface,
        source: &str,
        parsed: &Expr<Parsed>,
    ) -> Result<Predicate, QueryError> {
        let mut resolver = Resolver::new(*self, root, mode, surface, source);
        let expr = resolver.resolve(parsed)?;
        let expr = scope::quantify_shared(&resolver.nodes, expr);
        if resolver.nodes.len() > limits::JOINS_MAX {
            let problem = Problem::TooMany { what: "relations", limit: limits::JOINS_MAX };
            return Err(QueryError::whole(surface, problem));
        }
        let (live, facts) = scope::depends_on(root, &resolver.nodes, &expr);
        Ok(Predicate { root: root.clone(), nodes: resolver.nodes, live, expr, facts })
    }

    /// Resolves a single path for sorting or grouping, with the rows it needs.
    pub fn operand(
        &self,
        root: &Arc<Collection>,
        surface: Surface,
        source: &str,
        path: &str,
    ) -> Result<(Operand, Predicate), QueryError> {
        let at = source.find(path).unwrap_or_default();
        let span = Span::new(at, at + path.len());
        let mut resolver = Resolver::new(*self, root, self.client_mode(), surface, source);
        let operand = resolver.path_from_root(path, span, Side { any: false, scope: 0 })?;
        if resolver.nodes.iter().any(|node| node.many) {
            let reason = Cow::Borrowed("has many values per record and cannot be ordered or grouped by");
            return Err(resolver.error(span, Problem::Unsupported { name: path.to_owned(), reason }));
        }
        let (live, facts) = scope::operand_depends_on(root, &resolver.nodes, &operand);
        let expr = Expr::Constant(true);
        Ok((operand, Predicate { root: root.clone(), nodes: resolver.nodes, live, expr, facts }))
    }

    /// Whether, or when, a row of `collection` is in a list of this class of caller.
    pub fn listed(&self, collection: &Arc<Collection>) -> Visibility {
        self.under_rule(collection, collection.rules.list.as_deref())
    }

    /// Whether, or when, this class of caller may read a row of `collection` by its id.
    pub fn viewed(&self, collection: &Arc<Collection>) -> Visibility {
        self.under_rule(collection, collection.rules.view.as_deref())
    }

    /// What a rule's text says for this class: superusers always, others never where there is no rule or a broken one.
    pub fn under_rule(&self, collection: &Arc<Collection>, rule: Option<&str>) -> Visibility {
        if *self.class == CallerClass::Superuser {
            return Visibility::Always;
        }
        match rule.map(|text| self.rule(collection, text)) {
            Some(Ok(predicate)) => match predicate.constant() {
                Some(true) => Visibility::Always,
                Some(false) => Visibility::Never,
                None => Visibility::When(Arc::new(predicate)),
            },
            Some(Err(_)) | None => Visibility::Never,
        }
    }

    /// Whether, or when, this class of caller may read a field: hidden, guarded, or the e-mail of an account.
    pub fn readable(&self, collection: &Arc<Collection>, field: &Field) -> Visibility {
        if !is_nameable(collection, field, self.client_mode()) {
            return Visibility::Never;
        }
        if *self.class == CallerClass::Superuser {
            return Visibility::Always;
        }
        let mut conditions: Vec<String> = field.read_rule.iter().map(|rule| rule.trim().to_owned()).collect();
        conditions.retain(|rule| !rule.is_empty());
        if collection.is_auth() && field.name.as_str() == "email" {
            conditions.push(email_rule(collection));
        }
        match conditions.len() {
            0 => Visibility::Always,
            // A rule may end in a comment, which the line break closes.
            _ => self.under_rule(collection, Some(&format!("({}\n)", conditions.join("\n) && (")))),
        }
    }
}

/// When the e-mail of an account shows: it is public, one's own, or the caller manages accounts.
fn email_rule(collection: &Collection) -> String {
    let mut rule = format!("(id = @request.auth.id && @request.auth.collectionId = '{}')", collection.id);
    if collection.find_field("emailVisibility").is_some() {
        rule.push_str(" || emailVisibility = true");
    }
    if let Some(manage) = collection.rules.manage.as_deref().filter(|text| !text.trim().is_empty()) {
        rule.push_str(&format!(" || ({manage}\n)"));
    }
    rule
}

/// Whether expressions of this mode may name the field at all.
pub(crate) fn is_nameable(collection: &Collection, field: &Field, mode: Mode) -> bool {
    let is_password = matches!(field.kind, crate::schema::field::FieldKind::Password(_));
    let is_token_key = collection.is_auth() && field.name.as_str() == "tokenKey";
    match mode {
        Mode::Rule => !is_password,
        Mode::Superuser => !field.is_secret() && !is_token_key,
        Mode::Client => !field.is_secret() && !is_token_key && !field.hidden,
    }
}

/// Which side of which comparison a path stands on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Side {
    /// The comparison was written with `?`.
    pub(crate) any: bool,
    /// Number of the side, for rows that it does not share.
    pub(crate) scope: usize,
}

/// The work of resolving one expression.
pub(crate) struct Resolver<'s> {
    pub(crate) lens: Lens<'s>,
    pub(crate) mode: Mode,
    pub(crate) nodes: Vec<Node>,
    surface: Surface,
    source: &'s str,
    next_scope: usize,
}

impl<'s> Resolver<'s> {
    fn new(lens: Lens<'s>, root: &Arc<Collection>, mode: Mode, surface: Surface, source: &'s str) -> Self {
        let root = Node {
            parent: ROOT,
            hop: Hop::Root,
            collection: Some(root.clone()),
            guard: Visibility::Always,
            many: false,
            scope: None,
        };
        Self { lens, mode, nodes: vec![root], surface, source, next_scope: 1 }
    }

    pub(crate) fn error(&self, span: Span, problem: Problem) -> QueryError {
        QueryError::at(self.surface, self.source, span, problem)
    }

    fn resolve(&mut self, expr: &Expr<Parsed>) -> Result<Expr<Resolved>, QueryError> {
        Ok(match expr {
            Expr::Constant(value) => Expr::Constant(*value),
            Expr::All(parts) => fold_all(self.resolve_each(parts)?),
            Expr::Any(parts) => fold_any(self.resolve_each(parts)?),
            Expr::Compare(comparison) => self.comparison(comparison)?,
            Expr::Over(never, _) => match *never {},
        })
    }

    fn resolve_each(&mut self, parts: &[Expr<Parsed>]) -> Result<Vec<Expr<Resolved>>, QueryError> {
        parts.iter().map(|part| self.resolve(part)).collect()
    }

    fn comparison(&mut self, parsed: &Comparison<Parsed>) -> Result<Expr<Resolved>, QueryError> {
        let any = parsed.any;
        let left = self.term(&parsed.left, Side { any, scope: self.next_scope })?;
        let right = self.term(&parsed.right, Side { any, scope: self.next_scope + 1 })?;
        self.next_scope += 2;
        let left = self.as_kept_in(&right, left);
        let right = self.as_kept_in(&left, right);
        let comparison = Comparison { left, operator: parsed.operator, any, right, span: parsed.span };
        if let Some(known) = known_outcome(&comparison) {
            return Ok(Expr::Constant(known));
        }
        let nodes = scope::private_nodes(&self.nodes, &comparison);
        let compare = Expr::Compare(Box::new(comparison));
        if nodes.is_empty() {
            return Ok(compare);
        }
        Ok(Expr::Over(Quantifier { every: true, nodes }, Box::new(compare)))
    }

    /// A whole number as a number field would hold it, which is as a double; documents hold it as it is, and a column of a view
    /// holds either: what it took from a number field is a double, what it counted is not.
    fn as_kept_in(&self, other: &Operand, number: Operand) -> Operand {
        match (number, other) {
            (Operand::Constant(whole), _) if is_beyond_exact(&whole) => match other {
                Operand::Column(Column { slot: Slot::Field(_, Storage::Number), of_view: true, .. }) => {
                    let kept = functions::find(KEPT_AS).expect("invariant: the function is in the list");
                    Operand::Call(Function(kept), vec![other.clone(), Operand::Constant(whole)])
                }
                _ if self.is_of_number_field(other) => {
                    Operand::Constant(whole.as_number().map_or(Stored::Null, Stored::Real))
                }
                _ => Operand::Constant(whole),
            },
            (number, _) => number,
        }
    }

    /// Whether the value is a number field's: a record's, the caller's own, or what is sent for one.
    fn is_of_number_field(&self, operand: &Operand) -> bool {
        let path = match operand {
            Operand::Column(column) => return column.slot.value_type() == Type::Number && !column.of_view,
            Operand::Request(path) if path.aspect == Aspect::Value => path,
            _ => return false,
        };
        let field = match (&path.place, self.lens.class) {
            (Place::AuthField(number, inside), CallerClass::Auth(id)) if inside.is_empty() => {
                self.lens.schema.find_id(id).and_then(|accounts| accounts.find_field_number(*number))
            }
            (Place::Body(names), _) => {
                let root = self.nodes.get(ROOT).and_then(|node| node.collection.as_ref());
                root.zip(names.first().filter(|_| names.len() == 1)).and_then(|(root, name)| root.find_field(name))
            }
            _ => None,
        };
        field.is_some_and(|field| field.kind.storage() == Storage::Number)
    }

    fn term(&mut self, term: &Term, side: Side) -> Result<Operand, QueryError> {
        match &term.kind {
            TermKind::Text(text) => Ok(Operand::Constant(Stored::Text(text.clone()))),
            TermKind::Number(number) => Ok(Operand::Constant(Stored::Real(*number))),
            TermKind::Whole(number) => Ok(Operand::Constant(Stored::Integer(*number))),
            TermKind::Name(name) => self.name(name, term.span, side),
            TermKind::Call { name, arguments } => self.call(name, arguments, term.span, side),
        }
    }

    fn name(&mut self, name: &str, span: Span, side: Side) -> Result<Operand, QueryError> {
        if let Some(found) = Macro::find(name) {
            return Ok(Operand::Clock(found));
        }
        if let Some(rest) = name.strip_prefix("@request.") {
            self.only_for_rules(name, span)?;
            return self.request(rest, span, side);
        }
        if let Some(rest) = name.strip_prefix("@collection.") {
            self.only_for_rules(name, span)?;
            return self.anywhere(rest, span, side);
        }
        if name.starts_with('@') {
            let known = Macro::ALL.iter().map(|(name, _)| *name);
            return Err(self.unknown("macro", name, span, known));
        }
        self.path_from_root(name, span, side)
    }

    fn only_for_rules(&self, name: &str, span: Span) -> Result<(), QueryError> {
        match self.mode {
            Mode::Client => Err(self.error(span, Problem::Reserved { name: name.to_owned() })),
            Mode::Rule | Mode::Superuser => Ok(()),
        }
    }

    pub(crate) fn unknown<'n>(
        &self,
        what: &'static str,
        name: &str,
        span: Span,
        known: impl IntoIterator<Item = &'n str>,
    ) -> QueryError {
        let suggestion = closest(name, known);
        self.error(span, Problem::Unknown { what, name: name.to_owned(), suggestion })
    }

    fn call(&mut self, name: &str, arguments: &[Term], span: Span, side: Side) -> Result<Operand, QueryError> {
        let (sql_name, wanted) = match name {
            "geoDistance" => ("tn_geo_distance", 4..=4),
            "strftime" => ("tn_strftime", 1..=10),
            _ => return Err(self.unknown("function", name, span, ["geoDistance", "strftime"])),
        };
        if !wanted.contains(&arguments.len()) {
            let reason = Cow::Owned(match name {
                "geoDistance" => "takes 4 arguments: lonA, latA, lonB, latB".to_owned(),
                _ => "takes 1 to 10 arguments: format, time, modifiers".to_owned(),
            });
            return Err(self.error(span, Problem::Unsupported { name: name.to_owned(), reason }));
        }
        let mut operands = arguments.iter().map(|argument| self.term(argument, side)).collect::<Result<Vec<_>, _>>()?;
        if sql_name == "tn_strftime" {
            let says_now = |operand: &Operand| matches!(operand, Operand::Constant(Stored::Text(text)) if text.eq_ignore_ascii_case("now"));
            match operands.get_mut(1) {
                Some(time) if says_now(time) => *time = Operand::Clock(Macro::Now),
                Some(_) => {}
                None => operands.push(Operand::Clock(Macro::Now)),
            }
        }
        let function = functions::find(sql_name).expect("invariant: both functions are in the list");
        let constants: Option<Vec<&Stored>> = operands
            .iter()
            .map(|operand| match operand {
                Operand::Constant(value) => Some(value),
                _ => None,
            })
            .collect();
        if let Some(constants) = constants {
            let cells: Vec<_> = constants.into_iter().map(Stored::cell).collect();
            return Ok(Operand::Constant((function.call)(&cells)));
        }
        Ok(Operand::Call(Function(function), operands))
    }

    /// Refuses a hop into a collection that is out of the caller's reach; rules reach everything.
    fn check_reach(&self, collection: &Collection, span: Span) -> Result<(), QueryError> {
        if self.mode == Mode::Rule || self.lens.reach.admits(&collection.id) {
            return Ok(());
        }
        // The path as it was written: the name of the collection is not the caller's to know.
        Err(self.error(span, Problem::OutOfReach { name: span.of(self.source).to_owned() }))
    }

    /// Adds a row of a collection to visit, or finds the one that is already visited for the same purpose.
    pub(crate) fn enter(
        &mut self,
        parent: NodeIndex,
        hop: Hop,
        collection: Arc<Collection>,
        many: bool,
        (span, side): (Span, Side),
    ) -> Result<NodeIndex, QueryError> {
        self.check_reach(&collection, span)?;
        Ok(self.visit(parent, hop, Some(collection), many, side))
    }

    /// Adds an element of a list to visit, or finds the one that is already visited for the same purpose.
    pub(crate) fn enter_list(&mut self, parent: NodeIndex, list: Operand, side: Side) -> NodeIndex {
        self.visit(parent, Hop::Elements { list }, None, true, side)
    }

    fn visit(
        &mut self,
        parent: NodeIndex,
        hop: Hop,
        collection: Option<Arc<Collection>>,
        many: bool,
        side: Side,
    ) -> NodeIndex {
        let inherited = self.nodes.get(parent).and_then(|node| node.scope);
        let scope = inherited.or((many && !side.any).then_some(side.scope));
        // Hops name columns by number, which only mean the same within one collection.
        let same = |node: &Node| {
            node.parent == parent && node.scope == scope && node.hop == hop && node.collection == collection
        };
        if let Some(found) = self.nodes.iter().position(same) {
            return found;
        }
        let guard = match (&collection, self.mode) {
            (Some(collection), Mode::Client) => self.lens.listed(collection),
            _ => Visibility::Always,
        };
        self.nodes.push(Node { parent, hop, collection, guard, many, scope });
        self.nodes.len() - 1
    }
}

/// Whether a double may stand for this whole number and for others.
fn is_beyond_exact(number: &Stored) -> bool {
    matches!(number, Stored::Integer(whole) if whole.unsigned_abs() >= EXACT_END)
}

/// Joins with AND, dropping what is known.
fn fold_all(parts: Vec<Expr<Resolved>>) -> Expr<Resolved> {
    if parts.contains(&Expr::Constant(false)) {
        return Expr::Constant(false);
    }
    one_or(parts, true, Expr::All)
}

/// Joins with OR, dropping what is known.
fn fold_any(parts: Vec<Expr<Resolved>>) -> Expr<Resolved> {
    if parts.contains(&Expr::Constant(true)) {
        return Expr::Constant(true);
    }
    one_or(parts, false, Expr::Any)
}

fn one_or(
    mut parts: Vec<Expr<Resolved>>,
    neutral: bool,
    join: fn(Vec<Expr<Resolved>>) -> Expr<Resolved>,
) -> Expr<Resolved> {
    parts.retain(|part| *part != Expr::Constant(neutral));
    match parts.pop() {
        None => Expr::Constant(neutral),
        Some(only) if parts.is_empty() => only,
        Some(last) => {
            parts.push(last);
            join(parts)
        }
    }
}

/// The outcome of a comparison that needs neither record nor request.
fn known_outcome(comparison: &Comparison<Resolved>) -> Option<bool> {
    let operator = comparison.operator;
    match (&comparison.left, &comparison.right) {
        (Operand::Constant(left), Operand::Constant(right)) => {
            let (left, right) = in_shape(left, operator, right);
            Some(value::compare(&left, operator, &right))
        }
        (known, Operand::Constant(empty)) | (Operand::Constant(empty), known)
            if operator.is_equality() && value::is_empty(empty) && is_never_empty(known) =>
        {
            Some(operator == Operator::NotEqual)
        }
        _ => None,
    }
}

fn in_shape(left: &Stored, operator: Operator, right: &Stored) -> (Stored, Stored) {
    let (cast_left, cast_right) = casts(Type::Free, operator.is_like(), Type::Free);
    let pattern = Shape { pattern: operator.is_like(), ..Shape::cast(cast_right) };
    (Shape::cast(cast_left).apply(left.clone()), pattern.apply(right.clone()))
}

/// Whether the operand has a value for every request of the class (strangers' facts are constants by then).
pub(crate) fn is_never_empty(operand: &Operand) -> bool {
    matches!(
        operand,
        Operand::Request(RequestPath { place: Place::AuthId | Place::Context | Place::Method, .. }) | Operand::Clock(_)
    )
}

/// Merges what the guard of a row or column depends on.
pub(crate) fn merge_visibility(facts: &mut Facts, visibility: &Visibility) {
    if let Visibility::When(predicate) = visibility {
        facts.merge(&predicate.facts);
    }
}
