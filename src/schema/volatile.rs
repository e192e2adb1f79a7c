//! Whether a view reads the present or chance, so that its rows may change although no record does.
//!
//! Keeps true: whatever SQLite could answer differently on two readings of one snapshot is called volatile; words that
//! cannot be placed count against a view, which costs it speed and never an answer.
//! Does not do: views that a view reads; whoever asks walks those too.

use super::field::FieldKind;
use super::view::{self, Token};
use super::{Collection, Schema};

/// Keywords that are the present.
const PRESENT: [&str; 3] = ["current_date", "current_time", "current_timestamp"];

/// Functions whose value is another each time.
const CHANCE: [&str; 5] = ["random", "randomblob", "changes", "total_changes", "last_insert_rowid"];

/// What stands for the present among the arguments of a date function.
const PRESENT_TEXTS: [&str; 3] = ["now", "subsec", "subsecond"];

/// Functions of a moment, which is the present where it is left out or the text `now`
/// (<https://www.sqlite.org/lang_datefunc.html>): how many arguments stand before it, and how many moments it takes.
const OF_A_MOMENT: [(&str, usize, usize); 7] = [
    ("date", 0, 1),
    ("time", 0, 1),
    ("datetime", 0, 1),
    ("julianday", 0, 1),
    ("unixepoch", 0, 1),
    ("timediff", 0, 2),
    ("strftime", 1, 1),
];

/// Keywords after which a name is that of a column, never a new one.
const BEFORE_A_COLUMN: [&str; 24] = [
    "select", "distinct", "all", "where", "and", "or", "not", "on", "by", "having", "case", "when", "then", "else",
    "in", "like", "glob", "between", "is", "from", "limit", "offset", "escape", "collate",
];

/// Whether the SELECT of `view` may give other rows without a change of what it reads. Judged by its words alone.
pub fn is_volatile(view: &Collection, schema: &Schema) -> bool {
    let Some(query) = &view.view_query else { return false };
    let tokens = view::tokens(query);
    let sources = view::sources(view, schema);
    let nested = reads_its_own_rows(&tokens);
    let is_moment = |name: &str| {
        if nested || is_alias(&tokens, name) {
            return false;
        }
        let mut known = sources.iter().filter_map(|source| source.find_field(name)).peekable();
        // A text of the tenant's could be `now`; these kinds never hold it.
        let safe =
            |kind: &FieldKind| matches!(kind, FieldKind::Date(_) | FieldKind::Autodate(_) | FieldKind::Number(_));
        known.peek().is_some() && known.all(|field| safe(&field.kind))
    };
    tokens.iter().enumerate().any(|(at, token)| {
        // A text in double quotes is one to SQLite where no column has that name.
        let (Token::Word(text) | Token::Quoted(text) | Token::Text(text)) = token else { return false };
        let word = text.trim().to_ascii_lowercase();
        if PRESENT_TEXTS.contains(&&*word) {
            return true;
        }
        let Some(arguments) = tokens.get(at + 1..).and_then(arguments_of).filter(|_| name_of(token).is_some()) else {
            return matches!(token, Token::Word(_)) && PRESENT.contains(&&*word);
        };
        let of_a_moment = OF_A_MOMENT.iter().find(|(name, ..)| *name == word);
        CHANCE.contains(&&*word)
            || of_a_moment.is_some_and(|(_, before, count)| !are_known_moments(arguments, *before, *count, &is_moment))
    })
}

/// Whether a SELECT reads rows of another SELECT of the same text: what a column of those holds, its name does not say.
fn reads_its_own_rows(tokens: &[Token<'_>]) -> bool {
    let selects = tokens.iter().filter(|token| token.is_word("select") || token.is_word("values")).count();
    selects > 1 || tokens.iter().any(|token| token.is_word("with"))
}

/// Whether `name` may be another name that the SELECT gives to something: it follows `AS` or, without one, a name or an
/// expression.
fn is_alias(tokens: &[Token<'_>], name: &str) -> bool {
    tokens.windows(2).any(|pair| {
        let [before, token] = pair else { return false };
        let named = match token {
            Token::Word(text) | Token::Quoted(text) | Token::Text(text) => text.eq_ignore_ascii_case(name),
            Token::Sign(_) => false,
        };
        let given = match before {
            Token::Word(word) => !BEFORE_A_COLUMN.iter().any(|keyword| word.eq_ignore_ascii_case(keyword)),
            Token::Quoted(_) | Token::Text(_) => true,
            Token::Sign(sign) => *sign == ')',
        };
        named && given
    })
}

/// What stands between the parentheses that `rest` begins with.
fn arguments_of<'t, 'q>(rest: &'t [Token<'q>]) -> Option<&'t [Token<'q>]> {
    let inside = rest.strip_prefix(&[Token::Sign('(')])?;
    let mut depth = 1;
    let end = inside.iter().position(|token| {
        depth += i32::from(*token == Token::Sign('(')) - i32::from(*token == Token::Sign(')'));
        depth == 0
    });
    inside.get(..end.unwrap_or(inside.len()))
}

