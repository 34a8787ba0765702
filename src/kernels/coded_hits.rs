//! What the tile over codes reports.

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
}

impl CodedHits {
    /// Forgets all.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.anchors.clear();
        self.sums.clear();
    }

    /// The hits. Those of one anchor come in the order of the rows.
    pub fn iter(&self) -> impl Iterator<Item = CodedHit> + '_ {
        let pairs = self.rows.iter().zip(&self.anchors).zip(&self.sums);
        pairs.map(|((&row, &anchor), &sum)| CodedHit { row, anchor, sum })
    }

    pub(super) fn push(&mut self, CodedHit { row, anchor, sum }: CodedHit) {
        self.rows.push(row);
        self.anchors.push(anchor);
        self.sums.push(sum);
    }
}
