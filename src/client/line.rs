//! The connection, and what every call on it carries.

use std::task::{Context, Poll};

use http::header::{AUTHORIZATION, HeaderValue};
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::transport::{Channel, channel};

/// A channel whose calls say who makes them. Copies share the connection.
#[derive(Debug, Clone)]
pub(super) struct Line {
    channel: Channel,
    authorization: Option<HeaderValue>,
}

impl Line {
    pub(super) fn new(channel: Channel, authorization: Option<HeaderValue>) -> Self {
        Self { channel, authorization }
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
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        Service::call(&mut self.channel, request)
    }
}
