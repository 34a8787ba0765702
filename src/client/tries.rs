//! A call, sent as often as it takes.

use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tonic::Status;

use super::ClientError;
use super::budget::Budget;
use super::deadline::{Deadline, now};
use super::entropy::random;
use super::error::told;
use super::retry::Backoff;

/// How long and how often calls are tried. Copies share the budget.
#[derive(Debug, Clone)]
pub(super) struct Tries {
    /// The deadline of a call, all its tries included.
    pub(super) timeout: Duration,
    /// Tries after the first where the server is away; 0: none, whatever it says.
    pub(super) retries: u32,
    pub(super) budget: Arc<Budget>,
    /// Whether the server has ever said anything, be it that it refuses. Copies share it.
    pub(super) heard: Arc<AtomicBool>,
}

/// Which failures a call is tried again after.
#[derive(Debug, Clone, Copy)]
pub(super) enum Again {
    /// Also when nobody knows whether the server did it.
    Always,
    /// Only when the server said that it did not.
    IfRefused,
}

/// How a try ended.
struct Failed {
    fault: ClientError,
    /// When to come back.
    told: Option<Duration>,
}

impl From<Status> for Failed {
    fn from(status: Status) -> Self {
        let told = told(&status);
        Self { fault: status.into(), told }
    }
}

/// When and with what luck it is asked whether to try again.
#[derive(Debug, Clone, Copy)]
struct Moment {
    now: Instant,
    /// Until the deadline.
    left: Duration,
    /// Random, of [0, 1).
    share: f64,
}

impl Tries {
    pub(super) fn new(timeout: Duration, retries: u32) -> Self {
        Self { timeout, retries, budget: Arc::new(Budget::new(now())), heard: Arc::default() }
    }

    /// Sends under the deadline, which the server is told and this side keeps too: a server that is gone can't hang it.
    pub(super) async fn run<A, F: Future<Output = Result<A, Status>>>(
        &self,
        again: Again,
        send: impl Fn(Duration) -> F,
    ) -> Result<A, ClientError> {
        let deadline = Deadline::after(self.timeout);
        let mut backoff = Backoff::new(self.retries);
        let mut before = None;
        while let Some(left) = deadline.left() {
            let failed = match timeout(left, send(left)).await {
                Ok(Ok(answer)) => {
                    self.budget.answered();
                    self.heard.store(true, Ordering::Relaxed);
                    return Ok(answer);
                }
                Ok(Err(status)) if backoff.resends(&status) => continue,
                Ok(Err(status)) => {
                    // One with a cause is of this side's making.
                    self.heard.fetch_or(status.source().is_none(), Ordering::Relaxed);
                    Failed::from(status)
                }
                Err(_) => break,
            };
            // Where the system gives no randomness, everybody waits equally long.
            let share = random().map_or(0.0, |bits| (bits >> 11) as f64 / (1u64 << 53) as f64);
            let moment = Moment { now: now(), left: deadline.left().unwrap_or_default(), share };
            match self.wait(&mut backoff, again, &failed, moment) {
                Some(wait) => sleep(wait).await,
                None if self.heard.load(Ordering::Relaxed) => return Err(failed.fault),
                None => return Err(failed.fault.of_a_stranger()),
            }
            before = Some(failed.fault);
        }
        // Where the last try was only cut short, the one before says what is wrong.
        Err(before.unwrap_or_else(|| ClientError::DeadlineExceeded(format!("no answer within {:?}", self.timeout))))
    }

