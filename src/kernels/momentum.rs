//! Momentum updates and normalisation, the same bits on every machine.

const SUMS: usize = 8;

/// A mixture shorter than this has no direction worth keeping: the new row replaces it.
const SHORTEST_MIXTURE: f64 = 1e-6;

/// Euclidean norm, summed in f64 in a fixed order: exact enough for any finite f32 row, and never zero for a row that isn't.
pub fn norm(row: &[f32]) -> f64 {
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
    let length = norm(x);
    v.iter_mut().zip(x).for_each(|(v, &x)| *v = scaled(x, length));
}

/// Cosine banks: `v <- norm(m*v + (1-m)*u)` for unit `v`, where `u` is `x` of norm 1; a mixture of norm under 1e-6 becomes `u`. With m = 0
/// the row is `u` to the bit, as if it were new. The norm of `x` must not be zero.
pub fn move_unit(v: &mut [f32], x: &[f32], m: f32) {
    if m == 0.0 {
        return set_unit(v, x);
    }
    let (length, rest) = (norm(x), 1.0 - m);
    v.iter_mut().zip(x).for_each(|(v, &x)| *v = m * *v + rest * scaled(x, length));
    let mixed = norm(v);
    if mixed < SHORTEST_MIXTURE {
        set_unit(v, x);
    } else {
        scale_by(v, mixed);
    }
}

/// Dot and l2 banks: `v <- m*v + (1-m)*x`.
pub fn mix(v: &mut [f32], x: &[f32], m: f32) {
    let rest = 1.0 - m;
    for (v, &x) in v.iter_mut().zip(x) {
        *v = m * *v + rest * x;
    }
}

fn scale_by(row: &mut [f32], length: f64) {
    row.iter_mut().for_each(|x| *x = scaled(*x, length));
}

fn scaled(x: f32, length: f64) -> f32 {
    (f64::from(x) / length) as f32
}

#[cfg(test)]
mod tests {
    use super::{mix, move_unit, norm, normalise};

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
}
