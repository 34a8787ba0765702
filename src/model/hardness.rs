//! How hard served entries were.

use super::Metric;

/// Picks by their scores. The same in whatever order they were counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hardness {
    picks: u64,
    /// Sum of all scores, in millionths.
    scores: i64,
    /// Cosine banks: picks whose distance to their anchor, 1 less the cosine, is at most each of [`Self::edges`], and more than the one before.
    bins: [u64; BINS],
    /// Sum of those distances, in millionths.
    distances: u64,
}

/// Tenths of a distance from 0 to 2, and rounding.
const BINS: usize = 21;

const MILLION: f64 = 1e6;

impl Hardness {
    /// Upper edges of the bins, the last of which has none.
    pub fn edges() -> impl Iterator<Item = f64> {
        (1..BINS).map(|bin| bin as f64 / 10.0).chain([f64::MAX])
    }

    /// Counts picks of a bank of this metric.
    pub fn count(&mut self, metric: Metric, scores: impl IntoIterator<Item = f32>) {
        for score in scores {
            let score = f64::from(score);
            self.picks += 1;
            self.scores = self.scores.saturating_add((score * MILLION).round() as i64);
            if metric == Metric::Cosine {
                let distance = (1.0 - score).max(0.0);
                let bin = (distance * 10.0).ceil() as usize;
                self.bins[bin.saturating_sub(1).min(BINS - 1)] += 1;
                self.distances += (distance * MILLION).round() as u64;
            }
        }
    }

    /// Adds what `other` counted.
    pub fn merge(&mut self, other: &Self) {
        self.picks += other.picks;
        self.scores = self.scores.saturating_add(other.scores);
        self.bins.iter_mut().zip(other.bins).for_each(|(mine, theirs)| *mine += theirs);
        self.distances += other.distances;
    }

    /// Picks of all metrics.
    pub fn picks(&self) -> u64 {
        self.picks
    }

    /// Mean score of all picks, to a millionth; `None` of none.
    pub fn mean_score(&self) -> Option<f64> {
        (self.picks > 0).then(|| self.scores as f64 / MILLION / self.picks as f64)
    }

    /// Picks in each bin.
    pub fn bins(&self) -> &[u64] {
        &self.bins
    }

    /// Sum of all distances.
    pub fn distances(&self) -> f64 {
        self.distances as f64 / MILLION
    }
}

#[cfg(test)]
mod tests {
    use super::Hardness;
    use crate::model::Metric;

    #[test]
    fn picks_are_counted_at_their_edge_and_what_rounding_adds_is_no_distance() {
        let mut hardness = Hardness::default();
        assert_eq!(hardness.mean_score(), None);
        hardness.count(Metric::Cosine, [1.000_001, 1.0, 0.95, 0.5, -1.0, -1.000_001]);
        let edges: Vec<f64> = Hardness::edges().collect();
        assert_eq!(edges.len(), hardness.bins().len());
        let counted: Vec<(f64, u64)> =
            edges.into_iter().zip(hardness.bins().iter().copied()).filter(|&(_, count)| count > 0).collect();
        assert_eq!(counted, [(0.1, 3), (0.5, 1), (2.0, 1), (f64::MAX, 1)]);
        assert!((hardness.distances() - 4.550_001).abs() < 2e-6, "{}", hardness.distances());
        let mut twice = hardness;
        twice.merge(&hardness);
        assert_eq!((twice.picks(), twice.bins().iter().sum::<u64>()), (12, 12));
        assert!((twice.distances() - 2.0 * hardness.distances()).abs() < 1e-9);
        assert_eq!(twice.mean_score(), hardness.mean_score());
    }

    #[test]
    fn scores_that_are_no_cosines_have_a_mean_and_no_distance() {
        let mut hardness = Hardness::default();
        hardness.count(Metric::Dot, [7.5, -2.5]);
        assert_eq!(hardness.mean_score(), Some(2.5));
        assert_eq!((hardness.bins().iter().sum::<u64>(), hardness.picks()), (0, 2));
        hardness.count(Metric::L2, [f32::MAX, f32::MAX, f32::MIN]);
        assert!(hardness.mean_score().is_some_and(f64::is_finite), "sums end where there is no larger number");
    }
}
