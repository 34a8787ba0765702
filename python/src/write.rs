//! Writes: numpy columns to a message, and what the bank did with them.

use negbank::proto::v1::{Stage, WriteRequest, WriteResponse};
use numpy::{Element, PyReadonlyArray1};
use pyo3::prelude::*;

use crate::column::Column;
use crate::floats::FloatMatrix;

/// `negbank.requests.WriteBatch`.
#[derive(FromPyObject)]
pub(crate) struct WriteBatch<'py> {
    bank: String,
    embeddings: FloatMatrix<'py>,
    ids: Option<PyReadonlyArray1<'py, u64>>,
    labels: Option<PyReadonlyArray1<'py, i64>>,
    has_label: Option<PyReadonlyArray1<'py, u8>>,
    groups: Option<PyReadonlyArray1<'py, u64>>,
    has_group: Option<PyReadonlyArray1<'py, u8>>,
    weights: Option<PyReadonlyArray1<'py, f32>>,
    step: Option<u64>,
    momentum: Option<f32>,
    stage: Option<StageCall>,
}

/// `negbank.Stage`.
#[derive(FromPyObject)]
struct StageCall {
    step: u64,
    rank: u32,
    world_size: u32,
    micro_batch: u32,
}

impl WriteBatch<'_> {
    /// The message of this batch; the arrays are copied once, into it.
    pub(crate) fn into_message(self, py: Python<'_>) -> PyResult<WriteRequest> {
        let stage =
            self.stage.map(|StageCall { step, rank, world_size, micro_batch }| Stage { step, rank, world_size, micro_batch });
        Ok(WriteRequest {
            embeddings: Some(self.embeddings.into_message(py)?),
            ids: values(self.ids),
            labels: values(self.labels),
            has_label: values(self.has_label).into(),
            groups: values(self.groups),
            has_group: values(self.has_group).into(),
            weights: values(self.weights),
            step: self.step,
            momentum: self.momentum,
            bank: self.bank,
            stage,
            origin: None,
        })
    }
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
