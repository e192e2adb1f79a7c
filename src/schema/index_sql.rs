//! Index definitions as SQL text on the wire, and back.
//!
//! ```text
//! index  = CREATE [UNIQUE] INDEX [IF NOT EXISTS] [schema .] name ON name ( column { , column } ) [WHERE term { AND term }] [;]
//! column = name [COLLATE (NOCASE|BINARY)] [ASC|DESC]
//! term   = name (= | != | <> | > | >= | < | <=) literal | name IS [NOT] NULL | ( term )
//! ```
//!
//! Keeps true: only what the grammar allows ever reaches DDL; names are resolved to field numbers here, literals are
//! numbers or quoted texts. Does not do: expressions in indexes; they are refused with what to write instead.

use super::{Collection, Index, IndexColumn, IndexCondition, IndexTerm};
use crate::kernel::ident::FieldNumber;
use std::fmt::Write as _;
use std::sync::Arc;

/// Characters in one index text.
const TEXT_CHARS_MAX: usize = 2_000;
/// Columns in one index.
const COLUMNS_MAX: usize = 16;

/// Reads one index text; `find` answers the number of a field name. The error says what is wrong in one sentence.
pub(crate) fn parse(text: &str, find: &dyn Fn(&str) -> Option<FieldNumber>) -> Result<Index, String> {
    if text.len() > TEXT_CHARS_MAX {
        return Err(format!("The index text is longer than {TEXT_CHARS_MAX} characters."));
    }
    let mut parser = Parser { tokens: tokens(text)?, at: 0, find };
    let index = parser.index()?;
    match parser.peek() {
        None => Ok(index),
        Some(extra) => Err(format!("Unexpected {} at the end of the index text.", extra.shown())),
    }
}

/// The name of the index that `text` makes, in lower case; `None` if it makes none.
pub(crate) fn name_of(text: &str) -> Option<String> {
    let tokens = tokens(text).ok()?;
    let on = tokens.iter().position(|token| matches!(token, Token::Word(word) if word.eq_ignore_ascii_case("on")))?;
    match tokens.get(on.checked_sub(1)?)? {
        Token::Word(name) | Token::Quoted(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Word(String),
    Quoted(String),
    Number(String),
    Text(String),
    Sign(&'static str),
}

impl Token {
    fn shown(&self) -> String {
        match self {
            Self::Word(text) | Self::Quoted(text) | Self::Number(text) => format!("{text:?}"),
            Self::Text(text) => format!("'{text}'"),
            Self::Sign(sign) => format!("{sign:?}"),
        }
    }
}

const SIGNS: &[&str] = &["!=", "<>", "<=", ">=", "==", "=", "<", ">", "(", ")", ",", ".", ";"];

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut out = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let (token, after) = match first {
            '\'' => quoted(rest, '\'').map(|(text, after)| (Token::Text(text), after))?,
            '"' | '`' => quoted(rest, first).map(|(text, after)| (Token::Quoted(text), after))?,
            '[' => quoted(rest, ']').map(|(text, after)| (Token::Quoted(text), after))?,
            _ if first.is_ascii_digit() || first == '-' => {
                let len = rest.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '-')).unwrap_or(rest.len());
                let (number, after) = rest.split_at(len);
                number.parse::<f64>().map_err(|_| format!("{number:?} is not a number."))?;
                (Token::Number(number.to_owned()), after)
            }
            _ if first.is_ascii_alphabetic() || first == '_' => {
                let len = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
                let (word, after) = rest.split_at(len);
                (Token::Word(word.to_owned()), after)
            }
            _ => {
                let sign = SIGNS.iter().find(|sign| rest.starts_with(**sign));
                let sign = sign.ok_or_else(|| format!("The character {first:?} does not belong in an index."))?;
                (Token::Sign(sign), rest.split_at(sign.len()).1)
            }
        };
        out.push(token);
        rest = after.trim_start();
    }
    Ok(out)
}

