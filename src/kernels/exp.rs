//! Exponentials of many scores, the same bits on every machine.

/// Scores in a block.
pub const BLOCK: usize = 64;

const LANES: usize = 16;

/// exp(x) is taken for 0 below it.
const LEAST: f32 = -87.0;

/// What a block's scores come to: the score whose beta * s is largest, and the sum of exp(beta * (s - that score)), of a relative error
/// below 1e-6. `None` if none is a number; what isn't one counts nothing.
pub fn sum(beta: f32, scores: &[f32; BLOCK]) -> Option<(f32, f64)> {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        #[expect(unsafe_code, reason = "calls a function compiled for AVX2")]
        // SAFETY: AVX2 was detected on this CPU just above.
        return unsafe { sum_avx2(beta, scores) };
    }
    sum_portable(beta, scores)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn sum_avx2(beta: f32, scores: &[f32; BLOCK]) -> Option<(f32, f64)> {
    sum_portable(beta, scores)
}

#[inline(always)]
fn sum_portable(beta: f32, scores: &[f32; BLOCK]) -> Option<(f32, f64)> {
    let sign = if beta < 0.0 { -1.0 } else { 1.0 };
    let mut best = [f32::NEG_INFINITY; LANES];
    for chunk in scores.as_chunks::<LANES>().0 {
        for (best, score) in best.iter_mut().zip(chunk) {
            let signed = sign * score;
            *best = if signed > *best { signed } else { *best };
        }
    }
    let best = best.into_iter().fold(f32::NEG_INFINITY, |a, b| if b > a { b } else { a });
    if best == f32::NEG_INFINITY {
        return None;
    }
    let (top, mut sums) = (sign * best, [0.0f32; LANES]);
    for chunk in scores.as_chunks::<LANES>().0 {
        for (sum, score) in sums.iter_mut().zip(chunk) {
            *sum += relative(beta, top, *score);
        }
    }
    Some((top, sums.into_iter().map(f64::from).sum()))
}

/// exp(beta * (s - top)) of each score, of a relative error below 1e-6; 0 of what is no number. No beta * s may be above beta * `top`.
pub fn exps(beta: f32, top: f32, scores: &[f32; BLOCK]) -> [f32; BLOCK] {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        #[expect(unsafe_code, reason = "calls a function compiled for AVX2")]
        // SAFETY: AVX2 was detected on this CPU just above.
        return unsafe { exps_avx2(beta, top, scores) };
    }
    exps_portable(beta, top, scores)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn exps_avx2(beta: f32, top: f32, scores: &[f32; BLOCK]) -> [f32; BLOCK] {
    exps_portable(beta, top, scores)
}

#[inline(always)]
fn exps_portable(beta: f32, top: f32, scores: &[f32; BLOCK]) -> [f32; BLOCK] {
    scores.map(|score| relative(beta, top, score))
}

#[inline(always)]
fn relative(beta: f32, top: f32, score: f32) -> f32 {
    let x = beta * (score - top);
    // Not so of what is no number.
    if x > LEAST { exp(x) } else { 0.0 }
}

/// exp of x in (-87, 0]: x = n ln 2 + r, and a polynomial in r (Moshier's Cephes, expf).
#[inline(always)]
fn exp(x: f32) -> f32 {
    // Added to a small number it leaves the nearest whole one in the low bits.
    const MAGIC: f32 = 12_582_912.0;
    let shifted = x * std::f32::consts::LOG2_E + MAGIC;
    let n = shifted - MAGIC;
    let r = x - n * 0.693_359_4 - n * -2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    for coefficient in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p * r + coefficient;
    }
    let scale = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    (p * (r * r) + r + 1.0) * scale
}

#[cfg(test)]
mod tests {
    use super::{BLOCK, exps, exps_portable, sum, sum_portable};

    fn block(seed: u64, scale: f32) -> [f32; BLOCK] {
        let mut stream = crate::model::Seed(seed).stream(0, 0);
        std::array::from_fn(|_| match stream.below(5) {
            0 => f32::NAN,
            _ => (stream.unit() as f32 - 0.5) * scale,
        })
    }

    #[test]
    fn exponentials_are_near_and_the_same_on_every_path() {
        for seed in 0..2_000 {
            let scores = block(seed, [2.0, 100.0, 1e-3, 1e30][seed as usize % 4]);
            for beta in [1.0, 20.0, -3.5, 0.0, 1e30, -1e-30] {
                let (top, total) = sum(beta, &scores).unwrap();
                let bits = |(top, total): (f32, f64)| (top.to_bits(), total.to_bits());
                assert_eq!(Some(bits((top, total))), sum_portable(beta, &scores).map(bits));
                assert!(scores.iter().all(|score| score.is_nan() || beta * score <= beta * top));
                let got = exps(beta, top, &scores);
                assert_eq!(got.map(f32::to_bits), exps_portable(beta, top, &scores).map(f32::to_bits));
                for (score, got) in scores.iter().zip(got) {
                    let x = f64::from(beta) * (f64::from(*score) - f64::from(top));
                    let expected = if score.is_nan() { 0.0 } else { x.exp() };
                    // x itself is rounded twice.
                    let tolerance = (1e-6 + 2e-7 * x.abs()) * expected + 1e-37;
                    assert!(
                        score.is_nan() && got == 0.0 || (f64::from(got) - expected).abs() < tolerance,
                        "{x}: {got} {expected}"
                    );
                }
                let expected: f64 = got.iter().map(|exp| f64::from(*exp)).sum();
                assert!((total / expected - 1.0).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn where_nothing_is_a_number_there_is_no_sum() {
        assert_eq!(sum(1.0, &[f32::NAN; BLOCK]), None);
        let mut one = [f32::NAN; BLOCK];
        one[63] = -3.0;
        assert_eq!((sum(2.0, &one), sum(-2.0, &one)), (Some((-3.0, 1.0)), Some((-3.0, 1.0))));
    }
}
