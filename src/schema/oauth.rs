//! Identity providers as a collection's options name them: the table of known ones, and what an entry adds to its row.
//!
//! Keeps true: a provider that leaves here has every address its flow needs, or an issuer whose metadata names them; an
//! account's identity at a provider is (issuer, subject), so an entry that moves to other addresses gets another issuer.
//! Whether a provider's word about an e-mail address counts is part of the table and errs on the side of no.
//! Does not do: speaking to providers, opening their client secrets.

use super::error::Problems;
use crate::kernel::ident::CollectionId;
use crate::kernel::limits;
use serde_json::{Map, Value};
use url::Url;

/// When a provider's e-mail address counts as proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmailTrust {
    /// Never: the provider lets people name addresses that they were not shown to hold.
    Never,
    /// Always: the provider documents that it hands out confirmed addresses alone.
    Always,
    /// If this member of the profile (a JSON pointer) is true, or a moment.
    Member(&'static str),
}

/// Where a provider's profile keeps what; JSON pointers (RFC 6901), empty where it has no such thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProfileMap {
    /// The subject.
    pub id: &'static str,
    /// The name for people.
    pub name: &'static str,
    /// The short name.
    pub username: &'static str,
    /// The e-mail address.
    pub email: &'static str,
    /// The picture's address.
    pub avatar: &'static str,
    /// Whether the e-mail address is proven.
    pub trust: EmailTrust,
}

/// The standard claims of OpenID Connect Core 1.0, 5.1.
pub const OIDC_PROFILE: ProfileMap = ProfileMap {
    id: "/sub",
    name: "/name",
    username: "/preferred_username",
    email: "/email",
    avatar: "/picture",
    trust: EmailTrust::Member("/email_verified"),
};

/// What one provider does differently from the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quirk {
    /// Nothing.
    None,
    /// Confirmed addresses are a list at `/emails` below the profile.
    EmailList,
    /// Profile requests carry the client id in a header of this name.
    ClientIdHeader,
}

/// A row of the table of known providers.
#[derive(Debug, Clone, Copy)]
pub struct Preset {
    /// The name in the options and in requests.
    pub name: &'static str,
    /// The name for people.
    pub display_name: &'static str,
    /// Whose subjects these are.
    pub issuer: &'static str,
    /// Whether the issuer publishes OpenID metadata and signs identity tokens with a nonce.
    pub oidc: bool,
    auth_url: &'static str,
    token_url: &'static str,
    user_info_url: &'static str,
    scopes: &'static str,
    pkce: bool,
    /// Whether the client shows its secret in a header; `None` follows the issuer's metadata.
    basic: Option<bool>,
    profile: ProfileMap,
    /// Added to the sign-in address.
    parameters: &'static [(&'static str, &'static str)],
    quirk: Quirk,
}

const PLAIN: Preset = Preset {
    name: "",
    display_name: "",
    issuer: "",
    oidc: false,
    auth_url: "",
    token_url: "",
    user_info_url: "",
    scopes: "",
    pkce: true,
    basic: Some(false),
    profile: OIDC_PROFILE,
    parameters: &[],
    quirk: Quirk::None,
};

const OPENID: Preset = Preset { oidc: true, basic: None, scopes: "openid email profile", ..PLAIN };

const fn profile(
    id: &'static str,
    name: &'static str,
    username: &'static str,
    email: &'static str,
    avatar: &'static str,
    trust: EmailTrust,
) -> ProfileMap {
    ProfileMap { id, name, username, email, avatar, trust }
}

