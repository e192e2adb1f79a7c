//! Content codings: which one a client gets, and how bodies are encoded.
//!
//! Keeps true: negotiation never refuses (RFC 9110, 12.5.3 allows answering without coding), and a body below
//! [`COMPRESS_BYTES_MIN`] or one that would not shrink is sent as it is.
//! Does not do: headers. `Vary`, `Content-Encoding` and entity tags are written by the transport with these words.

use bytes::Bytes;
use std::io::Write as _;

/// Bodies below this many bytes are never encoded: the headers would cost what the coding saves.
pub const COMPRESS_BYTES_MIN: usize = 1_024;

/// A content coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// As it is.
    Identity,
    /// Zstandard (RFC 8878).
    Zstd,
    /// Brotli (RFC 7932).
    Brotli,
    /// gzip (RFC 1952).
    Gzip,
    /// zlib (RFC 1950), which HTTP calls deflate.
    Deflate,
}

impl Encoding {
    /// The codings that change bytes, the best for bodies made on the fly first.
    pub const CODED: [Self; 4] = [Self::Zstd, Self::Brotli, Self::Gzip, Self::Deflate];

    /// The word in `Content-Encoding`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Zstd => "zstd",
            Self::Brotli => "br",
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        if word.eq_ignore_ascii_case("x-gzip") {
            return Some(Self::Gzip);
        }
        Self::CODED.into_iter().chain([Self::Identity]).find(|coding| word.eq_ignore_ascii_case(coding.as_str()))
    }

    /// Position among the coded variants of an entry; `None` for identity.
    pub(crate) const fn slot(self) -> Option<usize> {
        match self {
            Self::Identity => None,
            Self::Zstd => Some(0),
            Self::Brotli => Some(1),
            Self::Gzip => Some(2),
            Self::Deflate => Some(3),
        }
    }
}

/// How hard to try, per coding. The defaults are the measured best for bodies compressed once and sent often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Levels {
    /// Zstandard, 1 to 19.
    pub zstd: i32,
    /// Brotli quality, 0 to 11.
    pub brotli: u32,
    /// gzip and deflate, 1 to 9.
    pub gzip: u32,
}

impl Default for Levels {
    fn default() -> Self {
        Self { zstd: 1, brotli: 4, gzip: 6 }
    }
}

/// Weights in thousandths, as RFC 9110 12.4.2 has three digits.
type Weight = u16;

/// Chooses the coding for a client that sent these `Accept-Encoding` values (several headers or one; none if absent).
///
/// The highest weight wins, our own order decides among equals, and where the client accepts nothing we have, it gets
/// the bytes as they are.
pub fn negotiate<'header>(accept: impl IntoIterator<Item = &'header str>) -> Encoding {
    let mut named: [Option<Weight>; 5] = [None; 5];
    let mut any: Option<Weight> = None;
    for element in accept.into_iter().flat_map(|header| header.split(',')).take(64) {
        let mut pieces = element.split(';');
        let word = pieces.next().unwrap_or("").trim();
        let weight = pieces.find_map(parse_weight).unwrap_or(1_000);
        if word == "*" {
            any = Some(weight);
        } else if let Some(coding) = Encoding::parse(word)
            && let Some(slot) = named.get_mut(coding.slot().unwrap_or(4))
        {
            *slot = Some(weight);
        }
    }
    let weight_of = |coding: Encoding| named.get(coding.slot().unwrap_or(4)).copied().flatten();
    let identity = weight_of(Encoding::Identity).or(any.filter(|weight| *weight == 0)).unwrap_or(1);
    let mut best = (Encoding::Identity, identity);
    for coding in Encoding::CODED {
        let weight = weight_of(coding).or(any).unwrap_or(0);
        let beats = match best.0 {
            Encoding::Identity => weight >= best.1,
            _ => weight > best.1,
        };
        if weight > 0 && beats {
            best = (coding, weight);
        }
    }
    best.0
}

fn parse_weight(parameter: &str) -> Option<Weight> {
    let (name, value) = parameter.split_once('=')?;
    if !name.trim().eq_ignore_ascii_case("q") {
        return None;
    }
    let value: f32 = value.trim().parse().ok()?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0..=1000")]
    let weight = (value.clamp(0.0, 1.0) * 1_000.0).round() as Weight;
    Some(weight)
}

