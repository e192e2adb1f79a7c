//! Counting records whose rule or filter looks at the records they point at: group first, look up once per group.
//!
//! Keeps true: the same number as counting row by row. A condition that reads nothing of a record but one column has one
//! outcome for all records that share the value, so it is decided once per value and the groups are added up. Twenty
//! thousand players of two hundred tournaments cost two hundred look-ups.
//! Does not do: choosing this where it would cost more; without an index that begins with the column, the grouping would
//! be a sort, and counting row by row stays.

use crate::query::sql::{Condition, Fragment};
use crate::query::statement::ROOT_ALIAS;
use crate::schema::Collection;
use std::collections::BTreeSet;

/// The count by groups; `None` where it cannot be had or would not be cheaper.
pub(crate) fn by_group(collection: &Collection, joins: Fragment, conditions: &[Condition]) -> Option<Fragment> {
    let (mut own, mut far) = (Vec::new(), Vec::new());
    for condition in conditions {
        match condition {
            Condition::Known(true) => {}
            Condition::Known(false) => return None,
            Condition::Sql(fragment) if is_own(&fragment.sql) => own.push(fragment.clone()),
            Condition::Sql(fragment) => far.push(fragment.clone()),
        }
    }
    let mut read = columns_of_root(&joins.sql);
    read.extend(far.iter().flat_map(|fragment| columns_of_root(&fragment.sql)));
    let mut read = read.into_iter();
    let (Some(column), None) = (read.next(), read.next()) else { return None };
    if far.is_empty() || !is_indexed(collection, &column) {
        return None;
    }
    let mut out = Fragment::text(format!(
        "SELECT COALESCE(SUM({ROOT_ALIAS}._n), 0) FROM (SELECT {ROOT_ALIAS}.{column} AS {column}, COUNT(*) AS _n \
         FROM \"{}\" AS {ROOT_ALIAS}",
        collection.table()
    ));
    if !own.is_empty() {
        out.push(" WHERE ").append(all(own));
    }
    out.push(&format!(" GROUP BY {ROOT_ALIAS}.{column}) AS {ROOT_ALIAS}")).append(joins);
    out.push(" WHERE ").append(all(far));
    Some(out)
}

fn all(conditions: Vec<Fragment>) -> Fragment {
    Fragment::joined(conditions.into_iter().map(|one| one.wrapped("(", ")")), " AND ")
}

/// An index that serves the grouping: the column first, every record in it, compared as it is.
fn is_indexed(collection: &Collection, column: &str) -> bool {
    collection.indexes.iter().filter(|index| index.condition.is_none()).any(|index| {
        let first = index.columns.first().filter(|first| !first.nocase);
        first.is_some_and(|first| first.field.0 != 0 && format!("f{}", first.field.0) == column)
    })
}

/// Whether a condition reads the record's own columns and nothing else.
fn is_own(sql: &str) -> bool {
    !sql.contains("SELECT") && qualified(sql).all(|(alias, _)| alias == ROOT_ALIAS)
}

fn columns_of_root(sql: &str) -> BTreeSet<String> {
    qualified(sql).filter(|(alias, _)| *alias == ROOT_ALIAS).map(|(_, column)| column.to_owned()).collect()
}

/// Every `alias.column` of a rendered text. Rendered texts hold no values, so a point joins nothing else.
fn qualified(sql: &str) -> impl Iterator<Item = (&str, &str)> {
    let is_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    sql.match_indices('.').filter_map(move |(at, _)| {
        let (before, after) = (sql.get(..at)?, sql.get(at + 1..)?);
        let alias = before.rsplit(|letter| !is_word(letter)).next()?;
        let column = after.split(|letter| !is_word(letter)).next()?;
        (!alias.is_empty() && !column.is_empty() && !alias.starts_with(|first: char| first.is_ascii_digit()))
            .then_some((alias, column))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_conditions_are_told_from_those_that_look_elsewhere() {
        for (sql, own, columns) in [
            ("t0.f1 = ? AND t0.f2 > 0.5", true, vec!["f1", "f2"]),
            ("t1.f4 != ?", false, vec![]),
            (" LEFT JOIN \"c_a\" AS t1 ON t1.id = t0.f3", false, vec!["f3"]),
            ("EXISTS (SELECT 1 FROM \"c_b\" AS t5 WHERE t5.f1 = t0.id)", false, vec!["id"]),
            ("?", true, vec![]),
        ] {
            assert_eq!(is_own(sql), own, "{sql}");
            assert_eq!(columns_of_root(sql).into_iter().collect::<Vec<_>>(), columns, "{sql}");
        }
    }
}
