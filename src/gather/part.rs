//! What one rank brings.

use std::time::Duration;

use bytes::Bytes;

use super::{GatherId, Seat};
use crate::model::{Dtype, Invalid};

/// A rank's rows on their way into a gather.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contribution {
    /// Which gather.
    pub id: GatherId,
    /// Whose rows they are.
    pub seat: Seat,
    /// The rows.
    pub part: Part,
    /// Memory of the request that brings them, which is free again when they are in or refused.
    pub held: usize,
    /// How long the caller waits for the other ranks; `None`: until shortly before its deadline.
    pub wait: Option<Duration>,
}

/// The rows of one rank, their values as they came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    rows: usize,
    dim: usize,
    dtype: Dtype,
    embeddings: Bytes,
    ids: Vec<u64>,
    labels: Option<Vec<Option<i64>>>,
    groups: Option<Vec<Option<u64>>>,
}

/// Bytes of a row's id, label and group, and of the message that they came in, which lives as long as the embeddings do.
const BYTES_OF_COLUMNS: usize = 8 + 16 + 16 + 26;

impl Part {
    /// Memory of a rank's place in a gather, whether or not it is taken.
    pub(super) const BYTES_OF_SEAT: usize = size_of::<Option<Self>>();

    /// Embeddings are sent in pieces, from where the requests left them; where ranks bring less than this on average they are copied into
    /// one: each piece is a frame of HTTP/2 and a turn of its task.
    pub const WORTH_A_PIECE: usize = 16 << 10;

    /// Rows of `dim` little-endian floats each, row-major; a column of ids is empty or whole.
    ///
    /// # Errors
    /// [`Invalid`] on `embeddings.dim` for 0, on `embeddings.data` for bytes that make no whole rows, and on each column of another
    /// length.
    pub fn new(
        (dim, dtype, embeddings): (usize, Dtype, Bytes),
        ids: Vec<u64>,
        labels: Option<Vec<Option<i64>>>,
        groups: Option<Vec<Option<u64>>>,
    ) -> Result<Self, Invalid> {
        if dim == 0 {
            return Err(Invalid::one("embeddings.dim", "is 0: the floats in a row must be told, of an empty matrix too"));
        }
        let (bytes, bytes_of_row) = (embeddings.len(), dim * dtype.bytes());
        if !bytes.is_multiple_of(bytes_of_row) {
            let reason = format!("{bytes} bytes do not make whole rows: a row of dimension {dim} takes {bytes_of_row} bytes");
            return Err(Invalid::one("embeddings.data", reason));
        }
        let rows = bytes / bytes_of_row;
        let mut invalid = Invalid::default();
        let mut check = |field: &str, values: Option<usize>| {
            if let Some(values) = values.filter(|&values| values != rows) {
                invalid.push(field, format!("has {values} values for {rows} rows of embeddings"));
            }
        };
        check("ids", (!ids.is_empty()).then_some(ids.len()));
        check("labels", labels.as_ref().map(Vec::len));
        check("groups", groups.as_ref().map(Vec::len));
        invalid.or(Self { rows, dim, dtype, embeddings, ids, labels, groups })
    }

    /// Number of rows, perhaps 0.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Floats in a row.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// How the floats are written.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The floats. A copy shares the memory.
    pub fn embeddings(&self) -> &Bytes {
        &self.embeddings
    }

    /// Ids of the rows; empty where the rank gave none.
    pub fn ids(&self) -> &[u64] {
        &self.ids
    }

    /// Labels of the rows, if the rank gave any.
    pub fn labels(&self) -> Option<&[Option<i64>]> {
        self.labels.as_deref()
    }

    /// Groups of the rows, if the rank gave any.
    pub fn groups(&self) -> Option<&[Option<u64>]> {
        self.groups.as_deref()
    }

    /// Memory that the rows take, their seat included.
    pub fn bytes(&self) -> usize {
        self.embeddings.len() + self.rows * BYTES_OF_COLUMNS + Self::BYTES_OF_SEAT
    }

    /// Memory of a gather to which each of the ranks brings as much, its answer included: room for any other, to which none brings more.
    pub(super) fn memory_of_all(&self, ranks: usize) -> usize {
        let copied = self.embeddings.len().min(Self::WORTH_A_PIECE);
        (self.bytes() + copied) * ranks + bytes_of_answer(self.rows * ranks, ranks)
    }

    /// Refuses rows that can't stand beside those of another rank of `id`.
    pub(super) fn check_beside(&self, other: &Self, id: &GatherId) -> Result<(), Invalid> {
        let mut invalid = Invalid::default();
        if self.dim != other.dim {
            invalid.push("embeddings", format!("have dimension {}, and another rank of {id} said {}", self.dim, other.dim));
        }
        if self.dtype != other.dtype {
            let (own, theirs) = (self.dtype.name(), other.dtype.name());
            invalid.push("embeddings.dtype", format!("is {own}, and another rank of {id} said {theirs}"));
        }
        if self.rows > 0 && other.rows > 0 && self.ids.is_empty() != other.ids.is_empty() {
            let (own, theirs) = if self.ids.is_empty() { ("are missing", "gave them") } else { ("are given", "gave none") };
            invalid.push("ids", format!("{own}, and another rank of {id} {theirs}: all ranks give ids, or none does"));
        }
        invalid.or(())
    }
}

/// Bytes of an answer without its embeddings, about: ids, labels and groups of its rows, what is told of each rank, and the rest.
pub(super) fn bytes_of_answer(rows: usize, ranks: usize) -> usize {
    rows * 40 + ranks * 8 + 256
}
