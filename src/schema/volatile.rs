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
/// (<https://www.sqlite.org/lang_datefunc.html>), and how many arguments stand before it.
const OF_A_MOMENT: [(&str, usize); 7] =
    [("date", 0), ("time", 0), ("datetime", 0), ("julianday", 0), ("unixepoch", 0), ("timediff", 0), ("strftime", 1)];

/// Whether the SELECT of `view` may give other rows without a change of what it reads. Judged by its words alone.
pub fn is_volatile(view: &Collection, schema: &Schema) -> bool {
    let Some(query) = &view.view_query else { return false };
    let tokens = view::tokens(query);
    let sources = view::sources(view, schema);
    let is_moment = |name: &str| {
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
        let of_a_moment = OF_A_MOMENT.iter().find(|(name, _)| *name == word);
        CHANCE.contains(&&*word)
            || of_a_moment.is_some_and(|(_, before)| !is_of_a_known_moment(arguments, *before, &is_moment))
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

/// Whether the moment among `arguments` is a column that holds moments, or written out; it comes after `before` others.
fn is_of_a_known_moment(arguments: &[Token<'_>], before: usize, is_moment: &dyn Fn(&str) -> bool) -> bool {
    let moment = arguments.split(|token| *token == Token::Sign(',')).nth(before).unwrap_or_default();
    match moment {
        [Token::Text(_)] => true,
        [Token::Word(word)] if word.starts_with(|first: char| first.is_ascii_digit()) => true,
        [column] | [_, Token::Sign('.'), column] => name_of(column).is_some_and(is_moment),
        // `max(created)` and the like: all it may do is choose among moments.
        [function, Token::Sign('('), column, Token::Sign(')')] => {
            ["max", "min"].iter().any(|name| function.is_word(name)) && name_of(column).is_some_and(is_moment)
        }
        [function, Token::Sign('('), _, Token::Sign('.'), column, Token::Sign(')')] => {
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
        ] {
            assert!(volatile(&schema, &format!("SELECT n.id, {expression} AS x FROM notes n")), "{expression}");
            assert!(volatile(&schema, &format!("SELECT id FROM notes WHERE due < {expression}")), "{expression}");
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
            "SELECT max(id) AS id, date(max(created)) AS last, date(max(notes.created)) AS same FROM notes",
            "SELECT id, due > '2026-01-01' AS late FROM notes WHERE date(due) > date('2026-01-01', '+1 day')",
            "SELECT id, title AS nowhere, 'now and then' AS text FROM notes -- datetime('now')",
        ] {
            assert!(!volatile(&schema, query), "{query}");
        }
    }
}
