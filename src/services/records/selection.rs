//! `fields` and `excludeFields`: which members of an answer are written, decided once per plan.
//!
//! Keeps true: applying a selection never adds a member that the caller could not read without it.
//! Does not do: access. A name the caller may not read is simply a name that is not there.
//!
//! ```text
//! fields  = entry *( "," entry )
//! entry   = path [ ":excerpt(" max [ "," ( "true" | "false" ) ] ")" ]
//! path    = ( name | "*" ) *( "." ( name | "*" ) )      ; `*` stands for every member not named beside it
//! ```

use crate::kernel::limits;
use serde_json::Value;

/// A refused `fields` or `excludeFields` text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("selection refused at character {position}: expected {expected}")]
pub struct SelectionError {
    /// Where, counted in characters from 0.
    pub position: usize,
    /// What would be right.
    pub expected: &'static str,
}

/// `:excerpt(max, withEllipsis)`: plain text of at most `chars_max` characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Excerpt {
    /// Most characters kept.
    pub chars_max: usize,
    /// Whether a cut text ends in `...`.
    pub ellipsis: bool,
}

/// What is written of one object: everything, or the named members, minus the excluded ones.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Selection {
    include: Option<Tree>,
    exclude: Tree,
}

/// What becomes of one member of an object.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Pick {
    /// It is not written.
    Skip,
    /// It is written as it is.
    Whole,
    /// It is written as an excerpt of its text.
    Excerpt(Excerpt),
    /// It is an object (or a list of them) of which a part is written.
    Part(Selection),
}

type Tree = Vec<Node>;

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Node {
    name: String,
    leaf: bool,
    excerpt: Option<Excerpt>,
    children: Tree,
}

impl Selection {
    /// Reads both parameters; absent or empty `fields` selects everything.
    pub fn parse(fields: Option<&str>, exclude: Option<&str>) -> Result<Self, SelectionError> {
        let include = match fields.map(str::trim) {
            None | Some("") => None,
            Some(text) => Some(parse_tree(text)?),
        };
        let exclude = match exclude.map(str::trim) {
            None | Some("") => Tree::new(),
            Some(text) => parse_tree(text)?,
        };
        Ok(Self { include, exclude })
    }

    /// Whether every member is written as it is.
    pub fn is_everything(&self) -> bool {
        self.include.is_none() && self.exclude.is_empty()
    }

    /// Decides about the member `name`.
    pub fn pick(&self, name: &str) -> Pick {
        let excluded = find(&self.exclude, name);
        if excluded.is_some_and(|node| node.leaf) {
            return Pick::Skip;
        }
        let exclude = excluded.map(|node| node.children.clone()).unwrap_or_default();
        let Some(tree) = &self.include else {
            return if exclude.is_empty() { Pick::Whole } else { Pick::Part(Self { include: None, exclude }) };
        };
        let Some(node) = find(tree, name).or_else(|| find(tree, "*")) else { return Pick::Skip };
        match (node.leaf, node.excerpt) {
            (true, Some(excerpt)) => Pick::Excerpt(excerpt),
            (true, None) if exclude.is_empty() => Pick::Whole,
            (true, None) => Pick::Part(Self { include: None, exclude }),
            (false, _) => Pick::Part(Self { include: Some(node.children.clone()), exclude }),
        }
    }

    /// Applies the selection to a JSON document, in place; lists are entered.
    pub fn apply(&self, document: &mut Value) {
        match document {
            Value::Array(items) => items.iter_mut().for_each(|item| self.apply(item)),
            Value::Object(map) => {
                let old = std::mem::take(map);
                for (name, mut member) in old {
                    match self.pick(&name) {
                        Pick::Skip => continue,
                        Pick::Whole => {}
                        Pick::Excerpt(excerpt) => {
                            if let Value::String(text) = &member {
                                member = Value::String(excerpt.cut(text));
                            }
                        }
                        Pick::Part(part) => part.apply(&mut member),
                    }
                    map.insert(name, member);
                }
            }
            _ => {}
        }
    }
}

impl Excerpt {
    /// Plain text of `html`: tags, scripts and styles removed, white space joined, cut at the bound.
    pub fn cut(&self, html: &str) -> String {
        let plain = plain_text(html);
        if plain.chars().count() <= self.chars_max {
            return plain;
        }
        let mut cut: String = plain.chars().take(self.chars_max).collect();
        cut.truncate(cut.trim_end().len());
        if self.ellipsis {
            cut.push_str("...");
        }
        cut
    }
}

