//! Rules that are open by mistake, rules that cannot work, and what a stranger can read.
//!
//! Keeps true: pure functions of a schema; a finding names the collection, the rule and what to do.
//! Does not do: refusing anything; a schema with findings still works.

use crate::access::{Action, CollectionRules, Rule};
use crate::kernel::ident::CollectionName;
use crate::query::ast::{Comparison, Expr, Operator, Resolved, Term, TermKind};
use crate::query::parse_rule;
use crate::query::request::CallerClass;
use crate::query::resolve::Lens;
use crate::query::resolved::{Operand, ROOT, Slot, Visibility};
use crate::query::value;
use crate::schema::field::Storage;
use crate::schema::{Collection, Schema};
use std::sync::Arc;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth a look.
    Notice,
    /// Probably a mistake.
    Warning,
    /// The rule does not do what anybody could want.
    Error,
}

/// Something about a rule that its author should know.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The collection.
    pub collection: CollectionName,
    /// The rule's name on the wire, or `fields.<name>.readRule`.
    pub rule: String,
    /// What is the matter and what to do, one or two sentences.
    pub message: String,
}

/// Looks at every rule of every collection, worst findings first.
pub fn lint(schema: &Schema) -> Vec<Finding> {
    let mut findings = Vec::new();
    for collection in schema.collections() {
        let classes = classes_of(schema);
        for action in Action::ALL {
            if collection.is_view() && action.is_write() {
                continue;
            }
            if let Some(text) = action.rule_text(collection) {
                lint_rule(schema, &classes, collection, action, text, &mut findings);
            }
        }
        lint_fields(schema, &classes, collection, &mut findings);
        lint_together(collection, &mut findings);
    }
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    findings
}

fn classes_of(schema: &Schema) -> Vec<CallerClass> {
    let auths = schema.collections().iter().filter(|collection| collection.is_auth());
    std::iter::once(CallerClass::Anonymous)
        .chain(auths.map(|collection| CallerClass::Auth(collection.id.clone())))
        .collect()
}

fn finding(collection: &Collection, rule: &str, severity: Severity, message: impl Into<String>) -> Finding {
    Finding { severity, collection: collection.name.clone(), rule: rule.to_owned(), message: message.into() }
}

fn lint_rule(
    schema: &Schema,
    classes: &[CallerClass],
    collection: &Arc<Collection>,
    action: Action,
    text: &str,
    findings: &mut Vec<Finding>,
) {
    let name = action.rule_name();
    let mut add = |severity, message: String| findings.push(finding(collection, name, severity, message));
    let compiled: Vec<Rule> =
        classes.iter().map(|class| Rule::compile(Lens::new(schema, class), collection, Some(text))).collect();
    if let Some(Rule::Broken(error)) = compiled.iter().find(|rule| matches!(rule, Rule::Broken(_))) {
        add(Severity::Error, format!("It cannot be understood, so only superusers pass: {error}."));
        return;
    }
    if text.trim().is_empty() {
        // Registration is the one write that is open on purpose in most applications.
        match action {
            Action::Create if collection.is_auth() => {
                add(Severity::Notice, "Anyone can register. Fill the rule if accounts are by invitation.".to_owned());
            }
            Action::Create | Action::Update | Action::Delete | Action::Manage => {
                add(
                    Severity::Warning,
                    "It is empty, so strangers can write. Did you mean no rule (superusers only)?".to_owned(),
                );
            }
            Action::List | Action::View if collection.is_auth() => {
                add(
                    Severity::Warning,
                    "It is empty, so strangers can read all accounts. Try id = @request.auth.id.".to_owned(),
                );
            }
            Action::List | Action::View => {
                add(Severity::Notice, "It is empty, so strangers can read every record.".to_owned());
            }
            Action::Auth => {}
        }
        return;
    }
    if compiled.iter().all(|rule| *rule == Rule::Known(true)) {
        add(Severity::Warning, "It holds for everyone. Leave it empty if that is meant.".to_owned());
    } else if compiled.iter().all(|rule| *rule == Rule::Known(false)) {
        add(Severity::Warning, "It never holds. Use no rule if only superusers are meant.".to_owned());
    } else if action.is_write() && compiled.first() == Some(&Rule::Known(true)) {
        add(Severity::Warning, "It holds for strangers. Add @request.auth.id != ''.".to_owned());
    }
    if action == Action::Create && asks_what_changed(text) {
        add(
            Severity::Warning,
            "It asks for :changed, and nothing of a new record has changed, so that is always false here. Ask for :isset, \
             or compare @request.body with what is allowed."
                .to_owned(),
        );
    }
    // Strangers are the first class.
    if action != Action::Create && compiled.first().is_some_and(|rule| is_open_to_empty_owner(rule, text)) {
        add(
            Severity::Warning,
            "It compares a field with @request.auth, which is empty for strangers: records with an empty field are open \
             to everyone. Add @request.auth.id != '' to that comparison."
                .to_owned(),
        );
    }
}

/// Whether some name in a rule has the modifier `:changed`.
fn asks_what_changed(text: &str) -> bool {
    fn in_term(term: &Term) -> bool {
        match &term.kind {
            TermKind::Name(name) => name.ends_with(":changed"),
            TermKind::Call { arguments, .. } => arguments.iter().any(in_term),
            TermKind::Text(_) | TermKind::Number(_) | TermKind::Whole(_) => false,
        }
    }
    let mut found = false;
    if let Ok(Some(rule)) = parse_rule(text) {
        rule.for_each_comparison(&mut |comparison| found |= in_term(&comparison.left) || in_term(&comparison.right));
    }
    found
}

