//! Synthetic embeddings that are shaped like real ones: clusters of very unequal size, and noise that is strong in few directions.

/// Clusters at most.
const CLUSTERS: u64 = 2_000;
/// Entries that a cluster has on average at least.
const SMALLEST: u64 = 16;
/// The share of cluster number c is proportional to (c + 1)^-POWER.
const POWER: f64 = 0.8;
/// Length of the noise, beside a centre of length 1.
const NOISE: f32 = 0.7;

/// A generator of unit vectors and their labels, a function of the seed alone.
#[derive(Debug)]
pub(super) struct Clusters {
    dim: usize,
    seed: u64,
    /// Ends of the clusters' shares of 0 to 1.
    ends: Vec<f64>,
    /// Spread of each direction; the squares add up to 1.
    spread: Vec<f32>,
}

impl Clusters {
    /// For a bank of that many entries.
    pub(super) fn new(dim: usize, entries: u64, seed: u64) -> Self {
        let count = (entries / SMALLEST).clamp(1, CLUSTERS);
        let shares: Vec<f64> = (1..=count).map(|rank| (rank as f64).powf(-POWER)).collect();
        let all: f64 = shares.iter().sum();
        let ends = shares.iter().scan(0.0, |end, share| {
            *end += share / all;
            Some(*end)
        });
        let decay: Vec<f32> = (0..dim).map(|at| ((at + 1) as f32).powf(-0.5)).collect();
        let length = decay.iter().map(|x| x * x).sum::<f32>().sqrt();
        Self { dim, seed, ends: ends.collect(), spread: decay.iter().map(|x| x / length).collect() }
    }

    /// Appends the vector of row number `row` and returns its label, its cluster. Any row is made without those before it.
    pub(super) fn append(&self, row: u64, floats: &mut Vec<f32>) -> i64 {
        let mut random = Random::new(self.seed, row, 1);
        let share = random.unit();
        let cluster = self.ends.partition_point(|end| *end < share).min(self.ends.len() - 1);
        let start = floats.len();
        let mut centre = Random::new(self.seed, cluster as u64, 2);
        floats.extend(self.spread.iter().map(|spread| centre.normal() * spread));
        let vector = floats.get_mut(start..).unwrap_or_default();
        normalise(vector);
        for (x, spread) in vector.iter_mut().zip(&self.spread) {
            *x += NOISE * spread * random.normal();
        }
        normalise(vector);
        debug_assert_eq!(vector.len(), self.dim);
        cluster as i64
    }
}

fn normalise(vector: &mut [f32]) {
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|x| *x /= length);
    } else if let Some(first) = vector.first_mut() {
        *first = 1.0;
    }
}

/// SplitMix64. The server's own randomness is out of a client's reach.
#[derive(Debug)]
pub(super) struct Random(u64);

impl Random {
    /// The stream of one (seed, row, purpose).
    pub(super) fn new(seed: u64, row: u64, purpose: u64) -> Self {
        let mut mixed = Self(seed ^ purpose.rotate_left(32));
        Self(mixed.next().wrapping_add(row.wrapping_mul(0xD134_2543_DE82_EF95)))
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// In [0, 1).
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Near enough to a normal variate of variance 1: four uniform ones, added.
    fn normal(&mut self) -> f32 {
        let word = self.next();
        let sum: u64 = [0, 16, 32, 48].iter().map(|shift| (word >> shift) & 0xFFFF).sum();
        (sum as f32 - 131_070.0) / 37_837.0
    }
}

#[cfg(test)]
mod tests {
    use super::Clusters;

    #[test]
    fn rows_are_unit_vectors_that_lie_near_their_own_cluster() {
        let clusters = Clusters::new(64, 10_000, 5);
        let mut floats = Vec::new();
        let labels: Vec<i64> = (0..1_000).map(|row| clusters.append(row, &mut floats)).collect();
        let rows: Vec<&[f32]> = floats.chunks_exact(64).collect();
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
        assert!(rows.iter().all(|row| (dot(row, row) - 1.0).abs() < 1e-5));
        let (mut same, mut other) = (Vec::new(), Vec::new());
        for a in 0..1_000 {
            for b in 0..a {
                if labels[a] == labels[b] { &mut same } else { &mut other }.push(dot(rows[a], rows[b]));
            }
        }
        let mean = |scores: &[f32]| scores.iter().sum::<f32>() / scores.len() as f32;
        assert!(mean(&same) > 0.5 && mean(&other).abs() < 0.1, "{} {}", mean(&same), mean(&other));
        let mut again = Vec::new();
        assert_eq!((clusters.append(999, &mut again), &again[..]), (labels[999], rows[999]));
    }
}
