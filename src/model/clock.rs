//! Time: the one door to the machine's clock.

use std::time::{Duration, Instant, SystemTime};

/// The moment after which nobody waits for an answer any more.
#[derive(Debug, Clone, Copy)]
pub struct Deadline(Instant);

impl Deadline {
    /// `wait` from now.
    pub fn after(wait: Duration) -> Self {
        let now = now();
        // A wait too long for the clock to hold is as good as a year.
        Self(now.checked_add(wait).unwrap_or(now + Duration::from_secs(365 * 24 * 3600)))
    }

    /// A tenth of the time left earlier, at most 100 ms: an answer sent then still arrives in time.
    #[must_use]
    pub fn a_little_before(self) -> Self {
        let left = self.0.saturating_duration_since(now());
        Self(self.0 - (left / 10).min(Duration::from_millis(100)))
    }

    /// The moment.
    pub fn instant(self) -> Instant {
        self.0
    }

    /// True once it has passed.
    pub fn has_passed(self) -> bool {
        now() >= self.0
    }
}

/// Now, on the monotonic clock.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
pub fn now() -> Instant {
    Instant::now()
}

/// Milliseconds since 1970, by the machine's calendar: to be shown and to order what was made on several machines, not to measure.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
pub fn unix_millis() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