    /// How long to wait before a call that failed is tried again; none: it isn't.
    fn wait(&self, backoff: &mut Backoff, again: Again, failed: &Failed, at: Moment) -> Option<Duration> {
        match (failed.told, &failed.fault, again) {
            (Some(when), ..) => self.budget.turn(at.now, backoff.told(when, at.share)?, at.left),
            (None, ClientError::Unavailable { .. }, Again::Always) => backoff.untold(at.share).filter(|wait| *wait < at.left),
            (None, ..) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tonic::{Code, Status};
    use tonic_types::{ErrorDetails, StatusExt as _};

    use super::{Again, Backoff, Failed, Moment, Tries, now};

    const SECOND: Duration = Duration::from_secs(1);

    fn says(code: Code, when: Option<Duration>) -> Failed {
        let details = when.map_or_else(ErrorDetails::new, |when| ErrorDetails::with_retry_info(Some(when)));
        Status::with_error_details(code, "no", details).into()
    }

    /// The waits of one call, each time told the same, until it is given up.
    fn waits(tries: &Tries, again: Again, failed: &Failed, share: f64) -> Vec<Duration> {
        let (mut backoff, mut at) = (Backoff::new(tries.retries), Moment { now: now(), left: tries.timeout, share });
        let mut waits = Vec::new();
        while let Some(wait) = tries.wait(&mut backoff, again, failed, at) {
            assert!(wait < at.left, "it is back before its deadline");
            (at.now, at.left) = (at.now + wait, at.left - wait);
            waits.push(wait);
        }
        waits
    }

    #[test]
    fn whoever_is_told_when_comes_back_until_the_deadline() {
        for code in [Code::Unavailable, Code::ResourceExhausted] {
            for again in [Again::Always, Again::IfRefused] {
                for share in [0.0, 0.5, 0.999] {
                    let tries = Tries::new(90 * SECOND, 1);
                    let waits = waits(&tries, again, &says(code, Some(SECOND)), share);
                    assert!(waits.iter().all(|wait| (SECOND..3 * SECOND).contains(wait)), "{waits:?}");
                    let all: Duration = waits.iter().sum();
                    assert!(all > 87 * SECOND && waits.len() >= 30, "{code:?}, {again:?}: {all:?} in {} waits", waits.len());
                }
            }
        }
        let late = says(Code::Unavailable, Some(91 * SECOND));
        assert!(waits(&Tries::new(90 * SECOND, 1), Again::Always, &late, 0.0).is_empty(), "nobody waits for nothing");
        let once = Tries::new(90 * SECOND, 0);
        assert!(waits(&once, Again::Always, &says(Code::Unavailable, Some(SECOND)), 0.5).is_empty());
    }

    #[test]
    fn whoever_is_told_nothing_comes_back_a_few_times_and_only_to_a_server_that_is_away() {
        let tries = Tries::new(30 * SECOND, 5);
        let away = says(Code::Unavailable, None);
        for (share, all) in [(0.0, 3_100), (1.0, 1_550)] {
            let waits = waits(&tries, Again::Always, &away, share);
            assert_eq!((waits.len(), waits.iter().sum::<Duration>().as_millis()), (5, all));
        }
        assert!(waits(&tries, Again::IfRefused, &away, 0.5).is_empty(), "nobody knows whether it was done");
        for code in [Code::ResourceExhausted, Code::NotFound, Code::Internal] {
            assert!(waits(&tries, Again::Always, &says(code, None), 0.5).is_empty(), "{code:?}");
        }
        assert!(waits(&tries, Again::Always, &says(Code::NotFound, Some(SECOND)), 0.5).is_empty());
    }

    #[test]
    fn calls_that_are_refused_together_share_the_turns() {
        let tries = Tries::new(30 * SECOND, 5);
        let (busy, at) =
            (says(Code::ResourceExhausted, Some(SECOND / 20)), Moment { now: now(), left: 30 * SECOND, share: 0.0 });
        let wait = || tries.wait(&mut Backoff::new(5), Again::Always, &busy, at);
        let waits: Vec<_> = std::iter::from_fn(wait).collect();
        let (soon, later) = waits.split_at(64);
        assert!(soon.iter().all(|wait| *wait == SECOND / 20), "{soon:?}");
        assert!(later.windows(2).all(|pair| pair[1] - pair[0] == SECOND / 10), "ten a second: {later:?}");
        assert_eq!(later.len(), 299, "nobody waits past the deadline");
        assert!(wait().is_none());
        (0..5).for_each(|_| tries.budget.answered());
        assert!(wait().is_some_and(|wait| wait > 29 * SECOND) && wait().is_none(), "five answers are worth a turn");
        let rested = Moment { now: at.now + 60 * SECOND, ..at };
        assert_eq!(tries.wait(&mut Backoff::new(5), Again::Always, &busy, rested), Some(SECOND / 20));
    }
}
