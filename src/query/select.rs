//! `fields`, `excludeFields` and `expand`: which members of an answer are shown and which relations are embedded.
//!
//! Keeps true: a selection can only take away from what a caller may read. Does not do: reading records.

use crate::kernel::limits;
use crate::query::error::{Problem, QueryError, Surface};
use crate::query::inside::Inside;
use indexmap::IndexMap;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Which members of one record are shown.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selection {
    all: bool,
    picks: IndexMap<Arc<str>, Pick>,
    excluded: BTreeSet<Arc<str>>,
    /// What of JSON members is shown.
    inside: BTreeMap<Arc<str>, Inside>,
    expand: Option<IndexMap<Arc<str>, Selection>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Pick {
    excerpt: Option<Excerpt>,
    /// The member itself was named, not only something inside it.
    whole: bool,
}

/// `:excerpt(max, ellipsis)`: plain text cut to a length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Excerpt {
    /// Most characters.
    pub chars_max: usize,
    /// Whether a cut is shown as `...`, as PocketBase does.
    pub ellipsis: bool,
}

impl Selection {
    /// Everything a caller may read.
    pub fn everything() -> Self {
        Self { all: true, ..Self::default() }
    }

    /// Parses `fields` and `excludeFields`; blank `fields` is everything.
    pub fn parse(fields: &str, exclude: &str) -> Result<Self, QueryError> {
        let mut selection = if fields.trim().is_empty() { Self::everything() } else { Self::default() };
        let mut count = 0;
        for part in split_outside_parentheses(fields) {
            count += 1;
            if count > limits::FIELDS_MAX {
                let problem = Problem::TooMany { what: "fields", limit: limits::FIELDS_MAX };
                return Err(QueryError::whole(Surface::Fields, problem));
            }
            let (path, modifier) = part.split_once(':').map_or((part, None), |(path, rest)| (path, Some(rest)));
            let excerpt = modifier.map(|modifier| parse_excerpt(fields, modifier)).transpose()?;
            let segments: Vec<&str> = path.split('.').map(str::trim).collect();
            selection.add(&segments, excerpt);
        }
        for (count, path) in exclude.split(',').map(str::trim).filter(|path| !path.is_empty()).enumerate() {
            if count >= limits::FIELDS_MAX {
                let problem = Problem::TooMany { what: "excluded fields", limit: limits::FIELDS_MAX };
                return Err(QueryError::whole(Surface::Fields, problem));
            }
            let segments: Vec<&str> = path.split('.').map(str::trim).collect();
            selection.exclude(&segments);
        }
        Ok(selection)
    }

    fn add(&mut self, segments: &[&str], excerpt: Option<Excerpt>) {
        match segments {
            [] | [""] => {}
            ["*"] => self.all = true,
            ["expand"] | ["expand", "*"] => {
                self.expand.get_or_insert_default().entry(Arc::from("*")).or_insert_with(Self::everything);
            }
            ["expand", relation] => {
                let relations = self.expand.get_or_insert_default();
                relations.insert(Arc::from(*relation), Self::everything());
            }
            ["expand", relation, rest @ ..] => {
                let relations = self.expand.get_or_insert_default();
                relations.entry(Arc::from(*relation)).or_default().add(rest, excerpt);
            }
            // Naming something inside a member shows the member; of a JSON member, what was named.
            [name, rest @ ..] => {
                let pick = self.picks.entry(Arc::from(*name)).or_default();
                pick.excerpt = excerpt.or(pick.excerpt);
                pick.whole |= rest.is_empty();
                if !rest.is_empty() {
                    self.inside.entry(Arc::from(*name)).or_default().pick(rest);
                }
            }
        }
    }

    fn exclude(&mut self, segments: &[&str]) {
        match segments {
            ["expand", relation, rest @ ..] if !rest.is_empty() => {
                let inherited = self.expanded(relation).unwrap_or_else(Self::everything);
                let relations = self.expand.get_or_insert_default();
                relations.entry(Arc::from("*")).or_insert_with(Self::everything);
                relations.entry(Arc::from(*relation)).or_insert(inherited).exclude(rest);
            }
            ["expand", ..] | [_] | [] => _ = self.excluded.insert(Arc::from(segments.join("."))),
            [name, rest @ ..] => self.inside.entry(Arc::from(*name)).or_default().exclude(rest),
        }
    }

    /// Whether the member is shown.
    pub fn shows(&self, name: &str) -> bool {
        !self.excluded.contains(name) && (self.all || self.picks.contains_key(name))
    }

    /// Whether any member besides `expand` is shown.
    pub fn is_everything(&self) -> bool {
        self.all && self.picks.is_empty() && self.excluded.is_empty() && self.inside.is_empty() && self.expand.is_none()
    }