/// Reads up to the closing `quote`; a doubled quote stands for itself.
fn quoted(text: &str, quote: char) -> Result<(String, &str), String> {
    let mut out = String::new();
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, char)) = chars.next() {
        if char != quote {
            out.push(char);
        } else if chars.peek().is_some_and(|(_, next)| *next == quote) {
            out.push(quote);
            chars.next();
        } else {
            return Ok((out, text.get(at + quote.len_utf8()..).unwrap_or_default()));
        }
    }
    Err(format!("A {quote} is opened and never closed."))
}

struct Parser<'a> {
    tokens: Vec<Token>,
    at: usize,
    find: &'a dyn Fn(&str) -> Option<FieldNumber>,
}

impl Parser<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn keyword(&mut self, keyword: &str) -> bool {
        let hit = matches!(self.peek(), Some(Token::Word(word)) if word.eq_ignore_ascii_case(keyword));
        self.at += usize::from(hit);
        hit
    }

    fn sign(&mut self, sign: &str) -> bool {
        let hit = matches!(self.peek(), Some(Token::Sign(found)) if *found == sign);
        self.at += usize::from(hit);
        hit
    }

    fn must(&mut self, hit: bool, wanted: &str) -> Result<(), String> {
        if hit {
            return Ok(());
        }
        let found = self.peek().map_or_else(|| "the end".to_owned(), Token::shown);
        Err(format!(
            "Expected {wanted} but found {found}. The form is: CREATE [UNIQUE] INDEX name ON collection (field [COLLATE NOCASE] [DESC], …) [WHERE field != '' AND …]."
        ))
    }

    fn name(&mut self, wanted: &str) -> Result<String, String> {
        match self.peek() {
            Some(Token::Word(name) | Token::Quoted(name)) => {
                let name = name.clone();
                self.at += 1;
                Ok(name)
            }
            _ => self.must(false, wanted).map(|()| String::new()),
        }
    }

    fn index(&mut self) -> Result<Index, String> {
        let create = self.keyword("create");
        self.must(create, "CREATE")?;
        let unique = self.keyword("unique");
        let index = self.keyword("index");
        self.must(index, "INDEX")?;
        if self.keyword("if") {
            let rest = self.keyword("not") && self.keyword("exists");
            self.must(rest, "NOT EXISTS")?;
        }
        let mut name = self.name("the index name")?;
        if self.sign(".") {
            name = self.name("the index name")?;
        }
        if !(1..=100).contains(&name.len()) || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err(format!("The index name {name:?} must be 1 to 100 letters, digits or _."));
        }
        let on = self.keyword("on");
        self.must(on, "ON")?;
        // The collection's name is not compared: an export keeps working under another name.
        self.name("the collection name")?;
        let columns = self.columns()?;
        let condition = if self.keyword("where") { Some(IndexCondition(self.terms()?)) } else { None };
        self.sign(";");
        Ok(Index { name: Arc::from(name), unique, columns, condition })
    }

    fn columns(&mut self) -> Result<Vec<IndexColumn>, String> {
        let open = self.sign("(");
        self.must(open, "(")?;
        let mut columns: Vec<IndexColumn> = Vec::new();
        loop {
            let column = self.column()?;
            if columns.iter().any(|other| other.field == column.field) {
                return Err("A field appears twice in the index.".to_owned());
            }
            columns.push(column);
            if !self.sign(",") {
                break;
            }
        }
        let close = self.sign(")");
        self.must(close, ", or )")?;
        if columns.len() > COLUMNS_MAX {
            return Err(format!("An index has at most {COLUMNS_MAX} fields."));
        }
        Ok(columns)
    }

    fn column(&mut self) -> Result<IndexColumn, String> {
        let field = self.field()?;
        let mut nocase = false;
        if self.keyword("collate") {
            let collation = self.name("NOCASE")?;
            nocase = collation.eq_ignore_ascii_case("nocase");
            if !nocase && !collation.eq_ignore_ascii_case("binary") {
                return Err(format!("The collation {collation:?} is not offered; use NOCASE or leave COLLATE out."));
            }
        }
        let descending = self.keyword("desc");
        if !descending {
            self.keyword("asc");
        }
        Ok(IndexColumn { field, descending, nocase })
    }

    fn field(&mut self) -> Result<FieldNumber, String> {
        let name = self.name("a field name")?;
        if matches!(self.peek(), Some(Token::Sign("("))) {
            return Err(format!(
                "Expressions such as {name}(…) cannot be indexed; name a field (COLLATE NOCASE ignores case)."
            ));
        }
        (self.find)(&name).ok_or_else(|| format!("There is no field {name:?} in this collection."))
    }

    fn terms(&mut self) -> Result<Vec<IndexTerm>, String> {
        let mut terms = vec![self.term()?];
        while self.keyword("and") {
            terms.push(self.term()?);
        }
        if terms.len() > COLUMNS_MAX {
            return Err(format!("The condition of an index has at most {COLUMNS_MAX} comparisons."));
        }
        Ok(terms)
    }

    fn term(&mut self) -> Result<IndexTerm, String> {
        if self.sign("(") {
            let term = self.term()?;
            let close = self.sign(")");
            self.must(close, ")")?;
            return Ok(term);
        }
        let field = self.field()?;
        if self.keyword("is") {
            let operator = if self.keyword("not") { "IS NOT NULL" } else { "IS NULL" };
            let null = self.keyword("null");
            self.must(null, "NULL")?;
            return Ok(IndexTerm { field, operator: Arc::from(operator), literal: Arc::from("") });
        }
        let operator = ["=", "==", "!=", "<>", ">", ">=", "<", "<="].into_iter().find(|sign| self.sign(sign));
        let operator = match operator {
            Some("==") => "=",
            Some("<>") => "!=",
            Some(operator) => operator,
            None => {
                return self.must(false, "a comparison such as !=").map(|()| IndexTerm {
                    field,
                    operator: Arc::from(""),
                    literal: Arc::from(""),
                });
            }
        };
        let literal = self.literal()?;
        Ok(IndexTerm { field, operator: Arc::from(operator), literal: Arc::from(literal) })
    }

    fn literal(&mut self) -> Result<String, String> {
        let literal = match self.peek() {
            Some(Token::Number(number)) => number.clone(),
            Some(Token::Text(text)) => format!("'{}'", text.replace('\'', "''")),
            // SQLite reads "" as an empty text where no such column exists, and PocketBase exports contain it.
            Some(Token::Quoted(text)) if text.is_empty() => "''".to_owned(),
            Some(Token::Word(word)) if word.eq_ignore_ascii_case("true") => "1".to_owned(),
            Some(Token::Word(word)) if word.eq_ignore_ascii_case("false") => "0".to_owned(),
            _ => return self.must(false, "a number or a 'text'").map(|()| String::new()),
        };
        self.at += 1;
        Ok(literal)
    }
}

