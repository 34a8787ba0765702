//! One fixed piece of memory for rows.

use memmap2::{Advice, MmapMut, MmapOptions};

/// Bytes of a chunk, and its alignment: one huge page of x86-64 and arm64.
pub(super) const CHUNK_BYTES: usize = 2 << 20;

/// Aligned, zeroed memory that never moves. Pages are taken from the system when they are first written.
#[derive(Debug)]
pub(super) struct Chunk {
    map: MmapMut,
    start: usize,
}

impl Chunk {
    /// A chunk; `huge` advises the system to back it by a huge page, which takes all of it at the first write.
    pub(super) fn new(huge: bool) -> std::io::Result<Self> {
        // Twice the size holds an aligned chunk wherever it starts; what is never touched costs no memory.
        let map = MmapOptions::new().len(2 * CHUNK_BYTES).map_anon()?;
        let start = map.as_ptr().align_offset(CHUNK_BYTES);
        if huge {
            // Only advice: a system without huge pages serves the chunk as well.
            let _refused = map.advise_range(Advice::HugePage, start, CHUNK_BYTES);
        }
        Ok(Self { map, start })
    }

    /// Memory that rows of `row` bytes in `slots` slots take, of which a chunk holds `per_chunk`: what was written of the first chunk, and
    /// the others whole.
    pub(super) fn resident(slots: usize, per_chunk: usize, row: usize) -> usize {
        if slots <= per_chunk { slots * row } else { slots.div_ceil(per_chunk.max(1)) * CHUNK_BYTES }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.map[self.start..self.start + CHUNK_BYTES]
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.map[self.start..self.start + CHUNK_BYTES]
    }

    pub(super) fn floats(&self) -> &[f32] {
        bytemuck::cast_slice(self.bytes())
    }

    pub(super) fn halves(&self) -> &[u16] {
        bytemuck::cast_slice(self.bytes())
    }

    pub(super) fn halves_mut(&mut self) -> &mut [u16] {
        bytemuck::cast_slice_mut(self.bytes_mut())
    }

    pub(super) fn floats_mut(&mut self) -> &mut [f32] {
        bytemuck::cast_slice_mut(self.bytes_mut())
    }
}
