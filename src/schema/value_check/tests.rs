//! Table tests of value checking: what is taken, what is refused with which code, and that stored values are stable.

use super::*;
use crate::kernel::ident::{FieldId, FieldName, FieldNumber};
use crate::kernel::random::SeededRandom;
use crate::schema::error::Problems;
use crate::schema::field_form;
use proptest::prelude::*;
use serde_json::json;

/// A field from its wire form.
fn field(mut form: Value) -> Field {
    form["name"] = json!("f");
    let mut found = Vec::new();
    let input = field_form::read(&form, &mut Problems::new(&mut found)).unwrap();
    assert_eq!(found, []);
    Field {
        id: FieldId::parse("f").unwrap(),
        number: FieldNumber(1),
        name: FieldName::parse("f").unwrap(),
        kind: input.kind,
        system: false,
        hidden: false,
        presentable: false,
        required: input.required,
        searchable: false,
        read_rule: None,
        write_rule: None,
    }
}

fn check(form: &Value, value: &Value) -> Result<Stored, String> {
    let checked = check_value(&field(form.clone()), value, Modifier::Set, ValueContext::default());
    checked.map_err(|detail| detail.code.into_owned())
}

#[test]
fn values_with_an_obvious_meaning_are_taken() {
    let text = |text: &str| Stored::text(text);
    for (form, value, stored) in [
        (json!({"type": "text"}), json!(12.5), text("12.5")),
        (json!({"type": "text"}), json!(null), text("")),
        (json!({"type": "number"}), json!(" 12 "), Stored::Real(12.0)),
        (json!({"type": "number"}), json!(-0.0), Stored::Real(0.0)),
        (json!({"type": "number"}), json!(""), Stored::Real(0.0)),
        (json!({"type": "bool"}), json!("true"), Stored::Integer(1)),
        (json!({"type": "bool"}), json!(0), Stored::Integer(0)),
        (json!({"type": "email"}), json!(" ada@example.com "), text("ada@example.com")),
        (json!({"type": "url"}), json!("https://example.com/a?b"), text("https://example.com/a?b")),
        (json!({"type": "date"}), json!("2026-01-31"), text("2026-01-31 00:00:00.000Z")),
        (json!({"type": "date"}), json!(0), text("1970-01-01 00:00:00.000Z")),
        (json!({"type": "select", "values": ["a", "b"]}), json!(["a"]), text("a")),
        (json!({"type": "select", "values": ["a", "b"], "maxSelect": 2}), json!("b"), text("[\"b\"]")),
        (
            json!({"type": "select", "values": ["a", "b"], "maxSelect": 2}),
            json!("[\"b\",\"a\",\"b\"]"),
            text("[\"b\",\"a\"]"),
        ),
        (json!({"type": "json"}), json!({"b": 1, "a": [null]}), text("{\"b\":1,\"a\":[null]}")),
        (json!({"type": "json"}), json!("{\"a\": 1}"), text("{\"a\":1}")),
        (json!({"type": "json"}), json!("plain"), text("\"plain\"")),
        (json!({"type": "json"}), json!(null), Stored::Null),
        (json!({"type": "geoPoint"}), json!({"lat": "52.5", "lon": 13.25}), text("{\"lon\":13.25,\"lat\":52.5}")),
        (json!({"type": "geoPoint"}), json!(null), text("{\"lon\":0,\"lat\":0}")),
        (
            json!({"type": "relation", "collectionId": "c", "maxSelect": 3}),
            json!(["x", "", "y"]),
            text("[\"x\",\"y\"]"),
        ),
    ] {
        assert_eq!(check(&form, &value), Ok(stored), "{form} {value}");
    }
}

