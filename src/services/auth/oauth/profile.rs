//! Who somebody is at a provider, read from a profile or an identity token.
//!
//! Keeps true: what is not text, is too long or holds control characters is as if it were not there; an address counts as
//! proven only by the provider's row in the table. Does not do: fetching.

use super::super::account;
use crate::schema::oauth::{EmailTrust, ProfileMap};
use serde_json::{Map, Value, json};

const TEXT_CHARS_MAX: usize = 255;

/// Somebody at a provider.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Profile {
    /// The subject; never empty.
    pub(super) id: String,
    pub(super) name: String,
    pub(super) username: String,
    /// Empty if there is none.
    pub(super) email: String,
    /// Whether the provider vouches for the address.
    pub(super) email_proven: bool,
    pub(super) avatar_url: String,
    pub(super) raw: Value,
}

impl Profile {
    /// Reads `raw`; `None` if it names nobody.
    pub(super) fn read(map: &ProfileMap, raw: Value) -> Option<Self> {
        let text = |pointer: &str| text_at(&raw, pointer);
        let id = text(map.id)?;
        let email = text(map.email).filter(|email| account::is_email(email)).unwrap_or_default();
        let email_proven = !email.is_empty()
            && match map.trust {
                EmailTrust::Never => false,
                EmailTrust::Always => true,
                EmailTrust::Member(pointer) => raw.pointer(pointer).is_some_and(is_proof),
            };
        let get = |pointer: &str| text(pointer).unwrap_or_default();
        let (name, username, avatar_url) = (get(map.name), get(map.username), get(map.avatar));
        Some(Self { id, name, username, email, email_proven, avatar_url, raw })
    }

    /// Takes the proven, primary address of a list such as GitHub's.
    pub(super) fn take_address(&mut self, list: &Value) {
        let proven = |entry: &&Value| entry["primary"] == json!(true) && entry["verified"] == json!(true);
        let found = list.as_array().into_iter().flatten().find(proven).and_then(|entry| text_at(entry, "/email"));
        if let Some(email) = found.filter(|email| account::is_email(email)) {
            (self.email, self.email_proven) = (email, true);
        }
    }

    /// The member a collection's `mappedFields` calls `name`.
    pub(super) fn mapped(&self, name: &str) -> &str {
        match name {
            "id" => &self.id,
            "name" => &self.name,
            "username" => &self.username,
            "avatarURL" => &self.avatar_url,
            _ => "",
        }
    }

    /// The members that PocketBase answers as `meta`.
    pub(super) fn to_meta(&self) -> Map<String, Value> {
        let meta = json!({
            "id": self.id, "name": self.name, "username": self.username, "email": self.email,
            "avatarURL": self.avatar_url, "avatarUrl": self.avatar_url, "rawUser": self.raw,
        });
        meta.as_object().cloned().unwrap_or_default()
    }
}

/// Apple sends the flag as text; GitLab a moment.
fn is_proof(value: &Value) -> bool {
    match value {
        Value::Bool(flag) => *flag,
        Value::String(text) => !text.is_empty() && text != "false",
        _ => false,
    }
}

fn text_at(value: &Value, pointer: &str) -> Option<String> {
    if pointer.is_empty() {
        return None;
    }
    let text = match value.pointer(pointer)? {
        Value::String(text) => text.trim().to_owned(),
        Value::Number(number) if number.is_u64() || number.is_i64() => number.to_string(),
        _ => return None,
    };
    let fine = !text.is_empty() && text.chars().count() <= TEXT_CHARS_MAX && !text.chars().any(char::is_control);
    fine.then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::oauth::{OIDC_PROFILE, PRESETS};

    #[test]
    fn an_address_is_proven_by_the_provider_s_own_word_alone() {
        let read = |raw: Value| Profile::read(&OIDC_PROFILE, raw).unwrap();
        let proven = json!({"sub": "1", "email": "a@b.test", "email_verified": true});
        assert!(read(proven).email_proven);
        for verified in [json!(false), json!("false"), json!(""), json!(1), Value::Null] {
            let profile = read(json!({"sub": "1", "email": "a@b.test", "email_verified": verified}));
            assert!(!profile.email_proven && profile.email == "a@b.test", "{verified}");
        }
        assert!(read(json!({"sub": "1", "email": "a@b.test", "email_verified": "true"})).email_proven);
        assert!(!read(json!({"sub": "1", "email": "not an address", "email_verified": true})).email_proven);
        assert_eq!(Profile::read(&OIDC_PROFILE, json!({"email": "a@b.test"})), None);
        assert_eq!(Profile::read(&OIDC_PROFILE, json!({"sub": "a\nb"})), None);
    }

    #[test]
    fn profiles_of_providers_without_openid_are_read_by_their_row() {
        let of = |name: &str, raw: Value| {
            let entry = json!({"oauth2": {"enabled": true, "providers": [{"name": name, "clientId": "x"}]}});
            let made = crate::schema::oauth::providers(entry.as_object().unwrap()).remove(0);
            assert!(PRESETS.iter().any(|preset| preset.name == name));
            Profile::read(&made.profile, raw).unwrap()
        };
        let mut github = of("github", json!({"id": 7, "login": "ada", "name": "Ada", "email": "public@b.test"}));
        assert_eq!((github.id.as_str(), github.username.as_str(), github.email.as_str()), ("7", "ada", ""));
        github.take_address(&json!([
            {"email": "old@b.test", "primary": false, "verified": true},
            {"email": "new@b.test", "primary": true, "verified": true},
        ]));
        assert_eq!((github.email.as_str(), github.email_proven), ("new@b.test", true));
        let twitch = of("twitch", json!({"data": [{"id": "9", "login": "ada", "email": "a@b.test"}]}));
        assert!(twitch.id == "9" && twitch.email_proven);
        let microsoft = of("microsoft", json!({"id": "m", "mail": "ceo@victim.test"}));
        assert!(microsoft.email == "ceo@victim.test" && !microsoft.email_proven);
        let discord = of("discord", json!({"id": "1", "username": "a", "email": "a@b.test", "verified": false}));
        assert!(!discord.email_proven);
    }
}