/// Every provider that needs no more than a client id and a secret, and the generic ones.
pub const PRESETS: &[Preset] = &[
    Preset { name: "google", display_name: "Google", issuer: "https://accounts.google.com", ..OPENID },
    Preset {
        name: "apple",
        display_name: "Apple",
        issuer: "https://appleid.apple.com",
        scopes: "openid name email",
        basic: Some(false),
        parameters: &[("response_mode", "form_post")],
        ..OPENID
    },
    Preset {
        // The metadata of all organisations together names no one issuer, and members of an organisation choose their
        // address freely: its e-mail proves nothing.
        name: "microsoft",
        display_name: "Microsoft",
        issuer: "https://login.microsoftonline.com",
        auth_url: "https://login.microsoftonline.com/common/oauth2/v2.0/authorize",
        token_url: "https://login.microsoftonline.com/common/oauth2/v2.0/token",
        user_info_url: "https://graph.microsoft.com/v1.0/me",
        scopes: "User.Read",
        profile: profile("/id", "/displayName", "", "/mail", "", EmailTrust::Never),
        ..PLAIN
    },
    Preset {
        name: "github",
        display_name: "GitHub",
        issuer: "https://github.com",
        auth_url: "https://github.com/login/oauth/authorize",
        token_url: "https://github.com/login/oauth/access_token",
        user_info_url: "https://api.github.com/user",
        scopes: "read:user user:email",
        profile: profile("/id", "/name", "/login", "", "/avatar_url", EmailTrust::Never),
        quirk: Quirk::EmailList,
        ..PLAIN
    },
    Preset {
        name: "gitlab",
        display_name: "GitLab",
        issuer: "https://gitlab.com",
        auth_url: "https://gitlab.com/oauth/authorize",
        token_url: "https://gitlab.com/oauth/token",
        user_info_url: "https://gitlab.com/api/v4/user",
        scopes: "read_user",
        profile: profile("/id", "/name", "/username", "/email", "/avatar_url", EmailTrust::Member("/confirmed_at")),
        ..PLAIN
    },
    Preset {
        name: "gitea",
        display_name: "Gitea",
        issuer: "https://gitea.com",
        auth_url: "https://gitea.com/login/oauth/authorize",
        token_url: "https://gitea.com/login/oauth/access_token",
        user_info_url: "https://gitea.com/api/v1/user",
        scopes: "read:user user:email",
        profile: profile("/id", "/full_name", "/login", "/email", "/avatar_url", EmailTrust::Never),
        ..PLAIN
    },
    Preset {
        name: "bitbucket",
        display_name: "Bitbucket",
        issuer: "https://bitbucket.org",
        auth_url: "https://bitbucket.org/site/oauth2/authorize",
        token_url: "https://bitbucket.org/site/oauth2/access_token",
        user_info_url: "https://api.bitbucket.org/2.0/user",
        scopes: "account",
        pkce: false,
        profile: profile("/uuid", "/display_name", "/username", "", "/links/avatar/href", EmailTrust::Never),
        ..PLAIN
    },
    Preset {
        name: "discord",
        display_name: "Discord",
        issuer: "https://discord.com",
        auth_url: "https://discord.com/api/oauth2/authorize",
        token_url: "https://discord.com/api/oauth2/token",
        user_info_url: "https://discord.com/api/users/@me",
        scopes: "identify email",
        profile: profile("/id", "/global_name", "/username", "/email", "", EmailTrust::Member("/verified")),
        ..PLAIN
    },
    Preset {
        name: "facebook",
        display_name: "Facebook",
        issuer: "https://www.facebook.com",
        auth_url: "https://www.facebook.com/v19.0/dialog/oauth",
        token_url: "https://graph.facebook.com/v19.0/oauth/access_token",
        user_info_url: "https://graph.facebook.com/me?fields=name,email,picture.type(large)",
        scopes: "email",
        profile: profile("/id", "/name", "", "/email", "/picture/data/url", EmailTrust::Never),
        ..PLAIN
    },
    Preset {
        // Its identity tokens carry no nonce, so the profile is what counts.
        name: "linkedin",
        display_name: "LinkedIn",
        issuer: "https://www.linkedin.com",
        auth_url: "https://www.linkedin.com/oauth/v2/authorization",
        token_url: "https://www.linkedin.com/oauth/v2/accessToken",
        user_info_url: "https://api.linkedin.com/v2/userinfo",
        scopes: "openid profile email",
        pkce: false,
        ..PLAIN
    },
    Preset {
        name: "twitch",
        display_name: "Twitch",
        issuer: "https://id.twitch.tv/oauth2",
        auth_url: "https://id.twitch.tv/oauth2/authorize",
        token_url: "https://id.twitch.tv/oauth2/token",
        user_info_url: "https://api.twitch.tv/helix/users",
        scopes: "user:read:email",
        pkce: false,
        profile: profile(
            "/data/0/id",
            "/data/0/display_name",
            "/data/0/login",
            "/data/0/email",
            "/data/0/profile_image_url",
            EmailTrust::Always,
        ),
        quirk: Quirk::ClientIdHeader,
        ..PLAIN
    },
    Preset {
        name: "twitter",
        display_name: "X",
        issuer: "https://x.com",
        auth_url: "https://x.com/i/oauth2/authorize",
        token_url: "https://api.x.com/2/oauth2/token",
        user_info_url: "https://api.x.com/2/users/me?user.fields=id,name,username,profile_image_url",
        scopes: "users.read tweet.read",
        basic: Some(true),
        profile: profile("/data/id", "/data/name", "/data/username", "", "/data/profile_image_url", EmailTrust::Never),
        ..PLAIN
    },
    Preset {
        name: "spotify",
        display_name: "Spotify",
        issuer: "https://accounts.spotify.com",
        auth_url: "https://accounts.spotify.com/authorize",
        token_url: "https://accounts.spotify.com/api/token",
        user_info_url: "https://api.spotify.com/v1/me",
        scopes: "user-read-private user-read-email",
        profile: profile("/id", "/display_name", "/display_name", "/email", "/images/0/url", EmailTrust::Never),
        ..PLAIN
    },
    Preset {
        name: "yandex",
        display_name: "Yandex",
        issuer: "https://oauth.yandex.com",
        auth_url: "https://oauth.yandex.com/authorize",
        token_url: "https://oauth.yandex.com/token",
        user_info_url: "https://login.yandex.ru/info?format=json",
        scopes: "login:email login:avatar login:info",
        profile: profile("/id", "/real_name", "/login", "/default_email", "", EmailTrust::Never),
        ..PLAIN
    },
    Preset { name: "oidc", display_name: "OIDC", ..OPENID },
    Preset { name: "oidc2", display_name: "OIDC (2)", ..OPENID },
    Preset { name: "oidc3", display_name: "OIDC (3)", ..OPENID },
];

