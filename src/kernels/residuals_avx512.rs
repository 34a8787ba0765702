//! Dot products of one row's codes with one anchor's, for AVX-512.

use std::arch::x86_64::{
    _mm512_dpbusd_epi32, _mm512_load_si512, _mm512_loadu_si512, _mm512_maskz_loadu_epi8, _mm512_reduce_add_epi32,
    _mm512_setzero_si512,
};

use super::coded::{GROUP, Group};

/// Dot product of the signed codes in `groups` with the unsigned `codes`, of which there is a group for each begun 64.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
#[inline]
pub(super) fn dot(groups: &[Group], codes: &[u8]) -> i32 {
    assert!(groups.len() == codes.len().div_ceil(GROUP), "a group for each begun 64 codes");
    let mut sum = _mm512_setzero_si512();
    for (group, codes) in groups.iter().zip(codes.chunks(GROUP)) {
        #[expect(unsafe_code, reason = "loads of a register, or of the part of one that is left of the row")]
        // SAFETY: a Group is 64 bytes aligned to 64; a whole chunk is 64 bytes, and of a shorter one the masked load touches
        // its own bytes only.
        let (anchor, row) = unsafe {
            let anchor = _mm512_load_si512(group.0.as_ptr().cast());
            let row = match codes.len() {
                GROUP => _mm512_loadu_si512(codes.as_ptr().cast()),
                rest => _mm512_maskz_loadu_epi8((1u64 << rest) - 1, codes.as_ptr().cast()),
            };
            (anchor, row)
        };
        sum = _mm512_dpbusd_epi32(sum, row, anchor);
    }
    _mm512_reduce_add_epi32(sum)
}
