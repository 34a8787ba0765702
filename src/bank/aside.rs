//! Rows that were copied before they changed.

use std::num::NonZeroU32;

use crate::rows::Stored;

/// Rows of one length, put and taken in any order; the room of those that were taken is used again.
#[derive(Debug)]
pub(super) struct Aside {
    /// Bytes of a row.
    row: usize,
    /// Each has room for as many rows as fit [`BLOCK`], and at least for one.
    blocks: Vec<Vec<u8>>,
    free: Vec<NonZeroU32>,
    rows: u32,
}

const BLOCK: usize = 1 << 20;

impl Aside {
    pub(super) fn new(row: usize) -> Self {
        Self { row, blocks: Vec::new(), free: Vec::new(), rows: 0 }
    }

    /// Bytes of the rows that lie here.
    pub(super) fn rows_bytes(&self) -> usize {
        (self.rows as usize - self.free.len()) * self.row
    }

    /// Memory, in bytes.
    pub(super) fn resident(&self) -> usize {
        self.blocks.iter().map(Vec::capacity).sum::<usize>() + self.free.capacity() * size_of::<NonZeroU32>()
    }

    /// Copies a row, and returns where it is; `None` after four billion.
    pub(super) fn put(&mut self, row: Stored<'_>) -> Option<NonZeroU32> {
        if let Some(at) = self.free.pop() {
            let (block, start) = self.locate(at);
            row.write_raw(self.blocks.get_mut(block)?.get_mut(start..start + self.row)?);
            return Some(at);
        }
        let at = NonZeroU32::MIN.checked_add(self.rows)?;
        let (block, _) = self.locate(at);
        if block == self.blocks.len() {
            self.blocks.push(Vec::with_capacity(self.per_block() * self.row));
        }
        row.append_raw(&mut self.blocks[block]);
        self.rows += 1;
        Some(at)
    }

    /// Appends the row that is there to `raw`; its place is free then.
    pub(super) fn take(&mut self, at: NonZeroU32, raw: &mut Vec<u8>) {
        let (block, start) = self.locate(at);
        raw.extend_from_slice(&self.blocks[block][start..start + self.row]);
        self.free.push(at);
    }

    fn per_block(&self) -> usize {
        (BLOCK / self.row.max(1)).max(1)
    }

    fn locate(&self, at: NonZeroU32) -> (usize, usize) {
        let row = at.get() as usize - 1;
        (row / self.per_block(), row % self.per_block() * self.row)
    }
}

#[cfg(test)]
mod tests {
    use super::{Aside, BLOCK};
    use crate::model::Half;
    use crate::rows::Stored;

    #[test]
    fn rows_come_back_as_they_were_and_leave_their_room() {
        for bits in [1usize, 3, 100_000, BLOCK] {
            let mut aside = Aside::new(2 * bits);
            let row = |of: u16| vec![of; bits];
            let mut kept: Vec<_> = (0..30).map(|of| (of, aside.put(Stored::Half(Half::F16, &row(of))).unwrap())).collect();
            for of in 30..300 {
                let (expected, at) = kept.swap_remove(usize::from(of) * 7 % kept.len());
                let mut raw = Vec::new();
                aside.take(at, &mut raw);
                assert!(raw.len() == 2 * bits && raw.chunks(2).all(|bytes| bytes == expected.to_le_bytes()));
                kept.push((of, aside.put(Stored::Half(Half::F16, &row(of))).unwrap()));
            }
            assert_eq!(aside.rows_bytes(), 30 * 2 * bits);
            assert!(aside.resident() <= (30 * 2 * bits).next_multiple_of(BLOCK) + BLOCK + 1_000, "{}", aside.resident());
        }
    }
}
