//! The tile over codes, for AVX2, which adds up products of unsigned and signed bytes in pairs of sixteen bits.

use std::arch::x86_64::{
    __m256i, _CMP_GE_OQ, _CMP_LE_OQ, _mm256_add_epi32, _mm256_add_ps, _mm256_and_ps, _mm256_castsi256_ps, _mm256_cmp_ps,
    _mm256_cmpeq_epi32, _mm256_cvtepi32_ps, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maddubs_epi16,
    _mm256_movemask_ps, _mm256_mul_ps, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_si256,
    _mm256_storeu_si256, _mm256_sub_ps,
};

use super::LANES;
use super::coded::{Barred, CodedBounds, CodedHit, CodedHits, CodedRows, DEPTH, GROUP, Group};
use super::prefetch::prefetch;

/// Rows at a time: 5 rows x 2 registers of sums, 2 of anchors' codes, a row's, the ones and two products make 16 registers.
const BLOCK: usize = 5;

/// Rows asked for before they are read, where reading is all that takes time.
const AHEAD: usize = 16;

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
    barred: Barred<'_>,
    hits: &mut CodedHits,
) {
    let stride = groups.len() / starts.len() * DEPTH;
    for (panel, groups) in groups.chunks_exact(stride / DEPTH).enumerate() {
        let of = Panel { groups, start: &starts[panel], bounds: &bounds[panel], barred, number: panel };
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
    barred: Barred<'a>,
    number: usize,
}

impl Panel<'_> {
    /// R rows, the first of which is number `first` of `all`.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn rows<const R: usize>(&self, codes: &[u8], first: usize, all: CodedRows<'_>, hits: &mut CodedHits) {
        let sums = self.sums::<R>(codes);
        for (row, sums) in (first..).zip(&sums) {
            let mut lanes = self.takes(0, sums[0], all, row) | self.takes(1, sums[1], all, row) << HALF;
            if lanes == 0 {
                continue;
            }
            if let Some(&class) = self.barred.rows.get(row) {
                let own = lanes & lanes_of(class, &self.barred.anchors[self.number]);
                hits.barred += u64::from(own.count_ones());
                lanes &= !own;
            }
            let mut stored = [0i32; LANES];
            let (low, high) = stored.split_at_mut(HALF);
            store(sums[0], low);
            store(sums[1], high);
            while lanes != 0 {
                let lane = lanes.trailing_zeros() as usize;
                hits.push(CodedHit { row: row as u32, anchor: (self.number * LANES + lane) as u32, sum: stored[lane] });
                lanes &= lanes - 1;
            }
        }
    }

    /// Dot products of R rows with the sixteen lanes.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn sums<const R: usize>(&self, codes: &[u8]) -> [[__m256i; 2]; R] {
        let stride = self.groups.len() * DEPTH;
        assert!(codes.len() == R * stride, "whole rows of the panel's stride");
        let starts = self.start.as_chunks::<HALF>().0;
        let mut sums = [[load(&starts[0]), load(&starts[1])]; R];
        let ones = _mm256_set1_epi16(1);
        for (at, group) in self.groups.iter().enumerate() {
            let halves = group.0.as_chunks::<{ GROUP / 2 }>().0;
            let (low, high) = (load(&halves[0]), load(&halves[1]));
            for (row, sums) in sums.iter_mut().enumerate() {
                #[expect(unsafe_code, reason = "an index check here would cost as much as the arithmetic")]
                // SAFETY: row < R and at < groups.len(), so the four bytes end at row * stride + (at + 1) * DEPTH <= R * stride =
                // codes.len(), asserted above.
                let codes = unsafe { codes.as_ptr().add(row * stride + at * DEPTH).cast::<i32>().read_unaligned() };
                let codes = _mm256_set1_epi32(codes);
                // Pairs of products fit sixteen bits, since anchors' codes are at most 64 from zero.
                sums[0] = _mm256_add_epi32(sums[0], _mm256_madd_epi16(_mm256_maddubs_epi16(codes, low), ones));
                sums[1] = _mm256_add_epi32(sums[1], _mm256_madd_epi16(_mm256_maddubs_epi16(codes, high), ones));
            }
        }
        sums
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

/// Which of sixteen are of this class.
#[target_feature(enable = "avx2")]
#[inline]
fn lanes_of(class: u32, of: &[u32; LANES]) -> u32 {
    let (class, halves) = (_mm256_set1_epi32(class as i32), of.as_chunks::<HALF>().0);
    let equal = |half: &[u32; HALF]| _mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(load(half), class))) as u32;
    equal(&halves[0]) | equal(&halves[1]) << HALF
}

/// Anchors one by one, each of `groups.len() / count` groups, against rows.
#[target_feature(enable = "avx2")]
pub(super) fn scan_few(
    groups: &[Group],
    (count, stride): (usize, usize),
    starts: &[i32; LANES],
    rows: CodedRows<'_>,
    bounds: &CodedBounds,
    barred: Barred<'_>,
    hits: &mut CodedHits,
) {
    let of_row = stride.div_ceil(GROUP);
    for (row, codes) in rows.codes.chunks_exact(stride).enumerate() {
        prefetch(rows.codes.get((row + AHEAD) * stride..(row + AHEAD + 1) * stride).unwrap_or_default());
        for anchor in 0..count {
            let sum = starts[anchor].wrapping_add(dot(&groups[anchor * of_row..][..of_row], codes));
            if bounds.take(anchor, sum, rows.scales[row], rows.errors[row]) {
                match barred.bars(row, anchor) {
                    true => hits.barred += 1,
                    false => hits.push(CodedHit { row: row as u32, anchor: anchor as u32, sum }),
                }
            }
        }
    }
}

/// Dot product of the signed codes in `groups`, at most 64 from zero, with the unsigned `codes`, of which there is a group for each
/// begun 64.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn dot(groups: &[Group], codes: &[u8]) -> i32 {
    let ones = _mm256_set1_epi16(1);
    let mut sums = _mm256_setzero_si256();
    let (halves, rest) = codes.as_chunks::<{ GROUP / 2 }>();
    for (at, codes) in halves.iter().enumerate() {
        let anchor = &groups[at / 2].0.as_chunks::<{ GROUP / 2 }>().0[at % 2];
        sums = _mm256_add_epi32(sums, _mm256_madd_epi16(_mm256_maddubs_epi16(load(codes), load(anchor)), ones));
    }
    let mut lanes = [0i32; HALF];
    store(sums, &mut lanes);
    let mut sum = lanes.into_iter().fold(0, i32::wrapping_add);
    if let Some(anchor) = groups.get(halves.len() / 2) {
        for (&code, &of_anchor) in rest.iter().zip(&anchor.0[halves.len() % 2 * GROUP / 2..]) {
            sum = sum.wrapping_add(i32::from(code) * i32::from(of_anchor));
        }
    }
    sum
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
