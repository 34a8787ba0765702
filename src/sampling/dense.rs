//! The score of every entry against an anchor, kept until its closing hold.

use super::SampleError;
use super::anchors::Anchor;
use super::bars::Bars;
use super::eligibility::Eligibility;
use super::observed::Observed;
use super::search::{MOST_MENDED, rows_per_hold};
use crate::bank::{Bank, Place, Shard};
use crate::kernels::dense::{Dense as Kernel, Precision};
use crate::kernels::exp::BLOCK;
use crate::kernels::{LANES, stride};
use crate::model::{Combine, Reason, ReasonCounts, ScoreRange, ScoreRules};

/// Where entries lie in a column of scores: shard after shard by slot, each from a whole block on, with room for some slots more.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    /// The first place of each shard, and at last the length.
    starts: Vec<usize>,
}

/// Columns of scores for some anchors of a block; NaN where an entry is not among an anchor's scored ones.
#[derive(Debug)]
pub(super) struct Dense {
    layout: Layout,
    /// The first of the anchors.
    first: usize,
    anchors: usize,
    scores: Vec<f32>,
    /// Bank's change counter when the first score was computed.
    began: u64,
    precision: Precision,
    /// The column of an anchor that was scored in its closing hold.
    held: Option<(Layout, Vec<f32>)>,
}

/// An anchor's column as it stands in its closing hold.
pub(super) struct Column<'d> {
    pub(super) layout: &'d Layout,
    pub(super) scores: &'d [f32],
    /// Places that have changed since the search, in their order; `None`: all.
    pub(super) changed: Option<Vec<usize>>,
}

/// Floats of all columns of a search at most: 64 MiB. Fewer anchors are searched for at a time where a column is longer.
const MOST_FLOATS: usize = 16 << 20;

/// Slots that a shard may get while a search goes on; more, and it begins again.
fn spare(slots: usize) -> usize {
    1_024 + slots / 16
}

impl Layout {
    fn new(bank: &Bank, spare: impl Fn(usize) -> usize) -> Self {
        let mut end = 0;
        let mut starts = vec![0];
        for shard in bank.shards() {
            let slots = shard.columns().len();
            end += (slots + spare(slots)).next_multiple_of(BLOCK).max(BLOCK);
            starts.push(end);
        }
        Self { starts }
    }

    fn len(&self) -> usize {
        self.starts.last().copied().unwrap_or_default()
    }

    fn index(&self, place: Place) -> Option<usize> {
        let (shard, slot) = (place.shard as usize, place.slot as usize);
        let index = self.starts.get(shard)? + slot;
        (index < *self.starts.get(shard + 1)?).then_some(index)
    }

    pub(super) fn place(&self, index: usize) -> Place {
        let shard = self.starts.partition_point(|&start| start <= index).saturating_sub(1);
        Place { shard: shard as u32, slot: (index - self.starts[shard]) as u32 }
    }
}

impl Dense {
    /// Scores every entry, in short holds, against the block's `anchors` from number `first` on, as many as there is room for at a time.
    pub(super) fn search(
        observed: &mut Observed<'_>,
        (anchors, first): (&[Anchor], usize),
        eligibility: &Eligibility,
        (rules, precision): (&ScoreRules, Precision),
        rejections: &mut ReasonCounts,
        wanted: &dyn Fn() -> bool,
    ) -> Result<Self, SampleError> {
        let (layout, began, shards) = {
            let bank = observed.read()?;
            (Layout::new(&bank, spare), bank.revision(), bank.shards().len())
        };
        let anchors = anchors.get(first..).unwrap_or_default();
        let anchors = &anchors[..anchors.len().min((MOST_FLOATS / layout.len().max(1)).max(1))];
        let mut dense = Self::new(layout, (first, anchors.len()), began, precision);
        let mut filling = Filling::new(&*observed.read()?, anchors, eligibility, rules, precision);
        for shard in 0..shards {
            let mut slot = 0;
            loop {
                if !wanted() {
                    return Err(SampleError::Unwanted);
                }
                let bank = observed.read()?;
                let Some(next) = dense.fill(&bank.shards()[shard], (shard, slot), &mut filling, rejections) else { break };
                slot = next;
            }
        }
        Ok(dense)
    }

    /// No columns.
    pub(super) fn none(precision: Precision) -> Self {
        Self::new(Layout { starts: vec![0] }, (0, 0), 0, precision)
    }

