//! The tile over codes, for AVX-512.

use std::arch::x86_64::{
    __m512i, __mmask16, _CMP_GE_OQ, _CMP_LE_OQ, _mm512_add_epi32, _mm512_add_ps, _mm512_cmp_ps_mask, _mm512_cmpeq_epi32_mask,
    _mm512_cvtepi32_ps, _mm512_dpbusd_epi32, _mm512_load_si512, _mm512_loadu_ps, _mm512_loadu_si512,
    _mm512_maskz_compress_epi32, _mm512_maskz_loadu_epi8, _mm512_mul_ps, _mm512_set1_epi32, _mm512_set1_ps,
    _mm512_setzero_si512, _mm512_shuffle_i32x4, _mm512_storeu_si512, _mm512_sub_ps, _mm512_unpackhi_epi32,
    _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};

use super::LANES;
use super::coded::{Barred, CodedBounds, CodedHits, CodedRows, DEPTH, GROUP, Group};
use super::prefetch::prefetch;

/// Rows asked for before they are read, where reading is all that takes time.
const AHEAD: usize = 2 * LANES;

/// Panels of sixteen anchors against rows, a lane an anchor. `starts` has one for each panel, and each panel `stride / DEPTH`
/// groups.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) fn scan_panels(
    groups: &[Group],
    starts: &[[i32; LANES]],
    rows: CodedRows<'_>,
    bounds: &[CodedBounds],
    barred: Barred<'_>,
    hits: &mut CodedHits,
) {
    let depth = groups.len() / starts.len();
    let stride = depth * DEPTH;
    // As many sums as registers allow: 24 of 32, one for the row, and one for each panel's group.
    let mut first = 0;
    while first < starts.len() {
        let panels = match starts.len() - first {
            left @ 1..=4 => left,
            5 => 3,
            _ => 4,
        };
        let of = Panels {
            groups: &groups[first * depth..][..panels * depth],
            starts: &starts[first..][..panels],
            bounds: &bounds[first..][..panels],
            barred,
            first,
            stride,
        };
        match panels {
            1 => of.scan::<1, 12>(rows, hits),
            2 => of.scan::<2, 12>(rows, hits),
            3 => of.scan::<3, 8>(rows, hits),
            _ => of.scan::<4, 6>(rows, hits),
        }
        first += panels;
    }
}

struct Panels<'a> {
    groups: &'a [Group],
    starts: &'a [[i32; LANES]],
    bounds: &'a [CodedBounds],
    barred: Barred<'a>,
    /// Number of the first panel.
    first: usize,
    stride: usize,
}

