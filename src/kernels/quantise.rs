//! Rows as eight-bit codes, and what that loses.

use super::{LANES, momentum};

/// How a row became codes: it is `scale * code` but for a rest of norm `error` at most.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quantised {
    /// What one step of a code stands for; above zero.
    pub scale: f32,
    /// At least the norm of `row - scale * code`.
    pub error: f32,
}

/// A code's zero: codes lie in 1..=255, so that the dot product of unsigned and signed bytes applies to them.
pub const ZERO: u8 = 128;

/// Largest code of a row, from zero.
pub(super) const STEPS: f32 = 127.0;

/// Largest code, from zero, of what is multiplied by rows where pairs of products are added up in sixteen bits, as AVX2 does:
/// 2 * 255 * 64 fits, 2 * 255 * 65 does not.
pub(super) const HALF_STEPS: f32 = 64.0;

/// Rows whose largest value is smaller are all zero to the codes: the inverse of their scale would overflow.
const SMALLEST: f32 = 1e-30;

/// 1.5 * 2^23: f32 of this size have steps of one, so adding it rounds to an integer, ties to even, found in the low bits.
const ROUNDING: f32 = 12_582_912.0;

/// Writes the codes of `row`, as many, and returns how they are to be read. The same bits on every machine.
///
/// With u = 2^-24 and `steps` at most 127, `scale = max / steps (1 + a)` and `y = x (steps / max) (1 + b)(1 + c)` have |a|, |b|, |c| <= u, so
/// `x / scale` lies within 3.01u * 127.1 < 2.4e-5 of y. A code is y rounded, and `rest = y - code` is exact, so the error is at most
/// `scale * (|rests| + sqrt(d) * 2.4e-5)`. The sum of the squares of the rests has d/16 + 6 roundings.
pub fn quantise(row: &[f32], codes: &mut [u8]) -> Quantised {
    quantise_to(STEPS, row, codes)
}

/// How finely anchors are read on this CPU: with VNNI as finely as rows are.
pub(super) fn anchor_steps() -> f32 {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected;
        let wide = is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("avx512bw");
        if !wide && is_x86_feature_detected!("avx2") {
            return HALF_STEPS;
        }
    }
    STEPS
}

/// [`quantise`] with codes of at most `steps` from zero, 1 to 127.
pub(super) fn quantise_to(steps: f32, row: &[f32], codes: &mut [u8]) -> Quantised {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        #[expect(unsafe_code, reason = "calls a function compiled for AVX2")]
        // SAFETY: AVX2 was detected on this CPU just above.
        return unsafe { quantise_avx2(steps, row, codes) };
    }
    quantise_portable(steps, row, codes)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn quantise_avx2(steps: f32, row: &[f32], codes: &mut [u8]) -> Quantised {
    quantise_portable(steps, row, codes)
}

/// [`quantise_to`] for any CPU.
#[inline(always)]
fn quantise_portable(steps: f32, row: &[f32], codes: &mut [u8]) -> Quantised {
    let largest = largest(row);
    if largest < SMALLEST {
        codes.fill(ZERO);
        return Quantised { scale: 1.0, error: ((momentum::norm(row) * 1.000_001) as f32).next_up() };
    }
    let (inverse, scale) = (steps / largest, largest / steps);
    let mut squares = [0.0f32; LANES];
    let code = |x: f32, square: &mut f32| {
        let y = x * inverse;
        let shifted = y + ROUNDING;
        let rest = y - (shifted - ROUNDING);
        *square += rest * rest;
        shifted.to_bits() as u8 ^ ZERO
    };
    let (groups, end) = row.as_chunks::<LANES>();
    let (code_groups, code_end) = codes.as_chunks_mut::<LANES>();
    for (codes, group) in code_groups.iter_mut().zip(groups) {
        for lane in 0..LANES {
            codes[lane] = code(group[lane], &mut squares[lane]);
        }
    }
    for ((to, &x), square) in code_end.iter_mut().zip(end).zip(&mut squares) {
        *to = code(x, square);
    }
    let square: f64 = squares.iter().copied().map(f64::from).sum();
    let roundings = (row.len() / LANES + 8) as f64 * f64::from(f32::EPSILON) / 2.0;
    let error = (square * (1.0 + 2.0 * roundings)).sqrt() + (row.len() as f64).sqrt() * 2.4e-5;
    Quantised { scale, error: ((f64::from(scale) * error) as f32).next_up() }
}

/// The largest magnitude.
#[inline(always)]
fn largest(row: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [0.0f32; LANES];
    let (groups, end) = row.as_chunks::<LANES>();
    for group in groups {
        for lane in 0..LANES {
            lanes[lane] = larger(lanes[lane], group[lane].abs());
        }
    }
    for (lane, x) in lanes.iter_mut().zip(end) {
        *lane = larger(*lane, x.abs());
    }
    lanes.into_iter().fold(0.0, larger)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{HALF_STEPS, Quantised, STEPS, ZERO, quantise, quantise_portable, quantise_to};

    /// The rest in f64, whose own rounding is far below the bound's slack.
    fn rest(row: &[f32], codes: &[u8], scale: f32) -> f64 {
        let rest = |(&x, &code): (&f32, &u8)| f64::from(x) - f64::from(scale) * (f64::from(code) - f64::from(ZERO));
        row.iter().zip(codes).map(|pair| rest(pair).powi(2)).sum::<f64>().sqrt()
    }

    proptest! {
        #[test]
        fn what_is_lost_stays_within_the_error_on_every_path(
            units in prop::collection::vec(-1.0f32..1.0, 1..300),
            spike in 0.0f32..100.0,
            exponent in -149i32..59,
        ) {
            let scale = 2f64.powi(exponent) as f32;
            let mut row: Vec<f32> = units.iter().map(|x| x * scale).collect();
            row[0] *= spike;
            for steps in [STEPS, HALF_STEPS] {
                let mut codes = vec![7; row.len()];
                let Quantised { scale, error } = quantise_to(steps, &row, &mut codes);
                let mut portable = vec![9; row.len()];
                prop_assert_eq!(Quantised { scale, error }, quantise_portable(steps, &row, &mut portable));
                prop_assert_eq!(&codes, &portable);
                prop_assert!(scale > 0.0 && codes.iter().all(|&code| f32::from(code.abs_diff(ZERO)) <= steps));
                prop_assert!(rest(&row, &codes, scale) <= f64::from(error));
                let largest = row.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
                let tight = f64::from(largest / steps) * 0.501 * (row.len() as f64).sqrt();
                prop_assert!(largest < 1e-30 || f64::from(error) <= tight, "{error} is loose: {tight}");
            }
        }
    }

    #[test]
    fn codes_are_the_nearest_steps() {
        let mut codes = [0; 5];
        let Quantised { scale, .. } = quantise(&[127.0, -127.0, 1.4, -0.6, 0.5], &mut codes);
        assert_eq!((scale, codes), (1.0, [255, 1, 129, 127, 128]));
        let nothing = quantise(&[0.0; 5], &mut codes);
        assert!(codes == [ZERO; 5] && nothing.error < 1e-40);
    }
}
