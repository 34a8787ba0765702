//! What anchors lost when they became codes, as codes once more: a second, 127 times finer look at the rows that pass the first.

use super::coded::{CodedHit, CodedRows, GROUP, Group};
use super::quantise::{ZERO, quantise};
#[cfg(target_arch = "x86_64")]
use super::residuals_avx512;

/// Anchors' residuals, one after the other, each padded to whole groups.
#[derive(Debug, Clone)]
pub(super) struct Residuals {
    stride: usize,
    of_row: usize,
    groups: Vec<Group>,
    /// What each sum starts from, since rows are stored with an offset.
    starts: Vec<i32>,
    /// Scale of the residual's codes in steps of the anchor's.
    ratios: Vec<f32>,
}

impl Residuals {
    /// None yet, of rows of `stride` codes.
    pub(super) fn new(stride: usize, anchors: usize) -> Self {
        let of_row = stride.div_ceil(GROUP);
        let groups = Vec::with_capacity(anchors * of_row);
        Self { stride, of_row, groups, starts: Vec::with_capacity(anchors), ratios: Vec::with_capacity(anchors) }
    }

    /// Adds what `codes`, read by `scale`, lack of `anchor` and returns what is then still lacking: at most this norm.
    ///
    /// The residual is computed in f64 and rounded to f32, which loses at most 2^-24 of its norm; the rest is the quantiser's error.
    pub(super) fn push(&mut self, anchor: &[f32], codes: &[u8], scale: f32) -> f64 {
        let lacks = |(&x, &code): (&f32, &u8)| (f64::from(x) - f64::from(scale) * (f64::from(code) - f64::from(ZERO))) as f32;
        let residual: Vec<f32> = anchor.iter().zip(codes).map(lacks).collect();
        let mut finer = vec![ZERO; residual.len()];
        let read = quantise(&residual, &mut finer);
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

    /// What the hit's sum lacks, in its own units.
    pub(super) fn of(&self, hit: CodedHit, rows: CodedRows<'_>) -> f32 {
        let anchor = hit.anchor as usize;
        let codes = &rows.codes[hit.row as usize * self.stride..][..self.stride];
        self.sum(anchor, codes) as f32 * self.ratios[anchor]
    }

    fn sum(&self, anchor: usize, codes: &[u8]) -> i32 {
        let groups = &self.groups[anchor * self.of_row..][..self.of_row];
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx512vnni") && std::arch::is_x86_feature_detected!("avx512bw") {
            #[expect(unsafe_code, reason = "calls a function compiled for AVX-512")]
            // SAFETY: AVX-512F (which the others imply), BW and VNNI were detected on this CPU just above.
            let sum = unsafe { residuals_avx512::dot(groups, codes) };
            return self.starts[anchor].wrapping_add(sum);
        }
        self.starts[anchor].wrapping_add(dot_portable(groups, codes))
    }
}

/// Dot product of signed and unsigned codes.
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
            if std::arch::is_x86_feature_detected!("avx512vnni") && std::arch::is_x86_feature_detected!("avx512bw") {
                #[expect(unsafe_code, reason = "calls a function compiled for AVX-512")]
                // SAFETY: the features were detected on this CPU just above.
                let wide = unsafe { super::residuals_avx512::dot(&groups, &codes[offset..]) };
                prop_assert_eq!(wide, sum);
            }
        }
    }
}