/// Whether what is left of a rule for strangers compares a field with `@request.auth…`, which is empty for them and
/// equals every empty field: `owner = @request.auth.id` alone, or in a branch that asks for no login.
fn is_open_to_empty_owner(for_strangers: &Rule, text: &str) -> bool {
    let Rule::Conditional(predicate) = for_strangers else { return false };
    let of_caller = |operand: &Operand| matches!(operand, Operand::Constant(value) if value::is_empty(value));
    let mut open = false;
    for_each_comparison(&predicate.expr, &mut |comparison| {
        let (left, right) = (&comparison.left, &comparison.right);
        open |= comparison.operator == Operator::Equal
            && (of_caller(left) && can_be_empty(right) || of_caller(right) && can_be_empty(left))
            && comparison.span.of(text).contains("@request.auth.");
    });
    open
}

/// Numbers and booleans are never empty, nor is the id of the record itself; what another row holds is, where there is none.
fn can_be_empty(operand: &Operand) -> bool {
    match operand {
        Operand::Column(column) => match column.slot {
            Slot::Field(_, storage) => matches!(storage, Storage::Text | Storage::Json),
            Slot::Element => true,
            Slot::Id => column.node != ROOT,
            Slot::RowNumber => false,
        },
        Operand::Json(..) => true,
        Operand::Lower(inner) => can_be_empty(inner),
        _ => false,
    }
}

fn for_each_comparison(expr: &Expr<Resolved>, each: &mut dyn FnMut(&Comparison<Resolved>)) {
    match expr {
        Expr::Constant(_) => {}
        Expr::All(parts) | Expr::Any(parts) => parts.iter().for_each(|part| for_each_comparison(part, each)),
        Expr::Compare(comparison) => each(comparison),
        Expr::Over(_, inner) => for_each_comparison(inner, each),
    }
}

fn lint_fields(schema: &Schema, classes: &[CallerClass], collection: &Arc<Collection>, findings: &mut Vec<Finding>) {
    for field in &collection.fields {
        for (kind, rule) in [("readRule", &field.read_rule), ("writeRule", &field.write_rule)] {
            let Some(text) = rule else { continue };
            let broken = classes.iter().find_map(|class| {
                match Rule::compile(Lens::new(schema, class), collection, Some(text)) {
                    Rule::Broken(error) => Some(error),
                    _ => None,
                }
            });
            if let Some(error) = broken {
                let message = format!("It cannot be understood, so only superusers pass: {error}.");
                findings.push(finding(collection, &format!("fields.{}.{kind}", field.name), Severity::Error, message));
            }
        }
    }
}

fn lint_together(collection: &Arc<Collection>, findings: &mut Vec<Finding>) {
    let rules = &collection.rules;
    if rules.list.is_some() && rules.view.is_none() {
        let message = "Records can be listed but not read by id, which usually is an oversight.";
        findings.push(finding(collection, "viewRule", Severity::Notice, message));
    }
    let open = |rule: &Option<Arc<str>>| rule.as_deref().is_some_and(|text| text.trim().is_empty());
    if open(&rules.list) && rules.view.as_deref().is_some_and(|text| !text.trim().is_empty()) {
        let message = "The list is open while reading by id is restricted: the list shows what the view rule hides.";
        findings.push(finding(collection, "listRule", Severity::Warning, message));
    }
}

/// What someone who is not logged in can read of one collection.
#[derive(Debug, Clone, PartialEq)]
pub struct StrangerReport {
    /// The collection.
    pub collection: CollectionName,
    /// In lists.
    pub list: Reach,
    /// By id.
    pub view: Reach,
    /// The fields that show in every record that shows.
    pub fields: Vec<String>,
    /// The fields that show in some of them.
    pub fields_sometimes: Vec<String>,
}

/// How much of a collection can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Nothing.
    Nothing,
    /// The records for which the rule holds.
    Some,
    /// Every record.
    Everything,
}

/// What someone who is not logged in can read, collection by collection; those that show nothing are left out.
pub fn what_a_stranger_reads(schema: &Schema) -> Vec<StrangerReport> {
    let lens = Lens::new(schema, &CallerClass::Anonymous);
    let reach = |rules: &CollectionRules, action| match rules.rule(action) {
        Rule::Locked | Rule::Broken(_) | Rule::Known(false) => Reach::Nothing,
        Rule::Known(true) => Reach::Everything,
        Rule::Conditional(_) => Reach::Some,
    };
    let mut reports = Vec::new();
    for collection in schema.collections() {
        let rules = CollectionRules::compile(lens, collection);
        let (list, view) = (reach(&rules, Action::List), reach(&rules, Action::View));
        if list == Reach::Nothing && view == Reach::Nothing {
            continue;
        }
        let (mut fields, mut fields_sometimes) = (Vec::new(), Vec::new());
        for field in &collection.fields {
            match lens.readable(collection, field) {
                Visibility::Always => fields.push(field.name.to_string()),
                Visibility::When(_) => fields_sometimes.push(field.name.to_string()),
                Visibility::Never => {}
            }
        }
        reports.push(StrangerReport { collection: collection.name.clone(), list, view, fields, fields_sometimes });
    }
    reports
}
