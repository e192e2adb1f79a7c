//! Tokens → [`Expr<Parsed>`]: recursive descent over this grammar.
//!
//! ```text
//! filter     = [ or ] END ;
//! or         = and { "||" and } ;
//! and        = primary { "&&" primary } ;                      && binds tighter than ||
//! primary    = "(" or ")" | comparison ;
//! comparison = operand operator operand ;
//! operator   = [ "?" ] ( "=" | "!=" | ">" | ">=" | "<" | "<=" | "~" | "!~" ) ;
//! operand    = TEXT | NUMBER | NAME | NAME "(" [ operand { "," operand } ] ")" ;
//! TEXT       = "'" { any | "\'" } "'" | '"' { any | '\"' } '"' ;
//! NUMBER     = [ "-" ] digit { digit } [ "." digit { digit } ] ;
//! NAME       = ( letter | "@" | "#" | "_" ) { letter | digit | "_" | "." | ":" } ;
//! comments   = "//" to the end of the line ;
//! ```
//!
//! Keeps true: length, number of comparisons and depth are bounded before any work that grows with them; printing a
//! parsed expression and parsing it again gives an equal one. Does not do: meaning of names.

use crate::kernel::limits;
use crate::query::ast::{Comparison, Expr, Parsed, Term, TermKind};
use crate::query::error::{Problem, QueryError, Span, Surface};
use crate::query::lexer::{Lexer, Token};
use std::borrow::Cow;

/// Parses a client's filter; blank text is `None`.
pub fn parse_filter(source: &str) -> Result<Option<Expr<Parsed>>, QueryError> {
    parse(source, Surface::Filter, limits::FILTER_CHARS_MAX)
}

/// Parses an access rule; blank text is `None` (which means: everyone).
pub fn parse_rule(source: &str) -> Result<Option<Expr<Parsed>>, QueryError> {
    parse(source, Surface::Rule, limits::RULE_CHARS_MAX)
}

fn parse(source: &str, surface: Surface, chars_max: usize) -> Result<Option<Expr<Parsed>>, QueryError> {
    if source.len() > chars_max && source.chars().count() > chars_max {
        return Err(QueryError::whole(surface, Problem::TooMany { what: "characters", limit: chars_max }));
    }
    let mut lexer = Lexer::new(source, surface);
    let (token, span) = lexer.next_token()?;
    let mut parser = Parser { source, surface, lexer, token, span, depth: 0, comparisons: 0 };
    if parser.token == Token::End {
        return Ok(None);
    }
    let expr = parser.parse_or()?;
    match parser.token {
        Token::End => Ok(Some(expr)),
        _ => Err(parser.unexpected("&&, || or the end")),
    }
}

struct Parser<'s> {
    source: &'s str,
    surface: Surface,
    lexer: Lexer<'s>,
    token: Token,
    span: Span,
    depth: usize,
    comparisons: usize,
}

