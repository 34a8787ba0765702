//! Handshakes of TLS, and the connections that come of them.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{Accept, TlsAcceptor};
use tokio_stream::Stream;
use tonic::transport::server::{Connected, TcpConnectInfo};

use super::connection::Place;
use super::reloaded::Reloaded;
use super::sparing::Sparing;
use super::tls::Loaded;

/// A client that has not shaken hands by then is let go of.
const HANDSHAKE_SECONDS: u32 = 10;

/// Handshakes at once; more connections wait for their turn.
const HANDSHAKES: usize = 1_024;

/// When there are more, whoever says nothing loses its place: who stalls must not keep others out.
const CROWD: usize = 256;

/// For so long it may say nothing then, while its machine does its part of a thousand handshakes, say.
const SILENT_SECONDS: u32 = 2;

/// Bytes within a second; less is nothing. The least that a client says at a time, at the end of a handshake, is twice as much.
const WORD: usize = 32;

static FAILED: Sparing = Sparing::new();

/// Shakes hands on connections as they come, each in a task of its own. A client that fails to is its own problem, and logged.
pub(super) fn secured(
    incoming: impl Stream<Item = io::Result<(TcpStream, Place)>>,
    tls: Arc<Reloaded<Loaded>>,
) -> impl Stream<Item = io::Result<(SecureStream, Place)>> {
    let under_way = Arc::new(());
    let shaken = incoming.map(move |accepted| {
        let under_way = Arc::clone(&under_way);
        let acceptor = TlsAcceptor::from(Arc::clone(&tls.get().server));
        Task(tokio::spawn(async move {
            let (stream, place) = match accepted {
                Ok(accepted) => accepted,
                Err(fault) => return Some(Err(fault)),
            };
            let peer = stream.peer_addr().ok();
            let heard = Arc::default();
            let stream = Heard { inner: stream, bytes: Arc::clone(&heard) };
            let fault = match shake(acceptor.accept(stream), &heard, &under_way).await {
                Ok(stream) => return Some(Ok((SecureStream(stream), place))),
                Err(fault) => fault,
            };
            if let Some(untold) = FAILED.turn() {
                tracing::info!(?peer, fault, untold, "a TLS handshake failed");
            }
            None
        }))
    });
    // Without an answer only where the runtime ends.
    shaken.buffer_unordered(HANDSHAKES).filter_map(|shaken| std::future::ready(shaken.ok().flatten()))
}

/// A task that ends with whoever waits for it.
struct Task<T>(JoinHandle<T>);

impl<T> Future for Task<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context)
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Shakes hands; each handshake that is under way has a clone of `under_way`.
async fn shake(handshake: Accept<Heard>, heard: &AtomicUsize, under_way: &Arc<()>) -> Result<TlsStream<Heard>, String> {
    let mut handshake = pin!(handshake);
    let (mut seconds, mut silent, mut before) = (0, 0, 0);
    loop {
        match timeout(Duration::from_secs(1), &mut handshake).await {
            Ok(shaken) => return shaken.map_err(|fault| fault.to_string()),
            Err(_) => seconds += 1,
        }
        let now = heard.load(Ordering::Relaxed);
        silent = if now - before < WORD { silent + 1 } else { 0 };
        before = now;
        if seconds == HANDSHAKE_SECONDS {
            return Err(format!("it took longer than {seconds} s"));
        }
        if silent >= SILENT_SECONDS && Arc::strong_count(under_way) > CROWD {
            return Err(format!("the client said nothing for {silent} s, and others wait for its place"));
        }
    }
}

/// A connection of which the bytes that come are counted.
#[derive(Debug)]
struct Heard {
    inner: TcpStream,
    bytes: Arc<AtomicUsize>,
}

impl AsyncRead for Heard {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(context, into);
        self.bytes.fetch_add(into.filled().len() - before, Ordering::Relaxed);
        polled
    }
}

impl AsyncWrite for Heard {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

/// A connection that speaks TLS.
#[derive(Debug)]
pub(super) struct SecureStream(TlsStream<Heard>);

impl Connected for SecureStream {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.0.get_ref().0.inner.connect_info()
    }
}

impl AsyncRead for SecureStream {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, into)
    }
}

impl AsyncWrite for SecureStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
}
