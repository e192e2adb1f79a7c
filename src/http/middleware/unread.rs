//! Chunked bodies of which nobody read the end: the connection is closed with the answer instead of waiting for the rest.
//!
//! The framework takes a chunked body that was let go for one that is about to end, and reads on without any time limit;
//! whoever stops sending in the middle would keep the connection for as long as they like. A body that is still held when
//! the answer has been written makes it close. So the body is held here, by the answer.
//!
//! Keeps true: a handler reads the body as ever; a body that was read to its end changes nothing.
//! Does not do: bodies with an announced length; those the framework closes by itself.

use actix_web::HttpMessage;
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{Payload, RequestHead, ServiceRequest, ServiceResponse};
use actix_web::error::PayloadError;
use actix_web::http::header;
use bytes::Bytes;
use futures_util::Stream;
use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

/// Whether a request announces a body in chunks.
pub(super) fn is_chunked(head: &RequestHead) -> bool {
    head.headers().contains_key(header::TRANSFER_ENCODING)
}

/// A body shared between its reader and the answer. No borrow is held across an await.
#[derive(Clone)]
pub(super) struct Shared(Rc<RefCell<Reading>>);

struct Reading {
    payload: Payload,
    ended: bool,
}

impl Shared {
    /// Takes the body out of a chunked request and leaves a reader of it there.
    pub(super) fn take(request: &mut ServiceRequest) -> Option<Self> {
        if !is_chunked(request.head()) {
            return None;
        }
        let shared = Self(Rc::new(RefCell::new(Reading { payload: request.take_payload(), ended: false })));
        request.set_payload(Payload::Stream { payload: Box::pin(shared.clone()) });
        Some(shared)
    }

    /// Lets the answer hold the body, unless its end was read.
    pub(super) fn keep_with(self, response: ServiceResponse<BoxBody>) -> ServiceResponse<BoxBody> {
        if self.0.borrow().ended {
            return response;
        }
        response.map_body(|_, body| BoxBody::new(Held { body, _unread: self }))
    }
}

impl Stream for Shared {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut reading = self.0.borrow_mut();
        let polled = Pin::new(&mut reading.payload).poll_next(context);
        reading.ended |= matches!(polled, Poll::Ready(None));
        polled
    }
}

/// The body of an answer, and the body of the request it holds.
struct Held {
    body: BoxBody,
    _unread: Shared,
}

impl MessageBody for Held {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.body).poll_next(context)
    }
}
