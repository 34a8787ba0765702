//! Entries by id, and those that most need a refresh.

use negbank::client::{FetchColumns, StalestColumns};
use negbank::proto::v1::FetchRequest;
use numpy::PyReadonlyArray1;
use pyo3::prelude::*;

use crate::column::Column;
use crate::failure::exception;
use crate::floats::encoding;
use crate::rows::RowArrays;

/// `negbank.requests.FetchCall`.
#[derive(FromPyObject)]
pub(crate) struct FetchCall<'py> {
    bank: String,
    ids: PyReadonlyArray1<'py, u64>,
    at_least: Vec<u8>,
    dtype: String,
}

impl FetchCall<'_> {
    pub(crate) fn into_message(self, py: Python<'_>) -> PyResult<FetchRequest> {
        Ok(FetchRequest {
            bank: self.bank,
            ids: self.ids.as_array().to_vec(),
            at_least: self.at_least.into(),
            encoding: encoding(&self.dtype).map_err(|fault| exception(py, fault))?.into(),
        })
    }
}

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

/// The stalest entries, without embeddings, as a dict.
#[derive(IntoPyObject)]
pub(crate) struct Stalest {
    rows: RowArrays,
    sequence: u64,
    step: Option<u64>,
}

impl From<StalestColumns> for Stalest {
    fn from(answer: StalestColumns) -> Self {
        Self { rows: answer.rows.into(), sequence: answer.sequence, step: answer.step }
    }
}
