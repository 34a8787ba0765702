//! What the tile over codes reports, and what it keeps to itself.

use super::LANES;

/// A row that an anchor wants to hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CodedHit {
    /// Row's number in the run.
    pub row: u32,
    /// Anchor's number.
    pub anchor: u32,
    /// Dot product of their codes.
    pub sum: i32,
}

/// Hits, column by column, so that a register of them is stored at once.
#[derive(Debug, Clone, Default)]
pub struct CodedHits {
    pub(super) rows: Vec<u32>,
    pub(super) anchors: Vec<u32>,
    pub(super) sums: Vec<i32>,
    /// Hits that were left out since their row is barred.
    pub(super) barred: u64,
}

/// Which rows an anchor is not to hear of: those of its own class. A row or an anchor of which there is nothing to say has no class.
#[derive(Debug, Clone, Copy, Default)]
pub struct Barred<'a> {
    /// Class of each row of a run; empty if nothing is barred.
    pub rows: &'a [u32],
    /// Class of each anchor, a lane an anchor.
    pub anchors: &'a [[u32; LANES]],
}

impl Barred<'_> {
    /// Class of a row that has none.
    pub const NO_ROWS: u32 = u32::MAX;

    /// Class of an anchor that has none: another than that of rows.
    pub const NO_ANCHORS: u32 = u32::MAX - 1;

    #[inline(always)]
    pub(super) fn bars(&self, row: usize, anchor: usize) -> bool {
        self.rows.get(row).is_some_and(|&class| class == self.anchors[anchor / LANES][anchor % LANES])
    }
}

impl CodedHits {
    /// Forgets all.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.anchors.clear();
        self.sums.clear();
        self.barred = 0;
    }

    /// Hits that were left out since their row is barred.
    pub fn barred(&self) -> u64 {
        self.barred
    }

    /// The hits. Those of one anchor come in the order of the rows.
    pub fn iter(&self) -> impl Iterator<Item = CodedHit> + '_ {
        let pairs = self.rows.iter().zip(&self.anchors).zip(&self.sums);
        pairs.map(|((&row, &anchor), &sum)| CodedHit { row, anchor, sum })
    }

    /// Hits.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Keeps the hits whose row and anchor are `wanted`, in their order. Which ones those are is hard to foretell, so nothing branches
    /// on it.
    pub fn retain(&mut self, mut wanted: impl FnMut(u32, u32) -> bool) {
        let mut kept = 0;
        for at in 0..self.rows.len() {
            let (row, anchor, sum) = (self.rows[at], self.anchors[at], self.sums[at]);
            self.rows[kept] = row;
            self.anchors[kept] = anchor;
            self.sums[kept] = sum;
            kept += usize::from(wanted(row, anchor));
        }
        self.rows.truncate(kept);
        self.anchors.truncate(kept);
        self.sums.truncate(kept);
    }

    pub(super) fn push(&mut self, CodedHit { row, anchor, sum }: CodedHit) {
        self.rows.push(row);
        self.anchors.push(anchor);
        self.sums.push(sum);
    }
}
