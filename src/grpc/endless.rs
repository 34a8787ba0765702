//! Calls that end only when their callers like: they must not hold up a drain.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use super::status;

/// Ends watches of health and conversations with reflection once the server stops, when what they have to say is said; and bounds how many
/// there are, for no deadline ends them.
#[derive(Debug, Clone)]
pub(super) struct EndlessLayer {
    /// Its sender is dropped when the server stops.
    stopped: watch::Receiver<()>,
    watches: Arc<Semaphore>,
    conversations: Arc<Semaphore>,
}

/// Watches at once, and conversations at once; more are refused. Health asks nobody who calls.
const MOST: usize = 1_024;

/// When whoever was refused should come again.
const LATER: Duration = Duration::from_secs(5);

/// The service behind an [`EndlessLayer`].
#[derive(Debug, Clone)]
pub(super) struct Ending<S> {
    inner: S,
    layer: EndlessLayer,
}

const WATCH: &str = "/grpc.health.v1.Health/Watch";
const REFLECTION: &str = "/grpc.reflection.";

impl EndlessLayer {
    /// `stopped`: its sender is dropped when the server stops.
    pub(super) fn new(stopped: watch::Receiver<()>) -> Self {
        Self { stopped, watches: Arc::new(Semaphore::new(MOST)), conversations: Arc::new(Semaphore::new(MOST)) }
    }
}

impl<S> Layer<S> for EndlessLayer {
    type Service = Ending<S>;

    fn layer(&self, inner: S) -> Ending<S> {
        Ending { inner, layer: self.clone() }
    }
}

impl<S> Service<http::Request<Body>> for Ending<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Future: Send + 'static>,
    S::Error: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let path = request.uri().path();
        let EndlessLayer { stopped, watches, conversations } = &self.layer;
        let (places, of) = match path {
            WATCH => (watches, "watches of health"),
            _ if path.starts_with(REFLECTION) => (conversations, "conversations with reflection"),
            _ => return Box::pin(self.inner.call(request)),
        };
        let Ok(place) = Arc::clone(places).try_acquire_owned() else {
            let refused = status::for_now(format!("there are {MOST} {of}, as many as there may be (no setting)"), LATER);
            return Box::pin(std::future::ready(Ok(refused.into_http())));
        };
        // Reflection keeps its caller's stream open for as long as it may read from it: so that ends with the answer.
        let (answering, answered) = oneshot::channel::<()>();
        let until_answered = async move { answered.await.unwrap_or_default() };
        let answer = self.inner.call(request.map(|body| Body::new(Until::new(body, until_answered))));
        let until_stopped = until_dropped(stopped.clone());
        Box::pin(async move {
            let mut trailers = HeaderMap::new();
            // Fails for details that can't be sent, and there are none.
            let _written = Status::unavailable("the server is stopping").add_header(&mut trailers);
            Ok(answer.await?.map(|body| {
                let until = Until::new(body, until_stopped);
                Body::new(Until { trailers: Some(trailers), _answering: Some((answering, place)), ..until })
            }))
        })
    }
}

/// A body that ends early: once its time has come, and what is ready is handed on.
struct Until {
    body: Body,
    end: Pin<Box<dyn Future<Output = ()> + Send>>,
    ended: bool,
    /// What it ends with if it does so early.
    trailers: Option<HeaderMap>,
    /// Of an answer; dropped with it.
    _answering: Option<(oneshot::Sender<()>, OwnedSemaphorePermit)>,
}

impl Until {
    fn new(body: Body, end: impl Future<Output = ()> + Send + 'static) -> Self {
        Self { body, end: Box::pin(end), ended: false, trailers: None, _answering: None }
    }
}

impl http_body::Body for Until {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        // Asked before the body is: what was to be said before the end is ready by now.
        self.ended = self.ended || self.end.as_mut().poll(context).is_ready();
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if frame.is_pending() && self.ended {
            self.body = Body::empty();
            return Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))));
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

/// Waits until the sender is gone.
pub(super) async fn until_dropped(mut sender: watch::Receiver<()>) {
    // An error says that it is, and it sends nothing.
    let _gone = sender.changed().await;
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::{BodyExt as _, StreamBody};
    use tokio::sync::mpsc;
    use tokio_stream::wrappers::ReceiverStream;
    use tower::service_fn;

    use super::*;

    /// What is answered at `path` by a service that says one thing, and goes on for as long as `said` lives.
    async fn answered(path: &str, stopped: watch::Receiver<()>, said: mpsc::Receiver<Result<Frame<Bytes>, Status>>) -> Body {
        let mut said = Some(said);
        let inner = service_fn(move |_: http::Request<Body>| {
            let body = said.take().map_or_else(Body::empty, |said| Body::new(StreamBody::new(ReceiverStream::new(said))));
            std::future::ready(Ok::<_, Infallible>(http::Response::new(body)))
        });
        let request = http::Request::builder().uri(path).body(Body::empty()).unwrap();
        EndlessLayer::new(stopped).layer(inner).call(request).await.unwrap().into_body()
    }

    #[tokio::test]
    async fn a_watch_ends_with_the_server_when_the_last_is_said() {
        for path in [WATCH, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"] {
            let ((stopping, stopped), (say, said)) = (watch::channel(()), mpsc::channel(1));
            let mut answer = answered(path, stopped, said).await;
            say.send(Ok(Frame::data(Bytes::from_static(b"last")))).await.unwrap();
            drop(stopping);
            assert_eq!(answer.frame().await.unwrap().unwrap().into_data().unwrap(), "last");
            let trailers = answer.frame().await.unwrap().unwrap().into_trailers().unwrap();
            let status = Status::from_header_map(&trailers).unwrap();
            assert_eq!((status.code(), status.message()), (tonic::Code::Unavailable, "the server is stopping"));
            assert!(answer.frame().await.is_none());
        }
    }

    #[tokio::test]
    async fn other_calls_go_on() {
        let ((stopping, stopped), (say, said)) = (watch::channel(()), mpsc::channel(1));
        let mut answer = answered("/negbank.v1.Banks/Scan", stopped, said).await;
        drop(stopping);
        let late = std::time::Duration::from_millis(50);
        assert!(tokio::time::timeout(late, answer.frame()).await.is_err(), "it waits for what is not said yet");
        drop(say);
        assert!(answer.frame().await.is_none());
    }
}
