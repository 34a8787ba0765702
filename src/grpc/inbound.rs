//! How much of requests lies in memory at once.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Sleep;
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use super::connection::Line;
use super::sparing::Sparing;
use super::status;
use crate::engine::{EngineError, Ledger, MemoryPart, MemoryShare};
use crate::model::Excess;
use crate::model::clock::Deadline;

/// Counts the bytes of all requests that are being received, wait or are worked on, and refuses what would pass the limit: many
/// callers that each stay within the size of one request must not fill the memory together.
#[derive(Debug, Clone)]
pub(super) struct InboundLayer {
    all: Arc<AtomicUsize>,
    limit: usize,
    /// How long a request may take to come, whatever its deadline.
    most: Duration,
    ledger: Ledger,
}

impl InboundLayer {
    /// At most `limit` bytes; each request comes within `most`.
    pub(super) fn new(limit: usize, most: Duration, ledger: Ledger) -> Self {
        Self { all: Arc::default(), limit, most, ledger }
    }
}

/// Paths of the service whose requests are conversations; all others come whole.
const REFLECTION: &str = "/grpc.reflection.";

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

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let InboundLayer { all, limit, most, ledger } = self.layer.clone();
        let most = (!request.uri().path().starts_with(REFLECTION)).then_some(most);
        let (deadline, line) = (request.extensions().get().copied(), request.extensions().get().cloned());
        let upload = Upload { deadline, line, whole: AtomicBool::new(false), cut: AtomicBool::new(false) };
        let (own, whole, memory) = (AtomicUsize::new(0), AtomicUsize::new(0), ledger.share(MemoryPart::Requests));
        let share = Arc::new(Share { all, own, whole, limit, memory, upload });
        let of_body = Arc::clone(&share);
        request.extensions_mut().insert(Received(Arc::clone(&share)));
        let answer = self.inner.call(request.map(|body| Body::new(Counted { body, share: of_body, most, late: None })));
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
    /// What it says it will be, where it may be that much.
    whole: AtomicUsize,
    limit: usize,
    memory: MemoryShare,
    upload: Upload,
}

/// What a request takes of the ledger, in its extensions.
#[derive(Debug, Clone)]
pub(super) struct Received(Arc<Share>);

impl Received {
    /// Bytes that a request takes, as far as it is known.
    pub(super) fn held(of: Option<&Self>) -> usize {
        of.map_or(0, |received| received.0.memory.bytes())
    }

    /// The request's memory is no longer the request's: somebody accounts for it who has taken it in, or it is free.
    pub(super) fn pass_on(&self) {
        self.0.memory.set(0);
    }
}

/// How a request came.
#[derive(Debug)]
struct Upload {
    deadline: Option<Deadline>,
    line: Option<Line>,
    /// All of it is there, or has ended early, or was refused.
    whole: AtomicBool,
    /// It was cut, before its deadline.
    cut: AtomicBool,
}

static SLOW: Sparing = Sparing::new();

impl Upload {
    /// Logs that the request was still coming when its time was over.
    fn end(&mut self) {
        let late = *self.cut.get_mut() || self.deadline.is_some_and(Deadline::has_passed);
        if !*self.whole.get_mut()
            && late
            && let Some(untold) = SLOW.turn()
        {
            let peer = self.line.as_ref().and_then(|line| line.peer);
            tracing::warn!(
                ?peer,
                untold,
                "a request had not come whole by its deadline, or within server.default_deadline_seconds: given up"
            );
        }
    }
}

impl Share {
    /// Takes the next piece in. What there can never be room for is refused by its head.
    fn take(&self, piece: &[u8]) -> Result<(), Status> {
        let (bytes, before) = (piece.len(), self.own.load(Ordering::Relaxed));
        if before == 0 {
            // More than all requests may have is more than one may: that is told of by who reads it.
            let whole = announced(piece).filter(|&whole| whole <= self.limit).unwrap_or(0);
            self.whole.store(whole, Ordering::Relaxed);
            self.memory.may_ever_be(whole).map_err(|excess| status::engine(&excess))?;
        }
        let needed = self.whole.load(Ordering::Relaxed).max(before + bytes);
        self.memory.grow_for(bytes, needed).map_err(|full| status::engine(&full))?;
        self.own.fetch_add(bytes, Ordering::Relaxed);
        if self.all.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) <= self.limit {
            return Ok(());
        }
        let (limit, setting) = (self.limit, "server.max_inbound_bytes");
        if needed > limit {
            let what = format!("the request is of {needed} bytes with what frames it");
            let excess = Excess { what, limit, setting, instead: "send less at a time" };
            return Err(status::engine(&excess.into()));
        }
        Err(status::engine(&EngineError::full("the room for requests, in bytes,", limit, setting)))
    }
}

/// Bytes of a message with its prefix, as that says.
fn announced(piece: &[u8]) -> Option<usize> {
    let (_compressed, prefix) = piece.split_first()?;
    let bytes = u32::from_be_bytes(*prefix.first_chunk()?);
    Some(bytes as usize + 5)
}

impl Drop for Share {
    fn drop(&mut self) {
        self.all.fetch_sub(*self.own.get_mut(), Ordering::Relaxed);
        self.upload.end();
    }
}

/// A request's body, counted while it arrives.
struct Counted {
    body: Body,
    share: Arc<Share>,
    most: Option<Duration>,
    /// When it has come too slowly. Most requests are there at once and need none.
    late: Option<Pin<Box<Sleep>>>,
}

impl Counted {
    /// Ready when the request has taken too long to come.
    fn poll_late(&mut self, context: &mut Context<'_>) -> Poll<Duration> {
        let Some(most) = self.most else { return Poll::Pending };
        let late = self.late.get_or_insert_with(|| Box::pin(tokio::time::sleep(most)));
        late.as_mut().poll(context).map(|()| most)
    }
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
            let most = ready!(self.poll_late(context));
            self.share.upload.cut.store(true, Ordering::Relaxed);
            return Poll::Ready(Some(Err(status::slow_upload(most))));
        };
        let Some(Ok(frame)) = frame else {
            self.share.upload.whole.store(true, Ordering::Relaxed);
            return Poll::Ready(frame);
        };
        let taken = self.share.take(frame.data_ref().map_or(&[], |piece| &**piece));
        Poll::Ready(Some(taken.map(|()| frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
