//! L4: the only place that knows actix and status codes.