impl Parser<'_> {
    fn parse_or(&mut self) -> Result<Expr<Parsed>, QueryError> {
        let mut parts = vec![self.parse_and()?];
        while self.token == Token::Or {
            self.advance()?;
            parts.push(self.parse_and()?);
        }
        Ok(one_or(parts, Expr::Any))
    }

    fn parse_and(&mut self) -> Result<Expr<Parsed>, QueryError> {
        let mut parts = vec![self.parse_primary()?];
        while self.token == Token::And {
            self.advance()?;
            parts.push(self.parse_primary()?);
        }
        Ok(one_or(parts, Expr::All))
    }

    fn parse_primary(&mut self) -> Result<Expr<Parsed>, QueryError> {
        if self.token != Token::Open {
            return self.parse_comparison();
        }
        self.enter()?;
        self.advance()?;
        let inner = self.parse_or()?;
        if self.token != Token::Close {
            return Err(self.unexpected("&&, || or )"));
        }
        self.advance()?;
        self.depth -= 1;
        Ok(inner)
    }

    fn parse_comparison(&mut self) -> Result<Expr<Parsed>, QueryError> {
        self.comparisons += 1;
        if self.comparisons > limits::FILTER_EXPRESSIONS_MAX {
            return Err(self.too_many("comparisons", limits::FILTER_EXPRESSIONS_MAX));
        }
        let left = self.parse_operand()?;
        let Token::Operator(operator, any) = self.token else {
            return Err(self.unexpected("an operator such as = != > >= < <= ~ !~"));
        };
        self.advance()?;
        let right = self.parse_operand()?;
        let span = left.span.to(right.span);
        Ok(Expr::Compare(Box::new(Comparison { left, operator, any, right, span })))
    }

    fn parse_operand(&mut self) -> Result<Term, QueryError> {
        let span = self.span;
        let kind = match &self.token {
            Token::Text(text) => TermKind::Text(text.clone()),
            Token::Number(number) => TermKind::Number(*number),
            Token::Whole(number) => TermKind::Whole(*number),
            Token::Name(name) => TermKind::Name(name.clone()),
            _ => return Err(self.unexpected("a field or a value")),
        };
        self.advance()?;
        match kind {
            TermKind::Name(name) if self.token == Token::Open => {
                let (arguments, end) = self.parse_arguments()?;
                Ok(Term { kind: TermKind::Call { name, arguments }, span: span.to(end) })
            }
            kind => Ok(Term { kind, span }),
        }
    }

    fn parse_arguments(&mut self) -> Result<(Vec<Term>, Span), QueryError> {
        self.enter()?;
        self.advance()?;
        let mut arguments = Vec::new();
        while self.token != Token::Close {
            if !arguments.is_empty() {
                if self.token != Token::Comma {
                    return Err(self.unexpected("a comma or )"));
                }
                self.advance()?;
            }
            arguments.push(self.parse_operand()?);
            if arguments.len() > limits::FILTER_DEPTH_MAX {
                return Err(self.too_many("arguments", limits::FILTER_DEPTH_MAX));
            }
        }
        let end = self.span;
        self.advance()?;
        self.depth -= 1;
        Ok((arguments, end))
    }

    fn enter(&mut self) -> Result<(), QueryError> {
        self.depth += 1;
        if self.depth > limits::FILTER_DEPTH_MAX {
            return Err(self.too_many("levels of parentheses", limits::FILTER_DEPTH_MAX));
        }
        Ok(())
    }

    fn advance(&mut self) -> Result<(), QueryError> {
        (self.token, self.span) = self.lexer.next_token()?;
        Ok(())
    }

    fn unexpected(&self, expected: &'static str) -> QueryError {
        let found = self.span.of(self.source).chars().take(40).collect();
        let problem = Problem::Syntax { expected: Cow::Borrowed(expected), found };
        QueryError::at(self.surface, self.source, self.span, problem)
    }

    fn too_many(&self, what: &'static str, limit: usize) -> QueryError {
        QueryError::at(self.surface, self.source, self.span, Problem::TooMany { what, limit })
    }
}