    /// How the member is cut, if it is.
    pub fn excerpt(&self, name: &str) -> Option<Excerpt> {
        self.picks.get(name).and_then(|pick| pick.excerpt)
    }

    /// What of the value of a JSON member is shown; `None` is all of it.
    pub fn inside(&self, name: &str) -> Option<Inside> {
        let mut inside = self.inside.get(name).cloned()?;
        if self.picks.get(name).is_some_and(|pick| pick.whole) {
            inside.pick(&["*"]);
        }
        Some(inside)
    }

    /// What of an embedded relation is shown; `None` is nothing.
    pub fn expanded(&self, relation: &str) -> Option<Selection> {
        if self.excluded.contains("expand") || self.excluded.contains(format!("expand.{relation}").as_str()) {
            return None;
        }
        match &self.expand {
            Some(relations) => relations.get(relation).or_else(|| relations.get("*")).cloned(),
            None => self.all.then(Self::everything),
        }
    }
}

impl Excerpt {
    /// Plain text of at most `chars_max` characters: tags removed, blanks folded.
    pub fn apply(self, text: &str) -> String {
        let plain = strip_tags(text);
        let words: Vec<&str> = plain.split_whitespace().collect();
        let folded = words.join(" ");
        let mut out: String = folded.chars().take(self.chars_max).collect();
        if folded.chars().count() > self.chars_max {
            out.truncate(out.trim_end().len());
            if self.ellipsis {
                out.push_str("...");
            }
        }
        out
    }
}

/// Removes what stands between `<` and `>`, and whole scripts and styles; block ends become blanks.
fn strip_tags(html: &str) -> String {
    let mut out = String::with_capacity(html.len());
    let mut rest = html;
    while let Some(at) = rest.find('<') {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let name: String =
            from.chars().skip(1).take_while(char::is_ascii_alphanumeric).collect::<String>().to_lowercase();
        let closing = from.chars().nth(1) == Some('/');
        if name.is_empty() && !closing && !from.starts_with("<!") {
            // A lone "less than" is text.
            out.push('<');
            rest = from.get(1..).unwrap_or_default();
            continue;
        }
        let end = match name.as_str() {
            "script" | "style" => find_end(from, &name),
            _ => 0,
        };
        let after = from.get(end..).unwrap_or_default();
        rest = after.find('>').and_then(|close| after.get(close + 1..)).unwrap_or_default();
        if closing || matches!(name.as_str(), "br" | "p" | "div" | "li" | "tr" | "hr" | "script" | "style") {
            out.push(' ');
        }
    }
    out.push_str(rest);
    out.replace("&nbsp;", " ").replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&")
}

/// Where `</name` stands in any case; the end of the text where it does not.
fn find_end(html: &str, name: &str) -> usize {
    let closes = |at: &usize| html.get(at + 2..at + 2 + name.len()).is_some_and(|word| word.eq_ignore_ascii_case(name));
    html.match_indices("</").map(|(at, _)| at).find(closes).unwrap_or(html.len())
}

fn parse_excerpt(source: &str, modifier: &str) -> Result<Excerpt, QueryError> {
    let parsed = || {
        let inner = modifier.trim().strip_prefix("excerpt(")?.strip_suffix(')')?;
        let (chars_max, ellipsis) = match inner.split_once(',') {
            Some((chars_max, ellipsis)) => (chars_max, matches!(ellipsis.trim(), "true" | "1" | "t")),
            None => (inner, false),
        };
        let chars_max = chars_max.trim().parse::<usize>().ok().filter(|chars_max| *chars_max > 0)?;
        Some(Excerpt { chars_max, ellipsis })
    };
    parsed().ok_or_else(|| {
        let position = source.find(modifier).map_or(1, |at| source.get(..at).unwrap_or_default().chars().count() + 1);
        let expected = Cow::Borrowed("excerpt(length) or excerpt(length,true)");
        let problem = Problem::Syntax { expected, found: modifier.chars().take(40).collect() };
        QueryError { surface: Surface::Fields, position, problem }
    })
}

fn split_outside_parentheses(source: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_usize;
    source
        .split(move |c: char| {
            match c {
                '(' => depth += 1,
                ')' => depth = depth.saturating_sub(1),
                _ => {}
            }
            c == ',' && depth == 0
        })
        .map(str::trim)
        .filter(|part| !part.is_empty())
}

/// Relations to embed, and relations of those.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExpandTree {
    /// The relations by name, in the order asked for.
    pub relations: IndexMap<Arc<str>, ExpandTree>,
}

