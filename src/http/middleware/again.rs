//! A remembered read whose answer is not in memory: read again without routing, extractors and planning.
//!
//! Keeps true: the tenant is opened and the caller counted as for any other request; what cannot be answered in the
//! remembered way takes the long one. Does not do: hits, which need nothing of this.

use super::{Counted, TenantPrefix};
use crate::http::connections::Connection;
use crate::http::delivery;
use crate::http::extract::request_id;
use crate::http::front::{Front, Read, Visit, split_prefix};
use crate::http::problem::Problem;
use crate::query::resolve::Reach;
use crate::services::records::cached::Freshness;
use crate::services::records::{RecordError, Scope};
use actix_web::dev::ServiceRequest;
use actix_web::{HttpMessage, HttpResponse};
use std::sync::Arc;

/// The answer, or `None` if the request has to take the long way.
pub(super) async fn answer(
    request: &ServiceRequest,
    front: &Front,
    visit: &Visit,
    read: &Read,
) -> Result<Option<HttpResponse>, Problem> {
    debug_assert!(request.extensions().get::<TenantPrefix>().is_none(), "the prefix is still in front of the path");
    let part = front.part();
    let prepared = &read.prepared;
    let scope = Scope {
        tenant: part.registry.open_tenant(&visit.tenant).await?,
        principal: visit.identity.principal(),
        // No key's visit is remembered.
        reach: Reach::EVERYWHERE,
        by: None,
        request: Arc::clone(prepared.request()),
        tools: Arc::clone(&part.tools),
        request_id: request_id(request.request()),
        // Kept with writes alone.
        ip: None,
    };
    if !prepared.is_usable(&scope).await {
        let target = request.uri().path_and_query().map_or("", |target| split_prefix(target.as_str()).1);
        front.forget_read(visit, target);
        return Ok(None);
    }
    let mut counted = Counted::default();
    let now_ms = part.clock.now_ms();
    let within = part.limits.count_caller(&mut counted, &visit.tenant, &visit.identity, now_ms);
    counted.keep_with(request.request());
    within?;
    let _under_way = visit.admit(request.conn_data::<Connection>(), now_ms)?;
    match prepared.answer(&scope, Freshness::Current).await {
        Ok(served) => Ok(Some(delivery::read(request.head(), None, &served.body, &served.links, &read.told))),
        Err(RecordError::Overtaken) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
