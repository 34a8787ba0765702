//! The tile over floats, for AVX-512.

use std::arch::x86_64::{
    __m512, _CMP_GE_OQ, _CMP_LE_OQ, _mm512_cmp_ps_mask, _mm512_fmadd_ps, _mm512_fnmadd_ps, _mm512_loadu_ps,
    _mm512_mask_cmp_ps_mask, _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps, _mm512_sub_ps,
};

use super::LANES;
use super::tile::{Bounds, Hit, LaneGroup};

/// Rows at a time: enough sums to hide the latency of an addition, and registers left for the anchors and the row.
const BLOCK: usize = 12;

#[target_feature(enable = "avx512f")]
pub(super) fn scan<const L2: bool>(lanes: &[LaneGroup], rows: &[f32], bounds: &Bounds, hits: &mut Vec<Hit>) {
    let stride = lanes.len();
    let mut at = 0;
    let mut blocks = rows.chunks_exact(stride * BLOCK);
    for block in &mut blocks {
        report(&sums_of::<BLOCK, L2>(lanes, block), at, bounds, hits);
        at += BLOCK as u32;
    }
    for row in blocks.remainder().chunks_exact(stride) {
        report(&sums_of::<1, L2>(lanes, row), at, bounds, hits);
        at += 1;
    }
}

/// The scores of whole rows against the sixteen lanes.
#[target_feature(enable = "avx512f")]
pub(super) fn sums<const L2: bool>(lanes: &[LaneGroup], rows: &[f32], sums: &mut [[f32; LANES]]) {
    let stride = lanes.len();
    let mut blocks = rows.chunks_exact(stride * BLOCK);
    let mut of_blocks = sums.chunks_exact_mut(BLOCK);
    for (block, to) in (&mut blocks).zip(&mut of_blocks) {
        let sums = sums_of::<BLOCK, L2>(lanes, block);
        sums.into_iter().zip(to).for_each(|(sum, to)| store(sum, to));
    }
    for (row, to) in blocks.remainder().chunks_exact(stride).zip(of_blocks.into_remainder()) {
        let [sum] = sums_of::<1, L2>(lanes, row);
        store(sum, to);
    }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn store(sum: __m512, to: &mut [f32; LANES]) {
    #[expect(unsafe_code, reason = "stores a register")]
    // SAFETY: sixteen floats are 64 bytes.
    unsafe {
        _mm512_storeu_ps(to.as_mut_ptr(), sum);
    }
}

/// Scores of R rows against the sixteen lanes.
#[target_feature(enable = "avx512f")]
#[inline]
fn sums_of<const R: usize, const L2: bool>(lanes: &[LaneGroup], rows: &[f32]) -> [__m512; R] {
    let stride = lanes.len();
    assert!(rows.len() == R * stride, "whole rows of the panel's stride");
    let mut sums = [_mm512_setzero_ps(); R];
    for (at, group) in lanes.iter().enumerate() {
        let anchors = load(&group.0);
        for (row, sum) in sums.iter_mut().enumerate() {
            #[expect(unsafe_code, reason = "an index check here would cost as much as the arithmetic")]
            // SAFETY: row < R and at < stride, so row * stride + at < R * stride = rows.len(), asserted above.
            let x = _mm512_set1_ps(*unsafe { rows.get_unchecked(row * stride + at) });
            *sum = if L2 {
                let rest = _mm512_sub_ps(x, anchors);
                _mm512_fnmadd_ps(rest, rest, *sum)
            } else {
                _mm512_fmadd_ps(x, anchors, *sum)
            };
        }
    }
    sums
}

#[target_feature(enable = "avx512f")]
#[inline]
fn report<const R: usize>(sums: &[__m512; R], first: u32, bounds: &Bounds, hits: &mut Vec<Hit>) {
    let (low, high) = (load(&bounds.low), load(&bounds.high));
    let lanes = sums.map(|sum| _mm512_mask_cmp_ps_mask::<_CMP_LE_OQ>(_mm512_cmp_ps_mask::<_CMP_GE_OQ>(sum, low), sum, high));
    for (row, &lanes) in (first..).zip(&lanes) {
        if lanes != 0 {
            hits.push(Hit { row, lanes });
        }
    }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn load(values: &[f32; LANES]) -> __m512 {
    #[expect(unsafe_code, reason = "loads a register")]
    // SAFETY: sixteen floats are 64 bytes.
    unsafe {
        _mm512_loadu_ps(values.as_ptr())
    }
}
