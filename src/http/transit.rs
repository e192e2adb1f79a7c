//! Files on their way in or out: whole tenants as one file.
//!
//! Keeps true: a file here is gone when its request is, whatever became of it, and what a crash leaves is removed at the
//! next start. Does not do: knowing what is in them.

use crate::http::body::{self, BodyLimits};
use crate::http::problem::Problem;
use crate::kernel::error::Code;
use crate::kernel::random::{self, Random};
use actix_web::{HttpRequest, web};
use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, Stream, StreamExt};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Bytes read from a file at a time.
const CHUNK_BYTES: usize = 256 * 1024;

/// The folder in which files wait; on the same disk as the tenants, so that taking one over is a rename.
pub(crate) struct TransitFolder {
    folder: PathBuf,
    random: Arc<dyn Random>,
}

impl TransitFolder {
    /// Empties the folder, or makes it.
    pub(crate) fn open(folder: PathBuf, random: Arc<dyn Random>) -> io::Result<Self> {
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        std::fs::create_dir_all(&folder)?;
        Ok(Self { folder, random })
    }

    /// A place for one file that is not there yet.
    pub(crate) fn fresh(&self) -> TransitFile {
        TransitFile(self.folder.join(random::lowercase_id(self.random.as_ref(), 20)))
    }
}

/// One file's place; dropping it removes the file.
pub(crate) struct TransitFile(PathBuf);

impl Drop for TransitFile {
    fn drop(&mut self) {
        // Usually it was taken over or never made.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl TransitFile {
    /// The path.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a request's body here. It may take as long as it keeps arriving and there is room; its size is bounded.
    pub(crate) async fn receive(
        &self,
        request: &HttpRequest,
        limits: &BodyLimits,
        mut payload: web::Payload,
        has_room: impl Fn() -> bool,
    ) -> Result<(), Problem> {
        let max = limits.tenant_import_bytes_max;
        body::refuse_announced(request, max)?;
        let mut file = File::create_new(&self.0).await.map_err(failed)?;
        let mut left = max;
        let late = |_| Problem::bare(Code::RequestTimeout);
        while let Some(chunk) = tokio::time::timeout(limits.timeout, payload.next()).await.map_err(late)? {
            let chunk =
                chunk.map_err(|error| Problem::new(Code::RequestInvalid, format!("The body is damaged: {error}.")))?;
            left = left.checked_sub(chunk.len() as u64).ok_or_else(|| body::too_large(max))?;
            if !has_room() {
                return Err(Problem::bare(Code::StorageFull));
            }
            file.write_all(&chunk).await.map_err(failed)?;
        }
        file.sync_all().await.map_err(failed)
    }

    /// The content in pieces. The name is gone at once, the content when the stream is.
    pub(crate) async fn into_stream(self) -> Result<impl Stream<Item = io::Result<Bytes>>, Problem> {
        let file = File::open(&self.0).await.map_err(failed)?;
        Ok(stream::try_unfold(file, |mut file| async move {
            let mut buffer = BytesMut::with_capacity(CHUNK_BYTES);
            let read = file.read_buf(&mut buffer).await?;
            Ok((read > 0).then(|| (buffer.freeze(), file)))
        }))
    }
}

fn failed(error: io::Error) -> Problem {
    if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        return Problem::bare(Code::StorageFull);
    }
    Problem::internal(&error)
}
