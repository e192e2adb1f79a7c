//! Uploaded files: `GET /api/files/{collection}/{record}/{name}`.
//!
//! Keeps true: a token in the address stands for its owner and nothing else of the request changes that.
//! Does not do: uploads, those are writes of records; thumbnails, `?thumb=` answers the original.

use crate::http::extract::Visitor;
use crate::http::file_delivery::{self, Purpose};
use crate::http::problem::Problem;
use crate::services::records::files;
use actix_web::{HttpResponse, web};
use serde_json::Map;

/// `GET /api/files/{collection}/{id}/{filename}?token=&download=1&thumb=`
pub(crate) async fn get_file(
    visitor: Visitor,
    path: web::Path<(String, String, String)>,
) -> Result<HttpResponse, Problem> {
    let (collection, id, name) = path.into_inner();
    let visitor = match visitor.text("token") {
        token if token.is_empty() => visitor,
        token => visitor.with_file_token(&token).await?,
    };
    let purpose = if visitor.flag("download") { Purpose::Save } else { Purpose::Show };
    let found = files::open(&visitor.scope(Map::new()), &collection, &id, &name).await?;
    file_delivery::send(visitor.request(), found, purpose).await
}