#[test]
fn what_an_option_forbids_is_refused_with_its_code() {
    for (form, value, code) in [
        (json!({"type": "text", "required": true}), json!(""), "validation_required"),
        (json!({"type": "number", "required": true}), json!(0), "validation_required"),
        (json!({"type": "json", "required": true}), json!({}), "validation_required"),
        (json!({"type": "text", "min": 3}), json!("äö"), "validation_min_text_constraint"),
        (json!({"type": "text", "max": 3}), json!("abcd"), "validation_max_text_constraint"),
        (json!({"type": "text", "pattern": "^[a-c]+$"}), json!("abd"), "validation_invalid_format"),
        (json!({"type": "text"}), json!({"a": 1}), "validation_invalid_value"),
        (json!({"type": "text"}), json!("a\0b"), "validation_invalid_value"),
        (json!({"type": "text", "primaryKey": true}), json!("a/b"), "validation_invalid_format"),
        (json!({"type": "number"}), json!("abc"), "validation_not_a_number"),
        (json!({"type": "number"}), json!("inf"), "validation_not_a_number"),
        (json!({"type": "number", "min": 2}), json!(1), "validation_min_number_constraint"),
        (json!({"type": "number", "max": 2}), json!(3), "validation_max_number_constraint"),
        (json!({"type": "number", "onlyInt": true}), json!(1.5), "validation_only_int_constraint"),
        (json!({"type": "bool"}), json!("perhaps"), "validation_invalid_value"),
        (json!({"type": "email"}), json!("ada@"), "validation_is_email"),
        (json!({"type": "email"}), json!("a b@example.com"), "validation_is_email"),
        (json!({"type": "email", "onlyDomains": ["x.org"]}), json!("a@y.org"), "validation_email_domain_not_allowed"),
        (json!({"type": "url"}), json!("javascript:alert(1)"), "validation_is_url"),
        (
            json!({"type": "url", "exceptDomains": ["y.org"]}),
            json!("https://y.org/"),
            "validation_url_domain_not_allowed",
        ),
        (json!({"type": "date"}), json!("soon"), "validation_invalid_date"),
        (
            json!({"type": "date", "min": "2026-01-01 00:00:00.000Z"}),
            json!("2025-01-01"),
            "validation_min_greater_equal_than_required",
        ),
        (
            json!({"type": "date", "max": "2026-01-01 00:00:00.000Z"}),
            json!("2027-01-01"),
            "validation_max_less_equal_than_required",
        ),
        (json!({"type": "select", "values": ["a"]}), json!("b"), "validation_invalid_value"),
        (
            json!({"type": "select", "values": ["a", "b", "c"], "maxSelect": 2}),
            json!(["a", "b", "c"]),
            "validation_too_many_values",
        ),
        (
            json!({"type": "relation", "collectionId": "c", "maxSelect": 3, "minSelect": 2}),
            json!(["a"]),
            "validation_not_enough_values",
        ),
        (json!({"type": "relation", "collectionId": "c"}), json!("a b"), "validation_missing_rel_records"),
        (json!({"type": "file"}), json!("../x.png"), "validation_invalid_file"),
        (json!({"type": "json", "maxSize": 5}), json!([1, 2, 3, 4]), "validation_json_size_limit"),
        (json!({"type": "editor", "maxSize": 5}), json!("<p>hello"), "validation_content_size_limit"),
        (json!({"type": "password", "min": 8}), json!("short"), "validation_min_text_constraint"),
        (json!({"type": "password"}), json!("x".repeat(72)), "validation_max_text_constraint"),
        (json!({"type": "geoPoint"}), json!({"lon": 1, "lat": 91}), "validation_invalid_latitude"),
        (json!({"type": "geoPoint"}), json!([1, 2]), "validation_invalid_geo_point"),
    ] {
        assert_eq!(check(&form, &value), Err(code.to_owned()), "{form} {value}");
    }
}

