//! A finished answer: a gRPC message in pieces of memory, sent as they are.
//!
//! tonic's codec copies each message into a buffer of its own, on an async worker. An answer is megabytes of rows that a compute
//! thread has gathered already, so it goes out from where it lies. The service hands it over in its response's extensions, and
//! [`Framed`] puts it in the place of the body.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

use super::outbound::Held;
use super::wire::{Fields, PREFIX};
use crate::engine::MemoryShare;

/// One gRPC message, its length-prefix included. Cheap to clone: copies share the memory.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    pieces: Vec<Bytes>,
    /// What accounts for its memory, until the last copy of it is sent or cut. After the pieces, so that no memory is free before it is.
    held: Option<Held>,
}

impl Frame {
    /// The message of fields `head` (see [`Fields::message`]), followed by `tail`, which ends its last field.
    pub(super) fn new(head: Fields, tail: Vec<Bytes>) -> Self {
        let mut head = head.into_bytes();
        let message = (head.len() + tail.iter().map(Bytes::len).sum::<usize>()).saturating_sub(PREFIX);
        if let Some(room) = head.first_chunk_mut() {
            *room = prefix(message);
        }
        let mut pieces = vec![head.freeze()];
        pieces.extend(tail);
        Self { pieces, held: None }
    }

    /// The message with more fields, which were known too late to be among the first.
    pub(super) fn and(mut self, fields: Fields) -> Self {
        let message = self.bytes() - PREFIX + fields.len();
        if let Some(first) = self.pieces.first_mut() {
            let rest = first.split_off(PREFIX);
            *first = Bytes::copy_from_slice(&prefix(message));
            self.pieces.insert(1, rest);
        }
        self.pieces.push(fields.into_bytes().freeze());
        self
    }

    /// The frame of these pieces, as [`Self::into_pieces`] gave them.
    pub(super) fn of(pieces: Vec<Bytes>) -> Self {
        Self { pieces, held: None }
    }

    /// What is sent, piece by piece.
    pub(super) fn into_pieces(self) -> Vec<Bytes> {
        self.pieces
    }

    /// The message, for which memory was taken when it was asked for: as much as it could have been.
    pub(super) fn held_by(mut self, share: MemoryShare) -> Self {
        share.set(self.bytes());
        self.held = Some(Held::of(share));
        self
    }

    /// The message, of memory that something has which is accounted for.
    pub(super) fn holding(mut self, what: Held) -> Self {
        self.held = Some(what);
        self
    }

    /// True if no copy of it is being sent.
    pub(super) fn is_idle(&self) -> bool {
        !self.held.as_ref().is_some_and(Held::is_shared)
    }

    /// Memory that the message takes.
    pub(super) fn bytes(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum()
    }

    /// The message without its prefix, in one piece.
    #[cfg(test)]
    pub(super) fn message(&self) -> Vec<u8> {
        self.pieces.concat().split_off(PREFIX)
    }
}

fn prefix(message: usize) -> [u8; PREFIX] {
    // Far below 4 GiB: the limits see to that.
    let [a, b, c, d] = u32::try_from(message).unwrap_or(u32::MAX).to_be_bytes();
    [0, a, b, c, d]
}

/// The body of a response: one message, then the trailers of success.
struct FrameBody {
    pieces: VecDeque<Bytes>,
    ended: bool,
}

impl http_body::Body for FrameBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        if let Some(piece) = self.pieces.pop_front() {
            return Poll::Ready(Some(Ok(http_body::Frame::data(piece))));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        self.ended = true;
        let trailers = HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))]);
        Poll::Ready(Some(Ok(http_body::Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

/// A service whose responses may carry a [`Frame`] in their extensions, which then is the body.
#[derive(Debug, Clone)]
pub(super) struct Framed<S>(pub(super) S);

impl<S: NamedService> NamedService for Framed<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, Q> Service<http::Request<Q>> for Framed<S>
where
    S: Service<http::Request<Q>, Response = http::Response<Body>, Future: Send + 'static>,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Q>) -> Self::Future {
        let answered = self.0.call(request);
        Box::pin(async move {
            let mut response = answered.await?;
            if let Some(Frame { pieces, held }) = response.extensions_mut().remove::<Frame>() {
                *response.body_mut() = Body::new(FrameBody { pieces: pieces.into(), ended: false });
                if let Some(held) = held {
                    response.extensions_mut().insert(held);
                }
            }
            Ok(response)
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::{Fields, Frame};

    #[test]
    fn the_prefix_counts_every_piece() {
        let mut head = Fields::message(8);
        head.bytes(1, &[9; 300]);
        let frame = Frame::new(head, vec![Bytes::from(vec![1u8; 200]), Bytes::new(), Bytes::from(vec![2u8; 56])]);
        let message = frame.message();
        assert_eq!(message.len(), 3 + 300 + 256);
        assert_eq!(frame.pieces.concat()[..5], [0, 0, 0, 2, 47]);
        assert_eq!(frame.bytes(), 5 + message.len());
        let mut more = Fields::default();
        more.bytes(2, &[8; 10]);
        let longer = frame.clone().and(more);
        assert_eq!(longer.pieces.concat()[..5], [0, 0, 0, 2, 59]);
        assert_eq!(longer.message(), [message, vec![18, 10, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8]].concat());
    }
}
