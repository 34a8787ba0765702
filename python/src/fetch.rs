//! Entries by id.

use negbank::proto::v1::FetchResponse;
use pyo3::prelude::*;

use crate::column::Column;
use crate::rows::RowColumns;

/// Which ids were found, and the entries found, as a dict.
#[derive(IntoPyObject)]
pub(crate) struct Fetched {
    found: Column<bool>,
    rows: RowColumns,
    sequence: u64,
    step: Option<u64>,
}

impl From<FetchResponse> for Fetched {
    fn from(answer: FetchResponse) -> Self {
        Self {
            found: Column::mask(&answer.found),
            rows: answer.rows.unwrap_or_default().into(),
            sequence: answer.sequence,
            step: answer.step,
        }
    }
}