/// One identity provider of a collection, complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OAuthProvider {
    /// The name in requests.
    pub name: String,
    /// The name for people.
    pub display_name: String,
    /// Who the node is to the provider.
    pub client_id: String,
    /// Proof of that, in the form in which it is stored; may be empty.
    pub client_secret: String,
    /// Whose subjects these are; with `oidc`, the issuer of identity tokens.
    pub issuer: String,
    /// Whether there is an issuer whose metadata and identity tokens are used.
    pub oidc: bool,
    /// Where people sign in; empty where the issuer's metadata says.
    pub auth_url: String,
    /// Where codes are exchanged; empty where the issuer's metadata says.
    pub token_url: String,
    /// Where profiles are; may be empty for an issuer.
    pub user_info_url: String,
    /// Where the issuer's keys are; empty where its metadata says.
    pub jwks_url: String,
    /// Asked for at sign-in, separated by spaces.
    pub scopes: String,
    /// Whether the code is bound to a verifier (RFC 7636).
    pub pkce: bool,
    /// Whether the client shows its secret in a header; `None` follows the issuer's metadata.
    pub basic: Option<bool>,
    /// How to read the profile.
    pub profile: ProfileMap,
    /// Added to the sign-in address.
    pub parameters: &'static [(&'static str, &'static str)],
    /// What is different.
    pub quirk: Quirk,
    /// `extra.teamId` and `extra.keyId`, with which a private key as client secret becomes a signed one (Apple).
    pub signer: Option<(String, String)>,
    /// `extra.acrValues`: the strengths of a sign-in that are good enough, one of which the identity token must name; empty
    /// asks for none.
    pub acr_values: Vec<String>,
    /// `extra.maxAge`: seconds for which a sign-in at the provider counts; an older one is refused.
    pub max_age_s: Option<i64>,
}

