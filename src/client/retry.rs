//! When a call that failed is tried again.

use std::time::Duration;

use tonic::Status;

use super::error::was_never_taken;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(2);

/// Connections that may end under a call before it is sent: one does now and then, more only if something is amiss.
const AT_ONCE: u32 = 3;

/// The waits of one call. Where nobody says when to come back they double from 100 ms to 2 s, each shortened by up to half at random, and
/// are as many as was asked for. Who is told when waits as long, and a random part of such a wait longer, however often: ranks that fail
/// together must not come back together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Backoff {
    left: u32,
    /// It is tried more than once.
    again: bool,
    next: Duration,
    at_once: u32,
}

impl Backoff {
    /// At most `retries` tries after the first without being told when; 0: none at all.
    pub(super) fn new(retries: u32) -> Self {
        Self { left: retries, again: retries > 0, next: FIRST, at_once: AT_ONCE }
    }

    /// Whether a call that ended so is sent again at once, whatever it asks for and however often calls are tried: it was taken by nobody.
    pub(super) fn resends(&mut self, status: &Status) -> bool {
        let resends = self.at_once > 0 && was_never_taken(status);
        self.at_once -= u32::from(resends);
        resends
    }

    /// How long to wait for a server that is away; none: no longer. `share` is random, of [0, 1).
    pub(super) fn untold(&mut self, share: f64) -> Option<Duration> {
        self.left = self.left.checked_sub(1)?;
        Some(self.grown().mul_f64(1.0 - share / 2.0))
    }

    /// How long to wait for a server that said when to come back; none: not at all. `share` is random, of [0, 1).
    pub(super) fn told(&mut self, when: Duration, share: f64) -> Option<Duration> {
        self.again.then(|| when.saturating_add(self.grown().mul_f64(share)))
    }

    fn grown(&mut self) -> Duration {
        let now = self.next;
        self.next = LONGEST.min(now * 2);
        now
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tonic::Status;

    use super::{AT_ONCE, Backoff};

    #[test]
    fn waits_grow_to_a_bound_and_end() {
        for share in [0.0, 0.3, 0.999] {
            let mut backoff = Backoff::new(7);
            let waits: Vec<_> = std::iter::from_fn(|| backoff.untold(share)).collect();
            assert_eq!(waits.len(), 7);
            for (wait, most) in waits.iter().zip([100, 200, 400, 800, 1_600, 2_000, 2_000]) {
                assert!((most / 2..=most).contains(&(wait.as_millis() as u64)), "{wait:?} of {most} ms");
            }
        }
    }

    #[test]
    fn a_server_that_names_a_delay_gets_it() {
        let when = Duration::from_secs(3);
        let mut backoff = Backoff::new(1);
        for most in [100, 200, 400, 800, 1_600, 2_000, 2_000] {
            let longer = backoff.told(when, 0.999).unwrap() - when;
            assert!((most * 9 / 10..=most).contains(&(longer.as_millis() as u64)), "{longer:?} of {most} ms");
        }
        assert_eq!(backoff.told(when, 0.0), Some(when), "never sooner");
        assert!(backoff.told(Duration::MAX, 0.5).is_some());
        assert!(backoff.untold(0.0).is_some(), "what it was told counts as no try");
        assert_eq!(Backoff::new(0).told(when, 0.5), None);
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
}
