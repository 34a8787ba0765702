//! Gathers: a rank's rows to a message, and all ranks' rows back.

use negbank::client::GatherColumns;
use negbank::proto::v1::{GatherInfo, GatherRequest};
use numpy::PyReadonlyArray1;
use pyo3::prelude::*;

use crate::column::Column;
use crate::floats::FloatMatrix;
use crate::rows::RowArrays;
use crate::write::values;

/// `negbank.requests.GatherCall`.
#[derive(FromPyObject)]
pub(crate) struct GatherCall<'py> {
    group: String,
    step: u64,
    micro_batch: u32,
    rank: u32,
    world_size: u32,
    embeddings: FloatMatrix<'py>,
    ids: Option<PyReadonlyArray1<'py, u64>>,
    labels: Option<PyReadonlyArray1<'py, i64>>,
    has_label: Option<PyReadonlyArray1<'py, u8>>,
    groups: Option<PyReadonlyArray1<'py, u64>>,
    has_group: Option<PyReadonlyArray1<'py, u8>>,
    wait_ms: u32,
    retries: Option<u32>,
}

impl GatherCall<'_> {
    /// How often to try again; none: as often as the session does.
    pub(crate) fn retries(&self) -> Option<u32> {
        self.retries
    }

    /// The message; the arrays are copied once, into it.
    pub(crate) fn into_message(self, py: Python<'_>) -> PyResult<GatherRequest> {
        Ok(GatherRequest {
            embeddings: Some(self.embeddings.into_message(py)?),
            group: self.group,
            step: self.step,
            micro_batch: self.micro_batch,
            rank: self.rank,
            world_size: self.world_size,
            ids: values(self.ids),
            labels: values(self.labels),
            has_label: values(self.has_label).into(),
            groups: values(self.groups),
            has_group: values(self.has_group).into(),
            wait_ms: self.wait_ms,
            readable: false,
        })
    }
}

/// The rows of all ranks, as a dict.
#[derive(IntoPyObject)]
pub(crate) struct Gathered {
    rows: RowArrays,
    counts: Column<u32>,
    missing_ranks: Vec<u32>,
}

impl From<GatherColumns> for Gathered {
    fn from(answer: GatherColumns) -> Self {
        Self { rows: answer.rows.into(), counts: answer.counts.into(), missing_ranks: answer.missing_ranks }
    }
}

/// The fields of `negbank.GatherInfo`, as a dict.
#[derive(IntoPyObject)]
pub(crate) struct GatherDescription {
    group: String,
    step: u64,
    micro_batch: u32,
    world_size: u32,
    missing_ranks: Vec<u32>,
    finished: bool,
    bytes: u64,
}

impl From<GatherInfo> for GatherDescription {
    fn from(gather: GatherInfo) -> Self {
        let GatherInfo { group, step, micro_batch, world_size, missing_ranks, finished, bytes } = gather;
        Self { group, step, micro_batch, world_size, missing_ranks, finished, bytes }
    }
}
