//! Sixteen anchors against a run of rows, every score written down: for draws that look at all of them.

use super::LANES;
#[cfg(target_arch = "x86_64")]
use super::dense_avx2;
use super::tile::LaneGroup;
#[cfg(target_arch = "x86_64")]
use super::{tile::x86, tile_avx512};
use crate::model::Metric;

/// Sixteen anchors, transposed: one lane group per dimension. Lanes without an anchor are zero.
#[derive(Debug, Clone)]
pub struct Dense {
    metric: Metric,
    precision: Precision,
    lanes: Vec<LaneGroup>,
}

/// Which bits scores have. Both are the same on every machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// Those of [`super::score::score`].
    Exact,
    /// One sum in the order of the dimensions, of fused multiplications and additions: about twice as fast where a CPU has these (without,
    /// they are carried out in software), and as far from the exact score as [`super::tile::Panel::error_bound`] says.
    Fused,
}

impl Dense {
    /// At most [`LANES`] anchors, each padded to the same whole number of lane groups.
    pub fn new<'a>(metric: Metric, precision: Precision, stride: usize, anchors: impl IntoIterator<Item = &'a [f32]>) -> Self {
        let mut lanes = vec![LaneGroup([0.0; LANES]); stride];
        for (lane, anchor) in anchors.into_iter().enumerate().take(LANES) {
            for (group, &x) in lanes.iter_mut().zip(anchor) {
                group.0[lane] = x;
            }
        }
        Self { metric, precision, lanes }
    }

    /// Floats in a row.
    pub fn stride(&self) -> usize {
        self.lanes.len()
    }

    /// Replaces `scores` by those of each of `rows` (whole rows of [`Self::stride`] floats): a lane an anchor.
    pub fn scores(&self, rows: &[f32], scores: &mut Vec<[f32; LANES]>) {
        scores.clear();
        scores.resize(rows.len() / self.stride(), [0.0; LANES]);
        match self.precision {
            Precision::Exact => self.exact(rows, scores),
            Precision::Fused => self.fused(rows, scores),
        }
        if self.metric == Metric::L2 && self.precision == Precision::Exact {
            scores.iter_mut().flatten().for_each(|score| *score = -*score);
        }
    }

    fn exact(&self, rows: &[f32], sums: &mut [[f32; LANES]]) {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") {
            #[expect(unsafe_code, reason = "calls functions compiled for AVX2")]
            // SAFETY: AVX2 was detected on this CPU just above.
            unsafe {
                match self.metric {
                    Metric::Cosine | Metric::Dot => dense_avx2::sums::<false>(&self.lanes, rows, sums),
                    Metric::L2 => dense_avx2::sums::<true>(&self.lanes, rows, sums),
                }
            }
            return;
        }
        self.exact_portable(rows, sums);
    }

    /// The same for any CPU: of each lane sixteen partial sums in the order of the dimensions, added as a balanced tree.
    fn exact_portable(&self, rows: &[f32], sums: &mut [[f32; LANES]]) {
        let (lanes, _) = self.lanes.as_chunks::<LANES>();
        for (row, sums) in rows.chunks_exact(self.stride()).zip(sums) {
            let mut parts = [[0.0f32; LANES]; LANES];
            for (groups, xs) in lanes.iter().zip(row.as_chunks::<LANES>().0) {
                for (part, (group, x)) in parts.iter_mut().zip(groups.iter().zip(xs)) {
                    for (sum, y) in part.iter_mut().zip(group.0) {
                        *sum += match self.metric {
                            Metric::Cosine | Metric::Dot => y * x,
                            Metric::L2 => (y - x) * (y - x),
                        };
                    }
                }
            }
            let mut width = LANES / 2;
            while width > 0 {
                let (near, far) = parts.split_at_mut(width);
                for (near, far) in near.iter_mut().zip(far) {
                    near.iter_mut().zip(far).for_each(|(near, far)| *near += *far);
                }
                width /= 2;
            }
            *sums = parts[0];
        }
    }

    fn fused(&self, rows: &[f32], sums: &mut [[f32; LANES]]) {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx512f") {
            #[expect(unsafe_code, reason = "calls functions compiled for AVX-512F")]
            // SAFETY: AVX-512F was detected on this CPU just above.
            unsafe {
                match self.metric {
                    Metric::Cosine | Metric::Dot => tile_avx512::sums::<false>(&self.lanes, rows, sums),
                    Metric::L2 => tile_avx512::sums::<true>(&self.lanes, rows, sums),
                }
            }
            return;
        }
        self.fused_narrower(rows, sums);
    }

    /// The same without AVX-512.
    fn fused_narrower(&self, rows: &[f32], sums: &mut [[f32; LANES]]) {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
            #[expect(unsafe_code, reason = "calls functions compiled for AVX2 and FMA")]
            // SAFETY: AVX2 and FMA were detected on this CPU just above.
            unsafe {
                match self.metric {
                    Metric::Cosine | Metric::Dot => x86::sums::<false>(&self.lanes, rows, sums),
                    Metric::L2 => x86::sums::<true>(&self.lanes, rows, sums),
                }
            }
            return;
        }
        self.fused_portable(rows, sums);
    }

    /// The same for any CPU.
    fn fused_portable(&self, rows: &[f32], sums: &mut [[f32; LANES]]) {
        for (row, sums) in rows.chunks_exact(self.stride()).zip(sums) {
            *sums = [0.0; LANES];
            for (group, &x) in self.lanes.iter().zip(row) {
                for (sum, &y) in sums.iter_mut().zip(&group.0) {
                    *sum = match self.metric {
                        Metric::Cosine | Metric::Dot => x.mul_add(y, *sum),
                        Metric::L2 => (x - y).mul_add(-(x - y), *sum),
                    };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Dense, Precision};
    use crate::kernels::momentum::norm;
    use crate::kernels::score::score;
    use crate::kernels::shifted::Shifted;
    use crate::kernels::tile::Panel;
    use crate::kernels::{LANES, stride};
    use crate::model::Metric;

    fn padded(row: &[f32]) -> Vec<f32> {
        let mut row = row.to_vec();
        row.resize(stride(row.len()), 0.0);
        row
    }

    proptest! {
        #[test]
        fn every_path_gives_the_same_bits_exact_ones_those_of_a_single_score(
            dim in 1usize..70,
            anchors in 1usize..=LANES,
            count in 0usize..20,
            exponent in -75i32..58,
            aside in 0usize..16,
            seed in any::<u64>(),
        ) {
            let mut stream = crate::model::Seed(seed).stream(0, 0);
            let scale = 2f32.powi(exponent);
            let mut random = |len: usize| -> Vec<f32> {
                (0..len).map(|_| (stream.below(2_000_001) as f32 / 1e6 - 1.0) * scale).collect()
            };
            let anchors: Vec<Vec<f32>> = (0..anchors).map(|_| padded(&random(dim))).collect();
            let rows: Vec<Vec<f32>> = (0..count).map(|_| padded(&random(dim))).collect();
            let flat = Shifted::new(&rows.concat(), aside);
            let bits = |scores: &[[f32; LANES]]| scores.iter().map(|lanes| lanes.map(f32::to_bits)).collect::<Vec<_>>();
            for metric in [Metric::Dot, Metric::L2] {
                let of = |precision| Dense::new(metric, precision, stride(dim), anchors.iter().map(Vec::as_slice));
                let (exact, fused) = (of(Precision::Exact), of(Precision::Fused));
                let mut scores = vec![[7.0; LANES]; 3];
                exact.scores(&flat, &mut scores);
                prop_assert_eq!(scores.len(), count);
                for (row, scores) in rows.iter().zip(&scores) {
                    let expected: Vec<u32> = anchors.iter().map(|anchor| score(metric, anchor, row).to_bits()).collect();
                    let got: Vec<u32> = scores.iter().take(anchors.len()).map(|score| score.to_bits()).collect();
                    prop_assert_eq!(got, expected);
                }
                let mut portable = vec![[0.0; LANES]; count];
                exact.exact_portable(&flat, &mut portable);
                if metric == Metric::L2 {
                    portable.iter_mut().flatten().for_each(|score| *score = -*score);
                }
                prop_assert_eq!(bits(&scores), bits(&portable));

                let panel = Panel::new(metric, stride(dim), anchors.iter().map(Vec::as_slice));
                let mut near = Vec::new();
                fused.scores(&flat, &mut near);
                for (row, (near, scores)) in rows.iter().zip(near.iter().zip(&scores)) {
                    for (lane, anchor) in anchors.iter().enumerate() {
                        let bound = panel.error_bound(norm(anchor), norm(row));
                        prop_assert!((near[lane] - scores[lane]).abs() <= bound);
                    }
                }
                for path in [Dense::fused_narrower, Dense::fused_portable] {
                    let mut other = vec![[0.0; LANES]; count];
                    path(&fused, &flat, &mut other);
                    prop_assert_eq!(bits(&near), bits(&other));
                }
            }
        }
    }
}
