//! Which new passwords are refused because somebody would guess them: common ones, and those made of words of the tenant.
//!
//! Keeps true: the same for users and superusers, for registering, changing and resetting; a collection may switch it off
//! (`passwordPolicy.refuseCommon`). Does not do: length, which is the password field's own.

use super::settings;
use super::tenants::Registry;
use crate::kernel::error::Detail;
use crate::schema::Collection;
use crate::secrets::Secret;
use crate::secrets::guessable::is_guessable;
use crate::store::TenantDb;

/// Why `password` may not be that of an account with the addresses `emails`; `None` if it may.
pub async fn refusal(
    registry: Option<&Registry>,
    tenant: &TenantDb,
    collection: &Collection,
    emails: &[&str],
    password: &Secret,
) -> Option<Detail> {
    if password.is_empty() || !refuses_common(collection) {
        return None;
    }
    let entry = registry.and_then(|registry| registry.entry(tenant.id()));
    // Without its settings a tenant has its name, and the list of common passwords stands.
    let app_name = settings::read(tenant).await.map(|set| set.meta.app_name).unwrap_or_default();
    let mut words = vec!["tenantry", app_name.as_str()];
    for email in emails {
        words.extend([*email, email.rsplit_once('@').map_or(*email, |(local, _)| local)]);
    }
    if let Some(entry) = &entry {
        words.extend([entry.slug.as_str(), &*entry.name]);
    }
    is_guessable(password, &words).then(|| {
        let message = "Is too easily guessed: choose one that is no common password and not made of the address or of the \
            names of this application.";
        Detail::new("password", "validation_password_common", message)
    })
}

fn refuses_common(collection: &Collection) -> bool {
    let policy = collection.auth.as_ref().and_then(|options| options.rest.get("passwordPolicy"));
    collection.is_auth() && policy.and_then(|policy| policy.get("refuseCommon")?.as_bool()).unwrap_or(true)
}
