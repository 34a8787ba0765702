//! The one clock of `negbank bench` and `negbank top`.

use std::time::{Duration, Instant};

/// Tells how long ago it was started.
#[derive(Debug, Clone, Copy)]
pub(in crate::cli) struct Stopwatch(Instant);

impl Stopwatch {
    #[expect(clippy::disallowed_methods, reason = "a load generator measures")]
    pub(in crate::cli) fn start() -> Self {
        Self(Instant::now())
    }

    pub(in crate::cli) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}
