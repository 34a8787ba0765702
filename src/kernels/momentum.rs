//! Momentum updates and normalisation, the same bits on every machine.

const SUMS: usize = 8;

/// A mixture shorter than this has no direction worth keeping: the new row replaces it.
const SHORTEST_MIXTURE: f64 = 1e-6;

/// Euclidean norm, summed in f64 in a fixed order: exact enough for any finite f32 row, and never zero for a row that isn't.
pub fn norm(row: &[f32]) -> f64 {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        #[expect(unsafe_code, reason = "calls a function compiled for AVX2")]
        // SAFETY: AVX2 was detected on this CPU just above.
        return unsafe { norm_avx2(row) };
    }
    norm_portable(row)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn norm_avx2(row: &[f32]) -> f64 {
    norm_portable(row)
}

/// [`norm`] for any CPU.
#[inline(always)]
fn norm_portable(row: &[f32]) -> f64 {
    let mut sums = [0.0f64; SUMS];
    let (chunks, rest) = row.as_chunks::<SUMS>();
    for chunk in chunks {
        for lane in 0..SUMS {
            let x = f64::from(chunk[lane]);
            sums[lane] += x * x;
        }
    }
    for (lane, &x) in rest.iter().enumerate() {
        sums[lane] += f64::from(x) * f64::from(x);
    }
    let quarters: [f64; 4] = std::array::from_fn(|lane| sums[lane] + sums[lane + 4]);
    ((quarters[0] + quarters[2]) + (quarters[1] + quarters[3])).sqrt()
}

/// Scales `row` to norm 1. Its norm must not be zero.
pub fn normalise(row: &mut [f32]) {
    scale_by(row, norm(row));
}

/// `v <- x / |x|`. The norm of `x` must not be zero.
pub fn set_unit(v: &mut [f32], x: &[f32]) {
    move_unit(v, x, 0.0);
}

/// Cosine banks: `v <- norm(m*v + (1-m)*u)` for unit `v`, where `u` is `x` of norm 1; a mixture of norm under 1e-6 becomes `u`. With m = 0
/// the row is `u` to the bit, as if it were new. The norm of `x` must not be zero.
pub fn move_unit(v: &mut [f32], x: &[f32], m: f32) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        #[expect(unsafe_code, reason = "calls a function compiled for AVX2")]
        // SAFETY: AVX2 was detected on this CPU just above.
        return unsafe { move_unit_avx2(v, x, m) };
    }
    move_unit_portable(v, x, m);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn move_unit_avx2(v: &mut [f32], x: &[f32], m: f32) {
    move_unit_portable(v, x, m);
}

/// [`move_unit`] for any CPU.
#[inline(always)]
fn move_unit_portable(v: &mut [f32], x: &[f32], m: f32) {
    let (length, rest) = (norm_portable(x), 1.0 - m);
    if m != 0.0 {
        move_to(v, x, length, |v, scaled| m * v + rest * scaled);
        let mixed = norm_portable(v);
        if mixed >= SHORTEST_MIXTURE {
            return scale_by(v, mixed);
        }
    }
    move_to(v, x, length, |_, scaled| scaled);
}

/// Dot and l2 banks: `v <- m*v + (1-m)*x`.
pub fn mix(v: &mut [f32], x: &[f32], m: f32) {
    let rest = 1.0 - m;
    for (v, &x) in v.iter_mut().zip(x) {
        *v = m * *v + rest * x;
    }
}

#[inline(always)]
fn scale_by(row: &mut [f32], length: f64) {
    let by = Division::by(length);
    let (chunks, rest) = row.as_chunks_mut::<SUMS>();
    chunks.iter_mut().for_each(|chunk| *chunk = by.of(chunk));
    rest.iter_mut().for_each(|x| *x = divided(*x, length));
}

/// `v <- f(v, x / length)`, value by value.
#[inline(always)]
fn move_to(v: &mut [f32], x: &[f32], length: f64, f: impl Fn(f32, f32) -> f32) {
    let by = Division::by(length);
    let ((chunks, rest), (chunks_of_x, rest_of_x)) = (v.as_chunks_mut::<SUMS>(), x.as_chunks::<SUMS>());
    for (v, x) in chunks.iter_mut().zip(chunks_of_x) {
        let scaled = by.of(x);
        *v = std::array::from_fn(|lane| f(v[lane], scaled[lane]));
    }
    rest.iter_mut().zip(rest_of_x).for_each(|(v, &x)| *v = f(*v, divided(x, length)));
}

/// A quotient of f64, rounded to f32.
fn divided(x: f32, length: f64) -> f32 {
    (f64::from(x) / length) as f32
}

/// [`divided`] of several values by one, to the bit, without dividing.
struct Division {
    length: f64,
    /// Just below and above the inverse: three roundings, of 2^-53 each, lie between a product with one of them and the rounded quotient, and
    /// they lie 2^-50 from the inverse. So the quotient is between the two products, and where those round to one f32 it does too.
    below: f64,
    above: f64,
}

