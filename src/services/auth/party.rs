//! Who this node is to a passkey: the relying party's id and the origins its pages may have (WebAuthn 3, 5.1.2 and 13.4.9).
//!
//! Keeps true: nothing of it comes from a request but the name of a host that the registry knows as the tenant's; an id is
//! the host of every origin it goes with, or a domain above it. Does not do: ceremonies.

use url::Url;

/// What the configuration says about passkeys.
#[derive(Debug, Clone, Default)]
pub struct PartyOptions {
    /// Where people reach the node.
    pub public_url: String,
    /// The relying party's id, if it is not the host: a domain above it, so that its sub-domains share passkeys.
    pub rp_id: String,
    /// Further origins whose pages use passkeys, such as a front end on a host of its own.
    pub origins: Vec<String>,
}

/// One relying party.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Party {
    pub(super) id: String,
    /// At least one.
    pub(super) origins: Vec<Url>,
}

impl PartyOptions {
    /// The relying party of pages at `host`, a tenant's own, or else of the public address. `None` if that has no name.
    pub(super) fn party(&self, host: Option<&str>) -> Option<Party> {
        let mut home = Url::parse(&self.public_url).ok()?;
        let is_loopback = match home.host()? {
            url::Host::Ipv4(address) => address.is_loopback(),
            url::Host::Ipv6(address) => address.is_loopback(),
            url::Host::Domain(_) => false,
        };
        match host {
            Some(host) => home.set_host(Some(host)).ok()?,
            // An address is no relying party; browsers know this machine by the name as well.
            None if is_loopback => home.set_host(Some("localhost")).ok()?,
            None => {}
        }
        let own = home.domain()?.to_owned();
        let id = if is_within(&own, &self.rp_id) { self.rp_id.clone() } else { own };
        let further = self.origins.iter().filter_map(|origin| Url::parse(origin).ok());
        let further = further.filter(|origin| origin.domain().is_some_and(|host| is_within(host, &id)));
        let origins = std::iter::once(home.clone()).chain(further).collect();
        Some(Party { id, origins })
    }
}

/// Whether `host` is `domain` or below it.
fn is_within(host: &str, domain: &str) -> bool {
    !domain.is_empty() && (host == domain || host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_party_follows_the_address_people_use() {
        let options = |public_url: &str, rp_id: &str, origins: &[&str]| PartyOptions {
            public_url: public_url.to_owned(),
            rp_id: rp_id.to_owned(),
            origins: origins.iter().map(|origin| (*origin).to_owned()).collect(),
        };
        for (options, host, id, origins) in [
            (options("https://api.a.test/x", "", &[]), None, "api.a.test", vec!["https://api.a.test"]),
            (options("https://api.a.test", "a.test", &[]), None, "a.test", vec!["https://api.a.test"]),
            (options("https://api.a.test", "", &[]), Some("acme.test"), "acme.test", vec!["https://acme.test"]),
            (
                options("https://a.test:8443", "a.test", &["https://app.a.test", "https://evil-a.test"]),
                Some("acme.a.test"),
                "a.test",
                vec!["https://acme.a.test:8443", "https://app.a.test"],
            ),
            (options("http://127.0.0.1:8090", "", &[]), None, "localhost", vec!["http://localhost:8090"]),
            (options("https://xa.test", "a.test", &[]), None, "xa.test", vec!["https://xa.test"]),
        ] {
            let party = options.party(host).unwrap();
            let found: Vec<_> = party.origins.iter().map(|origin| origin.origin().ascii_serialization()).collect();
            assert_eq!((party.id.as_str(), found), (id, origins.into_iter().map(str::to_owned).collect()));
        }
        assert_eq!(options("http://10.0.0.1", "", &[]).party(None), None);
        assert_eq!(options("nonsense", "", &[]).party(None), None);
    }
}
