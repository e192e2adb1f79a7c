//! Open connections: from where they come, and at which tenant each counts.
//!
//! Keeps true: a connection counts at the tenant its latest request went to, until it ends; a request to the same tenant
//! as the one before takes no lock and changes no counter. From one address no more than
//! `http.connections_per_ip_max` are open at once: one more is shut before a request is read from it. Over TLS a connection
//! counts once its handshake is done: those that are in it, or never finish it, are bounded by `http.connections_max` and the
//! handshake's deadline alone. A connection whose peer takes nothing of what it is sent for `http.write_timeout_ms` ends; one
//! that reads slowly lives on if what it reads in that time opens its window again. Does not do: the bound of each worker,
//! which the framework keeps; counting requests.

use crate::http::problem::Problem;
use crate::services::budget::{Connected, Standing, TenantLimits, TenantUsage};
use crate::services::throttle::address_group;
use crate::telemetry::metrics::HttpMetrics;
use actix_tls::accept::rustls_0_23::TlsStream;
use actix_web::dev::Extensions;
use parking_lot::Mutex;
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;

const SHARDS: usize = 16;

/// The open connections of the node by address; shared by all workers. A lock is held for one look-up when a connection
/// opens and one when it ends. There is an entry per address that has one open, so the workers' bound is its bound.
pub(crate) struct Connections {
    per_address_max: u32,
    shards: Vec<Mutex<HashMap<IpAddr, u32>>>,
    hasher: RandomState,
    metrics: Arc<HttpMetrics>,
}

/// One open connection, kept with it by the framework and used by its worker alone.
#[derive(Default)]
pub(crate) struct Connection {
    at: RefCell<Option<Connected>>,
    /// Refused by a budget: it is closed with the answer.
    unwanted: Cell<bool>,
    _place: Option<Place>,
}

/// A connection's place among those of its address.
struct Place {
    connections: Arc<Connections>,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.connections.shard(&self.address).lock();
        match open.get_mut(&self.address) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(open.remove(&self.address)),
        }
    }
}

impl Connections {
    /// Nothing is open; 0 is no bound.
    pub(crate) fn new(per_address_max: u32, metrics: Arc<HttpMetrics>) -> Arc<Self> {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Arc::new(Self { per_address_max, shards, hasher: RandomState::new(), metrics })
    }

    /// Notes the connection `io`, or shuts it. Peers that are `exempt`, such as proxies, speak for many.
    pub(crate) fn welcome(self: &Arc<Self>, io: &dyn Any, kept: &mut Extensions, exempt: impl Fn(IpAddr) -> bool) {
        let stream = stream_of(io);
        let peer = stream.and_then(|stream| stream.peer_addr().ok()).map(|peer| peer.ip().to_canonical());
        let peer = peer.filter(|peer| self.per_address_max > 0 && !exempt(*peer));
        let place = peer.map(|peer| self.take_place(address_group(peer)));
        if let (Some(None), Some(stream)) = (&place, stream) {
            self.metrics.count_refused_connection();
            // It may be gone already, which is as good.
            let _ = rustix::net::shutdown(stream, rustix::net::Shutdown::Both);
        }
        kept.insert(Connection { _place: place.flatten(), ..Connection::default() });
    }

    fn take_place(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let mut open = self.shard(&address).lock();
        let count = open.entry(address).or_insert(0);
        if *count >= self.per_address_max {
            return None;
        }
        *count += 1;
        drop(open);
        Some(Place { connections: Arc::clone(self), address })
    }

    fn shard(&self, address: &IpAddr) -> &Mutex<HashMap<IpAddr, u32>> {
        let at = usize::try_from(self.hasher.hash_one(address) % SHARDS as u64).unwrap_or(0);
        self.shards.get(at).expect("invariant: the index is below the number of shards")
    }
}

impl Connection {
    /// Counts this connection at the tenant of `usage`, and no longer where it counted before.
    pub(crate) fn go_to(
        &self,
        usage: &Arc<TenantUsage>,
        limits: &TenantLimits,
        standing: Standing,
    ) -> Result<(), Problem> {
        let mut at = self.at.borrow_mut();
        if at.as_ref().is_some_and(|connected| connected.is_at(usage)) {
            return Ok(());
        }
        *at = None;
        match usage.connect(limits, standing) {
            Ok(connected) => {
                *at = Some(connected);
                Ok(())
            }
            Err(refused) => {
                self.unwanted.set(true);
                Err(refused.into())
            }
        }
    }

    /// Counts this connection at no tenant.
    pub(crate) fn leave(&self) {
        *self.at.borrow_mut() = None;
    }

    /// Whether it is to be closed.
    pub(crate) fn is_unwanted(&self) -> bool {
        self.unwanted.get()
    }
}

/// Has every connection of `listener` end when its peer took nothing for `time`, whether it is gone or does not read.
///
/// The framework waits for ever until an answer is written; and it alone knows when it waits. The kernel knows as well
/// (`TCP_USER_TIMEOUT`, RFC 5482, which accepted sockets inherit on Linux): bytes that were sent and not confirmed, or that a
/// closed window holds back. A closed window counts from its first probe until it opens, and a receiver opens it again once
/// about 1/16 of its buffer and one segment are free: who reads less than that in `time` is let go too. Where there is no such
/// option, the system's own time for a peer that is gone holds alone.
#[cfg(target_os = "linux")]
pub(crate) fn end_unread(listener: &TcpListener, time: Duration) -> std::io::Result<()> {
    let time_ms = u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
    Ok(rustix::net::sockopt::set_tcp_user_timeout(listener, time_ms)?)
}

/// There is no such option here.
#[cfg(not(target_os = "linux"))]
pub(crate) fn end_unread(_: &TcpListener, _: Duration) -> std::io::Result<()> {
    Ok(())
}

/// The socket below `io`, with or without TLS.
fn stream_of(io: &dyn Any) -> Option<&TcpStream> {
    io.downcast_ref::<TcpStream>().or_else(|| Some(io.downcast_ref::<TlsStream<TcpStream>>()?.get_ref().0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_by_address_and_come_back() {
        let connections = Connections::new(2, Arc::new(HttpMetrics::default()));
        let (one, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let first = connections.take_place(one).expect("the first");
        let _second = connections.take_place(one).expect("the second");
        assert!(connections.take_place(one).is_none());
        let elsewhere = connections.take_place(other).expect("another address has places of its own");
        drop(first);
        connections.take_place(one).expect("a place that was given back");
        drop(elsewhere);
        let held: usize = connections.shards.iter().map(|shard| shard.lock().len()).sum();
        assert_eq!(held, 1, "an address without a connection is forgotten");
    }
}