/// The only part itself, or all of them joined; parts that are joined the same way are taken in.
fn one_or(mut parts: Vec<Expr<Parsed>>, join: fn(Vec<Expr<Parsed>>) -> Expr<Parsed>) -> Expr<Parsed> {
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        Some(last) => {
            parts.push(last);
            join(parts)
        }
        None => Expr::Constant(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn printed(source: &str) -> String {
        parse_filter(source).expect(source).map(|expr| expr.to_string()).unwrap_or_default()
    }

    #[test]
    fn and_binds_tighter_than_or() {
        for (source, expected) in [
            ("a=1||b=2&&c=3", "a = 1 || b = 2 && c = 3"),
            ("(a=1||b=2)&&c=3", "(a = 1 || b = 2) && c = 3"),
            ("a ?!~ \"x'y\" // why\n && b.c:each >= -1.50", "a ?!~ 'x\\'y' && b.c:each >= -1.5"),
            ("geoDistance(a.lon, a.lat, 1, 2) < 5", "geoDistance(a.lon, a.lat, 1, 2) < 5"),
            ("  // only a comment", ""),
            ("((a = 'it\\'s'))", "a = 'it\\'s'"),
        ] {
            assert_eq!(printed(source), expected, "{source}");
        }
    }

    #[test]
    fn errors_say_where_and_what() {
        for (source, position, expected) in [
            ("a", 2, "an operator"),
            ("a = ", 5, "a field or a value"),
            ("a = 1 b", 7, "&&, ||"),
            ("a = 'x", 5, "a closing '"),
            ("(a = 1", 7, ")"),
            ("a & b", 3, "&& or ||"),
            ("a = 1 && ", 10, "a field or a value"),
            ("ä = 1", 1, "a field"),
            ("a ? 1", 3, "an operator"),
            ("f(1 2) = 1", 5, "a comma"),
            ("a = 1.2.3", 5, "a number"),
        ] {
            let error = parse_filter(source).expect_err(source);
            assert_eq!(error.position, position, "{source}: {error}");
            assert!(error.to_string().contains(expected), "{source}: {error}");
        }
    }

    #[test]
    fn bounds_are_refusals() {
        let deep = format!("{}a=1{}", "(".repeat(2_000), ")".repeat(2_000));
        let long = vec!["a=1"; limits::FILTER_EXPRESSIONS_MAX + 1].join("&&");
        let wide = format!("a='{}'", "x".repeat(limits::FILTER_CHARS_MAX));
        for source in [deep, long, wide] {
            let error = parse_filter(&source).expect_err("over a bound");
            assert!(matches!(error.problem, Problem::TooMany { .. }), "{error}");
        }
    }

    fn any_term() -> impl Strategy<Value = Term> {
        let leaf = prop_oneof![
            "[^\\\\]{0,12}".prop_map(|text| TermKind::Text(text.into())),
            (-1e9_f64..1e9).prop_map(TermKind::Number),
            (1_i64 << 53..=i64::MAX).prop_map(TermKind::Whole),
            (i64::MIN..=-(1_i64 << 53)).prop_map(TermKind::Whole),
            "[@_a-z][a-z0-9_.:]{0,8}".prop_map(|name| TermKind::Name(name.into())),
        ]
        .prop_map(|kind| Term { kind, span: Span::default() });
        leaf.clone().prop_recursive(2, 6, 3, move |inner| {
            ("[a-z]{1,5}", prop::collection::vec(inner, 0..3)).prop_map(|(name, arguments)| Term {
                kind: TermKind::Call { name: name.into(), arguments },
                span: Span::default(),
            })
        })
    }

    fn any_expr() -> impl Strategy<Value = Expr<Parsed>> {
        let leaf = (any_term(), prop::sample::select(&crate::query::ast::Operator::ALL[..]), any::<bool>(), any_term())
            .prop_map(|(left, operator, any, right)| {
                Expr::Compare(Box::new(Comparison { left, operator, any, right, span: Span::default() }))
            });
        leaf.prop_recursive(3, 20, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 2..4).prop_map(Expr::All),
                prop::collection::vec(inner, 2..4).prop_map(Expr::Any),
            ]
        })
    }

    proptest! {
        #[test]
        fn printing_and_parsing_is_identity(expr in any_expr()) {
            let source = expr.to_string();
            let parsed = parse_filter(&source).map_err(|e| TestCaseError::fail(format!("{source}: {e}")))?;
            prop_assert_eq!(parsed.map(|parsed| parsed.without_spans()), Some(expr.without_spans()), "{}", source);
        }

        #[test]
        fn any_text_is_parsed_or_refused(source in "[a-z@'\"()&|=!<>~?0-9., \\\\/:-]{0,60}") {
            if let Ok(Some(expr)) = parse_filter(&source) {
                let again = parse_filter(&expr.to_string()).expect("printed text parses");
                prop_assert_eq!(again.map(|again| again.without_spans()), Some(expr.without_spans()));
            }
        }

        #[test]
        fn arbitrary_unicode_never_panics(source in "\\PC{0,80}") {
            let _ = parse_filter(&source);
        }
    }
}
