//! How often all calls of a connection together do as they are told and come back.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Without an answer there is one turn in that time,
const EVERY: Duration = Duration::from_millis(100);
/// and so many after a while without any.
const AT_ONCE: u32 = 64;
const ROOM: Duration = EVERY.saturating_mul(AT_ONCE);
/// So many answers are worth a turn.
const ANSWERS: u32 = 5;

/// Turns to ask again a server that refuses: ten a second, 64 at once, and one more for every five answers (as Finagle's retry budget), so
/// that a server which can't keep up is not asked ever more by those who wait for it.
#[derive(Debug)]
pub(super) struct Budget {
    /// When all turns that were taken have come back.
    whole: Mutex<Instant>,
}

impl Budget {
    /// None taken.
    pub(super) fn new(now: Instant) -> Self {
        Self { whole: Mutex::new(now) }
    }

    /// Takes a turn for a call that wants to come back after `wait`: how long it waits, `wait` or until there is a turn; none if that
    /// takes `left` or more, and then nothing is taken.
    pub(super) fn turn(&self, now: Instant, wait: Duration, left: Duration) -> Option<Duration> {
        let mut whole = self.whole.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = whole.saturating_duration_since(now) + EVERY;
        let wait = Some(wait.max(taken.saturating_sub(ROOM))).filter(|wait| *wait < left)?;
        *whole = now + taken;
        Some(wait)
    }

    /// A call was answered.
    pub(super) fn answered(&self) {
        let mut whole = self.whole.lock().unwrap_or_else(PoisonError::into_inner);
        *whole = whole.checked_sub(EVERY / ANSWERS).unwrap_or(*whole);
    }
}