#[test]
fn modifiers_change_what_is_there() {
    let list = field(json!({"type": "select", "values": ["a", "b", "c"], "maxSelect": 3}));
    let number = field(json!({"type": "number", "max": 10}));
    let run = |field: &Field, key: &str, value: Value, current: Stored| {
        let (name, modifier) = split_modifier(key);
        assert_eq!(name, "f");
        let context = ValueContext { current: Some(&current), uploaded: &[] };
        check_value(field, &value, modifier, context).map_err(|detail| detail.code.into_owned())
    };
    let two = || Stored::text("[\"a\",\"b\"]");
    assert_eq!(run(&list, "f+", json!("c"), two()), Ok(Stored::text("[\"a\",\"b\",\"c\"]")));
    assert_eq!(run(&list, "+f", json!(["c", "a"]), two()), Ok(Stored::text("[\"c\",\"a\",\"b\"]")));
    assert_eq!(run(&list, "f-", json!(["a", "x"]), two()), Ok(Stored::text("[\"b\"]")));
    assert_eq!(run(&number, "f+", json!("2"), Stored::Real(3.0)), Ok(Stored::Real(5.0)));
    assert_eq!(run(&number, "f-", json!(4), Stored::Real(3.0)), Ok(Stored::Real(-1.0)));
    assert_eq!(run(&number, "f+", json!(8), Stored::Real(3.0)), Err("validation_max_number_constraint".to_owned()));
    assert_eq!(
        run(&field(json!({"type": "text"})), "f+", json!("x"), two()),
        Err("validation_invalid_modifier".to_owned())
    );
    assert_eq!(increment(&number, &json!(2), Modifier::Remove), Some(-2.0));
    assert_eq!(increment(&list, &json!("a"), Modifier::Append), None);
}

#[test]
fn forms_give_texts_their_type() {
    for (form, texts, value) in [
        (json!({"type": "json"}), vec!["{\"a\":1}"], json!({"a": 1})),
        (json!({"type": "select", "values": ["a", "b"], "maxSelect": 2}), vec!["a", "b"], json!(["a", "b"])),
        (json!({"type": "select", "values": ["a", "b"], "maxSelect": 2}), vec!["[\"a\"]"], json!(["a"])),
        (json!({"type": "relation", "collectionId": "c"}), vec!["x"], json!("x")),
        (json!({"type": "number"}), vec!["12"], json!("12")),
    ] {
        assert_eq!(form_value(&field(form.clone()), &texts), value, "{form}");
    }
}

#[test]
fn generated_values_and_moments() {
    let random = SeededRandom::new(3);
    let id = field(json!({"type": "text", "autogeneratePattern": "[a-z0-9]{15}", "min": 15, "max": 15}));
    let drawn = autogenerate(&id, &random).unwrap();
    assert_eq!(drawn.as_text().map(str::len), Some(15));
    assert!(check_stored(&id, &drawn, ValueContext::default()).is_ok());
    let created = field(json!({"type": "autodate", "onCreate": true}));
    assert_eq!(autodate(&created, Occasion::Create, 0), Some(Stored::text("1970-01-01 00:00:00.000Z")));
    assert_eq!(autodate(&created, Occasion::Update, 0), None);
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(|eighths| Value::from(f64::from(eighths) / 8.0)),
        any::<i64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        "[0-9.eE+-]{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::vec(("(lat|lon|a)", inner), 0..3)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

proptest! {
    /// Whatever comes in, what is stored fits the column, prints as JSON, and is taken again unchanged.
    #[test]
    fn stored_values_are_stable(value in any_json(), form in prop::sample::select(vec![
        json!({"type": "text"}), json!({"type": "number"}), json!({"type": "bool"}), json!({"type": "date"}),
        json!({"type": "json"}), json!({"type": "geoPoint"}), json!({"type": "editor"}), json!({"type": "email"}),
        json!({"type": "select", "values": ["a"], "maxSelect": 1}), json!({"type": "relation", "collectionId": "c", "maxSelect": 5}),
    ])) {
        let field = field(form);
        let Ok(stored) = check_value(&field, &value, Modifier::Set, ValueContext::default()) else { return Ok(()) };
        let mut out = Vec::new();
        crate::schema::json::write_cell_json(&mut out, field.kind.storage(), stored.cell());
        let printed: Value = serde_json::from_slice(&out).unwrap();
        let again = check_value(&field, &printed, Modifier::Set, ValueContext::default());
        prop_assert_eq!(again.unwrap(), stored, "{}", printed);
    }
}
