//! Rows by slot.

use super::chunk::{CHUNK_BYTES, Chunk};
use super::codes::Codes;
use super::stored::Stored;
use crate::kernels::{self, momentum};
use crate::model::{BankSpec, Dtype};

/// Embeddings by slot, in chunks that never move. A row takes [`Rows::stride`] floats of the dtype, the last ones zero.
#[derive(Debug)]
pub struct Rows {
    dim: usize,
    dtype: Dtype,
    stride: usize,
    per_chunk: usize,
    chunks: Vec<Chunk>,
    /// The row that is being changed, where halves are stored.
    scratch: Vec<f32>,
    codes: Option<Codes>,
}

/// The system gave no memory for another chunk.
#[derive(Debug, thiserror::Error)]
#[error("no memory for more rows: {0}")]
pub struct OutOfMemory(#[from] pub(super) std::io::Error);

impl Rows {
    /// No rows of `dim` floats, 1 to [`BankSpec::LARGEST_DIM`].
    pub fn new(dim: usize, dtype: Dtype) -> Self {
        const { assert!(BankSpec::LARGEST_DIM * size_of::<f32>() == CHUNK_BYTES, "the largest row fills a chunk") };
        let stride = kernels::stride(dim);
        let per_chunk = CHUNK_BYTES / (stride * dtype.bytes());
        Self { dim, dtype, stride, per_chunk, chunks: Vec::new(), scratch: Vec::new(), codes: None }
    }

    /// The same with codes beside the rows, up to [`Codes::LARGEST_DIM`]. There must be no rows yet.
    pub fn with_codes(self) -> Self {
        let codes = (self.dim <= Codes::LARGEST_DIM).then(|| Codes::new(self.dim));
        Self { codes, ..self }
    }

    /// The rows as codes, if they are kept.
    pub fn codes(&self) -> Option<&Codes> {
        self.codes.as_ref()
    }

    /// Bytes that a row takes, with its codes.
    pub fn bytes_per_row(&self) -> usize {
        self.stride * self.dtype.bytes() + self.codes.as_ref().map_or(0, |_| Codes::bytes(self.dim))
    }

    /// Memory that rows in `slots` slots take, with their codes.
    pub fn resident(&self, slots: usize) -> usize {
        let codes = self.codes.as_ref().map_or(0, |codes| codes.resident(slots));
        Chunk::resident(slots, self.per_chunk, self.stride * self.dtype.bytes()) + codes
    }

    /// Floats that a row takes in memory: the dimension rounded up to whole lane groups.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// How the floats are stored.
    pub fn dtype(&self) -> Dtype {
        self.dtype
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
        self.codes.as_mut().map_or(Ok(()), |codes| codes.reserve(slots))
    }

    /// One row with its padding. The slot must be within what was reserved.
    pub fn padded(&self, slot: u32) -> Stored<'_> {
        self.stored(slot, self.stride)
    }

    /// One row without its padding.
    pub fn row(&self, slot: u32) -> Stored<'_> {
        self.stored(slot, self.dim)
    }

    /// Asks for the memory of a row and its codes: it will be changed soon.
    pub fn prefetch(&self, slot: u32) {
        self.row(slot).prefetch();
        self.codes.iter().for_each(|codes| codes.prefetch(slot));
    }

    /// Changes one row, given without its padding, and returns the norm of what is then stored. Halves are decoded, changed as
    /// floats and rounded.
    pub fn change(&mut self, slot: u32, change: impl FnOnce(&mut [f32])) -> f64 {
        let (chunk, start) = self.locate(slot);
        let range = start..start + self.dim;
        let row: &[f32] = match self.dtype {
            Dtype::F32 => {
                let row = &mut self.chunks[chunk].floats_mut()[range];
                change(row);
                row
            }
            Dtype::Half(half) => {
                let bits = &mut self.chunks[chunk].halves_mut()[range];
                self.scratch.resize(self.dim, 0.0);
                half.widen(bits, &mut self.scratch);
                change(&mut self.scratch);
                half.round(&self.scratch, bits);
                half.widen(bits, &mut self.scratch);
                &self.scratch
            }
        };
        let norm = momentum::norm(row);
        if let Some(codes) = &mut self.codes {
            codes.set(slot, row, norm);
        }
        norm
    }

    /// Puts back rows from `first` on, as [`Stored::append_raw`] gave them; what is beyond whole rows is ignored.
    pub fn load(&mut self, first: u32, raw: &[u8]) {
        let (dim, dtype) = (self.dim, self.dtype);
        for (slot, raw) in (first..).zip(raw.chunks_exact(dim * dtype.bytes())) {
            let (chunk, start) = self.locate(slot);
            let range = start..start + dim;
            let row: &[f32] = match dtype {
                Dtype::F32 => {
                    let row = &mut self.chunks[chunk].floats_mut()[range];
                    let (cells, _) = raw.as_chunks::<4>();
                    row.iter_mut().zip(cells).for_each(|(float, &bytes)| *float = f32::from_le_bytes(bytes));
                    row
                }
                Dtype::Half(half) => {
                    let bits = &mut self.chunks[chunk].halves_mut()[range];
                    let (cells, _) = raw.as_chunks::<2>();
                    bits.iter_mut().zip(cells).for_each(|(half, &bytes)| *half = u16::from_le_bytes(bytes));
                    self.scratch.resize(dim, 0.0);
                    half.widen(bits, &mut self.scratch);
                    &self.scratch
                }
            };
            if let Some(codes) = &mut self.codes {
                codes.set(slot, row, momentum::norm(row));
            }
        }
    }

    /// The rows of slots `start..end` that lie in one run of memory from `start` on: at least one.
    pub fn run(&self, start: u32, end: u32) -> (Stored<'_>, u32) {
        let room = self.per_chunk - start as usize % self.per_chunk;
        let count = room.min(end.saturating_sub(start) as usize);
        (self.stored(start, count * self.stride), count as u32)
    }

    /// `len` floats from the first of a slot on.
    fn stored(&self, slot: u32, len: usize) -> Stored<'_> {
        let (chunk, start) = self.locate(slot);
        let (chunk, range) = (&self.chunks[chunk], start..start + len);
        match self.dtype {
            Dtype::F32 => Stored::F32(&chunk.floats()[range]),
            Dtype::Half(half) => Stored::Half(half, &chunk.halves()[range]),
        }
    }

    fn locate(&self, slot: u32) -> (usize, usize) {
        let slot = slot as usize;
        (slot / self.per_chunk, slot % self.per_chunk * self.stride)
    }
}

