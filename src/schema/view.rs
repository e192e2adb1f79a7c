//! View collections: which collections a SELECT reads, what its columns are, and the SQL view that runs it.
//!
//! Users write collection and field names; the file holds ids and numbers. The stored view therefore wraps the SELECT in
//! common table expressions that carry the present names, so its text is never rewritten.
//!
//! Keeps true: only a single SELECT over collections of the tenant gets through; password hashes and token keys are not
//! among the columns it can name. Does not do: running it. A caller describes the SELECT in an empty scratch database.

use super::field::{Field, FieldKind, NumberOptions, Storage, TextOptions};
use super::field_build;
use super::{Collection, Schema};
use crate::kernel::ident::{FieldId, FieldName, FieldNumber};
use crate::kernel::limits;
use std::collections::HashSet;
use std::sync::Arc;

/// Where a column of a SELECT comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnOrigin {
    /// The column's name in the result.
    pub name: String,
    /// The table it is read from unchanged; `None` for an expression.
    pub table: Option<String>,
    /// The column of that table.
    pub column: Option<String>,
}

/// Describes a SELECT: makes the given tables in an empty scratch database, prepares the statement there and reports its
/// columns. The error is SQLite's message. Statements that are not one read-only SELECT are errors too.
pub type Describe<'a> = dyn Fn(&[String], &str) -> Result<Vec<ColumnOrigin>, String> + 'a;

/// The collections of `schema` whose names occur as words in the SELECT of `view`, in schema order.
pub fn sources<'a>(view: &Collection, schema: &'a Schema) -> Vec<&'a Arc<Collection>> {
    let Some(query) = &view.view_query else { return Vec::new() };
    let words: HashSet<String> = tokens(query)
        .into_iter()
        .filter_map(|token| match token {
            Token::Word(word) => Some(word.to_ascii_lowercase()),
            Token::Quoted(word) => Some(word.to_ascii_lowercase()),
            _ => None,
        })
        .collect();
    schema
        .collections()
        .iter()
        .filter(|other| other.id != view.id && words.contains(&other.name.as_str().to_ascii_lowercase()))
        .collect()
}

/// The fields of a view over `sources`; names keep the numbers they had in `before`. The error is one sentence.
pub(crate) fn infer(
    view: &Collection,
    before: Option<&Collection>,
    sources: &[&Arc<Collection>],
    describe: &Describe<'_>,
) -> Result<(Vec<Field>, u32), String> {
    let query = view.view_query.as_deref().unwrap_or_default();
    check_text(query)?;
    let tables: Vec<String> = sources.iter().map(|source| scratch_table(source)).collect();
    let columns = describe(&tables, query).map_err(|error| explain(&error, sources))?;
    if columns.len() > limits::FIELDS_PER_COLLECTION_MAX {
        return Err(format!("A view may have {} columns.", limits::FIELDS_PER_COLLECTION_MAX));
    }
    let expressions = select_list(query, columns.len());
    let mut next = before.map_or(1, |before| before.next_field_number);
    let mut fields = Vec::with_capacity(columns.len());
    let mut names = HashSet::new();
    for (at, column) in columns.iter().enumerate() {
        if !names.insert(column.name.to_ascii_lowercase()) {
            return Err(format!("The column {:?} occurs twice; give one of them another name with AS.", column.name));
        }
        let expression = expressions.as_ref().and_then(|list| list.get(at)).map_or("", String::as_str);
        let mut field = column_field(column, sources, expression)?;
        let known = before.and_then(|before| before.find_field(&column.name)).map(|old| old.number);
        field.number = if column.name == "id" {
            FieldNumber(0)
        } else {
            known.unwrap_or_else(|| {
                next += 1;
                FieldNumber(next - 1)
            })
        };
        fields.push(field);
    }
    fields.sort_by_key(|field| field.number.0 != 0);
    if fields.first().is_none_or(|field| field.number.0 != 0) {
        return Err(
            "The SELECT needs a column named id with a different value in each row, such as posts.id.".to_owned()
        );
    }
    Ok((fields, next))
}

