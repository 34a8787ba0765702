//! Requests to health and reflection: there is no large one.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Frame;
use http_body_util::BodyExt as _;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

/// Bytes of a call to health, or of all that one conversation with reflection asks: a question takes about a hundred.
const LARGEST: usize = 64 << 10;

/// What a frame counts at least.
const LEAST: usize = 64;

/// gRPC's own services, and none of ours.
const PATHS: &str = "/grpc.";

/// Reads what comes of such a request at once, and ends it where it grows large. Reflection reads the next question when its answers are
/// read; until then as much lay in HTTP/2's windows as these allow, which are made for writes.
#[derive(Debug, Clone, Copy)]
pub(super) struct SmallRequestsLayer;

/// The service behind a [`SmallRequestsLayer`].
#[derive(Debug, Clone)]
pub(super) struct SmallRequests<S> {
    inner: S,
}

impl<S> Layer<S> for SmallRequestsLayer {
    type Service = SmallRequests<S>;

    fn layer(&self, inner: S) -> SmallRequests<S> {
        SmallRequests { inner }
    }
}

impl<S: Service<http::Request<Body>>> Service<http::Request<Body>> for SmallRequests<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> S::Future {
        match request.uri().path().starts_with(PATHS) {
            true => self.inner.call(request.map(small)),
            false => self.inner.call(request),
        }
    }
}

/// The same body, read ahead of whoever reads it.
fn small(body: Body) -> Body {
    // As many frames as there may be, and the refusal.
    let (into, frames) = mpsc::channel(LARGEST / LEAST + 1);
    tokio::spawn(read(body, into));
    Body::new(Ahead(frames))
}

/// Reads until the end, or until nobody wants more. The rest of a body that is too large goes with it: HTTP/2 throws away what still comes.
async fn read(mut body: Body, into: Sender<Result<Frame<Bytes>, Status>>) {
    let mut left = LARGEST;
    loop {
        let frame = tokio::select! {
            frame = body.frame() => frame,
            () = into.closed() => return,
        };
        let frame = match frame {
            None => return,
            Some(Ok(frame)) => match left.checked_sub(frame.data_ref().map_or(0, Bytes::len).max(LEAST)) {
                Some(rest) => {
                    left = rest;
                    // A copy: the frame may be a small part of a large buffer that it would keep.
                    Ok(frame.map_data(|data| Bytes::copy_from_slice(&data)))
                }
                None => {
                    Err(Status::resource_exhausted(format!("a request to this service may have {LARGEST} bytes (no setting)")))
                }
            },
            Some(Err(fault)) => Err(fault),
        };
        let last = frame.is_err();
        if into.try_send(frame).is_err() || last {
            return;
        }
    }
}

/// What was read.
struct Ahead(Receiver<Result<Frame<Bytes>, Status>>);

impl http_body::Body for Ahead {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.0.poll_recv(context)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::StreamBody;
    use tokio_stream::wrappers::ReceiverStream;

    use super::*;

    #[tokio::test]
    async fn a_request_is_read_ahead_and_no_further_than_it_may_go() {
        let (say, said) = mpsc::channel::<Result<Frame<Bytes>, Status>>(1);
        let mut ahead = small(Body::new(StreamBody::new(ReceiverStream::new(said))));
        let piece = Bytes::from_static(&[7; LARGEST / 4]);
        for _ in 0..5 {
            say.send(Ok(Frame::data(piece.clone()))).await.unwrap();
        }
        say.closed().await;
        for _ in 0..4 {
            assert_eq!(ahead.frame().await.unwrap().unwrap().into_data().unwrap(), piece);
        }
        let refused = ahead.frame().await.unwrap().unwrap_err();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted, "{refused}");
        assert!(ahead.frame().await.is_none());
    }

    #[tokio::test]
    async fn who_gives_up_a_call_gives_up_its_request() {
        let (say, said) = mpsc::channel::<Result<Frame<Bytes>, Status>>(1);
        drop(small(Body::new(StreamBody::new(ReceiverStream::new(said)))));
        say.closed().await;
    }
}
