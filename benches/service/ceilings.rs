//! What the machine and the HTTP/2 stack could do at best with the same bytes.

use std::convert::Infallible;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use negbank::proto::v1;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::transport::{Channel, Endpoint, Server};
use tower::{Service, ServiceExt as _};

use crate::timing::now;
use std::time::Duration;

/// HTTP/2 settings as the server and the client of negbank have them.
const STREAM_WINDOW: u32 = 16 << 20;
const CONNECTION_WINDOW: u32 = 32 << 20;
const FRAME_BYTES: u32 = 256 << 10;

/// A TCP connection over which the same bytes are sent on demand.
pub(crate) struct Loopback {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Loopback {
    pub(crate) fn new(bytes: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        std::thread::spawn(move || {
            let answer = vec![7u8; bytes];
            let mut asked = [0u8];
            while peer.read_exact(&mut asked).is_ok() && peer.write_all(&answer).is_ok() {}
        });
        Self { stream, buffer: vec![0; bytes] }
    }

    pub(crate) fn get(&mut self) -> Duration {
        let began = now();
        self.stream.write_all(&[1]).unwrap();
        self.stream.read_exact(&mut self.buffer).unwrap();
        began.elapsed()
    }
}

/// A server of one constant answer, as a ready-made body and through tonic's codec.
#[derive(Clone)]
pub(crate) struct Constant {
    channel: Channel,
}

impl Constant {
    /// Serves `answer` on the runtime that this is called on.
    pub(crate) async fn serve(answer: v1::SampleResponse) -> std::net::SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let body = Bytes::from(vec![7u8; prost::Message::encoded_len(&answer)]);
        let server = Server::builder()
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(FRAME_BYTES)
            .add_service(Answers { body, answer });
        tokio::spawn(
            server.serve_with_incoming(tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true))),
        );
        address
    }

    pub(crate) async fn connect(address: std::net::SocketAddr) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .unwrap()
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(FRAME_BYTES)
            .tcp_nodelay(true);
        Self { channel: endpoint.connect().await.unwrap() }
    }

    /// The ready-made body, read and thrown away.
    pub(crate) async fn body(&mut self) -> Duration {
        let began = now();
        let request = http::Request::post("/bench.Answers/Body").body(Body::empty()).unwrap();
        let response = self.channel.ready().await.unwrap().call(request).await.unwrap();
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            frame.unwrap();
        }
        began.elapsed()
    }

    /// The same bytes as a message, encoded and decoded by tonic.
    pub(crate) async fn plain(&mut self) -> Duration {
        let began = now();
        let mut client = tonic::client::Grpc::new(self.channel.clone()).max_decoding_message_size(usize::MAX);
        client.ready().await.unwrap();
        let path = http::uri::PathAndQuery::from_static("/bench.Answers/Plain");
        let codec = tonic_prost::ProstCodec::<v1::SampleRequest, v1::SampleResponse>::default();
        let request = tonic::Request::new(v1::SampleRequest::default());
        client.unary(request, path, codec).await.unwrap();
        began.elapsed()
    }
}

#[derive(Clone)]
struct Answers {
    body: Bytes,
    answer: v1::SampleResponse,
}

impl NamedService for Answers {
    const NAME: &'static str = "bench.Answers";
}

impl Service<http::Request<Body>> for Answers {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let Self { body, answer } = self.clone();
        Box::pin(async move {
            if request.uri().path().ends_with("/Body") {
                return Ok(http::Response::new(Body::new(Full::new(body))));
            }
            let codec = tonic_prost::ProstCodec::<v1::SampleResponse, v1::SampleRequest>::default();
            let mut grpc = tonic::server::Grpc::new(codec).apply_max_message_size_config(None, Some(usize::MAX));
            let unary = tower::service_fn(move |_: tonic::Request<v1::SampleRequest>| {
                let answer = answer.clone();
                async move { Ok::<_, tonic::Status>(tonic::Response::new(answer)) }
            });
            Ok(grpc.unary(unary, request).await)
        })
    }
}
