//! SQL ≡ evaluator over tenants that are made up: schema, rules, views, records and questions.
//!
//! Keeps true: a disagreement is told with the smallest tenant and the smallest part of the question that still show it,
//! and with the numbers that bring it back. Does not do: making tenants up (that is `universe`).

use crate::query::equivalence::Dice;
use crate::query::universe::{Names, Size, Universe};
use crate::query::world::{World, collections_of};
use proptest::prelude::*;
use proptest::test_runner::{TestError, TestRunner};
use std::cell::Cell;
use std::sync::Arc;
use tenantry::kernel::limits;
use tenantry::query::ast::{Expr, Parsed, Term, TermKind};
use tenantry::query::eval::{self, Exhausted, Steps};
use tenantry::query::request::{CallerClass, RequestContext};
use tenantry::query::resolve::Lens;
use tenantry::query::resolved::{Predicate, Visibility};
use tenantry::query::{QueryError, parse_rule, plan};
use tenantry::schema::Collection;
use tenantry::schema::field::FieldKind;
use tenantry::schema::record::RecordImage;

const QUESTIONS: usize = 25;

/// What was looked at, so that a run that asks nothing is noticed.
#[derive(Debug, Default)]
struct Tally {
    asked: Cell<usize>,
    told_apart: Cell<usize>,
    refused: Cell<usize>,
}

fn count(cell: &Cell<usize>) {
    cell.set(cell.get() + 1);
}

/// One caller's question about one collection.
struct Asked<'w> {
    universe: &'w Universe,
    world: &'w World,
    root: Arc<Collection>,
    class: CallerClass,
    request: RequestContext,
    rule: bool,
}

