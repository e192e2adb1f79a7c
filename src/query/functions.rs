//! The SQL functions that rendered statements call and SQLite lacks; `store` registers them on every connection.
//!
//! Keeps true: each is pure and deterministic, and the evaluator calls the very same Rust function.
//! Does not do: registration.

use crate::kernel::value::{Cell, Stored};
use crate::query::{moment, value};

/// One function to register: deterministic, innocuous, UTF-8.
#[derive(Debug, Clone, Copy)]
pub struct SqlFunction {
    /// Its name in SQL.
    pub name: &'static str,
    /// Number of arguments; -1 is any.
    pub arity: i32,
    /// The function.
    pub call: fn(&[Cell<'_>]) -> Stored,
}

/// `tn_kept_as(kept, number)`: the number as a double where `kept` is one.
pub const KEPT_AS: &str = "tn_kept_as";

/// Every function, the only list.
pub const ALL: &[SqlFunction] = &[
    SqlFunction { name: "tn_text", arity: 1, call: |args| one(args, value::to_text) },
    SqlFunction { name: "tn_number", arity: 1, call: |args| one(args, value::to_number) },
    SqlFunction { name: "tn_pattern", arity: 1, call: |args| one(args, value::like_pattern) },
    SqlFunction { name: "tn_lower", arity: 1, call: |args| one(args, value::lower) },
    SqlFunction { name: "tn_list", arity: 1, call: |args| one(args, value::to_list) },
    SqlFunction { name: "tn_list_len", arity: 1, call: |args| one(args, value::list_len) },
    SqlFunction { name: KEPT_AS, arity: 2, call: kept_as },
    SqlFunction { name: "tn_geo_distance", arity: 4, call: geo_distance },
    SqlFunction { name: "tn_strftime", arity: -1, call: moment::strftime },
];

/// Finds a function by its SQL name.
pub fn find(name: &str) -> Option<&'static SqlFunction> {
    ALL.iter().find(|function| function.name == name)
}

fn one(arguments: &[Cell<'_>], apply: fn(&Stored) -> Stored) -> Stored {
    arguments.first().map_or(Stored::Null, |cell| apply(&cell.to_stored()))
}

fn kept_as(arguments: &[Cell<'_>]) -> Stored {
    let number = arguments.get(1).map_or(Stored::Null, |number| number.to_stored());
    match (arguments.first(), number.as_number()) {
        (Some(Cell::Real(_)), Some(double)) => Stored::Real(double),
        _ => number,
    }
}

/// `geoDistance(lonA, latA, lonB, latB)`: kilometres on a sphere of 6,371 km (haversine); NULL if one is not a number.
pub fn geo_distance(arguments: &[Cell<'_>]) -> Stored {
    const EARTH_RADIUS_KM: f64 = 6_371.0;
    let mut degrees = [0.0_f64; 4];
    for (slot, cell) in degrees.iter_mut().zip(arguments) {
        match value::to_number(&cell.to_stored()).as_number() {
            Some(number) => *slot = number,
            None => return Stored::Null,
        }
    }
    let [lon_a, lat_a, lon_b, lat_b] = degrees.map(f64::to_radians);
    let lat_half = ((lat_b - lat_a) / 2.0).sin();
    let lon_half = ((lon_b - lon_a) / 2.0).sin();
    let chord = lat_half * lat_half + lat_a.cos() * lat_b.cos() * lon_half * lon_half;
    let distance = 2.0 * EARTH_RADIUS_KM * chord.clamp(0.0, 1.0).sqrt().asin();
    if distance.is_finite() { Stored::Real(distance) } else { Stored::Null }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_between_two_cities() {
        let cells = [13.405, 52.52, 2.3522, 48.8566].map(Cell::Real);
        let Stored::Real(km) = geo_distance(&cells) else { panic!("a distance") };
        assert!((877.0..879.0).contains(&km), "{km}");
        assert_eq!(geo_distance(&[Cell::Null, Cell::Real(0.0), Cell::Real(0.0), Cell::Real(0.0)]), Stored::Null);
    }
}
