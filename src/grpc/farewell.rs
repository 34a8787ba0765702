//! The end of a connection of which the client has not read everything yet.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{Sleep, sleep};

/// Hears a client out after the last word to it. If the connection were closed and the client said anything more, that it has room for the next
/// bytes, say, TCP would answer with a reset, which takes back what is still on its way: the end of the last answer.
#[derive(Debug)]
pub(super) struct Farewell {
    late: Pin<Box<Sleep>>,
    heard: usize,
}

/// A client that reads this slowly, or does not close its side, is not waited for any longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Nor is one that says so much more: a client that goes on as if nothing was.
const MOST: usize = 1 << 20;

impl Farewell {
    /// From the last word on.
    pub(super) fn new() -> Self {
        Self { late: Box::pin(sleep(PATIENCE)), heard: 0 }
    }

    /// Ready when the client has closed its side too, or is not waited for.
    pub(super) fn poll_close<S: AsyncRead + Unpin>(&mut self, from: &mut S, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.heard < MOST && self.late.as_mut().poll(context).is_pending() {
            let mut piece = [0; 4_096];
            let mut into = ReadBuf::new(&mut piece);
            match Pin::new(&mut *from).poll_read(context, &mut into) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) if !into.filled().is_empty() => self.heard += into.filled().len(),
                // Closed, or gone.
                Poll::Ready(_) => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use tokio::io::{AsyncWriteExt as _, duplex};
    use tokio::time::timeout;

    use super::{Farewell, MOST};

    #[tokio::test]
    async fn a_client_is_heard_out_until_it_closes_or_says_too_much() {
        for much in [10, 2 * MOST] {
            let (mut client, mut server) = duplex(4 * MOST);
            client.write_all(&vec![7; much]).await.unwrap();
            let mut farewell = Farewell::new();
            let mut end = Box::pin(poll_fn(|context| farewell.poll_close(&mut server, context)));
            let waits = timeout(Duration::from_millis(50), &mut end).await.is_err();
            assert_eq!(waits, much < MOST, "{much} bytes more");
            if waits {
                drop(client);
                end.await.unwrap();
            }
        }
    }
}
