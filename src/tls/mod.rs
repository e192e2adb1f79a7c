//! L2: transport security: which cryptography the process uses.
//!
//! Keeps true: TLS 1.2 and 1.3 by ring alone. Does not do: sockets and HTTP, that is `http`.

use rustls::crypto::ring;

/// Makes ring the process's provider, for every part that does not name one; safe to call often.
pub fn install_provider() {
    // Somebody who embeds the node may have installed another one before.
    let _already = ring::default_provider().install_default().is_err();
}
