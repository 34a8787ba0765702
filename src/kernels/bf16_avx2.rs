//! Dot products of bf16 rows and of floats, for AVX2 with fused multiply-add.

use std::arch::x86_64::{
    __m128i, __m256, __m256i, _mm_loadu_si128, _mm256_add_ps, _mm256_and_si256, _mm256_castsi256_ps, _mm256_cvtepu16_epi32,
    _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_set1_epi32, _mm256_setzero_ps, _mm256_slli_epi32,
    _mm256_storeu_ps,
};

/// Halves in a register.
const HALVES: usize = 16;

/// Floats in a register.
const FLOATS: usize = 8;

/// Dot product of two bf16 rows. The even and the odd halves are summed apart: no shuffle is needed.
#[target_feature(enable = "avx2,fma")]
#[inline]
pub(super) fn dot(a: &[u16], b: &[u16]) -> f32 {
    let (mut even, mut odd) = (_mm256_setzero_ps(), _mm256_setzero_ps());
    for (a, b) in a.as_chunks::<HALVES>().0.iter().zip(b.as_chunks::<HALVES>().0) {
        let (a, b) = (load(a), load(b));
        even = _mm256_fmadd_ps(evens(a), evens(b), even);
        odd = _mm256_fmadd_ps(odds(a), odds(b), odd);
    }
    total(_mm256_add_ps(even, odd))
}

/// [`dot`] of `query` with each of `rows`, rows of a slab that are as long.
#[target_feature(enable = "avx2,fma")]
pub(super) fn dots(query: &[u16], slab: &[u16], rows: &[u32], dots: &mut Vec<f32>) {
    let stride = query.len();
    let (pairs, rest) = rows.as_chunks::<2>();
    for &[first, second] in pairs {
        let (first, second) = (&slab[first as usize * stride..][..stride], &slab[second as usize * stride..][..stride]);
        let sums = dot_2(query, first, second);
        dots.push(sums.0);
        dots.push(sums.1);
    }
    for &row in rest {
        dots.push(dot(query, &slab[row as usize * stride..][..stride]));
    }
}

/// Two at a time keep four sums in flight, and take the query apart once.
#[target_feature(enable = "avx2,fma")]
#[inline]
fn dot_2(query: &[u16], first: &[u16], second: &[u16]) -> (f32, f32) {
    let nothing = _mm256_setzero_ps();
    let (mut even, mut odd) = ((nothing, nothing), (nothing, nothing));
    let rows = first.as_chunks::<HALVES>().0.iter().zip(second.as_chunks::<HALVES>().0);
    for (query, (first, second)) in query.as_chunks::<HALVES>().0.iter().zip(rows) {
        let (query, first, second) = (load(query), load(first), load(second));
        let (query_even, query_odd) = (evens(query), odds(query));
        even.0 = _mm256_fmadd_ps(query_even, evens(first), even.0);
        odd.0 = _mm256_fmadd_ps(query_odd, odds(first), odd.0);
        even.1 = _mm256_fmadd_ps(query_even, evens(second), even.1);
        odd.1 = _mm256_fmadd_ps(query_odd, odds(second), odd.1);
    }
    (total(_mm256_add_ps(even.0, odd.0)), total(_mm256_add_ps(even.1, odd.1)))
}

/// Dot product of floats; what is left of whole pairs of registers counts as zero.
#[target_feature(enable = "avx2,fma")]
#[inline]
pub(super) fn dot_floats(a: &[f32], b: &[f32]) -> f32 {
    let (mut even, mut odd) = (_mm256_setzero_ps(), _mm256_setzero_ps());
    for (a, b) in a.as_chunks::<{ 2 * FLOATS }>().0.iter().zip(b.as_chunks::<{ 2 * FLOATS }>().0) {
        let (a, b) = (a.as_chunks::<FLOATS>().0, b.as_chunks::<FLOATS>().0);
        even = _mm256_fmadd_ps(floats(&a[0]), floats(&b[0]), even);
        odd = _mm256_fmadd_ps(floats(&a[1]), floats(&b[1]), odd);
    }
    total(_mm256_add_ps(even, odd))
}

/// Dot product of floats with a bf16 row; the same holds.
#[target_feature(enable = "avx2,fma")]
#[inline]
pub(super) fn dot_mixed(query: &[f32], row: &[u16]) -> f32 {
    let (mut even, mut odd) = (_mm256_setzero_ps(), _mm256_setzero_ps());
    for (query, row) in query.as_chunks::<HALVES>().0.iter().zip(row.as_chunks::<HALVES>().0) {
        let (query, row) = (query.as_chunks::<FLOATS>().0, row.as_chunks::<FLOATS>().0);
        even = _mm256_fmadd_ps(floats(&query[0]), widened(&row[0]), even);
        odd = _mm256_fmadd_ps(floats(&query[1]), widened(&row[1]), odd);
    }
    total(_mm256_add_ps(even, odd))
}

/// The floats that halves 0, 2, 4, ... stand for.
#[target_feature(enable = "avx2")]
#[inline]
fn evens(halves: __m256i) -> __m256 {
    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(halves))
}

/// The floats that halves 1, 3, 5, ... stand for.
#[target_feature(enable = "avx2")]
#[inline]
fn odds(halves: __m256i) -> __m256 {
    _mm256_castsi256_ps(_mm256_and_si256(halves, _mm256_set1_epi32(0xFFFF_0000_u32.cast_signed())))
}

/// The floats that eight halves stand for.
#[target_feature(enable = "avx2")]
#[inline]
fn widened(halves: &[u16; FLOATS]) -> __m256 {
    #[expect(unsafe_code, reason = "loads a register")]
    // SAFETY: eight halves are 16 bytes, which an unaligned load may read.
    let halves: __m128i = unsafe { _mm_loadu_si128(halves.as_ptr().cast()) };
    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(halves)))
}

/// Loads sixteen halves.
#[target_feature(enable = "avx2")]
#[inline]
fn load(halves: &[u16; HALVES]) -> __m256i {
    #[expect(unsafe_code, reason = "loads a register")]
    // SAFETY: sixteen halves are 32 bytes, which an unaligned load may read.
    unsafe {
        _mm256_loadu_si256(halves.as_ptr().cast())
    }
}

/// Loads eight floats.
#[target_feature(enable = "avx2")]
#[inline]
fn floats(values: &[f32; FLOATS]) -> __m256 {
    #[expect(unsafe_code, reason = "loads a register")]
    // SAFETY: eight floats are 32 bytes, which an unaligned load may read.
    unsafe {
        _mm256_loadu_ps(values.as_ptr())
    }
}

/// The sum of a register's floats.
#[target_feature(enable = "avx2")]
#[inline]
fn total(sums: __m256) -> f32 {
    let mut lanes = [0.0f32; FLOATS];
    #[expect(unsafe_code, reason = "stores a register")]
    // SAFETY: eight floats are 32 bytes, which an unaligned store may write.
    unsafe {
        _mm256_storeu_ps(lanes.as_mut_ptr(), sums);
    }
    let [a, b, c, d, e, f, g, h] = lanes;
    ((a + e) + (b + f)) + ((c + g) + (d + h))
}