/// Writes the index with the present names, in the quoting of PocketBase.
pub(crate) fn to_sql(collection: &Collection, index: &Index) -> String {
    let name = |number: FieldNumber| collection.find_field_number(number).map_or("?", |field| field.name.as_str());
    let unique = if index.unique { "UNIQUE " } else { "" };
    let mut sql = format!("CREATE {unique}INDEX `{}` ON `{}` (", index.name, collection.name);
    for (at, column) in index.columns.iter().enumerate() {
        let comma = if at == 0 { "" } else { ", " };
        let collate = if column.nocase { " COLLATE NOCASE" } else { "" };
        let order = if column.descending { " DESC" } else { "" };
        // Writing into a String cannot fail.
        let _ = write!(sql, "{comma}`{}`{collate}{order}", name(column.field));
    }
    sql.push(')');
    for (at, term) in index.condition.iter().flat_map(|condition| &condition.0).enumerate() {
        let joiner = if at == 0 { "WHERE" } else { "AND" };
        let space = if term.literal.is_empty() { "" } else { " " };
        let _ = write!(sql, " {joiner} `{}` {}{space}{}", name(term.field), term.operator, term.literal);
    }
    sql
}

/// The name of the index in the file: derived from the collection's id, so that a rename touches nothing.
pub(crate) fn physical_name(collection: &Collection, index: &Index) -> String {
    format!("i_{}_{}", collection.id, index.name)
}

