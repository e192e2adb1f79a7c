//! A small tournament schema in the product's own types, for benches below HTTP.
//!
//! Keeps true: ids and numbers are fixed, so that runs compare. Does not do: the shipped blueprint; over HTTP the benches
//! use the demo tenant itself.

use std::sync::Arc;
use tenantry::kernel::ident::{CollectionId, CollectionName, FieldId, FieldName, FieldNumber};
use tenantry::schema::field::{Field, FieldKind, NumberOptions, RelationOptions, SelectOptions, TextOptions};
use tenantry::schema::{Collection, CollectionKind, Index, IndexColumn, Rules, Schema};

/// Tournaments, players and matches.
pub(crate) fn schema() -> Schema {
    let text = || FieldKind::Text(TextOptions::default());
    let number = || FieldKind::Number(NumberOptions::default());
    let select = |values: &[&str]| {
        let values = values.iter().map(|value| Arc::from(*value)).collect();
        FieldKind::Select(SelectOptions { values, max_select: 1 })
    };
    let tournament = || relation("pbc_0000000001");
    let tournaments = collection(
        1,
        "tournaments",
        vec![("name", text()), ("status", select(&["draft", "open", "running", "completed"])), ("starts", text())],
        vec![("tournaments_status", false, vec![2])],
    );
    let players = collection(
        2,
        "players",
        vec![
            ("tournament", tournament()),
            ("user", text()),
            ("display_name", text()),
            ("status", select(&["registered", "checked_in", "playing", "eliminated", "withdrawn"])),
            ("chips", number()),
            ("table_no", number()),
            ("seat", number()),
            ("place", number()),
            ("registered_at", text()),
            ("created", text()),
            ("updated", text()),
        ],
        vec![
            ("players_tournament_chips", false, vec![1, 5]),
            ("players_tournament_status", false, vec![1, 4]),
            ("players_tournament_user", false, vec![1, 2]),
        ],
    );
    let matches = collection(
        3,
        "matches",
        vec![
            ("tournament", tournament()),
            ("table_no", number()),
            ("winner", relation("pbc_0000000002")),
            ("completed", text()),
        ],
        vec![("matches_tournament_table", false, vec![1, 2])],
    );
    Schema::new(1, vec![Arc::new(tournaments), Arc::new(players), Arc::new(matches)])
}

fn relation(target: &str) -> FieldKind {
    let target = CollectionId::parse(target).expect("invariant: a fixed id");
    FieldKind::Relation(RelationOptions { target, cascade_delete: true, min_select: 0, max_select: 1 })
}

fn collection(at: u32, name: &str, fields: Vec<(&str, FieldKind)>, indexes: Vec<(&str, bool, Vec<u32>)>) -> Collection {
    let id = FieldKind::Text(TextOptions { primary_key: true, ..TextOptions::default() });
    let fields: Vec<Field> = [("id", id)]
        .into_iter()
        .chain(fields)
        .zip(0..)
        .map(|((name, kind), number)| field(number, name, kind))
        .collect();
    let everyone = || Some(Arc::from(""));
    Collection {
        id: CollectionId::parse(&format!("pbc_{at:010}")).expect("invariant: a fixed id"),
        name: CollectionName::parse(name).expect("invariant: a fixed name"),
        kind: CollectionKind::Base,
        system: false,
        next_field_number: u32::try_from(fields.len()).expect("invariant: a handful of fields"),
        fields,
        indexes: indexes.into_iter().map(|(name, unique, columns)| index(name, unique, &columns)).collect(),
        rules: Rules { list: everyone(), view: everyone(), create: everyone(), ..Rules::default() },
        auth: None,
        view_query: None,
        partition: None,
        cache: None,
        created_ms: i64::from(at),
        updated_ms: i64::from(at),
    }
}

fn field(number: u32, name: &str, kind: FieldKind) -> Field {
    Field {
        id: FieldId::parse(&format!("{name}{number}")).expect("invariant: a fixed id"),
        number: FieldNumber(number),
        name: FieldName::parse(name).expect("invariant: a fixed name"),
        kind,
        system: number == 0,
        hidden: false,
        presentable: false,
        required: number == 0,
        searchable: false,
        read_rule: None,
        write_rule: None,
    }
}

fn index(name: &str, unique: bool, columns: &[u32]) -> Index {
    let column = |number: &u32| IndexColumn { field: FieldNumber(*number), descending: false, nocase: false };
    Index { name: Arc::from(name), unique, columns: columns.iter().map(column).collect(), condition: None }
}