    fn new(layout: Layout, (first, anchors): (usize, usize), began: u64, precision: Precision) -> Self {
        let scores = vec![0.0; anchors * layout.len()];
        Self { layout, first, anchors, scores, began, precision, held: None }
    }

    /// The same for one anchor in one hold.
    fn held(
        bank: &Bank,
        anchor: &Anchor,
        eligibility: &Eligibility,
        rules: &ScoreRules,
        precision: Precision,
    ) -> (Layout, Vec<f32>) {
        let mut dense = Self::new(Layout::new(bank, |_| 0), (0, 1), bank.revision(), precision);
        let anchors = std::slice::from_ref(anchor);
        let mut filling = Filling::new(bank, anchors, eligibility, rules, precision);
        let mut rejections = ReasonCounts::default();
        for (number, shard) in bank.shards().iter().enumerate() {
            let mut slot = 0;
            while let Some(next) = dense.fill(shard, (number, slot), &mut filling, &mut rejections) {
                slot = next;
            }
        }
        (dense.layout, dense.scores)
    }

    /// The first of the block's anchors that there is a column of.
    pub(super) fn first(&self) -> usize {
        self.first
    }

    /// True if there is a column of the block's anchor number `at`.
    pub(super) fn covers(&self, at: usize) -> bool {
        (self.first..self.first + self.anchors).contains(&at)
    }

    /// True if more has changed since the search began than can be made good in one hold.
    pub(super) fn is_stale(&self, bank: &Bank) -> bool {
        bank.revision() - self.began > MOST_MENDED
    }

    /// Where entries lie in a column.
    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Every column, anchor by anchor.
    pub(super) fn columns(&self) -> impl Iterator<Item = &[f32]> {
        self.scores.chunks_exact(self.layout.len())
    }

    /// The closing hold: the column of the block's anchor number `at`, true of the bank as it stands now. `moved` says that it is not the
    /// anchor that was searched for.
    pub(super) fn settle(
        &mut self,
        bank: &Bank,
        (anchor, at, moved): (&Anchor, usize, bool),
        eligibility: &Eligibility,
        rules: &ScoreRules,
    ) -> Column<'_> {
        let mended = if moved || !self.covers(at) { None } else { self.mend(bank, (anchor, at), eligibility, rules) };
        let Some(changed) = mended else {
            let (layout, scores) = self.held.insert(Self::held(bank, anchor, eligibility, rules, self.precision));
            return Column { layout, scores, changed: None };
        };
        let column = (at - self.first) * self.layout.len();
        let scores = &self.scores[column..column + self.layout.len()];
        Column { layout: &self.layout, scores, changed: Some(changed) }
    }

    /// Scores what has changed since the search began anew, and returns where it lies; `None` if it is too much.
    fn mend(
        &mut self,
        bank: &Bank,
        (anchor, at): (&Anchor, usize),
        eligibility: &Eligibility,
        rules: &ScoreRules,
    ) -> Option<Vec<usize>> {
        if bank.revision() == self.began {
            return Some(Vec::new());
        }
        let range = rules.range(anchor.positive);
        let column = (at - self.first) * self.layout.len();
        let mut changed = Vec::new();
        for place in bank.changed_since(self.began, MOST_MENDED)? {
            let index = self.layout.index(place)?;
            let columns = bank.columns(place);
            let admitted = columns.is_occupied(place.slot) && eligibility.rejects(anchor, columns, place.slot).is_none();
            let score = anchor.score(bank, place).filter(|&score| admitted && range.keeps(score));
            self.scores[column + index] = score.unwrap_or(f32::NAN);
            changed.push(index);
        }
        changed.sort_unstable();
        changed.dedup();
        Some(changed)
    }

    /// Scores some rows of a shard from a slot on, and returns the slot to go on from; `None` at the end of the shard. What lies in the
    /// layout behind the shard's rows is no entry.
    fn fill(
        &mut self,
        shard: &Shard,
        (number, slot): (usize, u32),
        filling: &mut Filling<'_>,
        rejections: &mut ReasonCounts,
    ) -> Option<u32> {
        let (start, end) = (self.layout.starts[number], self.layout.starts[number + 1]);
        // Rows beyond the layout came after the search began: they are judged in the closing hold.
        let slots = shard.columns().len().min(end - start) as u32;
        let len = self.layout.len();
        if slot >= slots {
            let rest = start + slots as usize..end;
            self.scores.chunks_exact_mut(len).for_each(|column| column[rest.clone()].fill(f32::NAN));
            return None;
        }
        let (rows, count) = shard.rows().run(slot, slots.min(slot.saturating_add(filling.tile)));
        let admitted = (slot..slot + count).map(|slot| filling.bars.admitted(shard.columns(), slot, rejections));
        filling.admitted.clear();
        filling.admitted.extend(admitted);
        let mut decoded = std::mem::take(&mut filling.decoded);
        let rows = rows.floats(&mut decoded);
        let place = start + slot as usize;
        for (group, columns) in self.scores.chunks_mut(LANES * len).enumerate() {
            filling.score(group, rows);
            filling.write(group, columns, (place, len), rejections);
        }
        filling.decoded = decoded;
        Some(slot + count)
    }
}

