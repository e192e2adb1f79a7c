//! From where a request comes and for which tenant it is: addresses, host names, headers.
//!
//! Keeps true: the path, the host name and `X-Tenant` must not disagree; of `X-Forwarded-For` only what trusted proxies wrote
//! counts, and a client behind them is always somebody. Does not do: who asks (`extract`).

use crate::http::extract::VisitPart;
use crate::http::middleware::TenantPrefix;
use crate::http::problem::Problem;
use crate::kernel::error::Code;
use crate::kernel::ident::TenantId;
use crate::services::tenants::MAIN;
use actix_web::dev::RequestHead;
use actix_web::http::header;
use actix_web::{HttpMessage, HttpRequest};
use std::net::{IpAddr, SocketAddr};

/// The tenant that path, host name and header agree on; `main` if none of them names one.
pub(crate) fn find_tenant(request: &HttpRequest, part: &VisitPart) -> Result<TenantId, Problem> {
    match find_named_tenant(request, part)? {
        Some(id) => Ok(id),
        None => Ok(part.registry.resolve_slug(MAIN)?),
    }
}

/// The tenant that path, host name and header agree on, if one of them names any; it answers requests.
pub(crate) fn find_named_tenant(request: &HttpRequest, part: &VisitPart) -> Result<Option<TenantId>, Problem> {
    let mut found = None;
    if let Some(TenantPrefix(slug)) = request.extensions().get::<TenantPrefix>() {
        agree(&mut found, part.registry.resolve_slug(slug.as_str())?)?;
    }
    if let Some(named) = request.headers().get("x-tenant") {
        let slug = named.to_str().map_err(|_| Problem::bare(Code::TenantNotFound))?;
        agree(&mut found, part.registry.resolve_slug(slug)?)?;
    }
    if let Some(id) = tenant_of_host(request, part)? {
        agree(&mut found, id)?;
    }
    Ok(found)
}

fn agree(found: &mut Option<TenantId>, named: TenantId) -> Result<(), Problem> {
    match found {
        Some(before) if *before != named => Err(Problem::bare(Code::TenantAmbiguous)),
        _ => {
            *found = Some(named);
            Ok(())
        }
    }
}

/// A host of a tenant's own, or `{slug}.` before one of the configured domains.
pub(crate) fn tenant_of_host(request: &HttpRequest, part: &VisitPart) -> Result<Option<TenantId>, Problem> {
    let Some(host) = request_host(request.head()) else { return Ok(None) };
    let host = host.to_ascii_lowercase();
    if let Some(own) = part.registry.resolve_host(&host) {
        return Ok(Some(own?));
    }
    let label = part.tenant_domains.iter().find_map(|domain| host.strip_suffix(domain.as_str())?.strip_suffix('.'));
    match label {
        Some(slug) if !slug.contains('.') => Ok(Some(part.registry.resolve_slug(slug)?)),
        _ => Ok(None),
    }
}

/// The host a request is for, without its port: that of its address where it has one (HTTP/2; RFC 9112, 3.2.2), else `Host`.
pub(crate) fn request_host(head: &RequestHead) -> Option<&str> {
    match head.uri.authority() {
        Some(authority) => Some(authority.host()),
        None => head.headers.get(header::HOST)?.to_str().ok().map(host_name),
    }
}

