//! Dot products as fast as the machine allows, for walking a graph: of bf16 rows, and of floats with floats or bf16.
//!
//! The result lies within 2e-5 of the terms' magnitudes of the exact sum, up to 4,096 values, and differs between machines: whoever serves
//! what was found this way scores it again with [`super::score`]. Where the CPU multiplies bf16 itself, what is smaller than the smallest normal
//! number counts as 0.

#[cfg(target_arch = "x86_64")]
use super::bf16_avx2;

/// Values in a step of the kernels: every row's length is a multiple of it, padded with zeros.
pub const STEP: usize = 32;

/// Partial sums.
const SUMS: usize = 16;

/// `dim` rounded up to whole steps: halves that a frozen row takes in memory.
pub const fn stride(dim: usize) -> usize {
    dim.div_ceil(STEP) * STEP
}

/// Dot product of two bf16 rows of the same length, a multiple of [`STEP`].
#[inline]
pub fn dot(a: &[u16], b: &[u16]) -> f32 {
    #[cfg(target_arch = "x86_64")]
    {
        if has_bf16() {
            #[expect(unsafe_code, reason = "calls a function compiled for AVX-512")]
            // SAFETY: `has_bf16` has found its features on this CPU.
            return unsafe { x86::dot(a, b) };
        }
        if has_fma() {
            #[expect(unsafe_code, reason = "calls a function compiled for AVX2")]
            // SAFETY: `has_fma` has found its features on this CPU.
            return unsafe { bf16_avx2::dot(a, b) };
        }
    }
    dot_portable(a, b)
}