/// What a sealed client secret begins with; it is never shown, so nobody sends one by accident.
pub const SEALED: &str = "sealed:";

/// The place for which the secret of a provider of a collection is sealed.
pub fn secret_place(collection: &CollectionId, provider: &str) -> String {
    format!("oauth2/{collection}/{provider}")
}

/// The providers in the member `oauth2` of a collection's options, if it is switched on.
pub fn providers(options: &Map<String, Value>) -> Vec<OAuthProvider> {
    let Some(oauth2) = options.get("oauth2").filter(|group| group["enabled"] == Value::Bool(true)) else {
        return Vec::new();
    };
    let entries = oauth2["providers"].as_array().map(Vec::as_slice).unwrap_or_default();
    entries.iter().take(limits::OAUTH_PROVIDERS_MAX).filter_map(|entry| provider(entry).ok()).collect()
}

/// The names of the fields that a new account's profile goes to: `id`, `name`, `username`, `avatarURL` → field.
pub fn mapped_fields(options: &Map<String, Value>) -> Vec<(String, String)> {
    let mapped = options.get("oauth2").and_then(|group| group.get("mappedFields")?.as_object());
    let pair = |(from, to): (&String, &Value)| Some((from.clone(), to.as_str()?.to_owned()));
    mapped.into_iter().flatten().filter_map(pair).filter(|(_, to)| !to.is_empty()).collect()
}

/// What is wrong with an entry: the member, and what would be right.
type Refused = (&'static str, &'static str, String);

fn provider(entry: &Value) -> Result<OAuthProvider, Refused> {
    let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default().trim().to_owned();
    let extra = |name: &str| entry["extra"].get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let required = |name: &'static str| match text(name) {
        given if given.is_empty() => Err((name, "validation_required", "Cannot be blank.".to_owned())),
        given => Ok(given),
    };
    let name = required("name")?;
    let client_id = required("clientId")?;
    let preset = PRESETS.iter().find(|preset| preset.name == name).copied().unwrap_or(PLAIN);
    let (given_issuer, preset_issuer) = (text("issuer"), preset.issuer);
    for member in ["issuer", "authURL", "tokenURL", "userInfoURL"] {
        check_url(member, &text(member))?;
    }
    let pick = |name: &str, known: &str| Some(text(name)).filter(|own| !own.is_empty()).unwrap_or_else(|| known.into());
    let oidc = !given_issuer.is_empty() || (preset.oidc && !preset_issuer.is_empty());
    let mut made = OAuthProvider {
        display_name: pick("displayName", if preset.display_name.is_empty() { &name } else { preset.display_name }),
        client_id,
        client_secret: text("clientSecret"),
        issuer: String::new(),
        oidc,
        auth_url: pick("authURL", preset.auth_url),
        token_url: pick("tokenURL", preset.token_url),
        user_info_url: pick("userInfoURL", preset.user_info_url),
        jwks_url: extra("jwksURL"),
        scopes: scopes(entry, if oidc && preset.scopes.is_empty() { OPENID.scopes } else { preset.scopes }),
        pkce: entry.get("pkce").and_then(Value::as_bool).unwrap_or(preset.pkce),
        basic: preset.basic.filter(|_| preset.name == name.as_str()),
        profile: if given_issuer.is_empty() { preset.profile } else { OIDC_PROFILE },
        parameters: preset.parameters,
        quirk: preset.quirk,
        signer: Some((extra("teamId"), extra("keyId"))).filter(|(team, key)| !team.is_empty() && !key.is_empty()),
        acr_values: words(&entry["extra"]["acrValues"]),
        max_age_s: max_age(&entry["extra"]["maxAge"])?,
        name,
    };
    if !oidc && (!made.acr_values.is_empty() || made.max_age_s.is_some()) {
        let message =
            "acrValues and maxAge are checked in identity tokens, which only a provider with an issuer gives.";
        return Err(("extra", "validation_invalid_value", message.to_owned()));
    }
    let lacks = [("authURL", &made.auth_url), ("tokenURL", &made.token_url), ("userInfoURL", &made.user_info_url)];
    if let Some((member, _)) = lacks.into_iter().find(|(_, url)| !oidc && url.is_empty()) {
        let message = format!(
            "{:?} is none of the known providers: set issuer to that of an OpenID provider, or authURL, tokenURL and userInfoURL.",
            made.name
        );
        return Err((member, "validation_required", message));
    }
    made.issuer = match (given_issuer.is_empty(), made.token_url == preset.token_url && !preset_issuer.is_empty()) {
        (false, _) => given_issuer,
        (true, true) => preset_issuer.to_owned(),
        // Somebody's own installation: its subjects are not those of the public one.
        (true, false) => Url::parse(&made.token_url).map(|url| url.origin().ascii_serialization()).unwrap_or_default(),
    };
    Ok(made)
}

