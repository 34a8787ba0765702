//! Embeddings as encoders make them: clusters of very different sizes, each a cloud whose spectrum decays.

use negbank::model::{Seed, Stream};

const CLUSTERS: usize = 2_000;

/// Share of a row's length that is its cluster's, before normalisation; the rest is its own.
const CENTRE: f32 = 0.8;

/// Unit rows and the clusters that they are of.
pub(crate) struct Clustered {
    dim: usize,
    pub(crate) rows: Vec<f32>,
    pub(crate) labels: Vec<i64>,
}

impl Clustered {
    /// `count` rows of seed `seed` around the same centres whatever the seed, so that anchors of one seed fit the entries of another.
    /// Cluster r of 1.. is chosen in proportion to 1/r.
    pub(crate) fn new(count: usize, dim: usize, seed: u64) -> Self {
        let mut centres = Seed(0).stream(0, 0);
        let centres: Vec<Vec<f32>> = (0..CLUSTERS).map(|_| unit(gaussian(dim, 0.25, &mut centres))).collect();
        let ends: Vec<f64> = (1..=CLUSTERS)
            .scan(0.0, |end, rank| {
                *end += 1.0 / rank as f64;
                Some(*end)
            })
            .collect();
        let mut stream = Seed(seed).stream(1, 0);
        let mut data = Self { dim, rows: Vec::with_capacity(count * dim), labels: Vec::with_capacity(count) };
        for _ in 0..count {
            let at = stream.unit() * ends[CLUSTERS - 1];
            let cluster = ends.partition_point(|&end| end <= at).min(CLUSTERS - 1);
            let noise = unit(gaussian(dim, 0.5, &mut stream));
            let mixed = centres[cluster].iter().zip(noise).map(|(c, n)| CENTRE * c + (1.0 - CENTRE * CENTRE).sqrt() * n);
            data.rows.extend(unit(mixed.collect()));
            data.labels.push(cluster as i64);
        }
        data
    }

    pub(crate) fn row(&self, at: usize) -> &[f32] {
        &self.rows[at * self.dim..][..self.dim]
    }
}

/// Normal variates (Box and Muller 1958), that of dimension i scaled by (i + 1)^-decay.
fn gaussian(dim: usize, decay: f64, stream: &mut Stream) -> Vec<f32> {
    let variate = |at: usize| {
        let radius = (-2.0 * (1.0 - stream.unit()).ln()).sqrt();
        let angle = std::f64::consts::TAU * stream.unit();
        (radius * angle.cos() * ((at + 1) as f64).powf(-decay)) as f32
    };
    (0..dim).map(variate).collect()
}

fn unit(mut row: Vec<f32>) -> Vec<f32> {
    let length = row.iter().map(|x| x * x).sum::<f32>().sqrt();
    row.iter_mut().for_each(|x| *x /= length);
    row
}