/// Dot products of one bf16 row with rows of a slab, `dots[i]` that of row number `rows[i]`. The slab holds whole rows of the
/// query's length, a multiple of [`STEP`].
pub fn dots(query: &[u16], slab: &[u16], rows: &[u32], dots: &mut Vec<f32>) {
    let stride = query.len();
    let row = |at: u32| &slab[at as usize * stride..][..stride];
    dots.clear();
    #[cfg(target_arch = "x86_64")]
    if has_bf16() {
        let (fours, rest) = rows.as_chunks::<4>();
        for four in fours {
            #[expect(unsafe_code, reason = "calls a function compiled for AVX-512")]
            // SAFETY: `has_bf16` has found its features on this CPU.
            dots.extend(unsafe { x86::dot_4(query, four.map(row)) });
        }
        dots.extend(rest.iter().map(|&at| dot(query, row(at))));
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if has_fma() {
        #[expect(unsafe_code, reason = "calls a function compiled for AVX2")]
        // SAFETY: `has_fma` has found its features on this CPU.
        unsafe {
            bf16_avx2::dots(query, slab, rows, dots);
        }
        return;
    }
    dots.extend(rows.iter().map(|&at| dot(query, row(at))));
}

/// Dot product of floats, of the same length.
#[inline]
pub fn dot_floats(a: &[f32], b: &[f32]) -> f32 {
    #[cfg(target_arch = "x86_64")]
    {
        if has_wide() {
            #[expect(unsafe_code, reason = "calls a function compiled for AVX-512")]
            // SAFETY: `has_wide` has found its features on this CPU.
            return unsafe { x86::dot_floats_wide(a, b) };
        }
        if has_fma() {
            #[expect(unsafe_code, reason = "calls a function compiled for AVX2")]
            // SAFETY: `has_fma` has found its features on this CPU.
            return unsafe { bf16_avx2::dot_floats(a, b) };
        }
    }
    sum(a.iter().copied(), b.iter().copied(), apart)
}

/// Dot product of floats with a bf16 row; what one is longer than the other counts as zero.
#[inline]
pub fn dot_mixed(query: &[f32], row: &[u16]) -> f32 {
    #[cfg(target_arch = "x86_64")]
    {
        if has_wide() {
            #[expect(unsafe_code, reason = "calls a function compiled for AVX-512")]
            // SAFETY: `has_wide` has found its features on this CPU.
            return unsafe { x86::dot_mixed_wide(query, row) };
        }
        if has_fma() {
            #[expect(unsafe_code, reason = "calls a function compiled for AVX2")]
            // SAFETY: `has_fma` has found its features on this CPU.
            return unsafe { bf16_avx2::dot_mixed(query, row) };
        }
    }
    sum(query.iter().copied(), row.iter().copied().map(widen), apart)
}

/// [`dot`] for any CPU.
pub fn dot_portable(a: &[u16], b: &[u16]) -> f32 {
    sum(a.iter().copied().map(widen), b.iter().copied().map(widen), apart)
}

/// The float that a bf16 stands for.
#[inline(always)]
fn widen(half: u16) -> f32 {
    f32::from_bits(u32::from(half) << 16)
}

#[inline(always)]
fn apart(sum: f32, a: f32, b: f32) -> f32 {
    sum + a * b
}

#[inline(always)]
fn sum(a: impl ExactSizeIterator<Item = f32>, b: impl Iterator<Item = f32>, add: impl Fn(f32, f32, f32) -> f32) -> f32 {
    let mut sums = [0.0f32; SUMS];
    let mut lane = 0;
    for (a, b) in a.zip(b) {
        sums[lane] = add(sums[lane], a, b);
        lane = (lane + 1) % SUMS;
    }
    sums.iter().sum()
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn has_bf16() -> bool {
    std::arch::is_x86_feature_detected!("avx512bf16") && std::arch::is_x86_feature_detected!("avx512f")
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn has_wide() -> bool {
    std::arch::is_x86_feature_detected!("avx512f")
        && std::arch::is_x86_feature_detected!("avx512bw")
        && std::arch::is_x86_feature_detected!("fma")
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn has_fma() -> bool {
    std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m512bh, __m512i, _mm512_add_ps, _mm512_dpbf16_ps, _mm512_loadu_si512, _mm512_reduce_add_ps, _mm512_setzero_ps,
    };

    use super::{STEP, SUMS, widen};

    #[target_feature(enable = "avx512f,avx512bf16")]
    #[inline]
    pub(super) fn dot(a: &[u16], b: &[u16]) -> f32 {
        let (a, _) = a.as_chunks::<STEP>();
        let (b, _) = b.as_chunks::<STEP>();
        let (mut even, mut odd) = (_mm512_setzero_ps(), _mm512_setzero_ps());
        let mut pairs = a.iter().zip(b);
        while let Some((x, y)) = pairs.next() {
            even = _mm512_dpbf16_ps(even, load(x), load(y));
            if let Some((x, y)) = pairs.next() {
                odd = _mm512_dpbf16_ps(odd, load(x), load(y));
            }
        }
        _mm512_reduce_add_ps(_mm512_add_ps(even, odd))
    }

    /// Four at a time keep four sums in flight, and read the query once.
    #[target_feature(enable = "avx512f,avx512bf16")]
    #[inline]
    pub(super) fn dot_4(query: &[u16], rows: [&[u16]; 4]) -> [f32; 4] {
        let (query, _) = query.as_chunks::<STEP>();
        let rows = rows.map(|row| row.as_chunks::<STEP>().0);
        let mut sums = [_mm512_setzero_ps(); 4];
        for (at, x) in query.iter().enumerate() {
            let x = load(x);
            for (sum, row) in sums.iter_mut().zip(&rows) {
                *sum = _mm512_dpbf16_ps(*sum, x, load(&row[at]));
            }
        }
        [sums[0], sums[1], sums[2], sums[3]].map(|sum| _mm512_reduce_add_ps(sum))
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    #[inline]
    fn load(halves: &[u16; STEP]) -> __m512bh {
        #[expect(unsafe_code, reason = "loads a register, and names its type")]
        // SAFETY: the array is 64 bytes, which an unaligned load may read; both types are 64 bytes of any content.
        unsafe {
            std::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_si512(halves.as_ptr().cast()))
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,fma")]
    pub(super) fn dot_floats_wide(a: &[f32], b: &[f32]) -> f32 {
        let (a, _) = a.as_chunks::<SUMS>();
        let (b, _) = b.as_chunks::<SUMS>();
        fused(a.iter().zip(b).map(|(&a, &b)| (a, b)))
    }

    #[target_feature(enable = "avx512f,avx512bw,fma")]
    pub(super) fn dot_mixed_wide(query: &[f32], row: &[u16]) -> f32 {
        let (query, _) = query.as_chunks::<SUMS>();
        let (row, _) = row.as_chunks::<SUMS>();
        fused(query.iter().zip(row).map(|(&x, y)| (x, y.map(widen))))
    }

    /// Two chains of fused sums, so that one need not wait for the other. Inlined into functions of whatever registers they have.
    #[inline(always)]
    fn fused(mut pairs: impl Iterator<Item = ([f32; SUMS], [f32; SUMS])>) -> f32 {
        let (mut even, mut odd) = ([0.0f32; SUMS], [0.0f32; SUMS]);
        while let Some((a, b)) = pairs.next() {
            for lane in 0..SUMS {
                even[lane] = a[lane].mul_add(b[lane], even[lane]);
            }
            if let Some((a, b)) = pairs.next() {
                for lane in 0..SUMS {
                    odd[lane] = a[lane].mul_add(b[lane], odd[lane]);
                }
            }
        }
        let mut width = SUMS / 2;
        for lane in 0..SUMS {
            even[lane] += odd[lane];
        }
        while width > 0 {
            for lane in 0..width {
                even[lane] += even[lane + width];
            }
            width /= 2;
        }
        even[0]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{STEP, dot, dot_floats, dot_mixed, dot_portable, dots, stride, widen};
    use crate::kernels::shifted::Shifted;
    use crate::model::Half;

    fn rounded(row: &[f32]) -> Vec<u16> {
        let mut bits = vec![0; row.len()];
        Half::Bf16.round(row, &mut bits);
        bits
    }

    /// The dot products of halves, of floats and of both by the kernels for AVX2, on a CPU that has more too.
    #[cfg(target_arch = "x86_64")]
    fn narrower(x: &[u16], y: &[u16], a: &[f32], b: &[f32]) -> Option<(f32, f32, f32)> {
        use crate::kernels::bf16_avx2;
        #[expect(unsafe_code, reason = "calls functions compiled for AVX2")]
        // SAFETY: `has_fma` has found their features on this CPU.
        super::has_fma().then(|| unsafe { (bf16_avx2::dot(x, y), bf16_avx2::dot_floats(a, b), bf16_avx2::dot_mixed(a, y)) })
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn narrower(_: &[u16], _: &[u16], _: &[f32], _: &[f32]) -> Option<(f32, f32, f32)> {
        None
    }

    proptest! {
        #[test]
        fn every_path_is_near_the_sum_in_f64(
            pairs in prop::collection::vec((-1e3f32..1e3, -1e3f32..1e3), 1..300),
            exponents in (-140i32..48, -140i32..48),
            offset in prop_oneof![Just(0.0f32), -1e5f32..1e5],
            aside in (0usize..32, 0usize..16),
        ) {
            let (mut a, mut b): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
            a.iter_mut().for_each(|x| *x = (*x + offset) * 2f32.powi(exponents.0));
            b.iter_mut().for_each(|x| *x = (*x + offset) * 2f32.powi(exponents.1));
            a.resize(stride(a.len()), 0.0);
            b.resize(stride(b.len()), 0.0);
            let (x, y) = (Shifted::new(&rounded(&a), aside.0), Shifted::new(&rounded(&b), aside.1));
            let (a, b) = (Shifted::new(&a, aside.1), Shifted::new(&b, aside.0));
            let wide = |bits: &[u16]| bits.iter().map(|&half| widen(half)).collect::<Vec<f32>>();
            let mut cases = vec![
                (dot(&x, &y), wide(&x), wide(&y)),
                (dot_portable(&x, &y), wide(&x), wide(&y)),
                (dot_mixed(&a, &y), a.to_vec(), wide(&y)),
                (dot_floats(&a, &b), a.to_vec(), b.to_vec()),
            ];
            if let Some((of_halves, of_floats, mixed)) = narrower(&x, &y, &a, &b) {
                cases.extend([(of_halves, wide(&x), wide(&y)), (of_floats, a.to_vec(), b.to_vec()), (mixed, a.to_vec(), wide(&y))]);
            }
            for (got, a, b) in cases {
                let terms = || a.iter().zip(&b).map(|(&a, &b)| (f64::from(a) * f64::from(b), !(a.is_normal() && b.is_normal())));
                let exact: f64 = terms().map(|(term, _)| term).sum();
                // What is not normal may count as 0, as may products.
                let error: f64 = terms().map(|(term, may_vanish)| term.abs() * if may_vanish { 1.1 } else { 2e-5 }).sum();
                let smallest = f64::from(f32::MIN_POSITIVE) * 4.0 * a.len() as f64;
                let is_near = (f64::from(got) - exact).abs() <= error + smallest;
                // A sum that may pass the largest float on its way may come out as no number.
                let may_overflow = terms().map(|(term, _)| term.abs()).sum::<f64>() * 1.01 >= f64::from(f32::MAX);
                prop_assert!(is_near || (may_overflow && !got.is_finite()), "{got} for {exact}");
            }
        }

        #[test]
        fn many_dots_are_each_their_own(rows in 1usize..12, steps in 1usize..5, aside in 0usize..32, seed in any::<u32>()) {
            let len = steps * STEP;
            let floats: Vec<f32> = (0..(rows + 1) * len).map(|at| ((at as u32 ^ seed) % 1_000) as f32 / 500.0 - 1.0).collect();
            let bits = Shifted::new(&rounded(&floats), aside);
            let (query, slab) = bits.split_at(len);
            let wanted: Vec<u32> = (0..rows as u32).rev().collect();
            let mut got = vec![7.0];
            dots(query, slab, &wanted, &mut got);
            prop_assert_eq!(got.len(), rows);
            for (&row, got) in wanted.iter().zip(got) {
                let alone = dot_portable(query, &slab[row as usize * len..][..len]);
                prop_assert!((alone - got).abs() < 1e-2);
            }
        }
    }
}