fn scopes(entry: &Value, known: &str) -> String {
    match &entry["extra"]["scopes"] {
        Value::String(text) if !text.trim().is_empty() => text.trim().to_owned(),
        Value::Array(list) => list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "),
        _ => known.to_owned(),
    }
}

/// Words of a text, or of a list of texts.
fn words(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => text.split_whitespace().map(str::to_owned).collect(),
        Value::Array(list) => list.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

fn max_age(value: &Value) -> Result<Option<i64>, Refused> {
    match value {
        Value::Null => Ok(None),
        Value::Number(seconds) if seconds.as_i64().is_some_and(|seconds| (0..=31_536_000).contains(&seconds)) => {
            Ok(seconds.as_i64())
        }
        _ => Err(("extra", "validation_invalid_value", "maxAge must be 0 to 31536000 seconds.".to_owned())),
    }
}

fn check_url(member: &'static str, text: &str) -> Result<(), Refused> {
    let fine = text.is_empty()
        || Url::parse(text).is_ok_and(|url| {
            matches!(url.scheme(), "https" | "http")
                && url.has_host()
                && url.username().is_empty()
                && url.password().is_none()
        });
    let message = "Must be an address such as https://login.example.com.";
    fine.then_some(()).ok_or_else(|| (member, "validation_is_url", message.to_owned()))
}

/// The members of a provider, and of its `extra`. `issuers` is PocketBase's, whose metadata names them here.
const MEMBERS: &[&str] = &[
    "name",
    "displayName",
    "clientId",
    "clientSecret",
    "issuer",
    "authURL",
    "tokenURL",
    "userInfoURL",
    "pkce",
    "extra",
];
const EXTRA_MEMBERS: &[&str] = &["scopes", "jwksURL", "issuers", "teamId", "keyId", "acrValues", "maxAge"];

/// Refuses what no provider has: a misspelt `acrValues` would ask for nothing.
pub(crate) fn refuse_unknown(providers: &Value, problems: &mut Problems<'_>) {
    let mut problems = problems.at("providers");
    for (at, entry) in providers.as_array().into_iter().flatten().enumerate() {
        let mut problems = problems.at(at);
        if let Some(map) = entry.as_object() {
            problems.refuse_unknown(map, "a provider", &[MEMBERS]);
        }
        if let Some(extra) = entry["extra"].as_object() {
            problems.at("extra").refuse_unknown(extra, "extra", &[EXTRA_MEMBERS]);
        }
    }
}

/// Takes out what [`refuse_unknown`] refuses, and what a page noted for itself.
pub(crate) fn keep_known(providers: &mut Value) {
    for entry in providers.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        entry.retain(|member, _| MEMBERS.contains(&member.as_str()));
        if let Some(extra) = entry.get_mut("extra").and_then(Value::as_object_mut) {
            extra.retain(|member, _| EXTRA_MEMBERS.contains(&member.as_str()));
        }
    }
}

