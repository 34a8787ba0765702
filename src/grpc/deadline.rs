//! Until when a caller waits.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::HeaderMap;
use tonic::Request;
use tonic::body::Body;
use tower::{Layer, Service};

use super::{Config, status};
use crate::model::clock::Deadline;

/// Gives each call its deadline when its headers arrive: the one that its `grpc-timeout` sets, or the default where it sets none, or
/// one that can't be read. A call whose deadline has passed does no work, and one whose deadline passes stops.
#[derive(Debug, Clone, Copy)]
pub(super) struct DeadlineLayer {
    pub(super) default: Duration,
}

/// The service behind a [`DeadlineLayer`].
#[derive(Debug, Clone)]
pub(super) struct Deadlines<S> {
    inner: S,
    default: Duration,
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = Deadlines<S>;

    fn layer(&self, inner: S) -> Deadlines<S> {
        Deadlines { inner, default: self.default }
    }
}

impl<S, Q> Service<http::Request<Q>> for Deadlines<S>
where
    S: Service<http::Request<Q>, Response = http::Response<Body>, Future: Send + 'static>,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Q>) -> Self::Future {
        let deadline = Deadline::after(given(request.headers()).unwrap_or(self.default));
        request.extensions_mut().insert(deadline);
        let answer = (!deadline.has_passed()).then(|| self.inner.call(request));
        Box::pin(async move {
            let Some(answer) = answer else { return Ok(status::late().into_http()) };
            let answered = tokio::time::timeout_at(deadline.instant().into(), answer).await;
            answered.unwrap_or_else(|_| Ok(status::late().into_http()))
        })
    }
}

/// The deadline that the layer gave to a call.
pub(super) fn of<T>(request: &Request<T>) -> Deadline {
    let given = request.extensions().get::<Deadline>().copied();
    given.unwrap_or_else(|| Deadline::after(Config::default().default_deadline))
}

/// How long the caller of a call waits for it, if it says so.
pub(super) fn given(headers: &HeaderMap) -> Option<Duration> {
    headers.get("grpc-timeout")?.to_str().ok().and_then(parse)
}

/// At most eight digits and a unit (gRPC over HTTP/2, "Timeout").
fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(value * 3600)),
        "M" => Some(Duration::from_secs(value * 60)),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::parse;

    #[test]
    fn timeouts_parse_as_the_grpc_specification_says() {
        assert_eq!(parse("250m"), Some(Duration::from_millis(250)));
        assert_eq!(parse("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for bad in ["", "S", "1", "-1S", "123456789S", "1s", "1é"] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }
}
