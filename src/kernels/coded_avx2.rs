//! The tile over codes, for AVX2: unsigned and signed bytes are widened and multiplied in pairs, the even and the odd ones.

use std::arch::x86_64::{
    __m256i, _CMP_GE_OQ, _CMP_LE_OQ, _mm256_add_epi32, _mm256_add_ps, _mm256_and_ps, _mm256_and_si256, _mm256_cmp_ps,
    _mm256_cvtepi32_ps, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_movemask_ps, _mm256_mul_ps,
    _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_si256, _mm256_slli_epi16, _mm256_srai_epi16,
    _mm256_srli_epi16, _mm256_storeu_si256, _mm256_sub_ps,
};

use super::LANES;
use super::coded::{CodedBounds, CodedHit, CodedHits, CodedRows, DEPTH, GROUP, Group};

/// Rows at a time: 4 rows x 2 registers of sums, 4 of anchors' codes and 2 of a row's leave 2 of 16 registers.
const BLOCK: usize = 4;

/// Lanes of a register.
const HALF: usize = LANES / 2;

/// Panels of sixteen anchors against rows, a lane an anchor. `starts` has one for each panel, and each panel `stride / DEPTH`
/// groups.
#[target_feature(enable = "avx2")]
pub(super) fn scan_panels(
    groups: &[Group],
    starts: &[[i32; LANES]],
    rows: CodedRows<'_>,
    bounds: &[CodedBounds],
    hits: &mut CodedHits,
) {
    let stride = groups.len() / starts.len() * DEPTH;
    for (panel, groups) in groups.chunks_exact(stride / DEPTH).enumerate() {
        let of = Panel { groups, start: &starts[panel], bounds: &bounds[panel], anchor: panel * LANES };
        let mut at = 0;
        let mut blocks = rows.codes.chunks_exact(stride * BLOCK);
        for block in &mut blocks {
            of.rows::<BLOCK>(block, at, rows, hits);
            at += BLOCK;
        }
        for row in blocks.remainder().chunks_exact(stride) {
            of.rows::<1>(row, at, rows, hits);
            at += 1;
        }
    }
}

struct Panel<'a> {
    groups: &'a [Group],
    start: &'a [i32; LANES],
    bounds: &'a CodedBounds,
    /// Number of the first anchor.
    anchor: usize,
}

impl Panel<'_> {
    /// R rows, the first of which is number `first` of `all`.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn rows<const R: usize>(&self, codes: &[u8], first: usize, all: CodedRows<'_>, hits: &mut CodedHits) {
        let mut sums = [[_mm256_setzero_si256(); 2]; R];
        for half in 0..2 {
            let start = load(&self.start.as_chunks::<HALF>().0[half]);
            sums.iter_mut().for_each(|sums| sums[half] = start);
        }
        let (stride, low_bytes) = (self.groups.len() * DEPTH, _mm256_set1_epi16(0xFF));
        for (at, group) in self.groups.iter().enumerate() {
            let halves = group.0.as_chunks::<{ GROUP / 2 }>().0;
            let anchors = [load(&halves[0]), load(&halves[1])];
            let even = anchors.map(|codes| _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(codes)));
            let odd = anchors.map(|codes| _mm256_srai_epi16::<8>(codes));
            for (row, sums) in sums.iter_mut().enumerate() {
                let start = row * stride + at * DEPTH;
                let codes = codes[start..].first_chunk::<DEPTH>().map_or(0, |codes| i32::from_le_bytes(*codes));
                let codes = _mm256_set1_epi32(codes);
                let (row_even, row_odd) = (_mm256_and_si256(codes, low_bytes), _mm256_srli_epi16::<8>(codes));
                for half in 0..2 {
                    let even = _mm256_madd_epi16(row_even, even[half]);
                    let odd = _mm256_madd_epi16(row_odd, odd[half]);
                    sums[half] = _mm256_add_epi32(sums[half], _mm256_add_epi32(even, odd));
                }
            }
        }
        for (row, sums) in (first..).zip(&sums) {
            let mut lanes = self.takes(0, sums[0], all, row) | self.takes(1, sums[1], all, row) << HALF;
            if lanes == 0 {
                continue;
            }
            let mut stored = [0i32; LANES];
            let (low, high) = stored.split_at_mut(HALF);
            store(sums[0], low);
            store(sums[1], high);
            while lanes != 0 {
                let lane = lanes.trailing_zeros() as usize;
                hits.push(CodedHit { row: row as u32, anchor: (self.anchor + lane) as u32, sum: stored[lane] });
                lanes &= lanes - 1;
            }
        }
    }

    /// Which of eight lanes want to hear of a row.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn takes(&self, half: usize, sums: __m256i, rows: CodedRows<'_>, row: usize) -> u32 {
        let of = |values: &[f32; LANES]| {
            let values = &values.as_chunks::<HALF>().0[half];
            #[expect(unsafe_code, reason = "loads a register")]
            // SAFETY: eight floats are 32 bytes.
            unsafe {
                _mm256_loadu_ps(values.as_ptr())
            }
        };
        let middle = _mm256_mul_ps(_mm256_cvtepi32_ps(sums), _mm256_set1_ps(rows.scales[row]));
        let spread = _mm256_mul_ps(_mm256_set1_ps(rows.errors[row]), of(&self.bounds.reach));
        let low = _mm256_cmp_ps::<_CMP_GE_OQ>(_mm256_add_ps(middle, spread), of(&self.bounds.low));
        let high = _mm256_cmp_ps::<_CMP_LE_OQ>(_mm256_sub_ps(middle, spread), of(&self.bounds.high));
        _mm256_movemask_ps(_mm256_and_ps(low, high)) as u32
    }
}

/// Loads 32 bytes.
#[target_feature(enable = "avx2")]
#[inline]
fn load<T: bytemuck::Pod, const N: usize>(values: &[T; N]) -> __m256i {
    const { assert!(size_of::<[T; N]>() == 32, "a register") };
    #[expect(unsafe_code, reason = "loads a register")]
    // SAFETY: the array is 32 bytes, checked above.
    unsafe {
        _mm256_loadu_si256(values.as_ptr().cast())
    }
}

#[target_feature(enable = "avx2")]
#[inline]
fn store(sums: __m256i, to: &mut [i32]) {
    assert!(to.len() >= HALF, "room for eight sums");
    #[expect(unsafe_code, reason = "stores a register")]
    // SAFETY: eight i32 are 32 bytes, asserted above.
    unsafe {
        _mm256_storeu_si256(to.as_mut_ptr().cast(), sums);
    }
}
