//! Randomness as a parameter: the operating system's in production, a seeded stream in tests and sample data.
//!
//! Keeps true: [`SystemRandom`] is fit for secrets, [`SeededRandom`] never is and says so in its name.
//! Does not do: distributions beyond a bounded integer.

use parking_lot::Mutex;
use std::fmt;

/// A source of random bytes.
pub trait Random: Send + Sync + fmt::Debug {
    /// Fills `bytes`.
    fn fill(&self, bytes: &mut [u8]);
}

/// Draws an integer below `bound` (at least 1) without modulo bias.
pub fn below(random: &dyn Random, bound: u64) -> u64 {
    let bound = bound.max(1);
    let zone = u64::MAX - u64::MAX % bound;
    loop {
        let mut bytes = [0_u8; 8];
        random.fill(&mut bytes);
        let drawn = u64::from_le_bytes(bytes);
        if drawn < zone {
            return drawn % bound;
        }
    }
}

/// Draws `len` characters of `[a-z0-9]`, about 5.17 bits each.
pub fn lowercase_id(random: &dyn Random, len: usize) -> String {
    from_alphabet(random, b"abcdefghijklmnopqrstuvwxyz0123456789", len)
}

/// Draws `len` characters of `alphabet` (1 to 255 ASCII characters) without bias.
pub fn from_alphabet(random: &dyn Random, alphabet: &[u8], len: usize) -> String {
    let size = u8::try_from(alphabet.len()).unwrap_or(u8::MAX).max(1);
    let zone = u8::MAX - u8::MAX % size;
    let mut out = String::with_capacity(len);
    let mut pool = [0_u8; 64];
    while out.len() < len {
        random.fill(&mut pool);
        for byte in pool {
            if out.len() == len {
                break;
            }
            if byte < zone
                && let Some(letter) = alphabet.get(usize::from(byte % size))
            {
                out.push(char::from(*letter));
            }
        }
    }
    out
}

/// The operating system's generator.
#[derive(Debug)]
pub struct SystemRandom(ring::rand::SystemRandom);

impl Default for SystemRandom {
    fn default() -> Self {
        Self(ring::rand::SystemRandom::new())
    }
}

impl Random for SystemRandom {
    fn fill(&self, bytes: &mut [u8]) {
        // The kernel's generator does not fail once seeded; going on without randomness would forge ids and secrets.
        ring::rand::SecureRandom::fill(&self.0, bytes).expect("invariant: the system random generator answers");
    }
}

/// A reproducible stream for tests and sample data; never for secrets. SplitMix64 (Steele et al., 2014).
#[derive(Debug)]
pub struct SeededRandom(Mutex<u64>);

impl SeededRandom {
    /// Starts the stream that `seed` names.
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(seed))
    }
}

impl Random for SeededRandom {
    fn fill(&self, bytes: &mut [u8]) {
        let mut state = self.0.lock();
        for chunk in bytes.chunks_mut(8) {
            *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = *state;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^= mixed >> 31;
            for (slot, byte) in chunk.iter_mut().zip(mixed.to_le_bytes()) {
                *slot = byte;
            }
        }
    }
}
