//! From what a client calls a file to the name it is stored under: `My Photo (1).PNG` → `my_photo_1_k3v9q0x2ab.png`.
//!
//! Keeps true: only `[a-z0-9_.]`, a random part of ten characters, at most one dot, and an ending that says what it is.

use crate::kernel::ident::FileName;
use crate::kernel::random::{self, Random};

const BASE_CHARS_MAX: usize = 100;
const ENDING_CHARS_MAX: usize = 20;
const RANDOM_LEN: usize = 10;

/// The name to store `original` under; `media` gives it an ending if it has none.
pub(super) fn stored_name(original: &str, media: &str, random: &dyn Random) -> FileName {
    let last = original.rsplit(['/', '\\']).next().unwrap_or_default();
    let (base, ending) = match last.rsplit_once('.') {
        Some((base, ending)) if !base.is_empty() => (base, ending),
        _ => (last, ""),
    };
    let mut name = snake_case(base);
    if !name.is_empty() {
        name.push('_');
    }
    name.push_str(&random::lowercase_id(random, RANDOM_LEN));
    let ending: String = ending
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .take(ENDING_CHARS_MAX)
        .map(|letter| letter.to_ascii_lowercase())
        .collect();
    let ending = if ending.is_empty() { usual_ending(media) } else { &ending };
    if !ending.is_empty() {
        name.push('.');
        name.push_str(ending);
    }
    FileName::parse(&name).expect("invariant: letters, digits, _ and one dot, never in front, below the bound")
}

/// What files of a kind usually end in; nothing for kinds without a custom.
fn usual_ending(media: &str) -> &str {
    match media {
        "text/plain" => "txt",
        "image/jpeg" => "jpg",
        "image/svg+xml" => "svg",
        "application/pdf" => "pdf",
        "application/zip" => "zip",
        "application/json" => "json",
        "text/html" => "html",
        "image/png" | "image/gif" | "image/webp" | "video/mp4" | "video/webm" => {
            media.split_once('/').map_or("", |(_, kind)| kind)
        }
        _ => "",
    }
}

/// Words in lower case with `_` between them; a capital begins a word after a small letter.
fn snake_case(text: &str) -> String {
    let mut out = String::new();
    let mut small_before = false;
    for letter in text.chars() {
        let is_word = letter.is_ascii_alphanumeric();
        let begins = letter.is_ascii_uppercase() && small_before;
        if (!is_word || begins) && !out.is_empty() && !out.ends_with('_') {
            out.push('_');
        }
        if is_word {
            out.push(letter.to_ascii_lowercase());
        }
        small_before = letter.is_ascii_lowercase() || letter.is_ascii_digit();
        if out.len() >= BASE_CHARS_MAX {
            break;
        }
    }
    out.trim_end_matches('_').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::random::SeededRandom;

    #[test]
    fn names_keep_what_is_safe_and_get_a_random_part() {
        for (original, media, begins, ends) in [
            ("My Photo (1).PNG", "image/png", "my_photo_1_", ".png"),
            ("invoiceCopy.pdf", "application/pdf", "invoice_copy_", ".pdf"),
            ("../../etc/passwd", "text/plain", "passwd_", ".txt"),
            ("C:\\temp\\a.TXT", "text/plain", "a_", ".txt"),
            (".htaccess", "text/plain", "htaccess_", ".txt"),
            ("Ünïcödé.jpg", "image/jpeg", "n_c_d_", ".jpg"),
            ("photo", "image/jpeg", "photo_", ".jpg"),
            ("x\"\r\n;.h tml", "text/html", "x_", ".html"),
            ("", "application/octet-stream", "", ""),
            ("a.", "image/png", "a_", ".png"),
        ] {
            let name = stored_name(original, media, &SeededRandom::new(7));
            assert!(name.as_str().starts_with(begins) && name.as_str().ends_with(ends), "{original:?} became {name}");
        }
        let long = stored_name(&format!("{}.{}", "a".repeat(500), "b".repeat(500)), "", &SeededRandom::new(7));
        assert!(long.as_str().len() < 140, "{long}");
    }
}
