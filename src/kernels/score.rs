//! Scores of one pair, the same bits on every machine.

use super::LANES;
use crate::model::Metric;

/// Score of `a` against `b`, higher is closer. Both have the same length, a multiple of [`LANES`], padded with zeros.
///
/// Sixteen partial sums in element order, added as a balanced tree; multiplications and additions round separately.
/// So the value is the same whichever SIMD width carries it out.
pub fn score(metric: Metric, a: &[f32], b: &[f32]) -> f32 {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        #[expect(unsafe_code, reason = "calls a function compiled for AVX2")]
        // SAFETY: AVX2 was detected on this CPU just above.
        return unsafe { score_avx2(metric, a, b) };
    }
    score_portable(metric, a, b)
}

/// [`score`] compiled for wider registers; the same operations in the same order.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn score_avx2(metric: Metric, a: &[f32], b: &[f32]) -> f32 {
    score_portable(metric, a, b)
}

/// [`score`] for any CPU.
#[inline(always)]
pub fn score_portable(metric: Metric, a: &[f32], b: &[f32]) -> f32 {
    match metric {
        Metric::Cosine | Metric::Dot => sum_lanes(a, b, |x, y| x * y),
        Metric::L2 => -sum_lanes(a, b, |x, y| (x - y) * (x - y)),
    }
}

#[inline(always)]
fn sum_lanes(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    debug_assert!(a.len() == b.len() && a.len().is_multiple_of(LANES), "rows are padded to whole lane groups");
    let mut sums = [0.0f32; LANES];
    let (a, _) = a.as_chunks::<LANES>();
    let (b, _) = b.as_chunks::<LANES>();
    for (x, y) in a.iter().zip(b) {
        for lane in 0..LANES {
            sums[lane] += term(x[lane], y[lane]);
        }
    }
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            sums[lane] += sums[lane + width];
        }
        width /= 2;
    }
    sums[0]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{score, score_portable};
    use crate::kernels::shifted::Shifted;
    use crate::kernels::stride;
    use crate::model::Metric;

    proptest! {
        #[test]
        fn every_cpu_path_gives_the_same_bits(
            rows in prop::collection::vec((-1e3f32..1e3, -1e3f32..1e3), 1..300),
            exponent in -149i32..48,
            aside in (0usize..16, 0usize..16),
        ) {
            let (mut a, mut b): (Vec<f32>, Vec<f32>) = rows.into_iter().unzip();
            a.iter_mut().chain(&mut b).for_each(|x| *x *= 2f32.powi(exponent));
            let len = stride(a.len());
            a.resize(len, 0.0);
            b.resize(len, 0.0);
            let (a, b) = (Shifted::new(&a, aside.0), Shifted::new(&b, aside.1));
            for metric in [Metric::Cosine, Metric::Dot, Metric::L2] {
                prop_assert_eq!(score(metric, &a, &b).to_bits(), score_portable(metric, &a, &b).to_bits());
            }
        }
    }

    #[test]
    fn l2_is_minus_the_squared_distance() {
        let (mut a, mut b) = ([0.0; 16], [0.0; 16]);
        (a[0], b[0], b[15]) = (1.0, 4.0, 2.0);
        assert_eq!(score(Metric::L2, &a, &b), -13.0);
        assert_eq!(score(Metric::Dot, &a, &b), 4.0);
    }
}