/// The DDL that makes the index.
pub(crate) fn to_ddl(collection: &Collection, index: &Index) -> String {
    let column_name = |number: FieldNumber| if number.0 == 0 { "id".to_owned() } else { format!("f{}", number.0) };
    let unique = if index.unique { "UNIQUE " } else { "" };
    let columns: Vec<String> = index
        .columns
        .iter()
        .map(|column| {
            let collate = if column.nocase { " COLLATE NOCASE" } else { "" };
            let order = if column.descending { " DESC" } else { "" };
            format!("{}{collate}{order}", column_name(column.field))
        })
        .collect();
    let terms: Vec<String> = index
        .condition
        .iter()
        .flat_map(|condition| &condition.0)
        .map(|term| format!("{} {} {}", column_name(term.field), term.operator, term.literal).trim_end().to_owned())
        .collect();
    let condition = if terms.is_empty() { String::new() } else { format!(" WHERE {}", terms.join(" AND ")) };
    let (name, table) = (physical_name(collection, index), collection.table());
    format!("CREATE {unique}INDEX \"{name}\" ON \"{table}\" ({}){condition}", columns.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(name: &str) -> Option<FieldNumber> {
        ["id", "a", "b"].iter().position(|known| *known == name).and_then(|at| u32::try_from(at).ok()).map(FieldNumber)
    }

    #[test]
    fn the_forms_people_write_are_understood() {
        for text in [
            "CREATE INDEX i ON t (a)",
            "create index if not exists i on t(`a`)",
            "CREATE INDEX `i` ON `t` ([a] ASC) ;",
            "CREATE INDEX main.i ON \"t\" (\"a\" COLLATE BINARY)",
        ] {
            let index = parse(text, &find).unwrap_or_else(|why| panic!("{text}: {why}"));
            assert_eq!((&*index.name, index.unique, index.columns.len()), ("i", false, 1), "{text}");
            assert_eq!(name_of(text).as_deref(), Some("i"), "{text}");
        }
        let full = parse(
            "CREATE UNIQUE INDEX i ON t (a COLLATE NOCASE DESC, b) WHERE a != '' AND (b >= -2.5) AND a <> 'it''s' AND b IS NOT NULL",
            &find,
        )
        .unwrap();
        assert!(full.unique && full.columns[0].nocase && full.columns[0].descending && !full.columns[1].descending);
        let terms: Vec<_> =
            full.condition.unwrap().0.iter().map(|term| format!("{}{}", term.operator, term.literal)).collect();
        assert_eq!(terms, ["!=''", ">=-2.5", "!='it''s'", "IS NOT NULL"]);
    }

    #[test]
    fn anything_else_is_refused_with_a_reason() {
        for (text, part) in [
            ("", "Expected CREATE"),
            ("CREATE INDEX i ON t (a", "Expected , or )"),
            ("CREATE INDEX i ON t (a); DROP TABLE t", "at the end"),
            ("CREATE INDEX i ON t (lower(a))", "cannot be indexed"),
            ("CREATE INDEX i ON t (zz)", "no field"),
            ("CREATE INDEX i ON t (a, a)", "twice"),
            ("CREATE INDEX i ON t (a COLLATE RTRIM)", "not offered"),
            ("CREATE INDEX i ON t (a) WHERE a = b", "a number or a 'text'"),
            ("CREATE INDEX i ON t (a) WHERE a = 'x' OR 1", "at the end"),
            ("CREATE INDEX 'i' ON t (a)", "the index name"),
            ("CREATE INDEX \"i\"\"j\" ON t (a)", "must be 1 to 100"),
            ("CREATE INDEX i ON t (a) WHERE a = 'x", "never closed"),
            ("CREATE INDEX i ON t (a) WHERE a = 1.2.3", "not a number"),
            ("CREATE INDEX i ON t (a) -- x", "not a number"),
        ] {
            let why = parse(text, &find).expect_err(text);
            assert!(why.contains(part), "{text}: {why}");
        }
    }
}