/// A search under way.
struct Filling<'a> {
    bars: Bars<'a>,
    /// Of each view of sixteen anchors.
    kernels: Vec<Vec<Kernel>>,
    combine: Combine,
    of_view: Vec<[f32; LANES]>,
    ranges: Vec<ScoreRange>,
    /// Rows in one hold.
    tile: u32,
    admitted: Vec<u64>,
    scores: Vec<[f32; LANES]>,
    decoded: Vec<f32>,
}

impl<'a> Filling<'a> {
    fn new(bank: &Bank, anchors: &'a [Anchor], eligibility: &'a Eligibility, rules: &ScoreRules, precision: Precision) -> Self {
        let (metric, stride) = (bank.spec().metric(), stride(bank.spec().dim()));
        let views = anchors.iter().map(|anchor| anchor.views().count()).max().unwrap_or(0);
        let row = |anchor: &'a Anchor, view: usize| anchor.views().nth(view).unwrap_or_default();
        let kernel = |anchors: &'a [Anchor], view| {
            Kernel::new(metric, precision, stride, anchors.iter().map(|anchor| row(anchor, view)))
        };
        let kernels = |anchors: &'a [Anchor]| (0..views).map(|view| kernel(anchors, view)).collect();
        Self {
            bars: Bars::new(anchors, eligibility),
            kernels: anchors.chunks(LANES).map(kernels).collect(),
            combine: anchors.first().map(|anchor| anchor.combine).unwrap_or_default(),
            of_view: Vec::new(),
            ranges: anchors.iter().map(|anchor| rules.range(anchor.positive)).collect(),
            tile: u32::try_from(rows_per_hold(stride, anchors.len() * views.max(1))).unwrap_or(u32::MAX),
            admitted: Vec::new(),
            scores: Vec::new(),
            decoded: Vec::new(),
        }
    }

    /// Scores rows against a group of anchors.
    fn score(&mut self, group: usize, rows: &[f32]) {
        let Some((first, others)) = self.kernels[group].split_first() else { return };
        first.scores(rows, &mut self.scores);
        for view in others {
            view.scores(rows, &mut self.of_view);
            let pairs = self.scores.iter_mut().flatten().zip(self.of_view.iter().flatten());
            pairs.for_each(|(so_far, more)| *so_far = self.combine.and(*so_far, *more));
        }
        if !others.is_empty() {
            let views = 1 + others.len();
            self.scores.iter_mut().flatten().for_each(|score| *score = self.combine.of_all(*score, views));
        }
    }

    /// Writes the scores of a group of anchors into their columns, from `place` on.
    fn write(&self, group: usize, columns: &mut [f32], (place, len): (usize, usize), rejections: &mut ReasonCounts) {
        let rows = self.scores.len();
        let lanes = columns.len() / len;
        for (lane, column) in columns.chunks_exact_mut(len).enumerate() {
            let to = &mut column[place..place + rows];
            to.iter_mut().zip(&self.scores).for_each(|(to, scores)| *to = scores[lane]);
        }
        // Mostly nearly all are admitted.
        let everybody = u64::MAX >> (64 - lanes);
        for (row, admitted) in self.admitted.iter().enumerate() {
            let mut barred = !(admitted >> (group * LANES)) & everybody;
            while barred != 0 {
                columns[barred.trailing_zeros() as usize * len + place + row] = f32::NAN;
                barred &= barred - 1;
            }
        }
        for (lane, column) in columns.chunks_exact_mut(len).enumerate() {
            let range = self.ranges[group * LANES + lane];
            if range != ScoreRange::ALL {
                let out = column[place..place + rows].iter_mut().filter(|score| !score.is_nan() && !range.keeps(**score));
                rejections.add(Reason::Score, out.map(|score| *score = f32::NAN).count() as u64);
            }
        }
    }
}
