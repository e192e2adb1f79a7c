//! Text of a filter → tokens with spans.
//!
//! Keeps true: never panics, never copies more than the text; every token's span is inside the text.
//! Does not do: grammar. A backslash escapes only the quote that opened the text, as PocketBase reads it.

use crate::query::ast::Operator;
use crate::query::error::{Problem, QueryError, Span, Surface};
use std::borrow::Cow;
use std::sync::Arc;

/// From here on a double may stand for several whole numbers.
pub(crate) const EXACT_END: u64 = 1 << 53;

/// One token.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Token {
    /// `(`
    Open,
    /// `)`
    Close,
    /// `,`
    Comma,
    /// `&&`
    And,
    /// `||`
    Or,
    /// A comparison; true where it was written with `?`.
    Operator(Operator, bool),
    /// Quoted text without its quotes.
    Text(Arc<str>),
    /// A number.
    Number(f64),
    /// A whole number from 2^53 on.
    Whole(i64),
    /// A name.
    Name(Arc<str>),
    /// The end of the text.
    End,
}

/// Reads tokens one at a time.
#[derive(Debug)]
pub(crate) struct Lexer<'s> {
    source: &'s str,
    surface: Surface,
    at: usize,
}

impl<'s> Lexer<'s> {
    /// Starts at the beginning of `source`.
    pub(crate) fn new(source: &'s str, surface: Surface) -> Self {
        Self { source, surface, at: 0 }
    }

    /// The next token and where it stands.
    pub(crate) fn next_token(&mut self) -> Result<(Token, Span), QueryError> {
        self.skip_blanks();
        let start = self.at;
        let token = match self.peek() {
            None => Token::End,
            Some('(') => self.single(Token::Open),
            Some(')') => self.single(Token::Close),
            Some(',') => self.single(Token::Comma),
            Some(quote @ ('\'' | '"')) => self.text(quote)?,
            Some('&' | '|') => self.joiner()?,
            Some('=' | '!' | '>' | '<' | '~' | '?') => self.operator()?,
            Some(first) if first.is_ascii_digit() || first == '-' => self.number()?,
            Some(first) if first.is_ascii_alphabetic() || matches!(first, '@' | '#' | '_') => self.name(),
            Some(_) => return Err(self.unexpected("a field, a value or a parenthesis")),
        };
        Ok((token, Span::new(start, self.at)))
    }

    fn rest(&self) -> &'s str {
        self.source.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn single(&mut self, token: Token) -> Token {
        self.at += 1;
        token
    }

    fn take_while(&mut self, keep: impl Fn(char) -> bool) -> &'s str {
        let rest = self.rest();
        let len = rest.find(|c| !keep(c)).unwrap_or(rest.len());
        self.at += len;
        rest.get(..len).unwrap_or_default()
    }

    fn skip_blanks(&mut self) {
        loop {
            self.take_while(char::is_whitespace);
            if !self.rest().starts_with("//") {
                return;
            }
            self.take_while(|c| c != '\n');
        }
    }

    fn text(&mut self, quote: char) -> Result<Token, QueryError> {
        let rest = self.rest();
        let mut escaped = false;
        for (offset, c) in rest.char_indices().skip(1) {
            if c == quote && !escaped {
                let inner = rest.get(1..offset).unwrap_or_default();
                self.at += offset + 1;
                return Ok(Token::Text(Arc::from(inner.replace(&format!("\\{quote}"), &quote.to_string()))));
            }
            escaped = c == '\\';
        }
        let span = Span::new(self.at, self.source.len());
        let expected = Cow::Owned(format!("a closing {quote}"));
        Err(QueryError::at(self.surface, self.source, span, Problem::Syntax { expected, found: String::new() }))
    }

    fn number(&mut self) -> Result<Token, QueryError> {
        let rest = self.rest();
        let sign = usize::from(rest.starts_with('-'));
        let mut len = sign;
        let mut dots = 0;
        for c in rest.chars().skip(sign) {
            if c == '.' && dots == 0 {
                dots = 1;
            } else if !c.is_ascii_digit() {
                break;
            }
            len += 1;
        }
        let text = rest.get(..len).unwrap_or_default();
        // "5." is not a number here, and neither is a lone minus.
        let follows = rest.get(len..).and_then(|after| after.chars().next());
        match text.parse::<f64>() {
            Ok(number)
                if text.ends_with(|c: char| c.is_ascii_digit())
                    && !text.starts_with("-.")
                    && !follows.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | ':' | '@')) =>
            {
                self.at += len;
                let whole = text.parse::<i64>().ok().filter(|whole| whole.unsigned_abs() >= EXACT_END);
                Ok(whole.map_or(Token::Number(number), Token::Whole))
            }
            _ => Err(self.unexpected("a number")),
        }
    }

    fn name(&mut self) -> Token {
        let start = self.at;
        self.at += 1;
        self.take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | ':'));
        Token::Name(Arc::from(self.source.get(start..self.at).unwrap_or_default()))
    }

    fn joiner(&mut self) -> Result<Token, QueryError> {
        let token = match self.rest().get(..2) {
            Some("&&") => Token::And,
            Some("||") => Token::Or,
            _ => return Err(self.unexpected("&& or ||")),
        };
        self.at += 2;
        Ok(token)
    }

    fn operator(&mut self) -> Result<Token, QueryError> {
        let rest = self.rest();
        let any = rest.starts_with('?');
        let body = rest.get(usize::from(any)..).unwrap_or_default();
        // Longest first, so that `>=` is not read as `>`.
        let found = [
            ("!=", Operator::NotEqual),
            (">=", Operator::GreaterOrEqual),
            ("<=", Operator::LessOrEqual),
            ("!~", Operator::NotLike),
            ("=", Operator::Equal),
            (">", Operator::Greater),
            ("<", Operator::Less),
            ("~", Operator::Like),
        ]
        .into_iter()
        .find(|(text, _)| body.starts_with(text));
        match found {
            Some((text, operator)) => {
                self.at += usize::from(any) + text.len();
                Ok(Token::Operator(operator, any))
            }
            None => Err(self.unexpected("an operator such as = != > >= < <= ~ !~")),
        }
    }

    fn unexpected(&self, expected: &'static str) -> QueryError {
        let found: String = self.rest().chars().take(12).collect();
        let span = Span::new(self.at, self.at + 1);
        QueryError::at(self.surface, self.source, span, Problem::Syntax { expected: Cow::Borrowed(expected), found })
    }
}