impl Panels<'_> {
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    #[inline]
    fn scan<const P: usize, const R: usize>(&self, rows: CodedRows<'_>, hits: &mut CodedHits) {
        let ceiled = self.bounds.iter().any(CodedBounds::is_ceiled);
        let mut at = 0;
        let mut blocks = rows.codes.chunks_exact(self.stride * R);
        for block in &mut blocks {
            let sums = self.sums::<P, R>(block);
            self.report(&sums, at, ceiled, rows, hits);
            at += R;
        }
        for row in blocks.remainder().chunks_exact(self.stride) {
            let sums = self.sums::<P, 1>(row);
            self.report(&sums, at, ceiled, rows, hits);
            at += 1;
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    #[inline]
    fn sums<const P: usize, const R: usize>(&self, rows: &[u8]) -> [[__m512i; P]; R] {
        let depth = self.stride / DEPTH;
        assert!(rows.len() == R * self.stride && self.groups.len() == P * depth, "whole rows and whole panels");
        let mut sums = [[_mm512_setzero_si512(); P]; R];
        for panel in 0..P {
            let start = load(&self.starts[panel]);
            sums.iter_mut().for_each(|sums| sums[panel] = start);
        }
        for at in 0..depth {
            let mut anchors = [_mm512_setzero_si512(); P];
            for (panel, anchors) in anchors.iter_mut().enumerate() {
                #[expect(unsafe_code, reason = "an index check here would cost as much as the arithmetic")]
                // SAFETY: panel < P and at < depth, so the index is below P * depth = groups.len(), asserted above; a Group is
                // 64 bytes aligned to 64.
                let group = unsafe { _mm512_load_si512(self.groups.as_ptr().add(panel * depth + at).cast()) };
                *anchors = group;
            }
            for (row, sums) in sums.iter_mut().enumerate() {
                #[expect(unsafe_code, reason = "an index check here would cost as much as the arithmetic")]
                // SAFETY: row < R and at < depth, so the four bytes end at row * stride + (at + 1) * DEPTH <= R * stride =
                // rows.len(), asserted above.
                let codes = unsafe { rows.as_ptr().add(row * self.stride + at * DEPTH).cast::<i32>().read_unaligned() };
                let codes = _mm512_set1_epi32(codes);
                for (sum, &anchors) in sums.iter_mut().zip(&anchors) {
                    *sum = _mm512_dpbusd_epi32(*sum, codes, anchors);
                }
            }
        }
        sums
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    #[inline]
    fn report<const P: usize, const R: usize>(
        &self,
        sums: &[[__m512i; P]; R],
        first: usize,
        ceiled: bool,
        rows: CodedRows<'_>,
        hits: &mut CodedHits,
    ) {
        let (scales, errors) = (&rows.scales[first..][..R], &rows.errors[first..][..R]);
        let mut masks = [[0; P]; R];
        let mut any = 0;
        for panel in 0..P {
            let bounds = &self.bounds[panel];
            let (reach, low, high) = (loads(&bounds.reach), loads(&bounds.low), loads(&bounds.high));
            for row in 0..R {
                let middle = _mm512_mul_ps(_mm512_cvtepi32_ps(sums[row][panel]), _mm512_set1_ps(scales[row]));
                let spread = _mm512_mul_ps(_mm512_set1_ps(errors[row]), reach);
                let mut mask: __mmask16 = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(_mm512_add_ps(middle, spread), low);
                if ceiled {
                    mask &= _mm512_cmp_ps_mask::<_CMP_LE_OQ>(_mm512_sub_ps(middle, spread), high);
                }
                masks[row][panel] = mask;
                any |= mask;
            }
        }
        if any != 0 {
            let mut to = Appending::new(hits, R * P);
            for row in 0..R {
                if let Some(&class) = self.barred.rows.get(first + row) {
                    for (mask, anchors) in masks[row].iter_mut().zip(&self.barred.anchors[self.first..]) {
                        let own = *mask & lanes_of(class, anchors);
                        to.hits.barred += u64::from(own.count_ones());
                        *mask &= !own;
                    }
                }
                let number = _mm512_set1_epi32((first + row) as i32);
                for panel in 0..P {
                    if masks[row][panel] != 0 {
                        let anchors = numbers_from((self.first + panel) * LANES);
                        to.append(masks[row][panel], number, anchors, sums[row][panel]);
                    }
                }
            }
        }
    }
}

/// Anchors one by one, each of `groups.len() / count` groups, against sixteen rows at a time, a lane a row; returns how many rows it has
/// scanned.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) fn scan_few(
    groups: &[Group],
    (count, stride): (usize, usize),
    starts: &[i32; LANES],
    rows: CodedRows<'_>,
    bounds: &CodedBounds,
    barred: Barred<'_>,
    hits: &mut CodedHits,
) -> usize {
    let of_row = stride.div_ceil(GROUP);
    let mut at = 0;
    for block in rows.codes.chunks_exact(LANES * stride) {
        let (Some(scales), Some(errors)) = (rows.scales[at..].first_chunk(), rows.errors[at..].first_chunk()) else { break };
        let (scales, errors) = (loads(scales), loads(errors));
        prefetch(rows.codes.get((at + AHEAD) * stride..(at + AHEAD + LANES) * stride).unwrap_or_default());
        for anchor in 0..count {
            let sums = sums_of_rows(&groups[anchor * of_row..][..of_row], stride, block);
            let sums = _mm512_add_epi32(sums, _mm512_set1_epi32(starts[anchor]));
            let middle = _mm512_mul_ps(_mm512_cvtepi32_ps(sums), scales);
            let spread = _mm512_mul_ps(errors, _mm512_set1_ps(bounds.reach[anchor]));
            let low = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(_mm512_add_ps(middle, spread), _mm512_set1_ps(bounds.low[anchor]));
            let high = _mm512_cmp_ps_mask::<_CMP_LE_OQ>(_mm512_sub_ps(middle, spread), _mm512_set1_ps(bounds.high[anchor]));
            let mut mask = low & high;
            if mask == 0 {
                continue;
            }
            if let Some(classes) = barred.rows.get(at..).and_then(<[u32]>::first_chunk) {
                let own = mask & lanes_of(barred.anchors[0][anchor], classes);
                hits.barred += u64::from(own.count_ones());
                mask &= !own;
            }
            Appending::new(hits, 1).append(mask, numbers_from(at), _mm512_set1_epi32(anchor as i32), sums);
        }
        at += LANES;
    }
    at
}

/// Dot products of one anchor with sixteen rows.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
#[inline]
fn sums_of_rows(anchor: &[Group], stride: usize, rows: &[u8]) -> __m512i {
    assert!(rows.len() == LANES * stride && anchor.len() == stride.div_ceil(GROUP), "sixteen rows of the anchor's length");
    let whole = stride / GROUP;
    let rest = (1u64 << (stride % GROUP)) - 1;
    let mut sums = [_mm512_setzero_si512(); LANES];
    for (row, sum) in sums.iter_mut().enumerate() {
        for (at, group) in anchor.iter().enumerate() {
            #[expect(unsafe_code, reason = "loads of a register, or of the part of one that is left of the row")]
            // SAFETY: row < LANES and at <= whole, so what is loaded lies within the row, and so within rows.len(), asserted
            // above; the masked load touches the stride % GROUP bytes that are left only.
            let codes = unsafe {
                let start = rows.as_ptr().add(row * stride + at * GROUP).cast();
                if at < whole { _mm512_loadu_si512(start) } else { _mm512_maskz_loadu_epi8(rest, start.cast()) }
            };
            *sum = _mm512_dpbusd_epi32(*sum, codes, load(&group.0));
        }
    }
    added_up(&sums)
}

/// Lane l of the result is the sum of the lanes of register l: three rounds of adding halves of two registers crosswise.
#[target_feature(enable = "avx512f")]
#[inline]
fn added_up(sums: &[__m512i; LANES]) -> __m512i {
    let fours: [__m512i; 4] = std::array::from_fn(|four| {
        let pair = |a: __m512i, b: __m512i| _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
        let (low, high) = (pair(sums[4 * four], sums[4 * four + 1]), pair(sums[4 * four + 2], sums[4 * four + 3]));
        _mm512_add_epi32(_mm512_unpacklo_epi64(low, high), _mm512_unpackhi_epi64(low, high))
    });
    // Each 128-bit part of fours[i] holds parts of the sums 4i..4i+4.
    let halves =
        |a: __m512i, b: __m512i| _mm512_add_epi32(_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0xDD>(a, b));
    halves(halves(fours[0], fours[1]), halves(fours[2], fours[3]))
}

/// Hits with room for more.
struct Appending<'h> {
    hits: &'h mut CodedHits,
    /// Registers for which there is room.
    room: usize,
}

