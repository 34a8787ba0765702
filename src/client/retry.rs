//! When a call that failed is tried again.

use std::time::Duration;

use tonic::Status;

use super::ClientError;
use super::entropy::random;
use super::error::was_never_taken;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(2);

/// Connections that may end under a call before it is sent: one does now and then, more only if something is amiss.
const AT_ONCE: u32 = 3;

/// Waits that double from 100 ms to 2 s, each shortened by up to half at random: ranks that fail together must not come back
/// together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Backoff {
    left: u32,
    next: Duration,
    at_once: u32,
}

impl Backoff {
    /// At most `retries` tries after the first.
    pub(super) fn new(retries: u32) -> Self {
        Self { left: retries, next: FIRST, at_once: AT_ONCE }
    }

    /// Whether a call that ended so is sent again at once, whatever it asks for and however often calls are tried: it was taken by nobody.
    pub(super) fn resends(&mut self, status: &Status) -> bool {
        let resends = self.at_once > 0 && was_never_taken(status);
        self.at_once -= u32::from(resends);
        resends
    }

    /// How long to wait before the call that failed with `fault` is tried again; none: it isn't.
    pub(super) fn wait(&mut self, fault: &ClientError) -> Option<Duration> {
        let told = match fault {
            ClientError::Unavailable(_) => Duration::ZERO,
            ClientError::ResourceExhausted { retry_after: Some(delay), .. } => *delay,
            _ => return None,
        };
        self.left = self.left.checked_sub(1)?;
        let share = random().map_or(1.0, |bits| (bits >> 11) as f64 / (1u64 << 53) as f64);
        let wait = self.next.mul_f64(1.0 - share / 2.0);
        self.next = LONGEST.min(self.next * 2);
        Some(told + wait)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tonic::Status;

    use super::{AT_ONCE, Backoff, ClientError};

    #[test]
    fn waits_grow_to_a_bound_and_end() {
        let away = ClientError::Unavailable(String::new());
        let mut backoff = Backoff::new(7);
        let waits: Vec<_> = std::iter::from_fn(|| backoff.wait(&away)).collect();
        assert_eq!(waits.len(), 7);
        for (wait, most) in waits.iter().zip([100, 200, 400, 800, 1_600, 2_000, 2_000]) {
            assert!((most / 2..=most).contains(&(wait.as_millis() as u64)), "{wait:?} of {most} ms");
        }
    }

    #[test]
    fn what_a_server_says_is_not_sent_again_at_once() {
        for said in [Status::cancelled("no"), Status::unavailable("the server is stopping")] {
            assert!(!Backoff::new(5).resends(&said), "{said:?}");
        }
        let mut cut = Status::cancelled("operation was canceled");
        cut.set_source(std::sync::Arc::new(std::io::Error::other("connection closed")));
        let mut backoff = Backoff::new(0);
        let resent = (0..9).filter(|_| backoff.resends(&cut)).count();
        assert_eq!(resent, AT_ONCE as usize, "however often calls are tried, and not for ever");
    }

    #[test]
    fn a_server_that_names_a_delay_gets_it() {
        let busy = |retry_after| ClientError::ResourceExhausted { message: String::new(), retry_after };
        let told = Duration::from_secs(3);
        assert!(Backoff::new(1).wait(&busy(Some(told))).is_some_and(|wait| wait > told));
        assert_eq!(Backoff::new(1).wait(&busy(None)), None);
        assert_eq!(Backoff::new(1).wait(&ClientError::NotFound(String::new())), None);
        assert_eq!(Backoff::new(0).wait(&busy(Some(told))), None);
    }
}
