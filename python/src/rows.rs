//! Entries on their way back: message columns to numpy arrays.

use negbank::client::RowColumns;
use pyo3::prelude::*;

use crate::column::{Column, Packed};

/// Columns of entries, as a dict of flat arrays; a column that was not sent is empty. Embeddings are row-major.
#[derive(IntoPyObject)]
pub(crate) struct RowArrays {
    ids: Packed,
    embeddings: Packed,
    labels: Packed,
    has_label: Column<bool>,
    groups: Packed,
    has_group: Column<bool>,
    steps: Packed,
    weights: Packed,
}

impl From<Option<RowColumns>> for RowArrays {
    fn from(rows: Option<RowColumns>) -> Self {
        let rows = rows.unwrap_or_default();
        Self {
            ids: Packed::u64(rows.ids),
            embeddings: Packed::floats(rows.embeddings),
            labels: Packed::i64(rows.labels),
            has_label: Column::mask(&rows.has_label),
            groups: Packed::u64(rows.groups),
            has_group: Column::mask(&rows.has_group),
            steps: Packed::u64(rows.steps),
            weights: Packed::f32(rows.weights),
        }
    }
}