fn find<'tree>(tree: &'tree [Node], name: &str) -> Option<&'tree Node> {
    tree.iter().find(|node| node.name == name)
}

fn parse_tree(text: &str) -> Result<Tree, SelectionError> {
    let mut tree = Tree::new();
    for (count, (position, entry)) in entries(text)?.into_iter().enumerate() {
        if count >= limits::FIELDS_MAX {
            return Err(SelectionError { position, expected: "at most 200 entries" });
        }
        let (path, excerpt) = parse_entry(entry, position)?;
        insert(&mut tree, &path, excerpt);
    }
    Ok(tree)
}

/// Splits at commas outside parentheses; empty entries are skipped.
fn entries(text: &str) -> Result<Vec<(usize, &str)>, SelectionError> {
    let mut found = Vec::new();
    let (mut depth, mut start, mut start_position, mut position) = (0_u32, 0, 0, 0);
    for (at, letter) in text.char_indices() {
        match letter {
            '(' => depth += 1,
            ')' if depth == 0 => return Err(SelectionError { position, expected: "no closing parenthesis here" }),
            ')' => depth -= 1,
            ',' if depth == 0 => {
                found.push((start_position, text.get(start..at).unwrap_or_default()));
                (start, start_position) = (at + 1, position + 1);
            }
            _ => {}
        }
        position += 1;
    }
    if depth > 0 {
        return Err(SelectionError { position, expected: "a closing parenthesis" });
    }
    found.push((start_position, text.get(start..).unwrap_or_default()));
    found.retain(|(_, entry)| !entry.trim().is_empty());
    Ok(found)
}

fn parse_entry(entry: &str, position: usize) -> Result<(Vec<&str>, Option<Excerpt>), SelectionError> {
    let refuse = |expected| SelectionError { position, expected };
    let entry = entry.trim();
    let (path, excerpt) = match entry.split_once(':') {
        None => (entry, None),
        Some((path, modifier)) => (path.trim(), Some(parse_excerpt(modifier.trim()).ok_or(refuse(EXCERPT_EXPECTED))?)),
    };
    let parts: Vec<&str> = path.split('.').map(str::trim).collect();
    if parts.len() > PATH_PARTS_MAX {
        return Err(refuse("at most 32 names in a path"));
    }
    if parts.iter().any(|part| part.is_empty()) {
        return Err(refuse("a name or * between dots"));
    }
    Ok((parts, excerpt))
}

const EXCERPT_EXPECTED: &str = "the modifier excerpt(length) or excerpt(length,true)";
const PATH_PARTS_MAX: usize = 32;

fn parse_excerpt(modifier: &str) -> Option<Excerpt> {
    let inner = modifier.strip_prefix("excerpt(")?.strip_suffix(')')?;
    let (length, ellipsis) = match inner.split_once(',') {
        None => (inner, false),
        Some((length, flag)) => (length, matches!(flag.trim(), "true" | "1")),
    };
    let chars_max = length.trim().parse().ok().filter(|max| *max > 0)?;
    Some(Excerpt { chars_max, ellipsis })
}

fn insert(tree: &mut Tree, path: &[&str], excerpt: Option<Excerpt>) {
    let Some((first, rest)) = path.split_first() else { return };
    let at = tree.iter().position(|node| node.name == *first).unwrap_or_else(|| {
        tree.push(Node { name: (*first).to_owned(), ..Node::default() });
        tree.len() - 1
    });
    let Some(node) = tree.get_mut(at) else { return };
    if rest.is_empty() {
        node.leaf = true;
        node.excerpt = excerpt;
    } else {
        insert(&mut node.children, rest, excerpt);
    }
}

/// Elements whose text is not meant to be read.
const SILENT: [&str; 3] = ["script", "style", "template"];

