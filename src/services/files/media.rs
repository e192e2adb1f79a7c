//! What kind of file this is, by its first bytes.
//!
//! Keeps true: a name cannot make content into something that a browser runs; what is neither known nor text is
//! `application/octet-stream` or what an office program calls it. Does not do: proving that a whole file is sound.

use std::borrow::Cow;

const UNKNOWN: &str = "application/octet-stream";

/// The media type of a file that begins with `head` and is called `name`, without parameters.
pub fn media_type(head: &[u8], name: &str) -> Cow<'static, str> {
    let guess = mime_guess::from_path(name).first_raw();
    let known = infer::get(head).map(|found| found.mime_type());
    let is_svg = is_text(head) && holds_svg(head);
    match known {
        _ if is_svg => Cow::Borrowed("image/svg+xml"),
        Some(known) => Cow::Borrowed(known),
        None if is_text(head) => Cow::Borrowed(guess.filter(|guess| is_textual(guess)).unwrap_or("text/plain")),
        None => Cow::Borrowed(guess.filter(|guess| is_document(guess)).unwrap_or(UNKNOWN)),
    }
}

/// Whether a browser may show the file in place: pictures, sound, film and PDF. Anything that can carry a script is
/// offered for download instead.
pub fn is_inline(media: &str) -> bool {
    matches!(
        media,
        "image/png" | "image/jpeg" | "image/gif" | "image/webp" | "image/avif" | "image/bmp" | "application/pdf"
    ) || media.starts_with("audio/")
        || media.starts_with("video/")
}

/// Text in UTF-8, as far as the head shows it; the last character may be cut.
fn is_text(head: &[u8]) -> bool {
    let valid = match std::str::from_utf8(head) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none(),
    };
    valid && !head.iter().any(|byte| matches!(byte, 0..=8 | 14..=26 | 28..=31))
}

fn holds_svg(head: &[u8]) -> bool {
    let text = String::from_utf8_lossy(head);
    let text = text.trim_start_matches('\u{feff}').trim_start();
    text.starts_with('<') && text.to_ascii_lowercase().contains("<svg")
}

/// Kinds of text that a name may claim; none that the content would have shown.
fn is_textual(guess: &str) -> bool {
    (guess.starts_with("text/") && guess != "text/html")
        || guess == "application/json"
        || guess.ends_with("+json")
        || guess == "application/xml"
        || guess == "application/x-yaml"
}

/// Kinds of binary documents that a name may claim.
fn is_document(guess: &str) -> bool {
    guess.starts_with("application/")
        && !["javascript", "xhtml", "xml", "json", "pdf", "wasm"].iter().any(|part| guess.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_decides_and_the_name_refines() {
        let png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";
        for (head, name, media) in [
            (&png[..], "a.txt", "image/png"),
            (b"%PDF-1.7\n", "a", "application/pdf"),
            (b"a,b\n1,2\n", "a.csv", "text/csv"),
            (b"{\"a\":1}", "a.json", "application/json"),
            (b"hello", "a.png", "text/plain"),
            (b"hello", "a.html", "text/plain"),
            (b"hello", "noending", "text/plain"),
            ("gr\u{fc}n".as_bytes(), "a.md", "text/markdown"),
            (b"<?xml version=\"1.0\"?><svg xmlns=\"x\"/>", "a.png", "image/svg+xml"),
            (b"<!doctype html><html>", "a.png", "text/html"),
            (b"\x00\x01\x02\x03", "a.png", "application/octet-stream"),
            (b"\x00\x01\x02\x03", "a.js", "application/octet-stream"),
            (b"", "a.txt", "text/plain"),
        ] {
            assert_eq!(media_type(head, name), media, "{name} {:?}", String::from_utf8_lossy(head));
        }
    }

    #[test]
    fn what_can_carry_a_script_is_downloaded() {
        for (media, inline) in [
            ("image/png", true),
            ("video/mp4", true),
            ("image/svg+xml", false),
            ("text/html", false),
            ("text/plain", false),
        ] {
            assert_eq!(is_inline(media), inline, "{media}");
        }
    }
}
