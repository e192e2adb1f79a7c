//! Texts made from a simple pattern, for `autogeneratePattern`.
//!
//! ```text
//! pattern = { atom [ repeat ] }
//! atom    = literal | \d | \w | \ any | [ class ]
//! class   = { char | char - char | \d | \w }
//! repeat  = {n} | {n,m}
//! ```
//! A leading `^` and a trailing `$` are ignored.
//!
//! Keeps true: a pattern that [`check`] accepts always generates, within the length bound.
//! Does not do: the rest of regular expressions; [`check`] says so.

use crate::kernel::random::{self, Random};

/// Characters one pattern may generate.
const GENERATED_CHARS_MAX: usize = 1_000;

struct Piece {
    alphabet: Vec<char>,
    min: usize,
    max: usize,
}

/// Whether `pattern` can be generated from; empty is no pattern.
pub(crate) fn check(pattern: &str) -> Result<(), String> {
    parse(pattern).map(|_| ())
}

/// Draws one text; empty for a pattern that [`check`] refuses.
pub fn draw(pattern: &str, source: &dyn Random) -> String {
    if pattern == "[a-z0-9]{15}" {
        return random::lowercase_id(source, 15);
    }
    let mut out = String::new();
    for piece in parse(pattern).unwrap_or_default() {
        let spread = (piece.max - piece.min) as u64 + 1;
        let extra = usize::try_from(random::below(source, spread)).unwrap_or(0);
        for _ in 0..piece.min + extra {
            let at = usize::try_from(random::below(source, piece.alphabet.len() as u64)).unwrap_or(0);
            out.extend(piece.alphabet.get(at));
        }
    }
    out
}

fn parse(pattern: &str) -> Result<Vec<Piece>, String> {
    let inner = pattern.strip_prefix('^').unwrap_or(pattern);
    let inner = inner.strip_suffix('$').unwrap_or(inner);
    let mut chars = inner.chars().peekable();
    let mut pieces: Vec<Piece> = Vec::new();
    while let Some(char) = chars.next() {
        let alphabet = match char {
            '[' => class(&mut chars)?,
            '\\' => escape(chars.next())?,
            '(' | ')' | '|' | '*' | '+' | '?' | '.' | '{' | '}' | ']' | '^' | '$' => {
                return Err(format!(
                    "{char:?} is not offered here; write characters, [classes] and {{counts}}, such as [a-z0-9]{{15}}."
                ));
            }
            literal => vec![literal],
        };
        let (min, max) = if chars.peek() == Some(&'{') { repeat(&mut chars)? } else { (1, 1) };
        pieces.push(Piece { alphabet, min, max });
    }
    if pieces.iter().map(|piece| piece.max).sum::<usize>() > GENERATED_CHARS_MAX {
        return Err(format!("Generates more than {GENERATED_CHARS_MAX} characters."));
    }
    Ok(pieces)
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

fn escape(char: Option<char>) -> Result<Vec<char>, String> {
    match char {
        Some('d') => Ok(('0'..='9').collect()),
        Some('w') => Ok(('a'..='z').chain('A'..='Z').chain('0'..='9').chain(['_']).collect()),
        Some(other) if !other.is_alphanumeric() => Ok(vec![other]),
        _ => Err("Only \\d, \\w and escaped signs can follow a backslash.".to_owned()),
    }
}

fn class(chars: &mut Chars<'_>) -> Result<Vec<char>, String> {
    let mut alphabet = Vec::new();
    loop {
        let char = match chars.next() {
            None => return Err("A [ is opened and never closed.".to_owned()),
            Some(']') => break,
            Some('^') if alphabet.is_empty() => return Err("A negated class cannot be generated from.".to_owned()),
            Some('\\') => {
                alphabet.extend(escape(chars.next())?);
                continue;
            }
            Some(char) => char,
        };
        let mut ahead = chars.clone();
        match (ahead.next(), ahead.next()) {
            (Some('-'), Some(end)) if end != ']' => {
                *chars = ahead;
                if end < char || end as u32 - char as u32 > 0x250 {
                    return Err(format!("The range {char}-{end} is empty or too wide."));
                }
                alphabet.extend(char..=end);
            }
            _ => alphabet.push(char),
        }
    }
    if alphabet.is_empty() { Err("A class needs a character.".to_owned()) } else { Ok(alphabet) }
}

fn repeat(chars: &mut Chars<'_>) -> Result<(usize, usize), String> {
    chars.next();
    let mut text = String::new();
    for char in chars.by_ref() {
        if char == '}' {
            break;
        }
        text.push(char);
    }
    let (min, max) = text.split_once(',').unwrap_or((text.as_str(), text.as_str()));
    let count = |text: &str| text.trim().parse::<u16>().map(usize::from).ok();
    match (count(min), count(max)) {
        (Some(min), Some(max)) if min <= max => Ok((min, max)),
        _ => Err(format!("The count {{{text}}} must be {{n}} or {{n,m}}.")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::random::SeededRandom;

    #[test]
    fn generated_texts_match_the_pattern_they_come_from() {
        let source = SeededRandom::new(7);
        for pattern in
            ["[a-z0-9]{15}", "[a-zA-Z0-9]{50}", "INV-\\d{4}-[A-Z]{2,5}", "user_[\\w-]{3}", "^x[a-c]$", "a\\.b"]
        {
            let regex = regex::Regex::new(&format!("^(?:{})$", pattern.trim_matches(['^', '$']))).unwrap();
            for _ in 0..50 {
                let text = draw(pattern, &source);
                assert!(regex.is_match(&text), "{pattern} gave {text}");
            }
        }
        for pattern in ["a+", "(a|b)", "[^a]", "[", "x{5,2}", "x{2000}", ".", "[z-a]", "\\q"] {
            assert!(check(pattern).is_err(), "{pattern}");
            assert_eq!(draw(pattern, &source), "", "{pattern}");
        }
    }
}
