//! The way to the authority: HTTPS by the same library the rest of the node uses.
//!
//! Keeps true: answers are bounded in time and size; redirects and proxies of the environment are not followed.
//! Does not do: ACME.

use super::AcmeError;
use acme_http::Request;
use bytes::{Bytes, BytesMut};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use reqwest::{Body, Certificate, Client};
use std::fs;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

/// Bytes of an answer of the authority; a chain has a few thousand.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A client of one authority.
#[derive(Clone)]
pub(super) struct Web(Client);

impl Web {
    /// Trusts the system's authorities, or those in `files` if there are any.
    pub(super) fn new(files: &[PathBuf]) -> Result<Self, AcmeError> {
        let builder = Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).timeout(ANSWER_TIMEOUT);
        let mut roots = Vec::new();
        for file in files {
            roots.extend(Certificate::from_pem_bundle(&fs::read(file)?)?);
        }
        let builder = if roots.is_empty() { builder } else { builder.tls_certs_only(roots) };
        Ok(Self(builder.build()?))
    }
}

impl HttpClient for Web {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let client = self.0.clone();
        Box::pin(async move {
            let other = |error: reqwest::Error| Error::Other(Box::new(error));
            let request = request.map(Body::wrap).try_into().map_err(other)?;
            let mut response = client.execute(request).await.map_err(other)?;
            let mut body = BytesMut::new();
            while let Some(chunk) = response.chunk().await.map_err(other)? {
                if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                    return Err(Error::Str("the answer is too long"));
                }
                body.extend_from_slice(&chunk);
            }
            let (parts, _) = acme_http::Response::<Body>::from(response).into_parts();
            Ok(BytesResponse { parts, body: Box::new(body.freeze()) })
        })
    }
}
