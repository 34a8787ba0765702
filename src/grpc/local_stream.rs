//! Connections over a Unix socket, whose clients may name its path where HTTP/2 wants a host.
//!
//! gRPC's C core (and so Python, Ruby, PHP and C++) sends `:authority: %2Frun%2Fnegbank.sock`, grpc-java `/run/negbank.sock`. Neither is a
//! host, and h2 resets each such call as malformed, with no setting to have it otherwise. Nothing here asks for the host, so one that
//! is none is replaced before h2 reads it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tonic::transport::server::{Connected, UdsConnectInfo};

use super::authority;

/// A connection; what is read from it has hosts that are hosts.
#[derive(Debug)]
pub(super) struct LocalStream {
    inner: UnixStream,
    state: State,
    /// Bytes read and not handed out yet.
    ready: Vec<u8>,
    handed_out: usize,
}

#[derive(Debug)]
enum State {
    /// The head of the next frame, as far as it has come.
    Head { head: [u8; HEAD], filled: usize },
    /// A header block to be looked at.
    Block { frame: Vec<u8>, filled: usize },
    /// So many bytes of no interest.
    Pass(usize),
}

/// What a client says first.
const PREFACE: usize = 24;

/// Length (3 bytes), type, flags and stream (4 bytes) of a frame.
const HEAD: usize = 9;

const HEADERS: u8 = 1;
const END_HEADERS: u8 = 4;

/// Header blocks of this size and less are looked at, if they come in one frame. Those of real clients take hundreds of bytes.
const LARGEST_BLOCK: usize = 16 << 10;

impl LocalStream {
    pub(super) fn new(inner: UnixStream) -> Self {
        Self { inner, state: State::Pass(PREFACE), ready: Vec::new(), handed_out: 0 }
    }

    /// Reads the rest of a head or of a block; true at the end of the stream.
    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let (bytes, filled) = match &mut self.state {
            State::Head { head, filled } => (&mut head[..], filled),
            State::Block { frame, filled } => (&mut frame[..], filled),
            State::Pass(_) => return Poll::Ready(Ok(false)),
        };
        while *filled < bytes.len() {
            let mut rest = ReadBuf::new(&mut bytes[*filled..]);
            ready!(Pin::new(&mut self.inner).poll_read(context, &mut rest))?;
            match rest.filled().len() {
                0 => return Poll::Ready(Ok(true)),
                more => *filled += more,
            }
        }
        Poll::Ready(Ok(false))
    }

    /// Goes on from a head or a block that is complete.
    fn advance(&mut self) {
        let start = State::Head { head: [0; HEAD], filled: 0 };
        match std::mem::replace(&mut self.state, start) {
            State::Head { head, .. } => {
                let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
                let whole = head[3] == HEADERS && head[4] & END_HEADERS != 0;
                if whole && length <= LARGEST_BLOCK {
                    let mut frame = head.to_vec();
                    frame.resize(HEAD + length, 0);
                    self.state = State::Block { frame, filled: HEAD };
                } else {
                    self.hand_out(head.to_vec());
                    self.state = State::Pass(length);
                }
            }
            State::Block { frame, .. } => self.hand_out(authority::with_host(frame)),
            State::Pass(_) => {}
        }
    }

    fn hand_out(&mut self, bytes: Vec<u8>) {
        (self.ready, self.handed_out) = (bytes, 0);
    }
}

impl AsyncRead for LocalStream {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            if this.handed_out < this.ready.len() {
                let piece = &this.ready[this.handed_out..];
                let piece = &piece[..piece.len().min(buffer.remaining())];
                buffer.put_slice(piece);
                this.handed_out += piece.len();
                return Poll::Ready(Ok(()));
            }
            if let State::Pass(left @ 1..) = &mut this.state {
                let most = (*left).min(buffer.remaining());
                let mut part = ReadBuf::new(buffer.initialize_unfilled_to(most));
                ready!(Pin::new(&mut this.inner).poll_read(context, &mut part))?;
                let read = part.filled().len();
                buffer.advance(read);
                *left -= read;
                return Poll::Ready(Ok(()));
            }
            if ready!(this.poll_fill(context))? {
                return Poll::Ready(Ok(()));
            }
            this.advance();
        }
    }
}

impl AsyncWrite for LocalStream {
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
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

impl Connected for LocalStream {
    type ConnectInfo = UdsConnectInfo;

    fn connect_info(&self) -> UdsConnectInfo {
        self.inner.connect_info()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixStream;

    use super::{HEAD, LocalStream, PREFACE};

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let [_, high, middle, low] = (payload.len() as u32).to_be_bytes();
        [&[high, middle, low, kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn headers(host: &str) -> Vec<u8> {
        frame(1, 4, &[&[0x83, 0x41, host.len() as u8], host.as_bytes()].concat())
    }

    /// What a client could say: large and empty frames, a block in two frames, which is left alone, and paths for hosts.
    fn said(host: &str) -> Vec<u8> {
        let data: Vec<u8> = (0..40_000u32).map(|at| (at * 7) as u8).collect();
        [
            vec![b'p'; PREFACE],
            frame(4, 0, &[]),
            headers(host),
            frame(0, 0, &data),
            frame(0, 1, &[]),
            frame(1, 0, &[0x83, 0x41, 2, b'/', b's']),
            frame(9, 4, &[0x86]),
            headers(host),
            frame(1, 4, &vec![b'/'; 17 << 10]),
            headers(host)[..HEAD + 2].to_vec(),
        ]
        .concat()
    }

    #[tokio::test]
    async fn only_hosts_change_however_the_bytes_come_and_are_taken() {
        let (heard, sent) = (said("localhost"), said("%2Frun%2Fnegbank.sock"));
        // Of the last frame only a part comes before the end, so nothing of it can be read by anybody.
        let heard = heard[..heard.len() - HEAD - 2].to_vec();
        for (piece, taken) in [(1, 7), (5, 1), (4_096, 3), (usize::MAX, 64 << 10)] {
            let (mut client, server) = UnixStream::pair().unwrap();
            let sent = sent.clone();
            let sending = tokio::spawn(async move {
                for piece in sent.chunks(piece.min(sent.len())) {
                    client.write_all(piece).await.unwrap();
                }
            });
            let mut server = LocalStream::new(server);
            let (mut read, mut buffer) = (Vec::new(), vec![0; taken]);
            loop {
                match server.read(&mut buffer).await.unwrap() {
                    0 => break,
                    more => read.extend_from_slice(&buffer[..more]),
                }
            }
            sending.await.unwrap();
            assert!(read == heard, "pieces of {piece}, taken by {taken}: {} bytes of {}", read.len(), heard.len());
        }
    }
}