/// Encodes `body`; `None` where it is too small, would not shrink, or the coding is identity.
pub fn encode(body: &[u8], encoding: Encoding, levels: Levels) -> Option<Bytes> {
    if body.len() < COMPRESS_BYTES_MIN {
        return None;
    }
    let coded = match encoding {
        Encoding::Identity => return None,
        Encoding::Zstd => zstd::bulk::compress(body, levels.zstd).ok()?,
        Encoding::Brotli => brotli_bytes(body, levels.brotli)?,
        Encoding::Gzip => {
            let mut writer = flate2::write::GzEncoder::new(room(body), flate2::Compression::new(levels.gzip));
            writer.write_all(body).ok()?;
            writer.finish().ok()?
        }
        Encoding::Deflate => {
            let mut writer = flate2::write::ZlibEncoder::new(room(body), flate2::Compression::new(levels.gzip));
            writer.write_all(body).ok()?;
            writer.finish().ok()?
        }
    };
    (coded.len() < body.len()).then(|| {
        let mut coded = coded;
        coded.shrink_to_fit();
        Bytes::from(coded)
    })
}

fn brotli_bytes(body: &[u8], quality: u32) -> Option<Vec<u8>> {
    let mut out = room(body);
    {
        let mut writer = brotli::CompressorWriter::new(&mut out, 16 * 1024, quality, 22);
        writer.write_all(body).ok()?;
        writer.flush().ok()?;
    }
    Some(out)
}

fn room(body: &[u8]) -> Vec<u8> {
    Vec::with_capacity(body.len() / 4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    #[test]
    fn negotiation_follows_rfc_9110() {
        for (header, expected) in [
            (&[][..], Encoding::Identity),
            (&[""], Encoding::Identity),
            (&["gzip, deflate, br, zstd"], Encoding::Zstd),
            (&["gzip, deflate, br"], Encoding::Brotli),
            (&["gzip;q=1.0, br;q=0.5"], Encoding::Gzip),
            (&["GZIP"], Encoding::Gzip),
            (&["x-gzip"], Encoding::Gzip),
            (&["br;q=0, *"], Encoding::Zstd),
            (&["zstd;q=0, br;q=0, *;q=0.1"], Encoding::Gzip),
            (&["identity;q=0"], Encoding::Identity),
            (&["*;q=0"], Encoding::Identity),
            (&["compress, identity;q=0"], Encoding::Identity),
            (&["identity, gzip;q=0.5"], Encoding::Identity),
            (&["identity;q=0.5, gzip;q=0.5"], Encoding::Gzip),
            (&["gzip;q=0"], Encoding::Identity),
            (&["gzip; q=0.8 , deflate;Q=0.9"], Encoding::Deflate),
            (&["gzip;q=nonsense"], Encoding::Gzip),
            (&["gzip", "br"], Encoding::Brotli),
        ] {
            assert_eq!(negotiate(header.iter().copied()), expected, "{header:?}");
        }
    }

    #[test]
    fn every_coding_gives_the_bytes_back_and_saves_on_lists() {
        let body: Vec<u8> = (0..200)
            .flat_map(|n| {
                format!("{{\"id\":\"r{n:014}\",\"title\":\"Match {n}\",\"score\":{}}},", n * 7 % 97).into_bytes()
            })
            .collect();
        for encoding in Encoding::CODED {
            let coded = encode(&body, encoding, Levels::default()).unwrap();
            let mut plain = Vec::new();
            match encoding {
                Encoding::Zstd => plain = zstd::bulk::decompress(&coded, 1 << 20).unwrap(),
                Encoding::Brotli => {
                    brotli::Decompressor::new(&coded[..], 4_096).read_to_end(&mut plain).unwrap();
                }
                Encoding::Gzip => {
                    flate2::read::GzDecoder::new(&coded[..]).read_to_end(&mut plain).unwrap();
                }
                _ => {
                    flate2::read::ZlibDecoder::new(&coded[..]).read_to_end(&mut plain).unwrap();
                }
            }
            assert_eq!(plain, body, "{encoding:?}");
            assert!(coded.len() * 10 < body.len() * 3, "{encoding:?}: {} of {}", coded.len(), body.len());
        }
    }

    #[test]
    fn what_is_small_or_does_not_shrink_stays_as_it_is() {
        assert_eq!(encode(&[b'a'; COMPRESS_BYTES_MIN - 1], Encoding::Gzip, Levels::default()), None);
        let mut state = 1_u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .take(4_096)
        .collect();
        for encoding in Encoding::CODED {
            assert_eq!(encode(&noise, encoding, Levels::default()), None, "{encoding:?}");
        }
    }
}