/// Whether the `count` moments among `arguments` are known ones; they come after `before` others.
fn are_known_moments(arguments: &[Token<'_>], before: usize, count: usize, is_moment: &dyn Fn(&str) -> bool) -> bool {
    let mut given = arguments.split(|token| *token == Token::Sign(',')).skip(before);
    (0..count).all(|_| given.next().is_some_and(|moment| is_known_moment(moment, is_moment)))
}

/// Whether a moment is a column that holds moments, or written out.
fn is_known_moment(moment: &[Token<'_>], is_moment: &dyn Fn(&str) -> bool) -> bool {
    match moment {
        [Token::Text(_)] => true,
        [Token::Word(word)] if word.starts_with(|first: char| first.is_ascii_digit()) => true,
        [column] | [_, Token::Sign('.'), column] => name_of(column).is_some_and(is_moment),
        // `max(created)` and the like: all it may do is choose among moments.
        [function, Token::Sign('('), column, Token::Sign(')')]
        | [function, Token::Sign('('), _, Token::Sign('.'), column, Token::Sign(')')] => {
            ["max", "min"].iter().any(|name| function.is_word(name)) && name_of(column).is_some_and(is_moment)
        }
        _ => false,
    }
}

fn name_of<'q>(token: &Token<'q>) -> Option<&'q str> {
    match token {
        Token::Word(word) | Token::Quoted(word) => Some(word),
        Token::Text(_) | Token::Sign(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::random::SeededRandom;
    use crate::schema::definition;
    use crate::schema::plan::{self, PlanContext};
    use serde_json::json;
    use std::sync::Arc;

    fn schema_with_notes() -> Schema {
        let body = json!({"name": "notes", "type": "base", "fields": [
            {"name": "title", "type": "text"}, {"name": "due", "type": "date"}, {"name": "points", "type": "number"},
            {"name": "created", "type": "autodate", "onCreate": true}]});
        let (random, describe) = (SeededRandom::new(1), |_: &[String], _: &str| Ok(Vec::new()));
        let context = PlanContext { random: &random, now_ms: 1, describe: &describe };
        let input = definition::parse(&body).unwrap();
        let plan = plan::plan_create(&Arc::new(Schema::default()), &input, &context).unwrap();
        Schema::clone(&plan.next)
    }

    fn volatile(schema: &Schema, query: &str) -> bool {
        let mut view = Collection::clone(schema.find("notes").unwrap());
        view.id = crate::kernel::ident::CollectionId::parse("viewed").unwrap();
        view.view_query = Some(Arc::from(query));
        is_volatile(&view, schema)
    }

    #[test]
    fn the_present_and_chance_are_found_wherever_they_stand() {
        let schema = schema_with_notes();
        for expression in [
            "datetime('now')",
            "DATE('Now', '-1 day')",
            "strftime('%Y', 'now')",
            "strftime('%s')",
            "unixepoch()",
            "unixepoch('subsec')",
            "julianday ( )",
            "CURRENT_TIMESTAMP",
            "current_date",
            "random()",
            "abs(random() % 10)",
            "\"random\"()",
            "datetime(\"now\")",
            "time/* a */()",
            "date(title)",
            "date(n.title)",
            "date('n' || 'ow')",
            "date((SELECT title FROM notes LIMIT 1))",
            "timediff(due, 'now')",
            "timediff(due, title)",
            "timediff(title, due)",
            "timediff(due)",
        ] {
            assert!(volatile(&schema, &format!("SELECT n.id, {expression} AS x FROM notes n")), "{expression}");
            assert!(volatile(&schema, &format!("SELECT id FROM notes WHERE due < {expression}")), "{expression}");
        }
    }

    /// A column was judged by its name alone, whichever text another SELECT had called so.
    #[test]
    fn a_name_that_the_select_itself_gives_says_nothing_of_what_it_holds() {
        let schema = schema_with_notes();
        for query in [
            "SELECT id, date(due) AS day FROM (SELECT id, title AS due FROM notes)",
            "WITH n(id, due) AS (SELECT id, title FROM notes) SELECT id, date(n.due) AS day FROM n",
            "WITH n(id, due) AS (VALUES ('a', 'no' || 'w')) SELECT n.id, date(n.due) AS day FROM n, notes",
            "SELECT id, title AS due FROM notes GROUP BY date(due)",
            "SELECT id, title due FROM notes ORDER BY date(due)",
            "SELECT id, lower(title) \"due\" FROM notes ORDER BY date(due)",
            "SELECT id, title AS Due FROM notes ORDER BY max(date(due))",
        ] {
            assert!(volatile(&schema, query), "{query}");
        }
    }

    #[test]
    fn a_view_of_records_and_their_own_moments_is_not_volatile() {
        let schema = schema_with_notes();
        for query in [
            "SELECT id, title FROM notes",
            "SELECT id, date(due) AS day FROM notes",
            "SELECT n.id, strftime('%Y-%m', n.created) AS month FROM notes n",
            "SELECT id, datetime(points, 'unixepoch') AS at FROM notes",
            "SELECT id, timediff(due, n.created) AS gap FROM notes n WHERE due IS NOT NULL AND NOT due = created",
            "SELECT id, title, due FROM notes WHERE date(due) > '2026' ORDER BY due",
            "SELECT max(id) AS id, date(max(created)) AS last, date(max(notes.created)) AS same FROM notes",
            "SELECT id, due > '2026-01-01' AS late FROM notes WHERE date(due) > date('2026-01-01', '+1 day')",
            "SELECT id, title AS nowhere, 'now and then' AS text FROM notes -- datetime('now')",
        ] {
            assert!(!volatile(&schema, query), "{query}");
        }
    }
}