impl Asked<'_> {
    fn resolve(&self, class: &CallerClass, source: &str) -> Result<Predicate, QueryError> {
        let lens = Lens::new(&self.world.schema, class);
        if self.rule { lens.rule(&self.root, source) } else { lens.filter(&self.root, source) }
    }

    /// What is wrong with the answers to `source`; `None` where the question may be refused.
    fn disagreement(&self, source: &str, tally: &Tally) -> Result<(), String> {
        let predicate = match self.resolve(&self.class, source) {
            Ok(predicate) => predicate,
            Err(error) if error.to_string().contains("more than") => {
                count(&tally.refused);
                return Ok(());
            }
            // What is hidden from the caller has no name for them; a superuser can always ask.
            Err(error) if !self.rule && self.class != CallerClass::Superuser => {
                count(&tally.refused);
                return match self.resolve(&CallerClass::Superuser, source) {
                    Ok(_) if error.to_string().contains("unknown field") && self.meets_hidden(source) => Ok(()),
                    Ok(_) => Err(format!("refused for the wrong reason: {error}")),
                    Err(error) if error.to_string().contains("more than") => Ok(()),
                    Err(error) => Err(format!("refused to a superuser: {error}")),
                };
            }
            Err(error) => return Err(format!("refused: {error}")),
        };
        let statement = plan::matching_ids(Lens::new(&self.world.schema, &self.class), &predicate);
        if statement.sql.len() > limits::STATEMENT_BYTES_MAX || statement.binds.len() > limits::STATEMENT_BINDS_MAX {
            count(&tally.refused);
            return Ok(());
        }
        let (by_sql, by_eval) =
            (self.world.by_sql(&predicate, &self.request), self.world.by_eval(&predicate, &self.request));
        if by_sql != by_eval {
            return Err(format!("by SQL {by_sql:?}, by evaluator {by_eval:?}\n{statement:?}"));
        }
        let everything = self.world.by_eval(&constant(&self.root), &self.request);
        if let Some(known) = eval::without_record(&predicate, &self.request) {
            let wanted = if known { &everything } else { &Vec::new() };
            if &by_eval != wanted {
                return Err(format!("known without a record as {known}, but {by_eval:?}"));
            }
        }
        for id in &everything {
            let record = self.world.record(self.root.name.as_str(), id);
            let steps = Steps::new(u64::MAX);
            let outcome = eval::observe(&predicate, self.world, &self.request, &record, &steps).outcome.unwrap();
            if outcome != by_eval.contains(id) {
                return Err(format!("explained as {outcome} for {id}, but {by_eval:?}"));
            }
            self.check_steps(&predicate, &record, outcome, u64::MAX - steps.left())?;
        }
        count(&tally.asked);
        if !by_eval.is_empty() && by_eval.len() < everything.len() {
            count(&tally.told_apart);
        }
        Ok(())
    }

    /// As many steps as were taken are enough, one less never is, and whatever is found out with fewer is right.
    fn check_steps(
        &self,
        predicate: &Predicate,
        record: &Arc<RecordImage>,
        outcome: bool,
        taken: u64,
    ) -> Result<(), String> {
        let observed = |steps| eval::observe(predicate, self.world, &self.request, record, &Steps::new(steps));
        if observed(taken).outcome != Ok(outcome) {
            return Err(format!("not decided with the {taken} steps that it took"));
        }
        let fewer = taken.checked_sub(1).map(observed);
        if fewer.is_some_and(|fewer| fewer.outcome != Err(Exhausted) || fewer.complete) {
            return Err(format!("{taken} steps were taken where one less was allowed"));
        }
        match eval::holds(predicate, self.world, &self.request, record, &Steps::new(taken / 2)) {
            Ok(found) if found != outcome => Err(format!("{found} with {} steps, {outcome} with all", taken / 2)),
            _ => Ok(()),
        }
    }

    /// Whether `source` names something for which this class of caller has no name.
    fn meets_hidden(&self, source: &str) -> bool {
        let mut names = Vec::new();
        if let Ok(Some(parsed)) = parse_rule(source) {
            collect_names(&parsed, &mut names);
        }
        names.iter().any(|path| self.is_barred(path))
    }

    /// Whether a path meets a hidden field, or enters a collection of which the caller is never shown a record.
    fn is_barred(&self, path: &str) -> bool {
        let lens = Lens::new(&self.world.schema, &self.class);
        let mut here = self.root.clone();
        let mut segments = path.split('.').peekable();
        while let Some(segment) = segments.next() {
            let name = segment.split(':').next().unwrap_or_default();
            if self.universe.hides(here.name.as_str(), name) {
                return true;
            }
            let next = match (here.find_field(name).map(|field| &field.kind), name.split_once("_via_")) {
                (Some(FieldKind::Relation(relation)), _) => self.world.schema.find_id(&relation.target),
                (None, Some((from, field))) if self.universe.hides(from, field) => return true,
                (None, Some((from, _))) => self.world.schema.find(from),
                _ => None,
            };
            let Some(next) = next else { return false };
            if segments.peek().is_some() && lens.listed(next) == Visibility::Never {
                return true;
            }
            here = next.clone();
        }
        false
    }

    /// The smallest part of `source` that still shows a disagreement, and what it is.
    fn smallest(&self, source: &str, found: String) -> (String, String) {
        let (mut source, mut found) = (source.to_owned(), found);
        loop {
            let Ok(Some(parsed)) = parse_rule(&source) else { return (source, found) };
            let smaller = parts(&parsed).into_iter().find_map(|part| {
                let text = part.to_string();
                let found = self.disagreement(&text, &Tally::default()).err()?;
                (text.len() < source.len()).then_some((text, found))
            });
            match smaller {
                Some(smaller) => (source, found) = smaller,
                None => return (source, found),
            }
        }
    }
}

/// The names that stand in a condition.
fn collect_names(expr: &Expr<Parsed>, names: &mut Vec<Arc<str>>) {
    fn of_term(term: &Term, names: &mut Vec<Arc<str>>) {
        match &term.kind {
            TermKind::Name(name) => names.push(name.clone()),
            TermKind::Call { arguments, .. } => arguments.iter().for_each(|argument| of_term(argument, names)),
            TermKind::Text(_) | TermKind::Number(_) | TermKind::Whole(_) => {}
        }
    }
    match expr {
        Expr::All(parts) | Expr::Any(parts) => parts.iter().for_each(|part| collect_names(part, names)),
        Expr::Compare(comparison) => {
            of_term(&comparison.left, names);
            of_term(&comparison.right, names);
        }
        Expr::Over(never, _) => match *never {},
        Expr::Constant(_) => {}
    }
}

/// A condition that holds for every record.
fn constant(root: &Arc<Collection>) -> Predicate {
    let schema = tenantry::schema::Schema::default();
    Lens::new(&schema, &CallerClass::Superuser).rule(root, "").unwrap()
}

/// How the parts of a condition are put together.
type Join = fn(Vec<Expr<Parsed>>) -> Expr<Parsed>;

