//! The fused scan tile over eight-bit codes: anchors against a run of rows, thresholds tested on the integer sums.
//!
//! Every path gives the same sums and the same hits: sums are integers, and the test rounds each operation by itself.

use super::coded_bounds::Coded;
pub use super::coded_bounds::CodedBounds;
pub use super::coded_hits::{Barred, CodedHit, CodedHits};
use super::quantise::{ZERO, anchor_steps, quantise_to};
use super::residuals::Residuals;
use super::rotation::Rotation;
use super::{LANES, momentum};
#[cfg(target_arch = "x86_64")]
use super::{coded_avx2, coded_avx512};

/// Codes in one lane of a group: as many as one dot product instruction adds up.
pub(super) const DEPTH: usize = 4;

/// Codes in a group: sixteen lanes of four.
pub(super) const GROUP: usize = LANES * DEPTH;

/// The most anchors that are taken one by one, a lane a row: a panel would leave most of its lanes idle.
pub const FEW: usize = 6;

/// One register of signed codes.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Group(pub(super) [i8; GROUP]);

/// Rows of codes, [rotated](Rotation) beforehand, that lie one after the other.
#[derive(Debug, Clone, Copy)]
pub struct CodedRows<'a> {
    /// Whole rows, padded to whole lane groups.
    pub codes: &'a [u8],
    /// Scale of each row.
    pub scales: &'a [f32],
    /// Error of each row.
    pub errors: &'a [f32],
}

/// Anchors as codes.
#[derive(Debug, Clone)]
pub struct CodedAnchors {
    stride: usize,
    anchors: Vec<Coded>,
    /// Few anchors: one after the other, padded to whole groups. Else panels of sixteen, transposed: group g of a panel holds
    /// in lane l the codes 4g..4g+4 of its anchor number l. Lanes without an anchor are zero.
    groups: Vec<Group>,
    /// What each lane's sum starts from, since rows are stored with an offset: `-ZERO * sum(codes)`.
    starts: Vec<[i32; LANES]>,
    residuals: Residuals,
}

/// Lower and upper bounds of scores, hit by hit.
#[derive(Debug, Clone, Default)]
pub struct Intervals {
    /// The bounds.
    pub of: Vec<(f32, f32)>,
    lacking: Vec<f32>,
}

impl<'a> CodedRows<'a> {
    /// The rows from number `first` on, of `stride` bytes.
    fn from(self, first: usize, stride: usize) -> Self {
        let Self { codes, scales, errors } = self;
        Self { codes: &codes[first * stride..], scales: &scales[first..], errors: &errors[first..] }
    }
}

