//! A server that is stopped while its last answer is on a slow line.

use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use negbank::model::clock;
use negbank::proto::v1;
use prost::Message as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};

use crate::drain::{connect, ended};
use crate::hostile::{LARGE, head, large};
use crate::lifecycle::Process;
use crate::raw::framed;

/// A line that is slow from some time on: of what has come it hands over 4 KiB when it is asked, and then nothing until it is asked again.
struct SlowLine {
    stream: TcpStream,
    slow: Arc<AtomicBool>,
    gave: bool,
}

impl AsyncRead for SlowLine {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.slow.load(Ordering::Relaxed) {
            return Pin::new(&mut self.stream).poll_read(context, into);
        }
        self.gave = !self.gave;
        if !self.gave {
            return Poll::Pending;
        }
        let mut few = [0; 4 << 10];
        let mut few = ReadBuf::new(&mut few[..into.remaining().min(4 << 10)]);
        let polled = Pin::new(&mut self.stream).poll_read(context, &mut few);
        into.put_slice(few.filled());
        polled
    }
}

impl AsyncWrite for SlowLine {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// A client over a slow line: the end of its answer is still in the server's kernel when the server has written it all, and it goes on to
/// tell of the room that it has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_on_its_way_arrives_whole_though_the_server_is_gone_by_then() {
    let server = Process::start(&["--set", "server.drain_seconds=30"]);
    large(&connect(&server.address).await).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    let slow = Arc::new(AtomicBool::new(false));
    let stream = socket.connect(server.address.parse().unwrap()).await.unwrap();
    let line = SlowLine { stream, slow: Arc::clone(&slow), gave: false };
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(1 << 18).initial_connection_window_size(1 << 18);
    let (mut requests, mut connection) = builder.handshake::<_, Bytes>(line).await.unwrap();
    let driver = tokio::spawn(async move {
        loop {
            let polled = poll_fn(|context| Poll::Ready(Pin::new(&mut connection).poll(context))).await;
            if let Poll::Ready(ended) = polled {
                return ended;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });

    let scan = v1::ScanRequest { bank: "docs".into(), ..Default::default() };
    let request = head(&server.address, "/negbank.v1.Banks/Scan").body(()).unwrap();
    let (answer, mut upload) = requests.send_request(request, false).unwrap();
    upload.send_data(framed(&scan.encode_to_vec()), true).unwrap();
    let mut body = answer.await.unwrap().into_body();
    let (mut bytes, mut signalled) = (Vec::new(), None);
    while let Some(piece) = body.data().await {
        let piece = piece.unwrap_or_else(|fault| panic!("the answer broke off after {} bytes: {fault:?}", bytes.len()));
        bytes.extend(&piece);
        body.flow_control().release_capacity(piece.len()).unwrap();
        if signalled.is_none() && bytes.len() > LARGE / 4 {
            signalled = Some(clock::now());
            server.signal("-TERM");
        }
        slow.store(bytes.len() > LARGE / 16 * 15, Ordering::Relaxed);
    }
    let trailers = body.trailers().await.unwrap().unwrap();
    assert_eq!(trailers.get("grpc-status").map(http::HeaderValue::as_bytes), Some(&b"0"[..]));
    let (mut rest, mut ids) = (&bytes[..], Vec::new());
    while let Some((head, message)) = rest.split_first_chunk::<5>() {
        let (message, left) = message.split_at(u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize);
        ids.extend(v1::ScanChunk::decode(message).unwrap().rows.unwrap_or_default().ids);
        rest = left;
    }
    assert!(ids.iter().copied().eq(0..4_000), "{} of 4,000 entries", ids.len());
    driver.await.unwrap().expect("the connection ends in peace");
    let (took, code) = ended(server, signalled.unwrap()).await;
    assert_eq!(code, Some(0), "after {took} s");
}
