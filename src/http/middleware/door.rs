//! Where every request comes in: a read that its worker remembers ([`Front`]), and whose answer is in memory and current,
//! leaves from here. The framework makes no request of it, nothing is routed, no future is boxed. Everything else goes on
//! to the application, together with what was found out about it.
//!
//! Keeps true: an answer from here is counted, limited, logged and decorated exactly as one of the application.
//! Does not do: reading; freshness, which the cache proves.

use super::{
    Answered, Counted, Edge, class_of, cors, count_address, decorate, grant, panicked, rate_limit, text_of, unread,
};
use crate::http::connections::Connection;
use crate::http::delivery;
use crate::http::extract::VisitPart;
use crate::http::front::{Front, Read, Remembered, Visit, split_prefix};
use crate::http::problem::Problem;
use crate::kernel::clock;
use crate::services::records::PageLinks;
use crate::services::records::cached::ServedBody;
use crate::telemetry::metrics::{HttpMetrics, RouteClass};
use actix_http::Request;
use actix_service::{IntoServiceFactory, apply_fn_factory};
use actix_web::body::BoxBody;
use actix_web::dev::{AppConfig, RequestHead, Response, Service, ServiceFactory, ServiceResponse};
use actix_web::http::header;
use actix_web::{HttpMessage, web};
use futures_util::TryFutureExt;
use futures_util::future::{Either, MapOk, Ready, ready};
use std::panic::AssertUnwindSafe;
use std::time::Instant;

/// What was found out about a request before the application took it.
pub(super) struct Arrival {
    pub(super) started: Instant,
    pub(super) now_ms: i64,
    /// A read that the worker remembers, if the request asks for one.
    pub(super) found: Option<Remembered>,
    /// The limit that the request is past, and all it was counted against.
    pub(super) refused: Option<Box<(Counted, Problem)>>,
}

impl Arrival {
    /// A request that came just now, of which nothing is known.
    pub(super) fn now(part: &VisitPart) -> Self {
        Self { started: clock::instant(), now_ms: part.clock.now_ms(), found: None, refused: None }
    }
}

/// The application's answer in the form that leaves.
type Leaving<F> = MapOk<F, fn(ServiceResponse<BoxBody>) -> Response<BoxBody>>;

type Answer = Result<Response<BoxBody>, actix_web::Error>;

/// `app` with the door in front of it.
pub(crate) fn before<A, F>(
    app: A,
    edge: web::Data<Edge>,
    front: web::Data<Front>,
) -> impl ServiceFactory<Request, Config = AppConfig, Response = Response<BoxBody>, Error = actix_web::Error, InitError = ()>
where
    A: IntoServiceFactory<F, Request>,
    F: ServiceFactory<
            Request,
            Config = AppConfig,
            Response = ServiceResponse<BoxBody>,
            Error = actix_web::Error,
            InitError = (),
        >,
{
    apply_fn_factory(app, move |request, app: &F::Service| enter(request, app, &edge, &front))
}

fn enter<S>(request: Request, app: &S, edge: &Edge, front: &Front) -> Either<Ready<Answer>, Leaving<S::Future>>
where
    S: Service<Request, Response = ServiceResponse<BoxBody>, Error = actix_web::Error>,
{
    // Inside a guard as every handler: what is looked at is shared, and a body may be compressed here for the first time.
    match std::panic::catch_unwind(AssertUnwindSafe(|| look(&request, edge, front))) {
        Ok(Ok(response)) => Either::Left(ready(Ok(response))),
        Ok(Err(arrival)) => {
            request.extensions_mut().insert(arrival);
            Either::Right(app.call(request).map_ok(Response::from))
        }
        Err(panic) => {
            edge.metrics.begin();
            let class = class_of(split_prefix(request.path()).1);
            let (id, _) = edge.ids.take_or_make_value(request.headers());
            Either::Left(ready(Err(panicked(panic, class, request.method(), edge, &id))))
        }
    }
}

/// The answer, or what was found out for the application.
fn look(request: &Request, edge: &Edge, front: &Front) -> Result<Response<BoxBody>, Arrival> {
    let mut arrival = Arrival::now(front.part());
    // An unread body needs the whole chain.
    if !unread::is_chunked(request.head()) {
        arrival.found = front.find_read(request.head(), arrival.now_ms);
    }
    if let Some((visit, read)) = &arrival.found
        && let Some(answer) = read.place.as_ref().and_then(|place| place.find(arrival.now_ms))
    {
        let mut counted = Counted::default();
        match admit(request, visit, edge, front.part(), &mut counted, arrival.now_ms) {
            Ok(()) => {
                let open = request.headers().get(header::ORIGIN);
                let open = open.map(|origin| grant(edge, front.part(), origin, Some(&visit.tenant)));
                let served = ServedBody::Kept(answer);
                let hit = Hit { edge, served, read, counted: &counted, open, started: arrival.started };
                return Ok(hit.answer(request.head()));
            }
            Err(problem) => arrival.refused = Some(Box::new((counted, problem))),
        }
    }
    Err(arrival)
}

/// Counts a read that is answered at once.
fn admit(
    request: &Request,
    visit: &Visit,
    edge: &Edge,
    part: &VisitPart,
    counted: &mut Counted,
    now_ms: i64,
) -> Result<(), Problem> {
    count_address(request.head(), edge, part, counted, now_ms)?;
    edge.limits.count_caller(counted, &visit.tenant, &visit.identity, now_ms)?;
    visit.admit_at_once(request.conn_data::<Connection>(), now_ms)
}

/// What a hit is answered with.
struct Hit<'call> {
    edge: &'call Edge,
    served: ServedBody,
    read: &'call Read,
    counted: &'call Counted,
    /// What the page that asks may do, if it is of another origin.
    open: Option<cors::Grant>,
    started: Instant,
}

impl Hit<'_> {
    fn answer(&self, head: &RequestHead) -> Response<BoxBody> {
        let (id, noted) = self.edge.ids.take_or_make_value(&head.headers);
        let mut response = delivery::read(head, None, &self.served, &PageLinks::default(), &self.read.told);
        let status = response.status();
        let headers = response.headers_mut();
        // What a read says in `Vary` names the origin already.
        decorate(headers, status, &id, self.edge.hsts.as_ref());
        rate_limit::describe(headers, self.counted);
        if let Some(open) = &self.open {
            open.open(headers);
        }
        let (id, started) = (noted.as_deref().unwrap_or_else(|| text_of(&id)), self.started);
        let answered = Answered { head, prefix: None, response: &response, class: RouteClass::Records, id, started };
        answered.note(self.edge, HttpMetrics::count_answer);
        response.into()
    }
}