fn explain(error: &str, sources: &[&Arc<Collection>]) -> String {
    let known: Vec<&str> = sources.iter().map(|source| source.name.as_str()).collect();
    let reads = if known.is_empty() {
        "no collection is named in it".to_owned()
    } else {
        format!("it reads {}", known.join(", "))
    };
    format!("The SELECT cannot be used: {error} ({reads}).")
}

fn check_text(query: &str) -> Result<(), String> {
    let tokens = tokens(query);
    match tokens.first() {
        Some(Token::Word(word)) if word.eq_ignore_ascii_case("select") || word.eq_ignore_ascii_case("with") => {}
        _ => return Err("Only a SELECT can be a view; it may begin with WITH.".to_owned()),
    }
    for token in &tokens {
        match token {
            Token::Sign(';') => return Err("A view is one statement; take the ; out.".to_owned()),
            Token::Sign('?' | '@' | '$' | ':') => return Err("A view takes no parameters.".to_owned()),
            Token::Word(word) | Token::Quoted(word) => {
                let lower = word.to_ascii_lowercase();
                let inside = ["sqlite_", "pragma_", "_tn_", "fts_"].iter().any(|prefix| lower.starts_with(prefix));
                if inside
                    || matches!(lower.as_str(), "dbstat" | "load_extension" | "readfile" | "randomblob" | "zeroblob")
                {
                    return Err(format!("A view cannot use {word:?}."));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Secrets are out of reach of every view.
fn exposed(source: &Collection) -> impl Iterator<Item = &Field> {
    source.fields.iter().filter(|field| !field.is_secret())
}

/// A stand-in for a collection in the scratch database: present names, no rowid (the real view has none to offer).
fn scratch_table(source: &Collection) -> String {
    let columns: Vec<String> = exposed(source)
        .map(|field| match field.number.0 {
            0 => "id TEXT NOT NULL PRIMARY KEY".to_owned(),
            _ => format!("\"{}\" {}", field.name, field.kind.storage().sql_type()),
        })
        .collect();
    format!("CREATE TABLE \"{}\" ({}) WITHOUT ROWID", source.name, columns.join(", "))
}

fn column_field(column: &ColumnOrigin, sources: &[&Arc<Collection>], expression: &str) -> Result<Field, String> {
    let name = FieldName::parse(&column.name).map_err(|_| {
        format!("The column {:?} needs a plain name; write … AS name (letters, digits and _).", column.name)
    })?;
    let origin = column.table.as_deref().zip(column.column.as_deref()).and_then(|(table, field)| {
        let source = sources.iter().find(|source| source.name.as_str().eq_ignore_ascii_case(table))?;
        source.fields.iter().find(|known| known.name.as_str().eq_ignore_ascii_case(field))
    });
    let kind = match origin {
        _ if column.name == "id" => FieldKind::Text(TextOptions { primary_key: true, ..TextOptions::default() }),
        Some(origin) if origin.number.0 == 0 => FieldKind::Text(TextOptions::default()),
        Some(origin) => origin.kind.clone(),
        None => expression_kind(expression),
    };
    let id = FieldId::parse(&format!("_{}{}", kind.type_name(), field_build::crc32(&column.name)));
    Ok(Field {
        id: id.map_err(|error| error.to_string())?,
        number: FieldNumber(0),
        system: column.name == "id",
        hidden: origin.is_some_and(|origin| origin.hidden),
        presentable: false,
        required: column.name == "id",
        searchable: false,
        read_rule: origin.and_then(|origin| origin.read_rule.clone()),
        write_rule: None,
        name,
        kind,
    })
}

/// What an expression gives, judged by how it is written; JSON where that says nothing.
fn expression_kind(expression: &str) -> FieldKind {
    let number = || FieldKind::Number(NumberOptions::default());
    let text = || FieldKind::Text(TextOptions::default());
    let lower = expression.trim().to_ascii_lowercase();
    if lower.starts_with(|first: char| first.is_ascii_digit()) {
        return number();
    }
    if lower.starts_with('\'') {
        return text();
    }
    let function = lower.split('(').next().unwrap_or_default().trim();
    match function {
        "count" | "sum" | "total" | "avg" | "length" | "round" | "abs" | "julianday" | "unixepoch" => number(),
        "group_concat" | "lower" | "upper" | "trim" | "substr" | "replace" | "printf" | "format" | "strftime"
        | "date" | "datetime" => text(),
        "cast" => match cast_type(&lower) {
            "real" | "int" | "integer" | "numeric" | "decimal" => number(),
            "bool" | "boolean" => FieldKind::Bool,
            "text" => text(),
            _ => FieldKind::Json { max_size: 0 },
        },
        _ => FieldKind::Json { max_size: 0 },
    }
}

/// The type named in `cast(… as type)`, whatever follows the closing parenthesis.
fn cast_type(expression: &str) -> &str {
    let mut depth = 0;
    let end = expression.find(|char| {
        depth += i32::from(char == '(') - i32::from(char == ')');
        char == ')' && depth == 0
    });
    let inside = expression.get(..end.unwrap_or(expression.len())).unwrap_or_default();
    inside.rsplit(" as ").next().unwrap_or_default().trim()
}

/// The statement that makes the view in the file.
pub(crate) fn render(view: &Collection, sources: &[&Arc<Collection>], origins: &HashSet<FieldNumber>) -> String {
    let tables: Vec<String> = sources
        .iter()
        .map(|source| {
            let columns: Vec<String> = exposed(source)
                .map(|field| {
                    if field.number.0 == 0 {
                        "id".to_owned()
                    } else {
                        format!("{} AS \"{}\"", field.column(), field.name)
                    }
                })
                .collect();
            format!(
                "\"{}\" AS NOT MATERIALIZED (SELECT {} FROM \"{}\")",
                source.name,
                columns.join(", "),
                source.table()
            )
        })
        .collect();
    let columns: Vec<String> =
        view.fields.iter().map(|field| view_column(field, origins.contains(&field.number))).collect();
    let with = if tables.is_empty() { String::new() } else { format!("WITH {} ", tables.join(", ")) };
    let query = view.view_query.as_deref().unwrap_or_default();
    // The line break ends a comment at the end of the SELECT.
    format!("CREATE VIEW \"{}\" AS {with}SELECT {} FROM ({query}\n)", view.table(), columns.join(", "))
}

/// Which columns of the view are certain to hold what their kind promises.
pub(crate) fn plain_columns(
    view: &Collection,
    sources: &[&Arc<Collection>],
    describe: &Describe<'_>,
) -> HashSet<FieldNumber> {
    let tables: Vec<String> = sources.iter().map(|source| scratch_table(source)).collect();
    let columns = describe(&tables, view.view_query.as_deref().unwrap_or_default()).unwrap_or_default();
    columns
        .iter()
        .filter(|column| column.table.is_some())
        .filter_map(|column| view.find_field(&column.name))
        .map(|field| field.number)
        .collect()
}

fn view_column(field: &Field, plain: bool) -> String {
    let (name, column) = (field.name.as_str(), field.column());
    if plain {
        return format!("\"{name}\" AS {column}");
    }
    if field.number.0 == 0 {
        // A row that is counted has a number; an address has text.
        return format!("CAST(\"{name}\" AS TEXT) AS {column}");
    }
    match field.kind.storage() {
        Storage::Number | Storage::Bool => format!("IFNULL(\"{name}\", 0) AS {column}"),
        Storage::Json => format!(
            "CASE WHEN typeof(\"{name}\") = 'text' AND json_valid(\"{name}\") THEN \"{name}\" WHEN typeof(\"{name}\") IN ('integer', 'real') THEN \"{name}\" ELSE json_quote(\"{name}\") END AS {column}"
        ),
        Storage::Text | Storage::List | Storage::Point => format!("IFNULL(CAST(\"{name}\" AS TEXT), '') AS {column}"),
    }
}

/// A piece of SQL text.
#[derive(Debug, PartialEq)]
pub(super) enum Token<'a> {
    Word(&'a str),
    Quoted(&'a str),
    Text(&'a str),
    Sign(char),
}

impl Token<'_> {
    pub(super) fn is_word(&self, keyword: &str) -> bool {
        matches!(self, Token::Word(word) if word.eq_ignore_ascii_case(keyword))
    }
}

/// Splits SQL text into tokens; comments are dropped.
pub(super) fn tokens(sql: &str) -> Vec<Token<'_>> {
    spanned(sql).into_iter().map(|(_, token)| token).collect()
}

/// Splits SQL text into tokens with their byte position; comments are dropped.
fn spanned(sql: &str) -> Vec<(usize, Token<'_>)> {
    let mut out = Vec::new();
    let mut at = 0;
    while let Some(rest) = sql.get(at..).filter(|rest| !rest.is_empty()) {
        let until = |end: &str| rest.find(end).map_or(rest.len(), |found| found + end.len());
        let first = rest.chars().next().unwrap_or(' ');
        let len = if rest.starts_with("--") {
            until("\n")
        } else if rest.starts_with("/*") {
            until("*/")
        } else if let '\'' | '"' | '`' | '[' = first {
            let close = if first == '[' { ']' } else { first };
            let end =
                rest.char_indices().skip(1).find(|(_, char)| *char == close).map_or(rest.len(), |(found, _)| found);
            let inner = rest.get(1..end).unwrap_or_default();
            out.push((at, if first == '\'' { Token::Text(inner) } else { Token::Quoted(inner) }));
            (end + 1).min(rest.len())
        } else if first.is_alphanumeric() || first == '_' {
            let len = rest.find(|char: char| !(char.is_alphanumeric() || char == '_')).unwrap_or(rest.len());
            out.push((at, Token::Word(rest.get(..len).unwrap_or_default())));
            len
        } else {
            if !first.is_whitespace() {
                out.push((at, Token::Sign(first)));
            }
            first.len_utf8()
        };
        at += len;
    }
    out
}

/// The expressions of the outermost SELECT, when they can be told apart and there are `count` of them.
fn select_list(query: &str, count: usize) -> Option<Vec<String>> {
    let tokens = spanned(query);
    let mut depth = 0_i32;
    let mut start = None;
    let mut items = Vec::new();
    for (at, token) in &tokens {
        match token {
            Token::Sign('(') => depth += 1,
            Token::Sign(')') => depth -= 1,
            Token::Sign(',') if depth == 0 && start.is_some() => items.push((start.replace(at + 1)?, *at)),
            word if depth == 0 && start.is_none() && word.is_word("select") => start = Some(at + "select".len()),
            word if depth == 0 && start.is_some() && word.is_word("from") => {
                items.push((start?, *at));
                start = None;
                break;
            }
            _ => {}
        }
    }
    if let Some(start) = start {
        items.push((start, query.len()));
    }
    let texts: Vec<String> =
        items.into_iter().map(|(from, to)| strip_alias(query.get(from..to).unwrap_or_default())).collect();
    (texts.len() == count).then_some(texts)
}

/// Cuts `AS name` off an expression of a select list.
fn strip_alias(item: &str) -> String {
    let item = item.trim();
    let lower = item.to_ascii_lowercase();
    let alias = lower.rfind(" as ").filter(|at| !lower.get(*at..).unwrap_or_default().contains(')'));
    alias.and_then(|at| item.get(..at)).unwrap_or(item).trim().to_owned()
}
