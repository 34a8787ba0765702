//! What anchors lost when they became codes, as codes once more: a second, much finer look at the rows that pass the first.

use super::coded::{CodedHits, CodedRows, GROUP, Group};
use super::quantise::{HALF_STEPS, ZERO, quantise_to};
#[cfg(target_arch = "x86_64")]
use super::{coded_avx2, residuals_avx512};

/// Anchors' residuals, one after the other, each padded to whole groups.
#[derive(Debug, Clone)]
pub(super) struct Residuals {
    /// Largest code from zero.
    steps: f32,
    stride: usize,
    of_row: usize,
    groups: Vec<Group>,
    /// What each sum starts from, since rows are stored with an offset.
    starts: Vec<i32>,
    /// Scale of the residual's codes in steps of the anchor's.
    ratios: Vec<f32>,
}

impl Residuals {
    /// None yet, of rows of `stride` codes; `steps` as in [`super::quantise::quantise_to`].
    pub(super) fn new(steps: f32, stride: usize, anchors: usize) -> Self {
        let of_row = stride.div_ceil(GROUP);
        let groups = Vec::with_capacity(anchors * of_row);
        Self { steps, stride, of_row, groups, starts: Vec::with_capacity(anchors), ratios: Vec::with_capacity(anchors) }
    }

    /// True if pairs of products with rows' codes fit sixteen bits.
    pub(super) fn fits_sixteen_bits(&self) -> bool {
        self.steps <= HALF_STEPS
    }

    /// Adds what `codes`, read by `scale`, lack of `anchor` and returns what is then still lacking: at most this norm.
    ///
    /// The residual is computed in f64 and rounded to f32, which loses at most 2^-24 of its norm; the rest is the quantiser's error.
    pub(super) fn push(&mut self, anchor: &[f32], codes: &[u8], scale: f32) -> f64 {
        let lacks = |(&x, &code): (&f32, &u8)| (f64::from(x) - f64::from(scale) * (f64::from(code) - f64::from(ZERO))) as f32;
        let residual: Vec<f32> = anchor.iter().zip(codes).map(lacks).collect();
        let mut finer = vec![ZERO; residual.len()];
        let read = quantise_to(self.steps, &residual, &mut finer);
        let first = self.groups.len();
        self.groups.resize(first + self.of_row, Group([0; GROUP]));
        let mut sum = 0;
        for (at, code) in finer.iter().map(|code| (code ^ ZERO) as i8).enumerate() {
            sum += i32::from(code);
            self.groups[first + at / GROUP].0[at % GROUP] = code;
        }
        self.starts.push(-i32::from(ZERO) * sum);
        self.ratios.push(read.scale / scale);
        f64::from(read.error) + super::momentum::norm(&residual) * 2f64.powi(-24)
    }

    /// What each hit's sum lacks, in its own units.
    pub(super) fn of(&self, hits: &CodedHits, rows: CodedRows<'_>, lacking: &mut Vec<f32>) {
        lacking.clear();
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected;
            if is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("avx512bw") {
                #[expect(unsafe_code, reason = "calls a function compiled for AVX-512")]
                // SAFETY: AVX-512F (which the others imply), BW and VNNI were detected on this CPU just above.
                unsafe {
                    self.of_avx512(hits, rows, lacking);
                }
                return;
            }
            if self.fits_sixteen_bits() && is_x86_feature_detected!("avx2") {
                #[expect(unsafe_code, reason = "calls a function compiled for AVX2")]
                // SAFETY: AVX2 was detected on this CPU just above.
                unsafe {
                    self.of_avx2(hits, rows, lacking);
                }
                return;
            }
        }
        self.of_each(hits, rows, lacking, dot_portable);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    fn of_avx512(&self, hits: &CodedHits, rows: CodedRows<'_>, lacking: &mut Vec<f32>) {
        self.of_each(hits, rows, lacking, |groups, codes| residuals_avx512::dot(groups, codes));
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn of_avx2(&self, hits: &CodedHits, rows: CodedRows<'_>, lacking: &mut Vec<f32>) {
        self.of_each(hits, rows, lacking, |groups, codes| coded_avx2::dot(groups, codes));
    }

    #[inline(always)]
    fn of_each(&self, hits: &CodedHits, rows: CodedRows<'_>, lacking: &mut Vec<f32>, dot: impl Fn(&[Group], &[u8]) -> i32) {
        lacking.extend(hits.iter().map(|hit| {
            let anchor = hit.anchor as usize;
            let codes = &rows.codes[hit.row as usize * self.stride..][..self.stride];
            let sum = dot(&self.groups[anchor * self.of_row..][..self.of_row], codes);
            self.starts[anchor].wrapping_add(sum) as f32 * self.ratios[anchor]
        }));
    }
}

/// Dot product of signed and unsigned codes.
#[inline(always)]
fn dot_portable(groups: &[Group], codes: &[u8]) -> i32 {
    let mut sum = 0i32;
    for (group, codes) in groups.iter().zip(codes.chunks(GROUP)) {
        for (&q, &c) in group.0.iter().zip(codes) {
            sum = sum.wrapping_add(i32::from(q) * i32::from(c));
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{GROUP, Group, dot_portable};

    proptest! {
        #[test]
        fn every_path_gives_the_same_sum(
            pairs in prop::collection::vec((any::<i8>(), any::<u8>()), 1..400),
            offset in 0usize..64,
        ) {
            let mut groups = vec![Group([0; GROUP]); pairs.len().div_ceil(GROUP)];
            let mut codes = vec![0xA5; offset];
            for (at, &(q, c)) in pairs.iter().enumerate() {
                groups[at / GROUP].0[at % GROUP] = q;
                codes.push(c);
            }
            let sum: i32 = pairs.iter().map(|&(q, c)| i32::from(q) * i32::from(c)).sum();
            prop_assert_eq!(dot_portable(&groups, &codes[offset..]), sum);
            #[cfg(target_arch = "x86_64")]
            if std::arch::is_x86_feature_detected!("avx2") {
                let halved: Vec<Group> = groups.iter().map(|group| Group(group.0.map(|code| code / 2))).collect();
                #[expect(unsafe_code, reason = "calls a function compiled for AVX2")]
                // SAFETY: AVX2 was detected on this CPU just above.
                let narrower = unsafe { super::coded_avx2::dot(&halved, &codes[offset..]) };
                prop_assert_eq!(narrower, dot_portable(&halved, &codes[offset..]));
            }
            #[cfg(target_arch = "x86_64")]
            if std::arch::is_x86_feature_detected!("avx512vnni") && std::arch::is_x86_feature_detected!("avx512bw") {
                #[expect(unsafe_code, reason = "calls a function compiled for AVX-512")]
                // SAFETY: the features were detected on this CPU just above.
                let wide = unsafe { super::residuals_avx512::dot(&groups, &codes[offset..]) };
                prop_assert_eq!(wide, sum);
            }
        }
    }
}
