//! Files on their way out: conditional, in parts, streamed from disk.
//!
//! Keeps true: whatever a file holds, a browser runs nothing of it (no sniffing, a sandbox without origin, downloads for
//! everything that is not picture, sound, film or PDF); content behind a tag never changes, so parts of two answers fit
//! together (RFC 9110, 13 and 14). Does not do: who may have the file; compressing what is mostly compressed.

use crate::cache::compress::Encoding;
use crate::cache::entry::none_match;
use crate::http::problem::Problem;
use crate::http::range::{self, Range};
use crate::kernel::digest;
use crate::kernel::limits;
use crate::services::files::is_inline;
use crate::services::records::files::FoundFile;
use actix_web::body::SizedStream;
use actix_web::http::header::{self, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder};
use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, Stream};
use std::io;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

/// What a page made of an uploaded file may do: show itself, nothing more.
const SANDBOX: &str = "default-src 'none'; media-src 'self'; style-src 'unsafe-inline'; sandbox";
/// PocketBase's policy for files that everybody may have.
const PUBLIC: &str = "max-age=2592000, stale-while-revalidate=86400";
const PRIVATE: &str = "private, no-cache";

/// Whether the client wants the file shown or saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// As its media type says.
    Show,
    /// As a download.
    Save,
}

/// Answers with the file, a part of it, or that the client has it already.
pub(crate) async fn send(request: &HttpRequest, found: FoundFile, purpose: Purpose) -> Result<HttpResponse, Problem> {
    let tag = format!("\"{}\"", digest::hex(&found.tag));
    let offered = |name| request.headers().get_all(name).filter_map(|value| value.to_str().ok());
    if offered(header::IF_NONE_MATCH).any(|tags| none_match(tags, &tag, Encoding::Identity).is_some()) {
        return Ok(describe(StatusCode::NOT_MODIFIED, &found, &tag, purpose).finish());
    }
    let size = found.open.bytes;
    // A part of another version would not fit; only a strong tag says that it does.
    let fits = offered(header::IF_RANGE).all(|wanted| wanted.trim() == tag);
    let range = match offered(header::RANGE).next() {
        Some(text) if fits => Range::parse(text, size),
        _ => Range::Whole,
    };
    let (status, first, len) = match range {
        Range::Whole => (StatusCode::OK, 0, size),
        Range::Part(first, last) => (StatusCode::PARTIAL_CONTENT, first, last - first + 1),
        Range::Outside => {
            return Err(range::outside(size));
        }
    };
    let mut response = describe(status, &found, &tag, purpose);
    if let Range::Part(first, last) = range {
        response.insert_header((header::CONTENT_RANGE, format!("bytes {first}-{last}/{size}")));
    }
    if *request.method() == Method::HEAD {
        return Ok(response.no_chunking(len).body(SizedStream::new(len, stream::empty::<io::Result<Bytes>>())));
    }
    let mut file = tokio::fs::File::from_std(found.open.file);
    if first > 0 {
        file.seek(io::SeekFrom::Start(first)).await.map_err(|error| Problem::internal(&error))?;
    }
    Ok(response.body(SizedStream::new(len, pieces(file, len))))
}

fn describe(status: StatusCode, found: &FoundFile, tag: &str, purpose: Purpose) -> HttpResponseBuilder {
    let shown = purpose == Purpose::Show && is_inline(&found.media);
    let disposition = format!("{}; filename=\"{}\"", if shown { "inline" } else { "attachment" }, found.name);
    let mut response = HttpResponse::build(status);
    response
        .insert_header((header::ETAG, tag))
        .insert_header((header::CACHE_CONTROL, if found.public { PUBLIC } else { PRIVATE }))
        .insert_header((header::VARY, "Authorization, X-Tenant"))
        .insert_header((header::ACCEPT_RANGES, "bytes"))
        .insert_header((header::CONTENT_TYPE, content_type(&found.media)))
        .insert_header((header::CONTENT_DISPOSITION, disposition))
        .insert_header((header::CONTENT_SECURITY_POLICY, SANDBOX));
    response
}

/// Text is known to be UTF-8, because nothing else is taken for text.
fn content_type(media: &str) -> HeaderValue {
    let text = if media.starts_with("text/") { format!("{media}; charset=utf-8") } else { media.to_owned() };
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("application/octet-stream"))
}

/// `len` bytes from where the file stands, a piece at a time.
fn pieces(file: tokio::fs::File, len: u64) -> impl Stream<Item = io::Result<Bytes>> {
    stream::try_unfold(file.take(len), |mut file| async move {
        let mut buffer = BytesMut::with_capacity(limits::FILE_CHUNK_BYTES);
        let read = file.read_buf(&mut buffer).await?;
        Ok((read > 0).then(|| (buffer.freeze(), file)))
    })
}
