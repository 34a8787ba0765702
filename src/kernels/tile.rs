//! The fused scan tile: sixteen anchors against a run of rows, a lane an anchor, the thresholds tested on the accumulators.

use super::LANES;
#[cfg(target_arch = "x86_64")]
use super::tile_avx512;
use crate::model::Metric;

/// Sixteen anchors, transposed: one lane group per dimension. Lanes without an anchor are zero.
#[derive(Debug, Clone)]
pub struct Panel {
    metric: Metric,
    lanes: Vec<LaneGroup>,
}

#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct LaneGroup(pub(super) [f32; LANES]);

/// Scores that each lane wants to hear of: `low <= score <= high`.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// Smallest score of interest; `+inf` in lanes without an anchor.
    pub low: [f32; LANES],
    /// Largest score of interest.
    pub high: [f32; LANES],
}

/// A row that some lanes want to hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hit {
    /// Row's number in the run.
    pub row: u32,
    /// Bit l: lane l.
    pub lanes: u16,
}

impl Panel {
    /// A panel of at most [`LANES`] anchors, each padded to the same whole number of lane groups.
    pub fn new<'a>(metric: Metric, stride: usize, anchors: impl IntoIterator<Item = &'a [f32]>) -> Self {
        let mut lanes = vec![LaneGroup([0.0; LANES]); stride];
        for (lane, anchor) in anchors.into_iter().enumerate().take(LANES) {
            for (group, &x) in lanes.iter_mut().zip(anchor) {
                group.0[lane] = x;
            }
        }
        Self { metric, lanes }
    }

    /// Floats in a row.
    pub fn stride(&self) -> usize {
        self.lanes.len()
    }

    /// Farthest that a score of [`Panel::scan`] lies from [`super::score::score`] of the same pair, for rows and anchors of at
    /// most these norms.
    ///
    /// Each of the two sums has at most `d + 2` roundings, so each is off by at most g = (d+2)u / (1 - (d+2)u) times the sum
    /// of the magnitudes of its terms, u = 2^-24 (Higham, Accuracy and Stability, section 3.1). Those sum to at most |a||b| for
    /// dot products, (|a|+|b|)^2 for squared distances. One f32 minimum covers underflow.
    pub fn error_bound(&self, anchor_norm: f64, row_norm: f64) -> f32 {
        let roundings = (self.stride() + 2) as f64 * f64::from(f32::EPSILON) / 2.0;
        let relative = 2.0 * roundings / (1.0 - roundings);
        let magnitude = match self.metric {
            Metric::Cosine | Metric::Dot => anchor_norm * row_norm,
            Metric::L2 => (anchor_norm + row_norm).powi(2),
        };
        // Rounding to f32 may shorten the bound by half an ulp: a percent more is far past that.
        (relative * magnitude * 1.01) as f32 + f32::MIN_POSITIVE
    }

    /// Appends to `hits` each row of `rows` (whole rows of [`Panel::stride`] floats) whose score lies within some lane's bounds.
    pub fn scan(&self, rows: &[f32], bounds: &Bounds, hits: &mut Vec<Hit>) {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx512f") {
            #[expect(unsafe_code, reason = "calls functions compiled for AVX-512F")]
            // SAFETY: AVX-512F was detected on this CPU just above.
            unsafe {
                match self.metric {
                    Metric::Cosine | Metric::Dot => tile_avx512::scan::<false>(&self.lanes, rows, bounds, hits),
                    Metric::L2 => tile_avx512::scan::<true>(&self.lanes, rows, bounds, hits),
                }
            }
            return;
        }
        self.scan_narrower(rows, bounds, hits);
    }

    /// [`Panel::scan`] without AVX-512.
    fn scan_narrower(&self, rows: &[f32], bounds: &Bounds, hits: &mut Vec<Hit>) {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
            #[expect(unsafe_code, reason = "calls functions compiled for AVX2 and FMA")]
            // SAFETY: AVX2 and FMA were detected on this CPU just above.
            unsafe {
                match self.metric {
                    Metric::Cosine | Metric::Dot => x86::scan::<false>(&self.lanes, rows, bounds, hits),
                    Metric::L2 => x86::scan::<true>(&self.lanes, rows, bounds, hits),
                }
            }
            return;
        }
        self.scan_portable(rows, bounds, hits);
    }

    /// [`Panel::scan`] for any CPU.
    pub fn scan_portable(&self, rows: &[f32], bounds: &Bounds, hits: &mut Vec<Hit>) {
        for (at, row) in rows.chunks_exact(self.stride()).enumerate() {
            let mut sums = [0.0f32; LANES];
            for (group, &x) in self.lanes.iter().zip(row) {
                for (sum, &y) in sums.iter_mut().zip(&group.0) {
                    *sum += match self.metric {
                        Metric::Cosine | Metric::Dot => x * y,
                        Metric::L2 => -((x - y) * (x - y)),
                    };
                }
            }
            let mut lanes = 0;
            for (lane, sum) in sums.into_iter().enumerate() {
                lanes |= u16::from(sum >= bounds.low[lane] && sum <= bounds.high[lane]) << lane;
            }
            if lanes != 0 {
                hits.push(Hit { row: at as u32, lanes });
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) mod x86 {
    use std::arch::x86_64::{
        __m256, _CMP_GE_OQ, _CMP_LE_OQ, _mm256_and_ps, _mm256_broadcast_ss, _mm256_cmp_ps, _mm256_fmadd_ps, _mm256_fnmadd_ps,
        _mm256_load_ps, _mm256_loadu_ps, _mm256_movemask_ps, _mm256_setzero_ps, _mm256_sub_ps,
    };

    use super::{Bounds, Hit, LANES, LaneGroup};
    use crate::kernels::dense_avx2::store;

    /// Rows at a time: 6 rows x 2 registers of sums leave 4 of 16 registers for the anchors and the broadcast row.
    const BLOCK: usize = 6;

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn scan<const L2: bool>(lanes: &[LaneGroup], rows: &[f32], bounds: &Bounds, hits: &mut Vec<Hit>) {
        let stride = lanes.len();
        let mut at = 0;
        let mut blocks = rows.chunks_exact(stride * BLOCK);
        for block in &mut blocks {
            let sums = sums_of::<BLOCK, L2>(lanes, block);
            report(&sums, at, bounds, hits);
            at += BLOCK as u32;
        }
        for row in blocks.remainder().chunks_exact(stride) {
            let sums = sums_of::<1, L2>(lanes, row);
            report(&sums, at, bounds, hits);
            at += 1;
        }
    }

    /// The scores of whole rows against the sixteen lanes.
    #[target_feature(enable = "avx2,fma")]
    pub(in crate::kernels) fn sums<const L2: bool>(lanes: &[LaneGroup], rows: &[f32], sums: &mut [[f32; LANES]]) {
        let stride = lanes.len();
        let mut blocks = rows.chunks_exact(stride * BLOCK);
        let mut of_blocks = sums.chunks_exact_mut(BLOCK);
        for (block, to) in (&mut blocks).zip(&mut of_blocks) {
            let sums = sums_of::<BLOCK, L2>(lanes, block);
            sums.into_iter().zip(to).for_each(|([low, high], to)| store(low, high, to));
        }
        for (row, to) in blocks.remainder().chunks_exact(stride).zip(of_blocks.into_remainder()) {
            let [[low, high]] = sums_of::<1, L2>(lanes, row);
            store(low, high, to);
        }
    }

    /// Scores of R rows against the sixteen lanes: `sums[r]` holds lanes 0-7 and 8-15 of row r.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    fn sums_of<const R: usize, const L2: bool>(lanes: &[LaneGroup], rows: &[f32]) -> [[__m256; 2]; R] {
        let stride = lanes.len();
        assert!(rows.len() == R * stride, "whole rows of the panel's stride");
        let mut sums = [[_mm256_setzero_ps(); 2]; R];
        for (at, group) in lanes.iter().enumerate() {
            #[expect(unsafe_code, reason = "aligned loads of a lane group")]
            // SAFETY: a LaneGroup is 16 floats aligned to 64 bytes, so floats 0-7 and 8-15 are two aligned registers.
            let (low, high) = unsafe { (_mm256_load_ps(group.0.as_ptr()), _mm256_load_ps(group.0.as_ptr().add(8))) };
            for (r, sum) in sums.iter_mut().enumerate() {
                #[expect(unsafe_code, reason = "an index check here would cost as much as the arithmetic")]
                // SAFETY: r < R and at < stride, so r * stride + at < R * stride = rows.len(), asserted above.
                let x = _mm256_broadcast_ss(unsafe { rows.get_unchecked(r * stride + at) });
                if L2 {
                    let (low, high) = (_mm256_sub_ps(x, low), _mm256_sub_ps(x, high));
                    sum[0] = _mm256_fnmadd_ps(low, low, sum[0]);
                    sum[1] = _mm256_fnmadd_ps(high, high, sum[1]);
                } else {
                    sum[0] = _mm256_fmadd_ps(x, low, sum[0]);
                    sum[1] = _mm256_fmadd_ps(x, high, sum[1]);
                }
            }
        }
        sums
    }

    #[target_feature(enable = "avx2,fma")]
    #[inline]
    fn report<const R: usize>(sums: &[[__m256; 2]; R], first: u32, bounds: &Bounds, hits: &mut Vec<Hit>) {
        let within = |sum: __m256, half: usize| -> u16 {
            let (low, high) = (&bounds.low[half * 8..], &bounds.high[half * 8..]);
            assert!(low.len() >= 8 && high.len() >= 8, "bounds have {LANES} lanes");
            #[expect(unsafe_code, reason = "unaligned loads of eight bounds")]
            // SAFETY: both slices hold at least eight floats, asserted above.
            let (low, high) = unsafe { (_mm256_loadu_ps(low.as_ptr()), _mm256_loadu_ps(high.as_ptr())) };
            let passes = _mm256_and_ps(_mm256_cmp_ps::<_CMP_GE_OQ>(sum, low), _mm256_cmp_ps::<_CMP_LE_OQ>(sum, high));
            _mm256_movemask_ps(passes) as u16
        };
        for (r, sum) in sums.iter().enumerate() {
            let lanes = within(sum[0], 0) | (within(sum[1], 1) << 8);
            if lanes != 0 {
                hits.push(Hit { row: first + r as u32, lanes });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Bounds, Hit, Panel};
    use crate::kernels::momentum::norm;
    use crate::kernels::score::score;
    use crate::kernels::shifted::Shifted;
    use crate::kernels::{LANES, stride};
    use crate::model::Metric;

    fn padded(row: &[f32]) -> Vec<f32> {
        let mut row = row.to_vec();
        row.resize(stride(row.len()), 0.0);
        row
    }

    proptest! {
        /// The cut is the exact score of one of the pairs, so that rounding decides: widened by the error bound, as the scan does
        /// it, no pair that passes exactly is missed; and what is reported passes within it.
        #[test]
        fn hits_agree_with_exact_scores_within_the_bound(
            dim in 1usize..70,
            anchors in 1usize..=LANES,
            count in 1usize..40,
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
            let largest = rows.iter().map(|row| norm(row)).fold(0.0, f64::max);
            let (near_anchor, near_row) = (stream.below(anchors.len() as u64), stream.below(count as u64));
            for metric in [Metric::Dot, Metric::L2] {
                let panel = Panel::new(metric, stride(dim), anchors.iter().map(Vec::as_slice));
                let cut = score(metric, &anchors[near_anchor as usize], &rows[near_row as usize]);
                let errors: Vec<f32> = anchors.iter().map(|anchor| panel.error_bound(norm(anchor), largest)).collect();
                let mut bounds = Bounds { low: [f32::INFINITY; LANES], high: [f32::INFINITY; LANES] };
                for (low, error) in bounds.low.iter_mut().zip(&errors) {
                    *low = ((f64::from(cut) - f64::from(*error)) as f32).next_down();
                }
                for path in [Panel::scan, Panel::scan_narrower, Panel::scan_portable] {
                    let mut hits: Vec<Hit> = Vec::new();
                    path(&panel, &flat, &bounds, &mut hits);
                    for (at, row) in rows.iter().enumerate() {
                        let lanes = hits.iter().find(|hit| hit.row == at as u32).map_or(0, |hit| hit.lanes);
                        prop_assert!(u32::from(lanes) >> anchors.len() == 0, "a lane without an anchor was hit");
                        for (lane, anchor) in anchors.iter().enumerate() {
                            let exact = score(metric, anchor, row);
                            let hit = lanes & (1 << lane) != 0;
                            prop_assert!(hit || exact < cut, "missed {exact} >= {cut}");
                            let reach = f64::from(cut) - 2.01 * f64::from(errors[lane]);
                            prop_assert!(!hit || f64::from(exact) >= reach, "reported {exact} < {cut} - 2 x {}", errors[lane]);
                        }
                    }
                }
            }
        }
    }
}