impl<'h> Appending<'h> {
    fn new(hits: &'h mut CodedHits, room: usize) -> Self {
        hits.rows.reserve(room * LANES);
        hits.anchors.reserve(room * LANES);
        hits.sums.reserve(room * LANES);
        Self { hits, room }
    }

    /// Appends the lanes of `mask`.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn append(&mut self, mask: __mmask16, rows: __m512i, anchors: __m512i, sums: __m512i) {
        assert!(self.room > 0, "room was made");
        self.room -= 1;
        let more = mask.count_ones() as usize;
        let CodedHits { rows: to_rows, anchors: to_anchors, sums: to_sums, barred: _ } = &mut *self.hits;
        #[expect(unsafe_code, reason = "stores whole registers into spare room, of which the first lanes are kept")]
        // SAFETY: each vector had room for `room` registers when this was made, each append takes at most one and takes one from
        // `room`, which is not below zero; `more` lanes of the register just stored are initialised.
        unsafe {
            let end = |len: usize, start: *mut u8| start.add(len * size_of::<u32>()).cast();
            _mm512_storeu_si512(end(to_rows.len(), to_rows.as_mut_ptr().cast()), _mm512_maskz_compress_epi32(mask, rows));
            _mm512_storeu_si512(
                end(to_anchors.len(), to_anchors.as_mut_ptr().cast()),
                _mm512_maskz_compress_epi32(mask, anchors),
            );
            _mm512_storeu_si512(end(to_sums.len(), to_sums.as_mut_ptr().cast()), _mm512_maskz_compress_epi32(mask, sums));
            to_rows.set_len(to_rows.len() + more);
            to_anchors.set_len(to_anchors.len() + more);
            to_sums.set_len(to_sums.len() + more);
        }
    }
}

/// Which of sixteen are of this class.
#[target_feature(enable = "avx512f")]
#[inline]
fn lanes_of(class: u32, of: &[u32; LANES]) -> __mmask16 {
    _mm512_cmpeq_epi32_mask(load(of), _mm512_set1_epi32(class as i32))
}

/// `first` in lane 0, and so on.
#[target_feature(enable = "avx512f")]
#[inline]
fn numbers_from(first: usize) -> __m512i {
    const LANE: [i32; LANES] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
    _mm512_add_epi32(_mm512_set1_epi32(first as i32), load(&LANE))
}

/// Loads 64 bytes.
#[target_feature(enable = "avx512f")]
#[inline]
fn load<T: bytemuck::Pod, const N: usize>(values: &[T; N]) -> __m512i {
    const { assert!(size_of::<[T; N]>() == 64, "a register") };
    #[expect(unsafe_code, reason = "loads a register")]
    // SAFETY: the array is 64 bytes, checked above.
    unsafe {
        _mm512_loadu_si512(values.as_ptr().cast())
    }
}

/// Loads sixteen floats.
#[target_feature(enable = "avx512f")]
#[inline]
fn loads(values: &[f32; LANES]) -> std::arch::x86_64::__m512 {
    #[expect(unsafe_code, reason = "loads a register")]
    // SAFETY: sixteen floats are 64 bytes.
    unsafe {
        _mm512_loadu_ps(values.as_ptr())
    }
}