impl CodedAnchors {
    /// These anchors, each padded to `stride` floats.
    pub fn new<'a>(stride: usize, anchors: impl ExactSizeIterator<Item = &'a [f32]>) -> Self {
        Self::of_steps(anchor_steps(), stride, anchors)
    }

    /// The same with codes of at most `steps` from zero.
    fn of_steps<'a>(steps: f32, stride: usize, anchors: impl ExactSizeIterator<Item = &'a [f32]>) -> Self {
        let count = anchors.len();
        let few = count <= FEW;
        let panels = count.div_ceil(LANES);
        let of_row = stride.div_ceil(GROUP);
        let groups = if few { count * of_row } else { panels * stride / DEPTH };
        let mut this = Self {
            stride,
            anchors: Vec::with_capacity(count),
            groups: vec![Group([0; GROUP]); groups],
            starts: vec![[0; LANES]; panels],
            residuals: Residuals::new(steps, stride, count),
        };
        let (rotation, mut rotated, mut codes) = (Rotation::new(stride), vec![0.0; stride], vec![ZERO; stride]);
        for (number, anchor) in anchors.enumerate() {
            rotated.copy_from_slice(anchor);
            rotation.rotate(&mut rotated);
            let (norm, read) = (momentum::norm(anchor), quantise_to(steps, &rotated, &mut codes));
            let lacking = this.residuals.push(&rotated, &codes, read.scale);
            this.anchors.push(Coded::new((norm, rotation.lost(norm)), read, lacking, stride));
            let (panel, lane) = (number / LANES, number % LANES);
            let mut sum = 0;
            for (at, &code) in codes.iter().enumerate() {
                let code = (code ^ ZERO) as i8;
                sum += i32::from(code);
                let (group, within) = match few {
                    true => (number * of_row + at / GROUP, at % GROUP),
                    false => (panel * stride / DEPTH + at / DEPTH, lane * DEPTH + at % DEPTH),
                };
                this.groups[group].0[within] = code;
            }
            this.starts[panel][lane] = -i32::from(ZERO) * sum;
        }
        this
    }

    /// Number of anchors.
    pub fn len(&self) -> usize {
        self.anchors.len()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.anchors.is_empty()
    }

    /// What sixteen anchors from number `first` on must hear of: rows, of at most this norm, whose score may lie within `cuts`,
    /// the smallest and the largest score of interest.
    pub fn bounds(&self, first: usize, cuts: impl Iterator<Item = (f64, f64)>, largest_norm: f64) -> CodedBounds {
        CodedBounds::new(&self.anchors[first..], cuts, (self.stride, largest_norm))
    }

    /// Between which values [`super::score::score`] of each hit's anchor and row lies, for dot products. `bounds` are those that they
    /// were found by.
    pub fn intervals(&self, hits: &CodedHits, rows: CodedRows<'_>, bounds: &[CodedBounds], intervals: &mut Intervals) {
        self.residuals.of(hits, rows, &mut intervals.lacking);
        let hits = hits.iter().zip(&intervals.lacking);
        intervals.of.clear();
        intervals.of.extend(hits.map(|(hit, &lacks)| {
            let (panel, lane) = (hit.anchor as usize / LANES, hit.anchor as usize % LANES);
            bounds[panel].interval(lane, (hit, lacks), rows)
        }));
    }

    /// Appends to `hits` each row and anchor for which the anchor's bounds hold and the row isn't barred. `bounds` has one for each sixteen
    /// anchors.
    pub fn scan(&self, rows: CodedRows<'_>, bounds: &[CodedBounds], barred: Barred<'_>, hits: &mut CodedHits) {
        self.check(rows, bounds, barred);
        if self.is_empty() {
            return;
        }
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected;
            if is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("avx512bw") {
                #[expect(unsafe_code, reason = "calls functions compiled for AVX-512")]
                // SAFETY: AVX-512F (which the others imply), BW and VNNI were detected on this CPU just above.
                unsafe {
                    self.scan_avx512(rows, bounds, barred, hits);
                }
                return;
            }
            if self.residuals.fits_sixteen_bits() && is_x86_feature_detected!("avx2") {
                #[expect(unsafe_code, reason = "calls functions compiled for AVX2")]
                // SAFETY: AVX2 was detected on this CPU just above.
                unsafe {
                    self.scan_avx2(rows, bounds, barred, hits);
                }
                return;
            }
        }
        self.scan_portable(rows, bounds, barred, hits);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn scan_avx2(&self, rows: CodedRows<'_>, bounds: &[CodedBounds], barred: Barred<'_>, hits: &mut CodedHits) {
        if self.len() > FEW {
            coded_avx2::scan_panels(&self.groups, &self.starts, rows, bounds, barred, hits);
        } else {
            let few = (self.len(), self.stride);
            coded_avx2::scan_few(&self.groups, few, &self.starts[0], rows, &bounds[0], barred, hits);
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    fn scan_avx512(&self, rows: CodedRows<'_>, bounds: &[CodedBounds], barred: Barred<'_>, hits: &mut CodedHits) {
        if self.len() > FEW {
            return coded_avx512::scan_panels(&self.groups, &self.starts, rows, bounds, barred, hits);
        }
        let few = (self.len(), self.stride);
        let done = coded_avx512::scan_few(&self.groups, few, &self.starts[0], rows, &bounds[0], barred, hits);
        self.scan_rows((rows.from(done, self.stride), done), bounds, barred, hits);
    }

    /// [`Self::scan`] for any CPU.
    #[inline(always)]
    pub(super) fn scan_portable(&self, rows: CodedRows<'_>, bounds: &[CodedBounds], barred: Barred<'_>, hits: &mut CodedHits) {
        self.scan_rows((rows, 0), bounds, barred, hits);
    }

    /// The same for rows numbered from `first` on.
    #[inline(always)]
    fn scan_rows(
        &self,
        (rows, first): (CodedRows<'_>, usize),
        bounds: &[CodedBounds],
        barred: Barred<'_>,
        hits: &mut CodedHits,
    ) {
        let mut hit = |row: usize, anchor: usize, sum| match barred.bars(first + row, anchor) {
            true => hits.barred += 1,
            false => hits.push(CodedHit { row: (first + row) as u32, anchor: anchor as u32, sum }),
        };
        let panels = if self.len() <= FEW { 0 } else { self.starts.len() };
        for (row, codes) in rows.codes.chunks_exact(self.stride).enumerate() {
            let (scale, error) = (rows.scales[row], rows.errors[row]);
            for (panel, bounds) in bounds.iter().enumerate().take(panels) {
                for (lane, sum) in self.sums_of_panel(panel, codes).into_iter().enumerate() {
                    if bounds.take(lane, sum, scale, error) {
                        hit(row, panel * LANES + lane, sum);
                    }
                }
            }
            let few = if panels == 0 { self.len() } else { 0 };
            for anchor in 0..few {
                let sum = self.sum_of_few(anchor, codes);
                if bounds[0].take(anchor, sum, scale, error) {
                    hit(row, anchor, sum);
                }
            }
        }
    }

    #[inline(always)]
    fn sums_of_panel(&self, panel: usize, row: &[u8]) -> [i32; LANES] {
        let mut sums = self.starts[panel];
        let depth = self.stride / DEPTH;
        for (group, codes) in self.groups[panel * depth..][..depth].iter().zip(row.as_chunks::<DEPTH>().0) {
            for (sum, lane) in sums.iter_mut().zip(group.0.as_chunks::<DEPTH>().0) {
                for at in 0..DEPTH {
                    *sum = sum.wrapping_add(i32::from(codes[at]) * i32::from(lane[at]));
                }
            }
        }
        sums
    }

    #[inline(always)]
    fn sum_of_few(&self, anchor: usize, row: &[u8]) -> i32 {
        let mut sum = self.starts[0][anchor];
        let of_row = self.stride.div_ceil(GROUP);
        for (group, codes) in self.groups[anchor * of_row..][..of_row].iter().zip(row.chunks(GROUP)) {
            for (&q, &c) in group.0.iter().zip(codes) {
                sum = sum.wrapping_add(i32::from(q) * i32::from(c));
            }
        }
        sum
    }

    fn check(&self, rows: CodedRows<'_>, bounds: &[CodedBounds], barred: Barred<'_>) {
        let count = rows.codes.len() / self.stride;
        assert!(rows.codes.len() == count * self.stride && rows.scales.len() == count, "whole rows, a scale each");
        assert!(rows.errors.len() == count && bounds.len() == self.starts.len(), "an error each; bounds for all anchors");
        let whole = barred.rows.len() == count && barred.anchors.len() == self.starts.len();
        assert!(barred.rows.is_empty() || whole, "a class for each row and for all anchors");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Barred, CodedAnchors, CodedHit, CodedHits, CodedRows, Intervals};
    use crate::kernels::momentum::norm;
    use crate::kernels::quantise::{HALF_STEPS, Quantised, STEPS};
    use crate::kernels::rotation::Rotation;
    use crate::kernels::score::score;
    use crate::kernels::stride;
    use crate::model::{Metric, Seed, Stream};

    /// Rows as codes, at an offset from any alignment.
    struct Store {
        floats: Vec<Vec<f32>>,
        codes: Vec<u8>,
        offset: usize,
        scales: Vec<f32>,
        errors: Vec<f32>,
    }

    fn row(dim: usize, kind: u64, stream: &mut Stream) -> Vec<f32> {
        let mut row: Vec<f32> = (0..dim).map(|_| stream.below(2_000_001) as f32 / 1e6 - 1.0).collect();
        match kind {
            0 => row.fill(1.0),
            1 => row.iter_mut().enumerate().for_each(|(at, x)| *x = if at % 2 == 0 { -1e17 } else { 1e17 }),
            2 => row.iter_mut().for_each(|x| *x *= 1e-42),
            3 => row.fill(0.0),
            _ => {}
        }
        row.resize(stride(dim), 0.0);
        row
    }

    fn store(dim: usize, count: usize, offset: usize, stream: &mut Stream) -> Store {
        let stride = stride(dim);
        let mut store = Store {
            floats: Vec::new(),
            codes: vec![0xA5; offset + count * stride],
            offset,
            scales: Vec::new(),
            errors: Vec::new(),
        };
        let rotation = Rotation::new(stride);
        for at in 0..count {
            let kind = stream.below(30);
            let floats = row(dim, kind, stream);
            let codes = &mut store.codes[offset + at * stride..][..stride];
            let Quantised { scale, error } = rotation.quantise((&mut floats.clone(), norm(&floats)), codes);
            store.floats.push(floats);
            store.scales.push(scale);
            store.errors.push(error);
        }
        store
    }

    impl Store {
        fn rows(&self) -> CodedRows<'_> {
            CodedRows { codes: &self.codes[self.offset..], scales: &self.scales, errors: &self.errors }
        }
    }

    proptest! {
        #[test]
        fn every_path_gives_the_same_hits_and_intervals_hold_the_scores(
            dim in 1usize..300,
            anchors in 1usize..120,
            count in 1usize..60,
            offset in 0usize..64,
            ceiled in any::<bool>(),
            half in any::<bool>(),
            by_class in any::<bool>(),
            seed in any::<u64>(),
        ) {
            let mut stream = Seed(seed).stream(0, 0);
            let rows = store(dim, count, offset, &mut stream);
            let anchors: Vec<Vec<f32>> = (0..anchors).map(|_| row(dim, stream.below(30), &mut stream)).collect();
            let steps = if half { HALF_STEPS } else { STEPS };
            let coded = CodedAnchors::of_steps(steps, stride(dim), anchors.iter().map(Vec::as_slice));
            let largest = rows.floats.iter().map(|row| norm(row)).fold(0.0, f64::max);
            let cut = |anchor: &Vec<f32>| f64::from(score(Metric::Dot, anchor, &rows.floats[0]));
            let high = |cut: f64| if ceiled { cut.abs() * 1.5 } else { f64::INFINITY };
            let bounds = (0..anchors.len().div_ceil(16)).map(|panel| {
                let cuts = anchors[panel * 16..].iter().map(|anchor| (cut(anchor), high(cut(anchor))));
                coded.bounds(panel * 16, cuts, largest)
            });
            let bounds: Vec<_> = bounds.collect();
            let mut class = |none| if stream.below(3) == 0 { none } else { stream.below(4) as u32 };
            let classes: Vec<u32> = (0..count).map(|_| class(Barred::NO_ROWS)).collect();
            let of_anchors: Vec<[u32; 16]> =
                bounds.iter().map(|_| std::array::from_fn(|_| class(Barred::NO_ANCHORS))).collect();
            let barred = if by_class { Barred { rows: &classes, anchors: &of_anchors } } else { Barred::default() };
            let hits_of = |scan: &dyn Fn(&mut CodedHits)| {
                let mut found = CodedHits::default();
                scan(&mut found);
                let mut hits: Vec<CodedHit> = found.iter().collect();
                hits.sort_unstable();
                (hits, found.barred())
            };
            let (hits, left_out) = hits_of(&|hits| coded.scan(rows.rows(), &bounds, barred, hits));
            prop_assert_eq!(&(hits.clone(), left_out), &hits_of(&|hits| coded.scan_portable(rows.rows(), &bounds, barred, hits)));
            let (all, _) = hits_of(&|hits| coded.scan(rows.rows(), &bounds, Barred::default(), hits));
            let own = |hit: &CodedHit| classes[hit.row as usize] == of_anchors[hit.anchor as usize / 16][hit.anchor as usize % 16];
            let others: Vec<CodedHit> = all.iter().copied().filter(|hit| !(by_class && own(hit))).collect();
            prop_assert_eq!(left_out as usize, all.len() - others.len());
            prop_assert_eq!(&hits, &others);
            #[cfg(target_arch = "x86_64")]
            if half && std::arch::is_x86_feature_detected!("avx2") {
                #[expect(unsafe_code, reason = "calls a function compiled for AVX2")]
                // SAFETY: AVX2 was detected on this CPU just above.
                let narrower = hits_of(&|hits| unsafe { coded.scan_avx2(rows.rows(), &bounds, barred, hits) });
                prop_assert_eq!(&(hits, left_out), &narrower);
            }
            for (number, anchor) in anchors.iter().enumerate() {
                for (at, row) in rows.floats.iter().enumerate() {
                    let exact = score(Metric::Dot, anchor, row);
                    let of = |hit: &&CodedHit| (hit.row, hit.anchor) == (at as u32, number as u32);
                    let inside = f64::from(exact) >= cut(anchor) && f64::from(exact) <= high(cut(anchor));
                    let hit = all.iter().find(of);
                    prop_assert!(hit.is_some() || !inside, "missed {exact} of {:?}", cut(anchor));
                    if let Some(&hit) = hit {
                        let (mut one, mut intervals) = (CodedHits::default(), Intervals::default());
                        one.push(hit);
                        coded.intervals(&one, rows.rows(), &bounds, &mut intervals);
                        let (lower, upper) = intervals.of[0];
                        prop_assert!(lower <= exact && exact <= upper, "{exact} is outside {lower}..={upper}");
                    }
                }
            }
        }
    }
}
