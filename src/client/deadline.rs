//! When a call has to have ended.

use std::time::Duration;

use tokio::time::Instant;

/// What time it is.
pub(super) fn now() -> Instant {
    Instant::now()
}

/// A moment by which a call ends, however often it is tried.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline(Instant);

impl Deadline {
    /// The moment in `timeout` from now.
    pub(super) fn after(timeout: Duration) -> Self {
        let now = now();
        // A wait too long for the clock to hold is as good as a year.
        Self(now.checked_add(timeout).unwrap_or(now + Duration::from_secs(365 * 24 * 3600)))
    }

    /// The time until then; none once it has come.
    pub(super) fn left(self) -> Option<Duration> {
        Some(self.0.saturating_duration_since(now())).filter(|left| !left.is_zero())
    }
}
