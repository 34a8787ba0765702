//! A connection that can be cut from this side, however its client behaves.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tonic::transport::server::{Connected, TcpConnectInfo, UdsConnectInfo};

use super::farewell::Farewell;
use super::lifespan::{Lifespan, Terms};
use super::verdicts::Verdicts;

/// What a call knows of the connection that it came by.
#[derive(Debug, Clone)]
pub(super) struct Line {
    /// The client's address; `None`: a Unix socket.
    pub(super) peer: Option<IpAddr>,
    pub(super) cut: Arc<Cut>,
}

/// Cuts a connection: whatever reads or writes it next hears that it is gone.
#[derive(Debug, Default)]
pub(super) struct Cut {
    done: AtomicBool,
    reader: AtomicWaker,
    writer: AtomicWaker,
    /// Bytes that have come.
    heard: AtomicUsize,
}

impl Cut {
    pub(super) fn cut(&self) {
        self.done.store(true, Ordering::Release);
        self.reader.wake();
        self.writer.wake();
    }

    fn check(&self, waker: &AtomicWaker, context: &Context<'_>) -> io::Result<()> {
        waker.register(context.waker());
        if self.is_done() { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }

    /// True once it was cut.
    pub(super) fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }

    /// True once the client has said what every client says first.
    pub(super) fn has_spoken(&self) -> bool {
        self.heard.load(Ordering::Relaxed) >= PREFACE
    }
}

/// Bytes of HTTP/2's preface.
const PREFACE: usize = 24;

/// Where a connection comes from.
pub(super) trait Origin {
    fn peer(&self) -> Option<IpAddr>;
}

impl Origin for TcpConnectInfo {
    fn peer(&self) -> Option<IpAddr> {
        self.remote_addr().map(|address| address.ip().to_canonical())
    }
}

impl Origin for UdsConnectInfo {
    fn peer(&self) -> Option<IpAddr> {
        None
    }
}

/// A connection's place among those that there may be.
pub(super) type Place = OwnedSemaphorePermit;

/// A connection, the way to cut it, when that is due, and what it is refused for.
#[derive(Debug)]
pub(super) struct Connection<S> {
    inner: S,
    line: Line,
    lifespan: Lifespan,
    /// Once the last word is written.
    farewell: Option<Farewell>,
    verdicts: Verdicts,
    /// Hears that it is over, until somebody asks for it.
    gone: Option<oneshot::Receiver<()>>,
    _alive: oneshot::Sender<()>,
    _place: Place,
}

impl<S: Connected<ConnectInfo: Origin>> Connection<S> {
    pub(super) fn new(inner: S, (terms, age): (Terms, Option<Duration>), place: Place) -> Self {
        let line = Line { peer: inner.connect_info().peer(), cut: Arc::default() };
        let (lifespan, verdicts) = (Lifespan::new(terms, age), Verdicts::default());
        let (alive, gone) = oneshot::channel();
        Self { inner, line, lifespan, farewell: None, verdicts, gone: Some(gone), _alive: alive, _place: place }
    }

    pub(super) fn line(&self) -> &Line {
        &self.line
    }
}

impl<S> Connection<S> {
    /// After how long it is to be asked to end; `None`: never.
    pub(super) fn age(&self) -> Option<Duration> {
        self.lifespan.age()
    }

    /// Ready when it is over; to be asked once.
    pub(super) fn gone(&mut self) -> impl Future<Output = ()> + Send + use<S> {
        let gone = self.gone.take();
        async move {
            if let Some(gone) = gone {
                gone.await.unwrap_or_default();
            }
        }
    }

    /// Fails once it was cut, or when it is to be.
    fn check(&mut self, waker: fn(&Cut) -> &AtomicWaker, context: &mut Context<'_>) -> io::Result<()> {
        let cut = &self.line.cut;
        if !cut.is_done() && self.lifespan.ends(self.line.peer, context) {
            cut.cut();
        }
        cut.check(waker(cut), context)
    }
}

impl<S> Connected for Connection<S> {
    type ConnectInfo = Line;

    fn connect_info(&self) -> Line {
        self.line.clone()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(|cut| &cut.reader, context)?;
        let before = into.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(context, into);
        let heard = into.filled().len() - before;
        if heard > 0 {
            self.line.cut.heard.fetch_add(heard, Ordering::Relaxed);
            self.lifespan.hears();
        }
        polled
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check(|cut| &cut.writer, context)?;
        let polled = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.lifespan.wrote(&polled, context);
        if let Poll::Ready(Ok(written)) = polled {
            let peer = self.line.peer;
            self.verdicts.look(peer, &bytes[..written]);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(|cut| &cut.writer, context)?;
        let polled = Pin::new(&mut self.inner).poll_flush(context);
        self.lifespan.wrote(&polled, context);
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(|cut| &cut.writer, context)?;
        let Self { inner, lifespan, farewell, verdicts, .. } = &mut *self;
        if farewell.is_none() {
            let polled = Pin::new(&mut *inner).poll_shutdown(context);
            lifespan.wrote(&polled, context);
            ready!(polled)?;
            // One that is gone has nothing more to say.
            if lifespan.is_silent() {
                return Poll::Ready(Ok(()));
            }
        }
        let begun = || Farewell::new(lifespan.farewell(), verdicts.has_refused());
        farewell.get_or_insert_with(begun).poll_close(inner, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(|cut| &cut.writer, context)?;
        let polled = Pin::new(&mut self.inner).poll_write_vectored(context, pieces);
        self.lifespan.wrote(&polled, context);
        if let Poll::Ready(Ok(mut left)) = polled {
            let peer = self.line.peer;
            for piece in pieces {
                let written = left.min(piece.len());
                self.verdicts.look(peer, &piece[..written]);
                left -= written;
            }
        }
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}
