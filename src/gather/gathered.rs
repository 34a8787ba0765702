//! What a gather came to.

use std::sync::OnceLock;

use bytes::Bytes;

use super::open::{check_beside, check_world};
use super::part::bytes_of_answer;
use super::{GatherError, GatherId, Part, Room, Seat};
use crate::model::Dtype;

/// The rows of all ranks that were there, frozen: whoever asks gets these.
#[derive(Debug)]
pub struct Gathered {
    /// By rank.
    parts: Vec<Option<Part>>,
    dim: usize,
    dtype: Dtype,
    encoded: OnceLock<Vec<Bytes>>,
    /// What all of it takes, for as long as anybody has it: while it is kept, and while any rank is sent it.
    room: Box<dyn Room>,
}

impl Gathered {
    /// The parts by rank, at least one of them there; all have one shape. What the room has more than they take is given back.
    pub(super) fn new(parts: Vec<Option<Part>>, room: Box<dyn Room>) -> Self {
        let (dim, dtype) = parts.iter().flatten().next().map_or((0, Dtype::F32), |part| (part.dim(), part.dtype()));
        let this = Self { parts, dim, dtype, encoded: OnceLock::new(), room };
        let copied = if this.is_copied() { this.bytes_of_embeddings() } else { 0 };
        this.room.shrink(this.bytes() + copied + this.bytes_of_columns());
        this
    }

    /// Floats in a row.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// How the floats are written.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Ranks that take part.
    pub fn world_size(&self) -> usize {
        self.parts.len()
    }

    /// What a rank brought in time.
    pub fn part(&self, rank: u32) -> Option<&Part> {
        self.parts.get(rank as usize).and_then(Option::as_ref)
    }

    /// The parts that are there, in the order of their ranks.
    pub fn parts(&self) -> impl Iterator<Item = &Part> {
        self.parts.iter().flatten()
    }

    /// Rows of each rank; 0 of a missing one.
    pub fn counts(&self) -> impl Iterator<Item = usize> {
        self.parts.iter().map(|part| part.as_ref().map_or(0, Part::rows))
    }

    /// Rows altogether.
    pub fn rows(&self) -> usize {
        self.counts().sum()
    }

    /// Ranks that are missing.
    pub fn missing(&self) -> impl Iterator<Item = u32> {
        missing(&self.parts)
    }

    /// Refuses whoever could not have been among these ranks, or was and brought other rows.
    pub(super) fn check(&self, id: &GatherId, seat: Seat, part: &Part) -> Result<(), GatherError> {
        check_world(id, seat, self.parts.len())?;
        check_beside(id, part, self.parts())?;
        match self.part(seat.rank()) {
            Some(there) if there != part => Err(GatherError::Taken { id: id.clone(), rank: seat.rank() }),
            _ => Ok(()),
        }
    }

    /// Memory that the rows take.
    pub fn bytes(&self) -> usize {
        self.parts.iter().map(|part| part.as_ref().map_or(Part::BYTES_OF_SEAT, Part::bytes)).sum()
    }

    /// Bytes of all floats, as they came.
    pub fn bytes_of_embeddings(&self) -> usize {
        self.parts().map(|part| part.embeddings().len()).sum()
    }

    /// Bytes of an answer without its embeddings, about.
    pub fn bytes_of_columns(&self) -> usize {
        bytes_of_answer(self.rows(), self.world_size())
    }

    /// Whether the answer has the embeddings in one piece ([`Part::WORTH_A_PIECE`]).
    pub fn is_copied(&self) -> bool {
        let pieces = self.parts().filter(|part| part.rows() > 0).count();
        pieces > 1 && self.bytes_of_embeddings() / pieces < Part::WORTH_A_PIECE
    }

    /// Memory that all of it takes, its answer included.
    pub fn memory(&self) -> usize {
        self.room.bytes()
    }

    /// The answer as it is sent, in pieces: made by whoever asks first and shared by all, for as long as this lives.
    pub fn encoded(&self, encode: impl FnOnce(&Self) -> Vec<Bytes>) -> Vec<Bytes> {
        self.encoded.get_or_init(|| encode(self)).clone()
    }
}

/// Ranks without a part.
pub(super) fn missing(parts: &[Option<Part>]) -> impl Iterator<Item = u32> {
    (0u32..).zip(parts).filter(|(_, part)| part.is_none()).map(|(rank, _)| rank)
}
