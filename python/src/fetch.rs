//! Entries by id.

use negbank::client::FetchColumns;
use pyo3::prelude::*;

use crate::column::Column;
use crate::rows::RowArrays;

/// Which ids were found, and the entries found, as a dict.
#[derive(IntoPyObject)]
pub(crate) struct Fetched {
    found: Column<bool>,
    rows: RowArrays,
    sequence: u64,
    step: Option<u64>,
}

impl From<FetchColumns> for Fetched {
    fn from(answer: FetchColumns) -> Self {
        Self { found: Column::mask(&answer.found), rows: answer.rows.into(), sequence: answer.sequence, step: answer.step }
    }
}
