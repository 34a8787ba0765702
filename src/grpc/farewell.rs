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

/// Who was refused has heard enough when the refusal has come.
const REFUSED: Duration = Duration::from_secs(1);

/// A client that says so much more, as if nothing was, is not waited for any longer.
const MOST: usize = 1 << 20;

impl Farewell {
    /// From the last word on. A client that reads more slowly than `patience`, or does not close its side, is not waited for any longer; nor
    /// is one for long that was `refused`.
    pub(super) fn new(patience: Duration, refused: bool) -> Self {
        let patience = if refused { patience.min(REFUSED) } else { patience };
        Self { late: Box::pin(sleep(patience)), heard: 0 }
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

    use super::{Farewell, MOST, REFUSED};

    #[tokio::test]
    async fn a_client_is_heard_out_until_it_closes_or_says_too_much() {
        for much in [10, 2 * MOST] {
            let (mut client, mut server) = duplex(4 * MOST);
            client.write_all(&vec![7; much]).await.unwrap();
            let mut farewell = Farewell::new(Duration::from_secs(60), false);
            let mut end = Box::pin(poll_fn(|context| farewell.poll_close(&mut server, context)));
            let waits = timeout(Duration::from_millis(50), &mut end).await.is_err();
            assert_eq!(waits, much < MOST, "{much} bytes more");
            if waits {
                drop(client);
                end.await.unwrap();
            }
        }
    }

    #[tokio::test]
    async fn a_client_that_does_not_close_is_waited_for_only_so_long() {
        for (patience, refused) in [(Duration::from_millis(50), false), (Duration::from_secs(600), true)] {
            let (_client, mut server) = duplex(64);
            let mut farewell = Farewell::new(patience, refused);
            let end = poll_fn(|context| farewell.poll_close(&mut server, context));
            timeout(REFUSED * 20, end).await.expect("it is waited for").unwrap();
        }
    }
}
