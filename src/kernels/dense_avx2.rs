//! Exact scores of sixteen anchors at a time, for AVX2.

use std::arch::x86_64::{
    __m256, _mm256_add_ps, _mm256_broadcast_ss, _mm256_load_ps, _mm256_mul_ps, _mm256_setzero_ps, _mm256_storeu_ps,
    _mm256_sub_ps,
};

use super::LANES;
use super::tile::LaneGroup;

/// Rows at a time: 6 rows x 2 registers of sums leave 4 of 16 registers for the anchors and the row.
const BLOCK: usize = 6;

/// The sums that scores are made of, bit for bit: multiplications and additions round separately, dimension d is added to partial sum d mod
/// 16, and these are added as a balanced tree.
#[target_feature(enable = "avx2")]
pub(super) fn sums<const L2: bool>(lanes: &[LaneGroup], rows: &[f32], sums: &mut [[f32; LANES]]) {
    let stride = lanes.len();
    let mut blocks = rows.chunks_exact(stride * BLOCK);
    let mut of_blocks = sums.chunks_exact_mut(BLOCK);
    for (block, sums) in (&mut blocks).zip(&mut of_blocks) {
        sums_of::<BLOCK, L2>(lanes, block, sums);
    }
    for (row, sum) in blocks.remainder().chunks_exact(stride).zip(of_blocks.into_remainder().chunks_exact_mut(1)) {
        sums_of::<1, L2>(lanes, row, sum);
    }
}

/// Of R rows, one of the sixteen partial sums of each after the other.
#[target_feature(enable = "avx2")]
#[inline]
fn sums_of<const R: usize, const L2: bool>(lanes: &[LaneGroup], rows: &[f32], sums: &mut [[f32; LANES]]) {
    let stride = lanes.len();
    assert!(rows.len() == R * stride && sums.len() == R && stride.is_multiple_of(LANES), "whole rows of whole lane groups");
    let mut parts = [[[_mm256_setzero_ps(); 2]; R]; LANES];
    for (first, part) in parts.iter_mut().enumerate() {
        for at in (first..stride).step_by(LANES) {
            let (low, high) = load(&lanes[at]);
            for (row, sum) in part.iter_mut().enumerate() {
                #[expect(unsafe_code, reason = "an index check here would cost as much as the arithmetic")]
                // SAFETY: row < R and at < stride, so row * stride + at < R * stride = rows.len(), asserted above.
                let x = _mm256_broadcast_ss(unsafe { rows.get_unchecked(row * stride + at) });
                sum[0] = _mm256_add_ps(sum[0], term::<L2>(low, x));
                sum[1] = _mm256_add_ps(sum[1], term::<L2>(high, x));
            }
        }
    }
    let mut width = LANES / 2;
    while width > 0 {
        let (near, far) = parts.split_at_mut(width);
        for (near, far) in near.iter_mut().zip(far) {
            for (near, far) in near.iter_mut().zip(far) {
                *near = [_mm256_add_ps(near[0], far[0]), _mm256_add_ps(near[1], far[1])];
            }
        }
        width /= 2;
    }
    for (sums, [low, high]) in sums.iter_mut().zip(parts[0]) {
        store(low, high, sums);
    }
}

#[target_feature(enable = "avx2")]
#[inline]
fn term<const L2: bool>(anchors: __m256, x: __m256) -> __m256 {
    if L2 {
        let rest = _mm256_sub_ps(anchors, x);
        _mm256_mul_ps(rest, rest)
    } else {
        _mm256_mul_ps(anchors, x)
    }
}

#[target_feature(enable = "avx2")]
#[inline]
fn load(lanes: &LaneGroup) -> (__m256, __m256) {
    #[expect(unsafe_code, reason = "aligned loads of a lane group")]
    // SAFETY: a LaneGroup is 16 floats aligned to 64 bytes, so floats 0-7 and 8-15 are two aligned registers.
    unsafe {
        (_mm256_load_ps(lanes.0.as_ptr()), _mm256_load_ps(lanes.0.as_ptr().add(8)))
    }
}

#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn store(low: __m256, high: __m256, lanes: &mut [f32; LANES]) {
    #[expect(unsafe_code, reason = "unaligned stores of sixteen floats")]
    // SAFETY: there is room for sixteen floats, two registers.
    unsafe {
        _mm256_storeu_ps(lanes.as_mut_ptr(), low);
        _mm256_storeu_ps(lanes.as_mut_ptr().add(8), high);
    }
}
