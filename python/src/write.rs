//! Writes: numpy columns to a message, and what the bank did with them.

use negbank::client::rows;
use negbank::proto::v1::{Matrix, WriteRequest, WriteResponse};
use numpy::{Element, PyReadonlyArray1, PyReadonlyArray2};
use pyo3::prelude::*;

use crate::column::Column;

/// `negbank.requests.WriteBatch`.
#[derive(FromPyObject)]
pub(crate) struct WriteBatch<'py> {
    bank: String,
    embeddings: PyReadonlyArray2<'py, f32>,
    ids: Option<PyReadonlyArray1<'py, u64>>,
    labels: Option<PyReadonlyArray1<'py, i64>>,
    has_label: Option<PyReadonlyArray1<'py, u8>>,
    groups: Option<PyReadonlyArray1<'py, u64>>,
    has_group: Option<PyReadonlyArray1<'py, u8>>,
    step: Option<u64>,
    momentum: Option<f32>,
}

impl WriteBatch<'_> {
    /// The message of this batch; the arrays are copied once, into it.
    pub(crate) fn into_message(self) -> PyResult<WriteRequest> {
        Ok(WriteRequest {
            embeddings: Some(matrix(&self.embeddings)?),
            ids: values(self.ids),
            labels: values(self.labels),
            has_label: values(self.has_label).into(),
            groups: values(self.groups),
            has_group: values(self.has_group).into(),
            step: self.step,
            momentum: self.momentum,
            bank: self.bank,
            ..WriteRequest::default()
        })
    }
}

/// The message of an array of rows, with its width, so that the server can tell another bank's rows from its own.
pub(crate) fn matrix(array: &PyReadonlyArray2<'_, f32>) -> PyResult<Matrix> {
    let dim = u32::try_from(array.as_array().ncols()).unwrap_or(u32::MAX);
    Ok(Matrix { dim, ..rows(array.as_slice()?) })
}

/// The values of a column; none for a column that is left out.
pub(crate) fn values<T: Element + Clone>(column: Option<PyReadonlyArray1<'_, T>>) -> Vec<T> {
    column.map(|column| column.as_array().to_vec()).unwrap_or_default()
}

/// What a write did, as a dict.
#[derive(IntoPyObject)]
pub(crate) struct Written {
    sequence: u64,
    inserted: u64,
    updated: u64,
    evicted: u64,
    ids: Column<u64>,
    position: Vec<u8>,
    duplicate: bool,
}

impl From<WriteResponse> for Written {
    fn from(answer: WriteResponse) -> Self {
        Self {
            sequence: answer.sequence,
            inserted: answer.inserted,
            updated: answer.updated,
            evicted: answer.evicted,
            ids: answer.ids.into(),
            position: answer.position.into(),
            duplicate: answer.duplicate,
        }
    }
}
