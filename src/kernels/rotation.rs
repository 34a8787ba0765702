//! Rotates rows before they become codes, so that no few dimensions hold most of their length: a code's step follows the largest value.

use super::LANES;
use super::quantise::{Quantised, quantise};
use crate::model::Seed;

/// A rotation that is the same for all rows of a length: signs drawn by a fixed seed, then a Walsh-Hadamard transform (Ailon and Chazelle
/// 2006, section 2) of the first `span` values, the largest power of two that fits; and where that is not all of them, once more of
/// the last `span`. Dot products stay as they are, but for rounding.
#[derive(Debug, Clone)]
pub struct Rotation {
    /// Values in a row: whole lane groups.
    stride: usize,
    span: usize,
    /// What values are multiplied by before each transform, `span` for each: 1 / sqrt(span), with a sign.
    factors: Vec<f32>,
}

/// Of the signs.
const SEED: Seed = Seed(0x6e65_6762_616e_6b00);

impl Rotation {
    /// Of rows of `stride` values, whole lane groups.
    pub fn new(stride: usize) -> Self {
        let span = 1 << stride.max(LANES).ilog2();
        let transforms = if span < stride { 2 } else { 1 };
        let factor = (1.0 / (span as f64).sqrt()) as f32;
        let mut signs = SEED.stream(0, 0);
        let factors = (0..transforms * span).map(|_| if signs.below(2) == 0 { factor } else { -factor }).collect();
        Self { stride, span, factors }
    }

    /// Rotates a row of this length, in place. The same bits on every machine.
    pub fn rotate(&self, row: &mut [f32]) {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") {
            #[expect(unsafe_code, reason = "calls a function compiled for AVX2")]
            // SAFETY: AVX2 was detected on this CPU just above.
            unsafe {
                self.rotate_avx2(row);
            }
            return;
        }
        self.rotate_portable(row);
    }

    /// How far a rotated row of this norm lies from where an exact rotation would put it, at most.
    ///
    /// A transform multiplies once, by a factor that is rounded, and adds log2(span) times; each rounds to at most u = 2^-24 of each
    /// value, so of the norm, which none of them changes. What is lost to underflow is far below the smallest normal float.
    pub fn lost(&self, norm: f64) -> f64 {
        let transforms = self.factors.len() / self.span;
        let roundings = transforms as f64 * f64::from(self.span.ilog2() + 2);
        norm * roundings * 2f64.powi(-24) * 1.001 + f64::from(f32::MIN_POSITIVE)
    }

    /// Rotates a row of this norm, in place, and writes the codes of what it is then. What rotating loses is part of their error.
    pub fn quantise(&self, (row, norm): (&mut [f32], f64), codes: &mut [u8]) -> Quantised {
        self.rotate(row);
        let Quantised { scale, error } = quantise(row, codes);
        Quantised { scale, error: ((f64::from(error) + self.lost(norm)) as f32).next_up() }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn rotate_avx2(&self, row: &mut [f32]) {
        self.rotate_portable(row);
    }

    /// [`Self::rotate`] for any CPU.
    #[inline(always)]
    fn rotate_portable(&self, row: &mut [f32]) {
        assert!(row.len() == self.stride, "a row of {} values", self.stride);
        for (transform, factors) in self.factors.chunks_exact(self.span).enumerate() {
            let first = if transform == 0 { 0 } else { self.stride - self.span };
            let span = &mut row[first..first + self.span];
            span.iter_mut().zip(factors).for_each(|(x, factor)| *x *= factor);
            transform_in_place(span);
        }
    }
}

/// The Walsh-Hadamard transform of a power of two of values, 16 or more, unscaled.
#[inline(always)]
fn transform_in_place(values: &mut [f32]) {
    let (groups, _) = values.as_chunks_mut::<LANES>();
    for group in groups.iter_mut() {
        *group = within::<8>(within::<4>(within::<2>(within::<1>(*group))));
    }
    let mut half = 1;
    while half < groups.len() {
        for pair in groups.chunks_exact_mut(2 * half) {
            let (low, high) = pair.split_at_mut(half);
            for (low, high) in low.iter_mut().zip(high) {
                for lane in 0..LANES {
                    (low[lane], high[lane]) = (low[lane] + high[lane], low[lane] - high[lane]);
                }
            }
        }
        half *= 2;
    }
}

/// Sums and differences of the values that lie `APART` from each other.
#[inline(always)]
fn within<const APART: usize>(group: [f32; LANES]) -> [f32; LANES] {
    std::array::from_fn(|at| {
        let other = group[at ^ APART];
        if at & APART == 0 { group[at] + other } else { other - group[at] }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Rotation;
    use crate::kernels::momentum::norm;
    use crate::kernels::stride;
    use crate::model::Seed;

    /// The same rotation in f64, pair by pair.
    fn exactly(rotation: &Rotation, row: &[f32]) -> Vec<f64> {
        let mut row: Vec<f64> = row.iter().copied().map(f64::from).collect();
        for (transform, factors) in rotation.factors.chunks(rotation.span).enumerate() {
            let first = transform * (rotation.stride - rotation.span);
            let span = &mut row[first..first + rotation.span];
            let factor = 1.0 / (rotation.span as f64).sqrt();
            span.iter_mut().zip(factors).for_each(|(x, sign)| *x *= factor.copysign(f64::from(*sign)));
            for bit in 0..rotation.span.ilog2() {
                for at in (0..rotation.span).filter(|at| at & (1 << bit) == 0) {
                    let (low, high) = (span[at], span[at | 1 << bit]);
                    (span[at], span[at | 1 << bit]) = (low + high, low - high);
                }
            }
        }
        row
    }

    proptest! {
        #[test]
        fn rotated_rows_lie_where_they_should_on_every_path(
            dim in 1usize..600,
            exponent in -149i32..100,
            spike in 0usize..600,
            seed in any::<u64>(),
        ) {
            let mut stream = Seed(seed).stream(0, 0);
            let mut row: Vec<f32> = (0..dim).map(|_| (stream.unit() - 0.5) as f32 * 2f32.powi(exponent)).collect();
            row[spike % dim] *= 1e4;
            row.resize(stride(dim), 0.0);
            let rotation = Rotation::new(stride(dim));
            let (mut rotated, mut portable) = (row.clone(), row.clone());
            rotation.rotate(&mut rotated);
            rotation.rotate_portable(&mut portable);
            prop_assert_eq!(&rotated, &portable);
            let exact = exactly(&rotation, &row);
            let apart = exact.iter().zip(&rotated).map(|(exact, &got)| (exact - f64::from(got)).powi(2)).sum::<f64>().sqrt();
            prop_assert!(apart <= rotation.lost(norm(&row)), "{apart}");
            let length = exact.iter().map(|x| x * x).sum::<f64>().sqrt();
            prop_assert!((length - norm(&row)).abs() <= 1e-9 * length + 1e-60, "{length} of {}", norm(&row));
        }
    }

    #[test]
    fn one_large_value_is_spread_over_all() {
        for dim in [16, 96, 128, 304, 768] {
            let mut row = vec![0.0; dim];
            row[3] = 1.0;
            Rotation::new(dim).rotate(&mut row);
            let largest = row.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
            // A second transform adds up what the first left even: as signs fall, so some of it is larger again.
            let even = 1.0 / ((1 << dim.ilog2()) as f32).sqrt();
            assert!(largest <= even * if dim.is_power_of_two() { 1.001 } else { 4.0 }, "{largest} of {dim}");
        }
    }
}