impl ExpandTree {
    /// Parses `a,b.c,coll_via_field`.
    pub fn parse(source: &str) -> Result<Self, QueryError> {
        let mut tree = Self::default();
        let mut count = 0;
        for path in source.split(',').map(str::trim).filter(|path| !path.is_empty()) {
            let segments: Vec<&str> = path.split('.').map(str::trim).collect();
            if segments.len() > limits::PATH_DEPTH_MAX {
                let problem = Problem::TooMany { what: "relations in one path", limit: limits::PATH_DEPTH_MAX };
                return Err(QueryError::whole(Surface::Expand, problem));
            }
            let mut here = &mut tree;
            for segment in segments {
                if segment.is_empty() {
                    let expected = Cow::Borrowed("a relation");
                    let problem = Problem::Syntax { expected, found: path.chars().take(40).collect() };
                    return Err(QueryError::whole(Surface::Expand, problem));
                }
                count += usize::from(!here.relations.contains_key(segment));
                here = here.relations.entry(Arc::from(segment)).or_default();
            }
            if count > limits::EXPAND_MAX {
                let problem = Problem::TooMany { what: "expanded relations", limit: limits::EXPAND_MAX };
                return Err(QueryError::whole(Surface::Expand, problem));
            }
        }
        Ok(tree)
    }

    /// Whether nothing is embedded.
    pub fn is_empty(&self) -> bool {
        self.relations.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selections_show_what_was_picked() {
        let selection = Selection::parse("a, text:excerpt(5,true),expand.rel.b", "").expect("valid");
        assert!(selection.shows("a") && selection.shows("text") && !selection.shows("b"));
        assert_eq!(selection.excerpt("text"), Some(Excerpt { chars_max: 5, ellipsis: true }));
        let inner = selection.expanded("rel").expect("shown");
        assert!(inner.shows("b") && !inner.shows("a"));
        assert_eq!(selection.expanded("other"), None);
    }

    #[test]
    fn a_star_shows_all_and_narrower_expands_stay_narrow() {
        let selection = Selection::parse("*,expand.rel.b", "secret,expand.rel.c").expect("valid");
        assert!(selection.shows("anything") && !selection.shows("secret"));
        assert!(selection.expanded("rel").is_some_and(|inner| inner.shows("b") && !inner.shows("c")));
        let open = Selection::parse("", "expand.rel.c").expect("valid");
        assert!(open.expanded("rel").is_some_and(|inner| inner.shows("b") && !inner.shows("c")));
        assert!(open.expanded("other").is_some_and(|inner| inner.shows("c")));
    }

    #[test]
    fn excerpts_are_plain_text() {
        let excerpt = Excerpt { chars_max: 11, ellipsis: true };
        assert_eq!(excerpt.apply("<p>Hello <b>wörld</b></p><script>x()</script> again"), "Hello wörld...");
        assert_eq!(Excerpt { chars_max: 50, ellipsis: true }.apply("1 < 2 &amp; 3"), "1 < 2 & 3");
        assert!(Selection::parse("a:shorten(3)", "").is_err());
    }

    /// A letter that is longer or shorter in lower case moved the end of a script, and each script cost all that follows it.
    #[test]
    fn scripts_end_where_they_end_and_cost_themselves() {
        let whole = Excerpt { chars_max: 1_000, ellipsis: false };
        for (html, expected) in [
            ("<script>İİİİ\u{212a}\u{212a}</SCRIPT>shown", "shown"),
            ("a<Style>\u{212a}\u{212a}\u{212a}\u{212a}x</style>ä", "a ä"),
            ("a<script>b</scrip>c", "a"),
            ("<script></script", ""),
        ] {
            assert_eq!(whole.apply(html), expected, "{html}");
        }
        let many = "<script>1</script>".repeat(60_000);
        let began = crate::kernel::clock::instant();
        assert_eq!(whole.apply(&many), "");
        assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
    }

    /// Fields beyond the bound were shown although they were to be left out.
    #[test]
    fn nothing_is_left_out_of_what_is_to_be_left_out() {
        let names = |count: usize| (0..count).map(|n| format!("f{n}")).collect::<Vec<_>>().join(",");
        assert!(Selection::parse("", &names(limits::FIELDS_MAX)).is_ok_and(|selection| !selection.shows("f0")));
        assert!(Selection::parse("", &names(limits::FIELDS_MAX + 1)).is_err());
    }

    #[test]
    fn expands_become_a_tree() {
        let tree = ExpandTree::parse("a.b,a.c, d_via_e").expect("valid");
        let names: Vec<_> = tree.relations.keys().map(|name| &**name).collect();
        assert_eq!(names, ["a", "d_via_e"]);
        assert_eq!(tree.relations["a"].relations.len(), 2);
        assert!(ExpandTree::parse("a.b.c.d.e.f.g").is_err());
        assert!(ExpandTree::parse("a..b").is_err());
    }
}
