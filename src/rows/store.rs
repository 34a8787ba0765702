//! Rows by slot.

use super::chunk::{CHUNK_BYTES, Chunk};
use crate::kernels;
use crate::model::BankSpec;

/// Embeddings by slot, in chunks that never move. A row takes [`Rows::stride`] floats, the last ones zero.
#[derive(Debug)]
pub struct Rows {
    dim: usize,
    stride: usize,
    per_chunk: usize,
    chunks: Vec<Chunk>,
}

/// The system gave no memory for another chunk.
#[derive(Debug, thiserror::Error)]
#[error("no memory for another {CHUNK_BYTES} bytes of rows: {0}")]
pub struct OutOfMemory(#[source] std::io::Error);

impl Rows {
    /// No rows of `dim` floats, 1 to [`BankSpec::LARGEST_DIM`].
    pub fn new(dim: usize) -> Self {
        const { assert!(BankSpec::LARGEST_DIM * size_of::<f32>() == CHUNK_BYTES, "the largest row fills a chunk") };
        let stride = kernels::stride(dim);
        Self { dim, stride, per_chunk: BankSpec::LARGEST_DIM / stride, chunks: Vec::new() }
    }

    /// Floats that a row takes in memory: the dimension rounded up to whole lane groups.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Makes room for slots `0..slots`.
    ///
    /// # Errors
    /// [`OutOfMemory`]; the rows are as before.
    pub fn reserve(&mut self, slots: usize) -> Result<(), OutOfMemory> {
        while self.chunks.len() * self.per_chunk < slots {
            // A small bank must not take a huge page a shard: the first chunk is backed by small pages.
            let huge = !self.chunks.is_empty();
            self.chunks.push(Chunk::new(huge).map_err(OutOfMemory)?);
        }
        Ok(())
    }

    /// One row with its padding. The slot must be within what was reserved.
    pub fn padded(&self, slot: u32) -> &[f32] {
        let (chunk, start) = self.locate(slot);
        &self.chunks[chunk].floats()[start..start + self.stride]
    }

    /// One row without its padding.
    pub fn row(&self, slot: u32) -> &[f32] {
        &self.padded(slot)[..self.dim]
    }

    /// One row to write, without its padding.
    pub fn row_mut(&mut self, slot: u32) -> &mut [f32] {
        let (chunk, start) = self.locate(slot);
        &mut self.chunks[chunk].floats_mut()[start..start + self.dim]
    }

    /// The rows of slots `start..end` that lie in one run of memory from `start` on: at least one.
    pub fn run(&self, start: u32, end: u32) -> (&[f32], u32) {
        let (chunk, first) = self.locate(start);
        let room = self.per_chunk - start as usize % self.per_chunk;
        let count = room.min(end.saturating_sub(start) as usize);
        (&self.chunks[chunk].floats()[first..first + count * self.stride], count as u32)
    }

    fn locate(&self, slot: u32) -> (usize, usize) {
        let slot = slot as usize;
        (slot / self.per_chunk, slot % self.per_chunk * self.stride)
    }
}

#[cfg(test)]
mod tests {
    use super::Rows;

    #[test]
    fn rows_keep_their_place_and_their_zero_padding_while_the_store_grows() {
        let mut rows = Rows::new(100_003);
        for slot in 0..12 {
            rows.reserve(slot as usize + 1).unwrap();
            rows.row_mut(slot).fill(slot as f32 + 1.0);
        }
        for slot in 0..12 {
            let padded = rows.padded(slot);
            assert!(padded[..100_003].iter().all(|&x| x == slot as f32 + 1.0));
            assert!(padded[100_003..].iter().all(|&x| x == 0.0) && padded.len().is_multiple_of(16));
        }
        let (run, count) = rows.run(3, 12);
        assert_eq!((run.len(), count), (2 * rows.stride(), 2), "five rows fit a chunk, so slots 3 and 4 lie together");
    }
}
