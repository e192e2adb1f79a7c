//! What of a JSON member is shown: `fields=meta.a` and `excludeFields=meta.b`.
//!
//! Keeps true: a pick goes through objects and through arrays of objects; whatever has no members stays whole, as in
//! PocketBase; nothing is ever added. Does not do: whole members (that is `select`).

use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Names and the names below them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Names {
    /// Everything below here is meant.
    whole: bool,
    below: BTreeMap<Arc<str>, Names>,
}

/// A choice of what stands inside one JSON value.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inside {
    picked: Option<Names>,
    excluded: Names,
}

impl Inside {
    /// Shows what stands at `path`, and of the rest only what else is picked.
    pub(crate) fn pick(&mut self, path: &[&str]) {
        self.picked.get_or_insert_default().add(path);
    }

    /// Leaves out what stands at `path`.
    pub(crate) fn exclude(&mut self, path: &[&str]) {
        self.excluded.add(path);
    }

    /// What is shown of `value`.
    pub fn apply(&self, mut value: Value) -> Value {
        if let Some(picked) = &self.picked {
            picked.keep_in(&mut value);
        }
        self.excluded.remove_from(&mut value);
        value
    }

    /// Bytes that differ for different choices.
    pub(crate) fn key(&self) -> String {
        format!("{:?}", (&self.picked, &self.excluded))
    }
}

impl Names {
    fn add(&mut self, path: &[&str]) {
        match path {
            [] | ["*"] => self.whole = true,
            [name, rest @ ..] => self.below.entry(Arc::from(*name)).or_default().add(rest),
        }
    }

    fn keep_in(&self, value: &mut Value) {
        if self.whole {
            return;
        }
        for_each_object(value, &mut |object| {
            object.retain(|name, inner| {
                let found = self.below.get(name.as_str());
                found.is_some_and(|names| {
                    names.keep_in(inner);
                    true
                })
            });
        });
    }

    fn remove_from(&self, value: &mut Value) {
        if self.below.is_empty() {
            return;
        }
        for_each_object(value, &mut |object| {
            for (name, names) in &self.below {
                if names.whole {
                    object.shift_remove(&**name);
                } else if let Some(inner) = object.get_mut(&**name) {
                    names.remove_from(inner);
                }
            }
        });
    }
}

/// The object itself, or the objects of an array.
fn for_each_object(value: &mut Value, each: &mut dyn FnMut(&mut serde_json::Map<String, Value>)) {
    match value {
        Value::Object(object) => each(object),
        Value::Array(items) => items.iter_mut().filter_map(Value::as_object_mut).for_each(each),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shown(picked: &[&str], excluded: &[&str], value: Value) -> Value {
        let mut inside = Inside::default();
        picked.iter().for_each(|path| inside.pick(&path.split('.').collect::<Vec<_>>()));
        excluded.iter().for_each(|path| inside.exclude(&path.split('.').collect::<Vec<_>>()));
        inside.apply(value)
    }

    #[test]
    fn picks_and_exclusions_reach_into_objects_and_lists_of_them() {
        let value = json!({"b": {"x": 1, "y": 2}, "a": [{"x": 1, "y": 2}, {"y": 3}, 4], "c": "text"});
        for (picked, excluded, expected) in [
            (&["c"][..], &[][..], json!({"c": "text"})),
            (&["b.x", "c"], &[], json!({"b": {"x": 1}, "c": "text"})),
            (&["a.y"], &[], json!({"a": [{"y": 2}, {"y": 3}, 4]})),
            (&["b.*"], &[], json!({"b": {"x": 1, "y": 2}})),
            (&["b.x", "b"], &[], json!({"b": {"x": 1, "y": 2}})),
            (&["c.deep", "nothing"], &[], json!({"c": "text"})),
            (&[], &["b.x", "a"], json!({"b": {"y": 2}, "c": "text"})),
            (&["b", "a"], &["a.y", "b.y"], json!({"b": {"x": 1}, "a": [{"x": 1}, {}, 4]})),
        ] {
            assert_eq!(shown(picked, excluded, value.clone()), expected, "{picked:?} {excluded:?}");
        }
        assert_eq!(shown(&["a"], &[], json!(5)), json!(5));
    }
}