/// The name without the port; an IPv6 address keeps its brackets.
fn host_name(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

/// Whether the request comes from this very machine, and from nobody for whom a proxy or a browser on it speaks.
pub(crate) fn is_local(request: &HttpRequest) -> bool {
    const OF_OTHERS: [&str; 6] = ["x-forwarded-for", "forwarded", "x-real-ip", "via", "origin", "sec-fetch-site"];
    let loopback = request.peer_addr().is_some_and(|peer| peer.ip().to_canonical().is_loopback());
    loopback && !OF_OTHERS.iter().any(|name| request.headers().contains_key(*name))
}

/// The peer, or the address that a trusted proxy vouches for.
pub(crate) fn client_ip(head: &RequestHead, part: &VisitPart) -> Option<IpAddr> {
    let peer = head.peer_addr?.ip().to_canonical();
    if !(part.trusted)(peer) {
        return Some(peer);
    }
    let lines: Vec<&[u8]> = head.headers.get_all("x-forwarded-for").map(|value| value.as_bytes()).collect();
    Some(client_behind(peer, &lines, |address| (part.trusted)(address)))
}

/// Whoever the chain of trusted proxies leads to, from the nearest outward; `lines` are the header's, as they came.
///
/// A hop that names no address ends the walk at the proxy that named it: somebody is always counted.
fn client_behind(peer: IpAddr, lines: &[&[u8]], trusted: impl Fn(IpAddr) -> bool) -> IpAddr {
    let mut client = peer;
    for line in lines.iter().rev() {
        for hop in line.rsplit(|byte| *byte == b',') {
            if !trusted(client) {
                return client;
            }
            let Some(next) = std::str::from_utf8(hop).ok().and_then(hop_address) else { return client };
            client = next;
        }
    }
    client
}

/// The address of a hop, which some proxies write with a port.
fn hop_address(hop: &str) -> Option<IpAddr> {
    let hop = hop.trim();
    let bare = hop.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(hop);
    let address = bare.parse::<IpAddr>().or_else(|_| hop.parse::<SocketAddr>().map(|socket| socket.ip()));
    address.ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::{client_behind, host_name, request_host};
    use actix_web::test::TestRequest;
    use std::net::IpAddr;

    #[test]
    fn the_host_of_the_address_comes_before_the_header() {
        for (address, header, host) in [
            ("/x", "a.localhost:80", "a.localhost"),
            ("http://b.localhost:8090/x", "a.localhost", "b.localhost"),
            ("http://user@b.localhost/x", "a.localhost", "b.localhost"),
            ("https://[::1]:8090/x", "a.localhost", "[::1]"),
        ] {
            let request = TestRequest::with_uri(address).insert_header(("host", header)).to_http_request();
            assert_eq!(request_host(request.head()), Some(host), "{address}");
        }
    }

    #[test]
    fn ports_are_not_part_of_the_name() {
        for (host, name) in [("a.localhost:80", "a.localhost"), ("a.localhost", "a.localhost"), ("[::1]:80", "[::1]")] {
            assert_eq!(host_name(host), name);
        }
    }

    /// A hop that could not be read made the client nobody, whom no limit by address counts; and of several lines the
    /// first was taken for the nearest, so a client could send the first one itself.
    #[test]
    fn a_client_behind_proxies_is_always_somebody() {
        let proxy = |address: IpAddr| address.to_string().starts_with("10.");
        for (lines, client) in [
            (vec!["203.0.113.9"], "203.0.113.9"),
            (vec!["203.0.113.9, 10.0.0.2"], "203.0.113.9"),
            (vec!["198.51.100.1, 203.0.113.9"], "203.0.113.9"),
            (vec!["203.0.113.9:5678"], "203.0.113.9"),
            (vec!["[2001:db8::1]:5678"], "2001:db8::1"),
            (vec!["[2001:db8::1]"], "2001:db8::1"),
            (vec!["::ffff:203.0.113.9"], "203.0.113.9"),
            (vec!["unknown"], "10.0.0.1"),
            (vec![""], "10.0.0.1"),
            (vec!["203.0.113.9, _hidden, 10.0.0.2"], "10.0.0.2"),
            (vec!["198.51.100.1", "203.0.113.9"], "203.0.113.9"),
            (vec![], "10.0.0.1"),
        ] {
            let lines: Vec<&[u8]> = lines.into_iter().map(str::as_bytes).collect();
            let found = client_behind("10.0.0.1".parse().unwrap(), &lines, proxy);
            assert_eq!(found.to_string(), client, "{lines:?}");
        }
        let stranger = client_behind("203.0.113.9".parse().unwrap(), &[b"10.0.0.1"], proxy);
        assert_eq!(stranger.to_string(), "203.0.113.9", "who is no proxy vouches for nobody");
    }
}