/// Checks the member `providers`.
pub(crate) fn check(providers: &Value, problems: &mut Problems<'_>) {
    let Some(list) = providers.as_array() else {
        problems.add_at("providers", "validation_invalid_type", "Must be a list of providers.");
        return;
    };
    let mut problems = problems.at("providers");
    if list.len() > limits::OAUTH_PROVIDERS_MAX {
        let message = format!("Must be at most {} providers.", limits::OAUTH_PROVIDERS_MAX);
        problems.add_at("length", "validation_length_out_of_range", message);
    }
    for (at, entry) in list.iter().enumerate() {
        match provider(entry) {
            Err((member, code, message)) => problems.at(at).add_at(member, code, message),
            Ok(made) if list.iter().take(at).any(|before| before["name"] == entry["name"]) => {
                let message = format!("There are two providers named {:?}.", made.name);
                problems.at(at).add_at("name", "validation_duplicated_provider", message);
            }
            Ok(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::collections::BTreeSet;

    #[test]
    fn every_row_is_complete_and_speaks_tls() {
        let mut names = BTreeSet::new();
        for preset in PRESETS {
            assert!(names.insert(preset.name), "{} twice", preset.name);
            let entry = json!({"name": preset.name, "clientId": "id"});
            if preset.issuer.is_empty() {
                assert_eq!(provider(&entry).unwrap_err().1, "validation_required");
                continue;
            }
            let made = provider(&entry).unwrap();
            assert_eq!(made.issuer, preset.issuer);
            for url in [&made.issuer, &made.auth_url, &made.token_url, &made.user_info_url] {
                assert!(url.starts_with("https://") || (made.oidc && url.is_empty()), "{url}");
            }
            assert!(!made.scopes.is_empty() && made.profile.id.starts_with('/'));
        }
    }

    #[test]
    fn an_installation_of_ones_own_has_an_issuer_of_its_own() {
        let own = provider(&json!({
            "name": "gitlab", "clientId": "id", "authURL": "https://git.example.com/oauth/authorize",
            "tokenURL": "https://git.example.com/oauth/token", "userInfoURL": "https://git.example.com/api/v4/user",
        }));
        assert_eq!(own.unwrap().issuer, "https://git.example.com");
        let issuer =
            provider(&json!({"name": "acme", "clientId": "id", "issuer": "https://id.acme.test/realm"})).unwrap();
        assert!(issuer.oidc && issuer.pkce && issuer.profile == OIDC_PROFILE && issuer.scopes == OPENID.scopes);
        assert_eq!(issuer.issuer, "https://id.acme.test/realm");
    }

    #[test]
    fn what_is_missing_is_named() {
        for (entry, member) in [
            (json!({"clientId": "id"}), "name"),
            (json!({"name": "google"}), "clientId"),
            (json!({"name": "acme", "clientId": "id"}), "authURL"),
            (json!({"name": "oidc", "clientId": "id", "authURL": "https://a.test/x"}), "tokenURL"),
            (json!({"name": "oidc", "clientId": "id", "issuer": "a.test"}), "issuer"),
            (json!({"name": "oidc", "clientId": "id", "issuer": "https://u:p@a.test"}), "issuer"),
        ] {
            assert_eq!(provider(&entry).unwrap_err().0, member, "{entry}");
        }
    }
}
