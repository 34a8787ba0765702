//! The connection, and what every call on it carries.

use std::task::{Context, Poll};

use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::transport::{Channel, channel};

/// A channel whose calls say who makes them. Copies share the connection.
#[derive(Debug, Clone)]
pub(super) struct Line {
    channel: Channel,
    authorization: Option<HeaderValue>,
    traceparent: Option<HeaderValue>,
    tracestate: Option<HeaderValue>,
}

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

impl Line {
    pub(super) fn new(channel: Channel, authorization: Option<HeaderValue>) -> Self {
        Self { channel, authorization, traceparent: None, tracestate: None }
    }

    /// Its calls are part of a trace.
    pub(super) fn traced(self, traceparent: HeaderValue, tracestate: Option<HeaderValue>) -> Self {
        Self { traceparent: Some(traceparent), tracestate, ..self }
    }
}

impl Service<http::Request<Body>> for Line {
    type Response = http::Response<Body>;
    type Error = tonic::transport::Error;
    type Future = channel::ResponseFuture;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Service::poll_ready(&mut self.channel, context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let carried = [(AUTHORIZATION, &self.authorization), (TRACEPARENT, &self.traceparent), (TRACESTATE, &self.tracestate)];
        for (name, value) in carried {
            if let Some(value) = value {
                request.headers_mut().insert(name, value.clone());
            }
        }
        Service::call(&mut self.channel, request)
    }
}