impl Division {
    fn by(length: f64) -> Self {
        let inverse = 1.0 / length;
        let step = 0.5f64.powi(50);
        Self { length, below: inverse * (1.0 - step), above: inverse * (1.0 + step) }
    }

    #[inline(always)]
    fn of(&self, values: &[f32; SUMS]) -> [f32; SUMS] {
        let times = |factor: f64| values.map(|x| (f64::from(x) * factor) as f32);
        let (below, above) = (times(self.below), times(self.above));
        let mut differ = 0;
        for lane in 0..SUMS {
            differ |= below[lane].to_bits() ^ above[lane].to_bits();
        }
        if differ == 0 { below } else { values.map(|x| divided(x, self.length)) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Division, SUMS, divided, mix, move_unit, move_unit_portable, norm, norm_portable, normalise};

    #[test]
    fn momentum_moves_towards_the_new_row_and_stays_on_the_sphere() {
        let mut v = [1.0, 0.0, 0.0];
        move_unit(&mut v, &[0.0, 3.0, 0.0], 0.5);
        assert!((v[0] - 0.5f32.sqrt()).abs() < 1e-7 && (v[1] - 0.5f32.sqrt()).abs() < 1e-7);
        assert!((norm(&v) - 1.0).abs() < 1e-7);
        mix(&mut v, &[0.0, 0.0, 0.0], 0.0);
        assert_eq!(v, [0.0; 3]);
    }

    #[test]
    fn opposite_rows_give_the_new_one() {
        let mut v = [1.0, 0.0];
        move_unit(&mut v, &[-2.0, 0.0], 0.5);
        assert_eq!(v, [-1.0, 0.0]);
        move_unit(&mut v, &[0.0, 0.25], 0.0);
        assert_eq!(v, [0.0, 1.0]);
    }

    #[test]
    fn extreme_rows_normalise() {
        for x in [1e-45f32, 1e-30, 1.0, 3e38] {
            let mut row = [x, -x, x, x];
            normalise(&mut row);
            assert_eq!(row, [0.5, -0.5, 0.5, 0.5], "{x}");
        }
    }

    proptest! {
        #[test]
        fn every_cpu_path_gives_the_same_norm(row in prop::collection::vec(any::<f32>().prop_filter("finite", |x| x.is_finite()), 0..300)) {
            prop_assert_eq!(norm(&row).to_bits(), norm_portable(&row).to_bits());
        }

        #[test]
        fn every_cpu_path_moves_to_the_same_bits(rows in prop::collection::vec((-1f32..1.0, -1f32..1.0), 1..300), m in prop_oneof![Just(0.0f32), 0.0f32..1.0]) {
            let (mut v, x): (Vec<f32>, Vec<f32>) = rows.into_iter().unzip();
            prop_assume!(norm(&x) > 0.0 && norm(&v) > 0.0);
            normalise(&mut v);
            let mut portable = v.clone();
            move_unit(&mut v, &x, m);
            move_unit_portable(&mut portable, &x, m);
            prop_assert_eq!(v, portable);
        }

        /// Bits as they come: subnormal values, zeros of both signs, and quotients that overflow or are subnormal.
        #[test]
        fn a_division_is_one_to_the_bit(bits: [u32; SUMS], length in prop_oneof![1e-45f64..1e-30, 1e-3f64..1e3, 1e30f64..1e39], spread in 0u32..24) {
            let values = bits.map(|bits| f32::from_bits((bits & 0x807f_ffff) | (100 + bits % (1 + spread)) << 23));
            for values in [bits.map(f32::from_bits).map(|x| if x.is_finite() { x } else { 0.0 }), values] {
                let expected = values.map(|x| divided(x, length).to_bits());
                prop_assert_eq!(Division::by(length).of(&values).map(f32::to_bits), expected);
            }
        }

        /// Quotients halfway between two f32, where the last bit of the f64 decides.
        #[test]
        fn a_division_rounds_ties_as_a_division_does(bits in 0x3f00_0000u32..0x3f80_0000, length in 1u32..4_000) {
            let half = f64::from(f32::from_bits(bits)) + f64::from(f32::from_bits(bits + 1));
            let length = f64::from(length);
            let near = (half / 2.0 * length) as f32;
            let values = std::array::from_fn(|lane| f32::from_bits(near.to_bits() + lane as u32));
            let expected = values.map(|x| divided(x, length).to_bits());
            prop_assert_eq!(Division::by(length).of(&values).map(f32::to_bits), expected);
        }
    }

    /// Few values meet the way that divides: here all do.
    #[test]
    fn what_is_halfway_is_divided() {
        let halfway = 1.0 + 2f64.powi(-24);
        let values = [1.0f32, -1.0, 2.0, 4.0, 0.5, 0.25, 8.0, -16.0];
        let length = 1.0 / halfway;
        assert_eq!(Division::by(length).of(&values).map(f32::to_bits), values.map(|x| divided(x, length).to_bits()));
    }
}
