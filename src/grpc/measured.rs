//! Measures every call.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::deadline;
use crate::model::clock::{self, Deadline};
use crate::telemetry::{Metrics, Traces, Work};

/// Notes of each call how long its answer took to begin, and with which status, and has its work noted and traced. One that fails later, in the
/// middle of a stream, counts as begun; one that its caller gives up before that as CANCELLED, or at its deadline as DEADLINE_EXCEEDED; one whose
/// handler panics is answered with INTERNAL, and logged.
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
        let deadline = deadline::given(request.headers()).map(|wait| Deadline::after(wait).a_little_before());
        let work = Work::of(request.uri().path(), request.headers(), clock::now(), (metrics, traces));
        let answer = work.within(|| self.inner.call(request));
        let mut call = Call { work, deadline, code: None };
        Box::pin(async move {
            let mut answer = pin!(answer);
            let answer = poll_fn(|context| {
                let polled = catch_unwind(AssertUnwindSafe(|| call.work.within(|| answer.as_mut().poll(context))));
                // It is not polled again.
                polled.unwrap_or_else(|_| Poll::Ready(Ok(call.broken())))
            })
            .await;
            call.ends_with(match &answer {
                Ok(answer) => Status::from_header_map(answer.headers()).map_or(Code::Ok, |status| status.code()),
                Err(_) => Code::Internal,
            });
            answer
        })
    }
}

/// A call until its answer begins. The transport drops what works on it when its caller resets the stream, as clients do at their deadline.
struct Call {
    work: Work,
    /// A little before its caller's own, which comes sooner than the server's.
    deadline: Option<Deadline>,
    code: Option<Code>,
}

impl Call {
    fn ends_with(&mut self, code: Code) {
        self.code = Some(code);
    }

    /// What to answer in the place of a handler that panicked.
    fn broken(&self) -> http::Response<Body> {
        tracing::error!(method = self.work.method(), "a request failed for a reason that is ours: its handler panicked");
        Status::internal("the server failed at this call: a defect of negbank, of which its log tells").into_http()
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let is_late = self.deadline.is_some_and(Deadline::has_passed);
        let given_up = if is_late { Code::DeadlineExceeded } else { Code::Cancelled };
        self.work.answered(self.code.unwrap_or(given_up) as i32, clock::now());
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_call_that_is_dropped_is_cancelled_or_late_by_its_callers_clock() {
        let metrics = Metrics::default();
        let layer = MeasuredLayer { metrics: metrics.clone(), traces: Traces::default() };
        let never =
            tower::service_fn(|_: http::Request<()>| std::future::pending::<Result<http::Response<Body>, Infallible>>());
        let mut measured = layer.layer(never);
        for (timeout, stays) in [(None, 30), (Some("1H"), 30), (Some("20m"), 30), (Some("20m"), 0)] {
            let mut request = http::Request::new(());
            *request.uri_mut() = "/a/b".parse().unwrap();
            timeout.map(|timeout| request.headers_mut().insert("grpc-timeout", timeout.parse().unwrap()));
            let given_up = tokio::time::timeout(Duration::from_millis(stays), measured.call(request)).await;
            assert!(given_up.is_err());
        }
        let text = metrics.text().unwrap();
        for (code, calls) in [(Code::Cancelled, 3), (Code::DeadlineExceeded, 1)] {
            assert!(text.lines().any(|line| line == series(code, calls)), "{code} in\n{text}");
        }
    }

    #[tokio::test]
    async fn a_call_that_panics_is_the_servers_fault() {
        let metrics = Metrics::default();
        let layer = MeasuredLayer { metrics: metrics.clone(), traces: Traces::default() };
        let broken = tower::service_fn(|_: http::Request<()>| async {
            assert!(std::hint::black_box(false), "on purpose");
            Ok::<http::Response<Body>, Infallible>(http::Response::default())
        });
        let answer = layer.layer(broken).call(http::Request::new(())).await.unwrap();
        let told = Status::from_header_map(answer.headers()).unwrap();
        assert!(told.code() == Code::Internal && told.message().contains("its log tells"), "{told:?}");
        let text = metrics.text().unwrap();
        assert!(text.lines().any(|line| line == series(Code::Internal, 1)), "{text}");
    }

    fn series(code: Code, calls: u32) -> String {
        format!("negbank_grpc_request_seconds_count{{method=\"unknown\",code=\"{}\"}} {calls}", code as i32)
    }
}
