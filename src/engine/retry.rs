//! When a caller that was refused should come back.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::model::seed::split_mix;

/// Sooner, a refusal costs more than it spares.
pub(super) const SOONEST: Duration = Duration::from_millis(50);
/// Later, an estimate is worth nothing.
const LATEST: Duration = Duration::from_secs(10);

/// Refusals so far.
static REFUSED: AtomicU64 = AtomicU64::new(0);

/// When to come back if there will be room after `room`: each refusal up to half later than the last word, so that callers who were refused
/// together don't come back together.
pub(super) fn after(room: Duration) -> Duration {
    let mut state = REFUSED.fetch_add(1, Ordering::Relaxed);
    let share = (split_mix(&mut state) >> 11) as f64 / (1u64 << 53) as f64;
    room.clamp(SOONEST, LATEST).mul_f64(1.0 + share / 2.0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{LATEST, SOONEST, after};

    #[test]
    fn delays_are_bounded_and_spread() {
        let delays: Vec<Duration> = (0..100).map(|_| after(Duration::from_secs(1))).collect();
        assert!(delays.iter().all(|delay| (1_000..=1_500).contains(&delay.as_millis())));
        let early = delays.iter().filter(|delay| delay.as_millis() < 1_250).count();
        assert!((25..75).contains(&early), "{early} of 100 in the first half");
        assert!(after(Duration::ZERO) >= SOONEST && after(Duration::MAX) <= LATEST.mul_f64(1.5));
    }
}
