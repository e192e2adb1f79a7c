//! Passwords that would be tried first: common ones, rows of keys, repetitions, dates, and words of their own place.
//!
//! Keeps true: every password among the 30,000 most common ones of the estimator's list counts as guessable, however its
//! letters are cased, and so does whatever the estimator finds as quickly. Does not do: looking anything up elsewhere.

use super::Secret;
use crate::kernel::limits;

/// Whether `password` would be found within [`limits::PASSWORD_GUESSES_MIN`] guesses by somebody who also knows `words`.
///
/// What is longer than the estimator's words is not looked at: nothing there is common.
pub fn is_guessable(password: &Secret, words: &[&str]) -> bool {
    let text = password.expose();
    if text.chars().count() > limits::PASSWORD_ESTIMATED_CHARS_MAX {
        return false;
    }
    let words: Vec<String> =
        words.iter().filter(|word| word.chars().count() > 2).map(|word| word.to_lowercase()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    zxcvbn::zxcvbn(&text.to_lowercase(), &words).guesses() < limits::PASSWORD_GUESSES_MIN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_tried_first_is_told_from_what_is_not() {
        let words = ["Nordlicht", "acme", "grace.hopper"];
        for (password, guessable) in [
            ("password", true),
            ("PassWord1", true),
            ("12345678", true),
            ("qwertyuiop", true),
            ("1qaz2wsx", true),
            ("aaaaaaaaaaaa", true),
            ("19870412", true),
            ("nordlicht", true),
            ("Nordlicht1", true),
            ("grace.hopper", true),
            ("acmeacme", true),
            ("correct horse", false),
            ("blue-lamp-7", false),
            ("nordlicht lamp horse", false),
            ("kV7#pq2Lx9", false),
            (&"a".repeat(limits::PASSWORD_ESTIMATED_CHARS_MAX + 1), false),
        ] {
            assert_eq!(is_guessable(&Secret::new(password), &words), guessable, "{password}");
        }
    }
}
