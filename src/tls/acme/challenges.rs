//! What the authority finds when it checks that this node answers for a name.
//!
//! Keeps true: an answer is there only while its order is under way. Does not do: HTTP; `http` asks by token.

use parking_lot::Mutex;
use rustls::sign::CertifiedKey;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// Answers to challenges; shared by the order under way and the listeners. One order at a time bounds both maps.
#[derive(Default)]
pub struct Challenges {
    texts: Mutex<HashMap<String, String>>,
    keys: Mutex<HashMap<String, Arc<CertifiedKey>>>,
}

impl fmt::Debug for Challenges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Challenges").finish_non_exhaustive()
    }
}

impl Challenges {
    /// The answer to an http-01 challenge with this token.
    pub fn find_text(&self, token: &str) -> Option<String> {
        self.texts.lock().get(token).cloned()
    }

    /// The certificate that answers a tls-alpn-01 challenge for this name.
    pub(in crate::tls) fn find_key(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        self.keys.lock().get(name).cloned()
    }

    pub(super) fn put_text(self: &Arc<Self>, token: String, text: String) -> Answer {
        self.texts.lock().insert(token.clone(), text);
        Answer { challenges: Arc::clone(self), at: token }
    }

    pub(super) fn put_key(self: &Arc<Self>, name: String, key: Arc<CertifiedKey>) -> Answer {
        self.keys.lock().insert(name.clone(), key);
        Answer { challenges: Arc::clone(self), at: name }
    }
}

/// An answer that is there until this is dropped.
pub(super) struct Answer {
    challenges: Arc<Challenges>,
    at: String,
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.challenges.texts.lock().remove(&self.at);
        self.challenges.keys.lock().remove(&self.at);
    }
}
