//! Any text is a filter or a located refusal: parsing never panics, printing what was parsed parses to the same thing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tenantry::query::{parse_filter, parse_rule};

fuzz_target!(|text: &str| {
    for parse in [parse_filter, parse_rule] {
        match parse(text) {
            Ok(Some(expr)) => {
                let printed = expr.to_string();
                // Printing adds parentheses and spaces, so only a text well inside the bound must parse again.
                if printed.len() < 3_000 {
                    let again = parse(&printed).expect("what was printed parses").expect("and is not empty");
                    assert_eq!(again.to_string(), printed, "print∘parse is the identity");
                }
            }
            Ok(None) => {}
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
});
