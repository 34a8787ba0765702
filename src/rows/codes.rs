//! The rows once more, rotated and as eight-bit codes: what the fast scan reads.

use super::chunk::{CHUNK_BYTES, Chunk};
use super::store::OutOfMemory;
use crate::kernels::coded::CodedRows;
use crate::kernels::prefetch::prefetch;
use crate::kernels::quantise::Quantised;
use crate::kernels::rotation::Rotation;
use crate::kernels::{self, LANES};

/// Codes by slot, in chunks that never move. A row takes `stride` bytes and two floats: its scale and its error. In a chunk lie the codes of all its rows, then their scales, then their errors.
#[derive(Debug)]
pub struct Codes {
    dim: usize,
    stride: usize,
    per_chunk: usize,
    chunks: Vec<Chunk>,
    rotation: Rotation,
    /// The row that is being rotated.
    rotated: Vec<f32>,
}

impl Codes {
    /// Largest dimension of which there are codes: the dot product of two rows of the largest codes still fits an i32.
    pub const LARGEST_DIM: usize = 1 << 17;

    /// No rows of `dim` floats.
    pub(super) fn new(dim: usize) -> Self {
        const { assert!(127 * 127 * Self::LARGEST_DIM <= i32::MAX as usize, "sums fit an i32") };
        let stride = kernels::stride(dim);
        let fit = CHUNK_BYTES / Self::bytes(dim);
        // Whole lane groups of scales keep the chunk's parts aligned for the kernels.
        let per_chunk = if fit < LANES { fit } else { fit / LANES * LANES };
        Self { dim, stride, per_chunk, chunks: Vec::new(), rotation: Rotation::new(stride), rotated: vec![0.0; stride] }
    }

    /// Bytes that a row of `dim` floats takes as codes.
    pub(super) const fn bytes(dim: usize) -> usize {
        kernels::stride(dim) + 2 * size_of::<f32>()
    }

    /// Makes room for slots `0..slots`.
    pub(super) fn reserve(&mut self, slots: usize) -> Result<(), OutOfMemory> {
        while self.chunks.len() * self.per_chunk < slots {
            let huge = !self.chunks.is_empty();
            self.chunks.push(Chunk::new(huge).map_err(OutOfMemory)?);
        }
        Ok(())
    }

    /// Memory that the codes of `slots` rows take.
    pub(super) fn resident(&self, slots: usize) -> usize {
        Chunk::resident(slots, self.per_chunk, Self::bytes(self.dim))
    }

    /// Asks for the memory of a row's codes.
    pub(super) fn prefetch(&self, slot: u32) {
        let (chunk, at) = self.locate(slot);
        let (codes, floats) = self.chunks[chunk].bytes().split_at(self.per_chunk * self.stride);
        prefetch(&codes[at * self.stride..][..self.stride]);
        [at, self.per_chunk + at].into_iter().for_each(|float| prefetch(&floats[float * size_of::<f32>()..][..1]));
    }

    /// Asks for the memory of the codes of slots `start..end`, as far as they lie in one run.
    pub fn prefetch_run(&self, start: u32, end: u32) {
        let (CodedRows { codes, scales, errors }, _) = self.run(start, end);
        prefetch(codes);
        prefetch(scales);
        prefetch(errors);
    }

    /// Notes what a row is now, and its norm.
    pub(super) fn set(&mut self, slot: u32, row: &[f32], norm: f64) {
        let (chunk, at) = self.locate(slot);
        let (codes, floats) = self.chunks[chunk].bytes_mut().split_at_mut(self.per_chunk * self.stride);
        self.rotated[..self.dim].copy_from_slice(row);
        self.rotated[self.dim..].fill(0.0);
        let codes = &mut codes[at * self.stride..][..self.stride];
        let Quantised { scale, error } = self.rotation.quantise((&mut self.rotated, norm), codes);
        let floats: &mut [f32] = bytemuck::cast_slice_mut(&mut floats[..2 * self.per_chunk * size_of::<f32>()]);
        floats[at] = scale;
        floats[self.per_chunk + at] = error;
    }

    /// The rows of slots `start..end` that lie in one run of memory from `start` on: at least one.
    pub fn run(&self, start: u32, end: u32) -> (CodedRows<'_>, u32) {
        let (chunk, at) = self.locate(start);
        let count = (self.per_chunk - at).min(end.saturating_sub(start) as usize);
        let (codes, floats) = self.chunks[chunk].bytes().split_at(self.per_chunk * self.stride);
        let floats: &[f32] = bytemuck::cast_slice(&floats[..2 * self.per_chunk * size_of::<f32>()]);
        let (scales, errors) = floats.split_at(self.per_chunk);
        let rows = CodedRows {
            codes: &codes[at * self.stride..][..count * self.stride],
            scales: &scales[at..at + count],
            errors: &errors[at..at + count],
        };
        (rows, count as u32)
    }

    fn locate(&self, slot: u32) -> (usize, usize) {
        (slot as usize / self.per_chunk, slot as usize % self.per_chunk)
    }
}