fn plain_text(html: &str) -> String {
    let mut out = String::with_capacity(html.len().min(1024));
    let mut rest = html;
    while let Some(at) = rest.find('<') {
        let (text, tag) = rest.split_at(at);
        push_words(&mut out, text);
        let Some(end) = tag.find('>') else {
            push_words(&mut out, tag);
            return finish(out);
        };
        let (inside, after) = (tag.get(1..end).unwrap_or_default(), tag.get(end + 1..).unwrap_or_default());
        if !inside.starts_with(|first: char| first.is_ascii_alphabetic() || first == '/' || first == '!') {
            push_words(&mut out, "<");
            rest = tag.get(1..).unwrap_or_default();
            continue;
        }
        rest = skip_silent(inside, after);
        if is_block(inside) {
            push_space(&mut out);
        }
    }
    push_words(&mut out, rest);
    finish(out)
}

fn finish(mut out: String) -> String {
    out.truncate(out.trim_end().len());
    for (entity, letter) in
        [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&nbsp;", " "), ("&amp;", "&")]
    {
        if out.contains(entity) {
            out = out.replace(entity, letter);
        }
    }
    out
}

fn skip_silent<'text>(tag: &str, after: &'text str) -> &'text str {
    let name = tag.split(|letter: char| !letter.is_ascii_alphanumeric()).next().unwrap_or_default();
    let Some(silent) = SILENT.iter().find(|silent| name.eq_ignore_ascii_case(silent)) else { return after };
    let lower = after.to_ascii_lowercase();
    let closing = lower.find(&format!("</{silent}")).unwrap_or(after.len());
    after.get(closing..).unwrap_or_default()
}

fn is_block(tag: &str) -> bool {
    const INLINE: [&str; 14] =
        ["a", "abbr", "b", "code", "em", "i", "mark", "s", "small", "span", "strong", "sub", "sup", "u"];
    let name = tag.trim_start_matches('/').split(|letter: char| !letter.is_ascii_alphanumeric()).next();
    !INLINE.iter().any(|inline| name.is_some_and(|name| name.eq_ignore_ascii_case(inline)))
}

fn push_words(out: &mut String, text: &str) {
    for letter in text.chars() {
        if letter.is_whitespace() { push_space(out) } else { out.push(letter) }
    }
}

fn push_space(out: &mut String) {
    if !out.is_empty() && !out.ends_with(' ') {
        out.push(' ');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(fields: Option<&str>, exclude: Option<&str>, expected: Value) {
        let mut document = json!({
            "id": "a", "title": "T", "text": "<p>One <b>two</b></p><p>three</p>",
            "json": {"x": 1, "y": [{"p": 1, "q": 2}]},
            "expand": {"author": {"id": "u", "name": "Ada"}}
        });
        Selection::parse(fields, exclude).expect("parses").apply(&mut document);
        assert_eq!(document, expected, "{fields:?} without {exclude:?}");
    }

    #[test]
    fn members_are_picked_and_left_out() {
        check(Some("id,title"), None, json!({"id": "a", "title": "T"}));
        check(Some(" id , missing"), None, json!({"id": "a"}));
        check(Some("json.y.p"), None, json!({"json": {"y": [{"p": 1}]}}));
        check(Some("expand"), None, json!({"expand": {"author": {"id": "u", "name": "Ada"}}}));
        check(Some("id,expand.author.name"), None, json!({"id": "a", "expand": {"author": {"name": "Ada"}}}));
        check(Some("id,expand.*.name"), None, json!({"id": "a", "expand": {"author": {"name": "Ada"}}}));
        check(
            Some("*,expand.author.id"),
            Some("text,json.y"),
            json!({"id": "a", "title": "T", "json": {"x": 1}, "expand": {"author": {"id": "u"}}}),
        );
        check(
            None,
            Some("text,json,expand.author.name"),
            json!({"id": "a", "title": "T", "expand": {"author": {"id": "u"}}}),
        );
        check(Some("text:excerpt(7,true)"), None, json!({"text": "One two..."}));
        check(Some("text:excerpt(70)"), None, json!({"text": "One two three"}));
    }

    #[test]
    fn refusals_point() {
        for (text, position) in [("a,b:cut(3)", 2), ("a,,b..c", 3), ("a:excerpt(3", 11), ("a)", 1), ("a:excerpt(0)", 0)]
        {
            assert_eq!(Selection::parse(Some(text), None).map_err(|error| error.position), Err(position), "{text}");
        }
    }

    #[test]
    fn plain_text_drops_scripts_and_keeps_what_is_no_tag() {
        assert_eq!(plain_text("a<script>if (x < 1) {}</script>b 1 < 2 <br/>c &amp; d"), "a b 1 < 2 c & d");
    }
}
