//! Entries on their way back: message columns to numpy arrays.

use negbank::client::floats;
use negbank::proto::v1::Rows;
use pyo3::prelude::*;

use crate::column::Column;

/// Columns of entries, as a dict of flat arrays; a column that was not sent is empty. Embeddings are row-major.
#[derive(IntoPyObject)]
pub(crate) struct RowColumns {
    ids: Column<u64>,
    embeddings: Column<f32>,
    labels: Column<i64>,
    has_label: Column<bool>,
    groups: Column<u64>,
    has_group: Column<bool>,
    steps: Column<u64>,
}

impl From<Rows> for RowColumns {
    fn from(rows: Rows) -> Self {
        Self {
            ids: rows.ids.into(),
            embeddings: rows.embeddings.as_ref().map(floats).unwrap_or_default().into(),
            labels: rows.labels.into(),
            has_label: Column::mask(&rows.has_label),
            groups: rows.groups.into(),
            has_group: Column::mask(&rows.has_group),
            steps: rows.steps.into(),
        }
    }
}
