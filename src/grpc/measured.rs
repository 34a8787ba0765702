//! Measures every call.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use tonic::Code;
use tonic::body::Body;
use tower::{Layer, Service};

use crate::model::clock;
use crate::telemetry::{Metrics, Traces, Work};

/// Notes of each call how long its answer took to begin, and with which status, and has its work noted and traced. One that fails later, in the
/// middle of a stream, counts as begun.
#[derive(Debug, Clone)]
pub(super) struct MeasuredLayer {
    pub(super) metrics: Metrics,
    pub(super) traces: Traces,
}

/// See [`MeasuredLayer`].
#[derive(Debug, Clone)]
pub(super) struct Measured<S> {
    inner: S,
    layer: MeasuredLayer,
}

impl<S> Layer<S> for MeasuredLayer {
    type Service = Measured<S>;

    fn layer(&self, inner: S) -> Measured<S> {
        Measured { inner, layer: self.clone() }
    }
}

impl<S, Q> Service<http::Request<Q>> for Measured<S>
where
    S: Service<http::Request<Q>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Q>) -> Self::Future {
        let MeasuredLayer { metrics, traces } = &self.layer;
        let work = Work::of(request.uri().path(), request.headers(), clock::now(), (metrics, traces));
        let answer = work.within(|| self.inner.call(request));
        Box::pin(async move {
            let mut answer = pin!(answer);
            let answer = poll_fn(|context| work.within(|| answer.as_mut().poll(context))).await?;
            let code = tonic::Status::from_header_map(answer.headers()).map_or(Code::Ok, |status| status.code());
            work.answered(code as i32, clock::now());
            Ok(answer)
        })
    }
}
