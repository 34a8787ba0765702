//! How long connections may last.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::model::Seed;

/// Ages at which connections are asked to end: each its own, up to a tenth more or less than what is set, so that those which began
/// together are not all begun anew together (gRPC's proposal A9).
#[derive(Debug)]
pub(super) struct Ages {
    mean: Duration,
    seed: Seed,
    begun: AtomicUsize,
}

/// The share of an age that it may be longer or shorter by.
const SPREAD: f64 = 0.1;

impl Ages {
    /// About `mean`, zero: for ever; which, by `seed` and the order in which connections begin.
    pub(super) fn new(mean: Duration, seed: Seed) -> Self {
        Self { mean, seed, begun: AtomicUsize::new(0) }
    }

    /// Of the next connection; `None`: it may last for ever.
    pub(super) fn next(&self) -> Option<Duration> {
        if self.mean.is_zero() {
            return None;
        }
        let number = self.begun.fetch_add(1, Ordering::Relaxed);
        let share = 2.0 * self.seed.stream(0, number).unit() - 1.0;
        Some(self.mean.mul_f64(1.0 + SPREAD * share))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Ages;
    use crate::model::Seed;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn ages(seed: u64) -> Vec<Duration> {
        let ages = Ages::new(HOUR, Seed(seed));
        (0..2_000).map(|_| ages.next().unwrap()).collect()
    }

    #[test]
    fn each_connection_has_an_age_of_its_own_within_a_tenth() {
        let ages = ages(7);
        // An hour, and six minutes more or less: a cell a tenth of these twelve.
        let mut cells = [0u32; 10];
        for age in &ages {
            let after = age.checked_sub(HOUR * 9 / 10).expect("no shorter than nine tenths");
            cells[(after.as_secs_f64() / 72.0) as usize] += 1;
        }
        let chi2: f64 = cells.iter().map(|&count| (f64::from(count) - 200.0).powi(2) / 200.0).sum();
        assert!(chi2 < 27.9, "chi-square {chi2} over 9 degrees of freedom is past the 99.9 % point: {cells:?}");
        let distinct: std::collections::BTreeSet<_> = ages.iter().collect();
        assert_eq!(distinct.len(), ages.len());
    }

    #[test]
    fn the_same_seed_gives_the_same_ages_and_another_gives_others() {
        assert_eq!(ages(7), ages(7));
        let alike = ages(7).iter().zip(&ages(8)).filter(|(a, b)| a == b).count();
        assert_eq!(alike, 0, "servers that restarted together differ");
    }

    #[test]
    fn without_an_age_connections_last() {
        assert_eq!(Ages::new(Duration::ZERO, Seed(7)).next(), None);
    }
}
