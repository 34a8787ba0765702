//! A bank as one walk through its graph asks of it: held in short stretches, so that writers come in.

use crossbeam_utils::sync::ShardedLockReadGuard;

use super::anchors::Anchor;
use super::eligibility::Eligibility;
use super::observed::Observed;
use crate::bank::{Bank, Place};
use crate::index::{Present, Spot};
use crate::kernels::stride;
use crate::model::{Reason, ReasonCounts, ScoreRange};
use crate::rows::Poisoned;

/// Floats of the rows that are looked at in one hold of the bank's lock.
const FLOATS_PER_HOLD: usize = 64 << 10;

/// Rows that are looked at in one, short or long.
const ROWS_PER_HOLD: (usize, usize) = (8, 512);

/// Rows that are looked at while one entry is judged.
const JUDGED: usize = 4;

/// Who walks, and what may be found.
#[derive(Clone, Copy)]
pub(super) struct Seeker<'s> {
    pub(super) anchor: &'s Anchor,
    pub(super) eligibility: &'s Eligibility,
    pub(super) range: ScoreRange,
    /// True if rows are to be looked at as they are now.
    pub(super) live: bool,
}

/// The bank of one walk.
pub(super) struct Held<'s, 'o> {
    observed: &'s mut Observed<'o>,
    /// `None`: it can't be read any more, and nothing is found.
    bank: Option<ShardedLockReadGuard<'o, Bank>>,
    failed: Option<Poisoned>,
    /// Rows that are looked at in one hold, and in this one still.
    each: usize,
    left: usize,
    seeker: Seeker<'s>,
    rejections: &'s mut ReasonCounts,
    scratch: Vec<f32>,
}

impl<'s, 'o> Held<'s, 'o> {
    pub(super) fn new(
        observed: &'s mut Observed<'o>,
        seeker: Seeker<'s>,
        rejections: &'s mut ReasonCounts,
    ) -> Result<Self, Poisoned> {
        let bank = observed.read()?;
        let each = (FLOATS_PER_HOLD / stride(bank.spec().dim())).clamp(ROWS_PER_HOLD.0, ROWS_PER_HOLD.1);
        Ok(Self { observed, bank: Some(bank), failed: None, each, left: each, seeker, rejections, scratch: Vec::new() })
    }

    /// Whether the bank could be read to the end.
    pub(super) fn end(self) -> Result<(), Poisoned> {
        self.failed.map_or(Ok(()), Err)
    }

    /// Lets writers in, once so much was looked at.
    fn look(&mut self, rows: usize) {
        if self.left < rows {
            self.left = self.each;
            self.bank = None;
            self.bank = self.observed.read().map_err(|refused| self.failed = Some(refused)).ok();
        }
        self.left -= rows.min(self.left);
    }
}

impl Present for Held<'_, '_> {
    fn admits(&mut self, spot: Spot) -> bool {
        let Seeker { anchor, eligibility, range, .. } = self.seeker;
        self.look(if range == ScoreRange::ALL { JUDGED } else { JUDGED + 1 });
        let Self { bank: Some(bank), rejections, .. } = self else { return false };
        let (place, columns) = (at(spot), bank.columns(at(spot)));
        if columns.occupied_at(place.slot) != spot.occupied_at {
            return false;
        }
        if let Some(reason) = eligibility.rejects(anchor, columns, place.slot) {
            rejections.add(reason, 1);
            return false;
        }
        let kept = range == ScoreRange::ALL || anchor.score(bank, place).is_some_and(|score| range.keeps(score));
        if !kept {
            rejections.add(Reason::Score, 1);
        }
        kept
    }

    fn is_live(&self) -> bool {
        self.seeker.live
    }

    fn row(&mut self, spot: Spot) -> Option<&[f32]> {
        self.look(1);
        let Self { bank, scratch, .. } = self;
        let (bank, place) = (bank.as_deref()?, at(spot));
        let is_there = bank.columns(place).occupied_at(place.slot) == spot.occupied_at;
        is_there.then(|| bank.padded_row(place).floats(scratch))
    }

    fn prefetch(&self, spot: Spot) {
        if let Some(bank) = &self.bank {
            bank.columns(at(spot)).prefetch_stamp(spot.slot);
            bank.padded_row(at(spot)).prefetch();
        }
    }
}

/// Where an entry lies that the graph knows.
pub(super) fn at(spot: Spot) -> Place {
    Place { shard: spot.shard, slot: spot.slot }
}
