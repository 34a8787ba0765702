//! What was used of late, where what is longer ago counts less and less.

use std::time::{Duration, Instant};

/// What counts for the e-th part: long enough for a few dozen requests of a trainer, short enough to follow one that ends.
pub(super) const OF_LATE: Duration = Duration::from_secs(2);

/// Weighs time that was used by when it was (forward decay, Cormode et al. 2009): what is added later weighs more, so that nobody's has to
/// be made less as time passes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lately {
    /// From when on weights are counted.
    since: Instant,
}

/// Time that one caller used, weighed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Recent(f64);

impl Lately {
    pub(super) fn from(since: Instant) -> Self {
        Self { since }
    }

    /// Notes that `took` was used until `now`.
    pub(super) fn add(self, of: &mut Recent, took: Duration, now: Instant) {
        of.0 += took.as_secs_f64() * self.weight(now);
    }

    /// Seconds used in a second, as they count `now`.
    pub(super) fn share(self, now: Instant) -> impl Fn(Recent) -> f64 {
        let unit = 1.0 / (self.weight(now) * OF_LATE.as_secs_f64());
        move |of| of.0 * unit
    }

    /// Whether weights have become so large that they are better counted anew, from `now` on.
    pub(super) fn is_far(self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) > 100 * OF_LATE
    }

    /// Weighs `of` as if weights were counted from `now` on.
    pub(super) fn moved(self, of: &mut Recent, now: Instant) {
        of.0 /= self.weight(now);
    }

    fn weight(self, now: Instant) -> f64 {
        (now.saturating_duration_since(self.since).as_secs_f64() / OF_LATE.as_secs_f64()).min(700.0).exp()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Lately, Recent};
    use crate::model::clock;

    #[test]
    fn a_share_is_of_late() {
        let (began, mut lately, mut recent) = (clock::now(), Lately::from(clock::now()), Recent::default());
        let tick = Duration::from_millis(10);
        for number in 1..=60_000 {
            let now = began + tick * number;
            if lately.is_far(now) {
                lately.moved(&mut recent, now);
                lately = Lately::from(now);
            }
            lately.add(&mut recent, tick / 4, now);
        }
        let share = |after: u32| lately.share(began + tick * 60_000 + Duration::from_secs(1) * after)(recent);
        assert!((share(0) - 0.25).abs() < 0.002, "{}", share(0));
        assert!((share(2) - 0.25 / std::f64::consts::E).abs() < 0.002, "{}", share(2));
        assert!(share(3_600) < 1e-9, "{}", share(3_600));
    }
}