/// What is left of a condition when one part of it is taken alone, or away.
fn parts(expr: &Expr<Parsed>) -> Vec<Expr<Parsed>> {
    let (list, join): (_, Join) = match expr {
        Expr::All(list) => (list, Expr::All),
        Expr::Any(list) => (list, Expr::Any),
        _ => return Vec::new(),
    };
    let mut out = list.clone();
    for at in 0..list.len() {
        let replaced = |with: Option<Expr<Parsed>>| {
            let mut rest = list.clone();
            rest.splice(at..=at, with);
            join(rest)
        };
        if list.len() > 2 {
            out.push(replaced(None));
        }
        out.extend(parts(&list[at]).into_iter().map(|part| replaced(Some(part))));
    }
    out
}

fn check(seed: u64, size: Size, tally: &Tally) -> Result<(), TestCaseError> {
    let dice = Dice::new(seed);
    let (universe, world) = Universe::make(&dice, size);
    for _ in 0..QUESTIONS {
        let root = universe.some_root(&dice);
        let user = [None, Some("A"), Some("A")][dice.below(3)];
        let rule = dice.below(2) == 0;
        let class = if !rule && dice.below(4) == 0 { CallerClass::Superuser } else { world.class(user) };
        let names = if rule || class == CallerClass::Superuser { Names::Rule } else { Names::Client };
        let source = universe.question(&dice, root, names, size.depth);
        let request = universe.some_request(&dice, &world, root, user);
        let root = world.collection(universe.name(root)).clone();
        let asked = Asked { universe: &universe, world: &world, root, class, request, rule };
        let Err(found) = asked.disagreement(&source, tally) else { continue };
        let (source, found) = asked.smallest(&source, found);
        return Err(TestCaseError::fail(format!(
            "{} about {} by {:?} ({user:?}): {source}\n{found}\nbody {:?}\nquery {:?}\n{}",
            if rule { "a rule" } else { "a filter" },
            asked.root.name,
            asked.class,
            asked.request.body,
            asked.request.query,
            collections_of(&world),
        )));
    }
    Ok(())
}

fn size() -> impl Strategy<Value = Size> {
    (1..6_usize, 0..9_usize, 0..3_usize, 0..6_usize, 0..3_usize)
        .prop_map(|(collections, fields, views, records, depth)| Size { collections, fields, views, records, depth })
}

/// `TENANTRY_SCHEMA_SEED=<seed>,<collections>,<fields>,<views>,<records>,<depth>` looks at one tenant only.
fn replayed() -> Option<(u64, Size)> {
    let text = std::env::var("TENANTRY_SCHEMA_SEED").ok()?;
    let numbers: Vec<u64> = text.split(',').map(|number| number.trim().parse().expect("a number")).collect();
    let [seed, collections, fields, views, records, depth] = numbers[..] else { panic!("six numbers in {text}") };
    let [collections, fields, views, records, depth] =
        [collections, fields, views, records, depth].map(|number| usize::try_from(number).unwrap());
    Some((seed, Size { collections, fields, views, records, depth }))
}

#[test]
fn sql_and_evaluator_agree_over_any_schema() {
    let tally = Tally::default();
    if let Some((seed, size)) = replayed() {
        return check(seed, size, &tally).unwrap();
    }
    let cases = super::cases(120);
    let mut runner = TestRunner::new(ProptestConfig {
        cases,
        max_shrink_iters: 2_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    match runner.run(&(any::<u64>().no_shrink(), size()), |(seed, size)| check(seed, size, &tally)) {
        Ok(()) => {}
        Err(TestError::Fail(reason, (seed, size))) => {
            let Size { collections, fields, views, records, depth } = size;
            panic!(
                "{reason}\nreplay with: TENANTRY_SCHEMA_SEED={seed},{collections},{fields},{views},{records},{depth} \
                 cargo test --test props any_schema"
            );
        }
        Err(error) => panic!("{error}"),
    }
    // Otherwise the questions say nothing.
    let (asked, told_apart) = (tally.asked.get(), tally.told_apart.get());
    println!("{asked} questions answered, {told_apart} told records apart, {} refused", tally.refused.get());
    let cases = cases as usize;
    assert!(asked > cases * QUESTIONS / 2 && told_apart > cases * QUESTIONS / 20, "{tally:?}");
}