#[cfg(test)]
mod tests {
    use super::Rows;
    use crate::model::Dtype;

    #[test]
    fn rows_keep_their_place_and_their_zero_padding_while_the_store_grows() {
        for (dtype, in_run) in [(Dtype::F32, 2), (Dtype::F16, 7), (Dtype::BF16, 7)] {
            let mut rows = Rows::new(100_003, dtype);
            for slot in 0..12 {
                rows.reserve(slot as usize + 1).unwrap();
                let norm = rows.change(slot, |row| row.fill(slot as f32 + 1.0));
                assert!((norm - (f64::from(slot) + 1.0) * 100_003f64.sqrt()).abs() < 1e-6);
            }
            for slot in 0..12 {
                let padded = rows.padded(slot).to_vec();
                assert_eq!(rows.row(slot).to_vec(), padded[..100_003]);
                assert!(padded[..100_003].iter().all(|&x| x == slot as f32 + 1.0));
                assert!(padded[100_003..].iter().all(|&x| x == 0.0) && padded.len().is_multiple_of(16));
            }
            let (run, count) = rows.run(3, 12);
            let mut scratch = Vec::new();
            let len = run.floats(&mut scratch).len();
            let expected = (in_run * rows.stride(), in_run as u32);
            assert_eq!((len, count), expected, "five rows of f32 fit a chunk, ten of halves");
        }
    }

    #[test]
    fn a_change_of_halves_starts_from_what_is_stored_and_notes_the_norm_of_what_is_stored_then() {
        let mut rows = Rows::new(3, Dtype::BF16);
        rows.reserve(1).unwrap();
        // 1 + 2^-8 lies halfway between two bf16 and goes to the even one.
        assert_eq!(rows.change(0, |row| row.copy_from_slice(&[1.0 + 2f32.powi(-8), 0.0, 0.0])), 1.0);
        rows.change(0, |row| {
            assert_eq!(row, [1.0, 0.0, 0.0]);
            row[2] = 3.0;
        });
        assert_eq!(rows.row(0).to_vec(), [1.0, 0.0, 3.0]);
    }
}
