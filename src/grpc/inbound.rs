//! How much of requests lies in memory at once.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use super::status;
use crate::engine::{EngineError, Ledger, MemoryPart, MemoryShare};

/// Counts the bytes of all requests that are being received, wait or are worked on, and refuses what would pass the limit: many
/// callers that each stay within the size of one request must not fill the memory together.
#[derive(Debug, Clone)]
pub(super) struct InboundLayer {
    all: Arc<AtomicUsize>,
    limit: usize,
    ledger: Ledger,
}

impl InboundLayer {
    /// At most `limit` bytes.
    pub(super) fn new(limit: usize, ledger: Ledger) -> Self {
        Self { all: Arc::default(), limit, ledger }
    }
}

/// The service behind an [`InboundLayer`].
#[derive(Debug, Clone)]
pub(super) struct Inbound<S> {
    inner: S,
    layer: InboundLayer,
}

impl<S> Layer<S> for InboundLayer {
    type Service = Inbound<S>;

    fn layer(&self, inner: S) -> Inbound<S> {
        Inbound { inner, layer: self.clone() }
    }
}

impl<S> Service<http::Request<Body>> for Inbound<S>
where
    S: Service<http::Request<Body>, Future: Send + 'static>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let InboundLayer { all, limit, ledger } = self.layer.clone();
        let share = Arc::new(Share { all, own: AtomicUsize::new(0), limit, memory: ledger.share(MemoryPart::Requests) });
        let of_body = Arc::clone(&share);
        let answer = self.inner.call(request.map(|body| Body::new(Counted { body, share: of_body })));
        Box::pin(async move {
            let answered = answer.await;
            // What the request took is free only now: its message lived until it was answered.
            drop(share);
            answered
        })
    }
}

/// What one request takes of the limit.
#[derive(Debug)]
struct Share {
    all: Arc<AtomicUsize>,
    own: AtomicUsize,
    limit: usize,
    memory: MemoryShare,
}

impl Share {
    fn take(&self, bytes: usize) -> Result<(), Status> {
        self.memory.grow(bytes).map_err(|full| status::engine(&full))?;
        self.own.fetch_add(bytes, Ordering::Relaxed);
        if self.all.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) <= self.limit {
            return Ok(());
        }
        let (queue, setting) = ("the room for requests, in bytes,", "server.max_inbound_bytes");
        Err(status::engine(&EngineError::full(queue, self.limit, setting)))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.all.fetch_sub(*self.own.get_mut(), Ordering::Relaxed);
    }
}

/// A request's body, counted while it arrives.
struct Counted {
    body: Body,
    share: Arc<Share>,
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        let Some(Ok(frame)) = frame else { return Poll::Ready(frame) };
        let taken = self.share.take(frame.data_ref().map_or(0, Bytes::len));
        Poll::Ready(Some(taken.map(|()| frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
