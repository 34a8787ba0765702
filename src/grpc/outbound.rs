//! Answers on their way out, piece by piece, so that it shows whether they are read.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Frame;
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use super::connection::Line;
use super::readers::{Readers, Reading};
use super::sparing::Sparing;
use super::status::TooLarge;

/// What an answer holds until all of it is sent or given up: its share of the ledger, or what has one. Left in the answer's extensions.
/// Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Held(Arc<dyn fmt::Debug + Send + Sync>);

impl Held {
    pub(super) fn of(what: impl fmt::Debug + Send + Sync + 'static) -> Self {
        Self(Arc::new(what))
    }

    /// True if there are other copies.
    pub(super) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

/// Hands answers on in pieces, and has it watched whether they are read. What an answer left in its extensions as [`Held`] is held until
/// all of it is sent.
#[derive(Debug, Clone)]
pub(super) struct OutboundLayer(pub(super) Readers);

/// The service behind an [`OutboundLayer`].
#[derive(Debug, Clone)]
pub(super) struct Outbound<S> {
    inner: S,
    readers: Readers,
}

/// Bytes of a piece, and of a frame at most: HTTP/2 keeps no more of an answer that is not read, and whoever reads a piece within
/// `server.answer_seconds` is not cut.
const PIECE: usize = 256 << 10;

static TOO_LARGE: Sparing = Sparing::new();

impl<S> Layer<S> for OutboundLayer {
    type Service = Outbound<S>;

    fn layer(&self, inner: S) -> Outbound<S> {
        Outbound { inner, readers: self.0.clone() }
    }
}

impl<S, Q> Service<http::Request<Q>> for Outbound<S>
where
    S: Service<http::Request<Q>, Response = http::Response<Body>, Future: Send + 'static>,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Q>) -> Self::Future {
        let (line, readers) = (request.extensions().get::<Line>().cloned(), self.readers.clone());
        let answer = self.inner.call(request);
        Box::pin(async move {
            let mut answer = answer.await?;
            let held = answer.extensions_mut().remove::<Held>();
            if let Some(TooLarge(why)) = answer.extensions_mut().remove()
                && let Some(untold) = TOO_LARGE.turn()
            {
                let peer = line.as_ref().and_then(|line| line.peer);
                tracing::warn!(?peer, why, untold, "a request was too large: refused");
            }
            let Some(line) = line else { return Ok(answer) };
            Ok(answer.map(|body| match http_body::Body::is_end_stream(&body) {
                true => body,
                false => Body::new(Pieces { body, rest: Bytes::new(), reading: readers.reading(line, held) }),
            }))
        })
    }
}

/// A body in pieces.
struct Pieces {
    body: Body,
    /// Of the frame that is being handed on.
    rest: Bytes,
    reading: Arc<Reading>,
}

/// A piece that HTTP/2 has taken, until it is sent.
struct Piece {
    bytes: Bytes,
    reading: Arc<Reading>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.reading.sent();
    }
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.rest.is_empty() {
            let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
            let Some(Ok(frame)) = frame else { return Poll::Ready(frame) };
            match frame.into_data() {
                Ok(data) => self.rest = data,
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
        let most = self.rest.len().min(PIECE);
        let (bytes, reading) = (self.rest.split_to(most), Arc::clone(&self.reading));
        reading.taken();
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_owner(Piece { bytes, reading })))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::default()
    }
}
