//! How hard served entries were.

/// Picks by their distance to their anchor, 1 less the cosine: 0 is hardest. The same in whatever order they were counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Distances {
    /// Picks that are at most as far as each of [`Self::edges`], and farther than the one before.
    bins: [u64; BINS],
    /// Of all distances, in millionths.
    sum: u64,
}

/// Tenths of a distance from 0 to 2, and rounding.
const BINS: usize = 21;

const MILLION: f64 = 1e6;

impl Distances {
    /// Upper edges of the bins, the last of which has none.
    pub fn edges() -> impl Iterator<Item = f64> {
        (1..BINS).map(|bin| bin as f64 / 10.0).chain([f64::MAX])
    }

    /// Counts a pick of this cosine to its anchor.
    pub fn count(&mut self, cosine: f32) {
        let distance = (1.0 - f64::from(cosine)).max(0.0);
        let bin = (distance * 10.0).ceil() as usize;
        self.bins[bin.saturating_sub(1).min(BINS - 1)] += 1;
        self.sum += (distance * MILLION).round() as u64;
    }

    /// Adds what `other` counted.
    pub fn merge(&mut self, other: &Self) {
        self.bins.iter_mut().zip(other.bins).for_each(|(mine, theirs)| *mine += theirs);
        self.sum += other.sum;
    }

    /// Picks in each bin.
    pub fn bins(&self) -> &[u64] {
        &self.bins
    }

    /// Sum of all distances.
    pub fn sum(&self) -> f64 {
        self.sum as f64 / MILLION
    }
}

#[cfg(test)]
mod tests {
    use super::Distances;

    #[test]
    fn picks_are_counted_at_their_edge_and_what_rounding_adds_is_no_distance() {
        let mut distances = Distances::default();
        // 0.3 and 2 are not quite so in f32.
        for cosine in [1.000_001, 1.0, 0.95, 0.5, -1.0, -1.000_001] {
            distances.count(cosine);
        }
        let edges: Vec<f64> = Distances::edges().collect();
        assert_eq!(edges.len(), distances.bins().len());
        let counted: Vec<(f64, u64)> =
            edges.into_iter().zip(distances.bins().iter().copied()).filter(|&(_, count)| count > 0).collect();
        assert_eq!(counted, [(0.1, 3), (0.5, 1), (2.0, 1), (f64::MAX, 1)]);
        assert!((distances.sum() - 4.550_001).abs() < 2e-6, "{}", distances.sum());
        let twice = {
            let mut twice = distances;
            twice.merge(&distances);
            twice
        };
        assert_eq!(twice.bins().iter().sum::<u64>(), 12);
        assert!((twice.sum() - 2.0 * distances.sum()).abs() < 1e-9);
    }
}
