//! Where in a JSON text something is, as the path of members and places that leads there.
//!
//! Keeps true: any text and any position give an answer, in one pass; what is no JSON gives the path as far as it goes.
//! Does not do: parsing. It is asked after a parser refused a text, to say which member the refusal is about.

/// The path to the value that ends at, or spans, the 1-based `column` of the 1-based `line`; empty for the whole text.
pub(crate) fn path_at(text: &str, line: usize, column: usize) -> String {
    let end =
        text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum::<usize>().saturating_add(column);
    let mut walk = Walk::default();
    for byte in text.bytes().take(end) {
        walk.step(byte);
    }
    walk.path()
}

/// Bytes of a name that are kept; longer ones are cut.
const NAME_BYTES_MAX: usize = 256;

/// What is open where the walk stands.
enum Level {
    /// An object: the member whose value comes or came last.
    Object(Option<String>),
    /// A list: the place of the value that comes or came last.
    List(usize),
}

#[derive(Default)]
struct Walk {
    levels: Vec<Level>,
    /// A text that is open, as it is written.
    text: Option<Vec<u8>>,
    escaped: bool,
    /// The last text that ended, which is a member's name if a colon follows.
    last: Option<Vec<u8>>,
}

impl Walk {
    fn step(&mut self, byte: u8) {
        if let Some(text) = &mut self.text {
            let ends = byte == b'"' && !self.escaped;
            self.escaped = byte == b'\\' && !self.escaped;
            if ends {
                self.last = self.text.take();
            } else if text.len() < NAME_BYTES_MAX {
                text.push(byte);
            }
            return;
        }
        match byte {
            b'"' => self.text = Some(Vec::new()),
            b'{' => {
                self.last = None;
                self.levels.push(Level::Object(None));
            }
            b'[' => self.levels.push(Level::List(0)),
            b'}' | b']' => _ = self.levels.pop(),
            b':' => {
                let name = self.last.take().map(|name| String::from_utf8_lossy(&name).into_owned());
                if let Some(Level::Object(member)) = self.levels.last_mut() {
                    *member = name;
                }
            }
            b',' => {
                self.last = None;
                match self.levels.last_mut() {
                    Some(Level::Object(member)) => *member = None,
                    Some(Level::List(place)) => *place += 1,
                    None => {}
                }
            }
            _ => {}
        }
    }

    fn path(&self) -> String {
        let mut steps: Vec<String> = self
            .levels
            .iter()
            .filter_map(|level| match level {
                Level::Object(member) => member.clone(),
                Level::List(place) => Some(place.to_string()),
            })
            .collect();
        // The name of a member whose colon is yet to come: it is itself what is refused.
        if let (Some(Level::Object(None)), Some(name)) = (self.levels.last(), &self.last) {
            steps.push(String::from_utf8_lossy(name).into_owned());
        }
        steps.join(".")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_member_at_a_position_is_named_by_its_path() {
        for (text, line, column, path) in [
            (r#"{"value":1,"ttlMs":"60"}"#, 1, 23, "ttlMs"),
            (r#"{"name":5,"slug":"x"}"#, 1, 9, "name"),
            ("5", 1, 1, ""),
            (r#"{"set":[{"key":"a"},{"key":1}]}"#, 1, 28, "set.1.key"),
            ("{\"a\":\n {\"b\": [1,\n 2]}}", 3, 2, "a.b.1"),
            (r#"{"a":1,"b\"c":{"d":1}}"#, 1, 18, "b\\\"c.d"),
            (r#"{"unknown":1}"#, 1, 10, "unknown"),
            (r#"{"a":{"x":1}}"#, 1, 13, ""),
        ] {
            assert_eq!(path_at(text, line, column), path, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_and_position_give_an_answer(text in any::<String>(), line in any::<usize>(), column in any::<usize>()) {
            path_at(&text, line, column);
        }
    }
}
