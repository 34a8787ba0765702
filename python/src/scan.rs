//! Whole banks, chunk by chunk.

use std::sync::Arc;

use negbank::client::{Scan, ScanColumns};
use negbank::proto::v1::ScanRequest;
use pyo3::prelude::*;
use tokio::sync::Mutex;

use crate::column::Packed;
use crate::failure::{exception, located};
use crate::floats::encoding;
use crate::rows::RowArrays;
use crate::runtime::wait;

/// `negbank.requests.ScanCall`.
#[derive(FromPyObject)]
pub(crate) struct ScanCall {
    bank: String,
    dtype: String,
    without_embeddings: bool,
    chunk_rows: u32,
    at_least: Vec<u8>,
    since: Vec<u8>,
}

impl ScanCall {
    pub(crate) fn into_message(self, py: Python<'_>) -> PyResult<ScanRequest> {
        Ok(ScanRequest {
            bank: self.bank,
            encoding: encoding(&self.dtype).map_err(|fault| exception(py, fault))?.into(),
            without_embeddings: self.without_embeddings,
            chunk_rows: self.chunk_rows,
            at_least: self.at_least.into(),
            since: self.since.into(),
        })
    }
}

/// A scan that is under way; an iterator of chunks.
#[pyclass(frozen, module = "negbank._negbank")]
pub(crate) struct Chunks {
    scan: Arc<Mutex<Scan>>,
    address: String,
}

impl Chunks {
    pub(crate) fn new(scan: Scan, address: String) -> Self {
        Self { scan: Arc::new(Mutex::new(scan)), address }
    }
}

#[pymethods]
impl Chunks {
    fn __iter__(this: Py<Self>) -> Py<Self> {
        this
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Chunk>> {
        let scan = Arc::clone(&self.scan);
        let chunk = wait(py, async move { scan.lock().await.next().await.map(|chunk| chunk.map(Chunk::from)) })?;
        chunk.map_err(|fault| exception(py, located(fault, &self.address)))
    }
}

/// A part of a scan, as a dict.
#[derive(IntoPyObject)]
pub(crate) struct Chunk {
    rows: RowArrays,
    stamps: Packed,
    gone: Packed,
    whole: bool,
    last: bool,
    position: Vec<u8>,
    consistent: bool,
    entries: u64,
    sequence: u64,
    step: Option<u64>,
}

impl From<ScanColumns> for Chunk {
    fn from(chunk: ScanColumns) -> Self {
        Self {
            rows: chunk.rows.into(),
            stamps: Packed::u64(chunk.stamps),
            gone: Packed::u64(chunk.gone),
            whole: chunk.whole,
            last: chunk.last,
            position: chunk.position.into(),
            consistent: chunk.consistent,
            entries: chunk.entries,
            sequence: chunk.sequence,
            step: chunk.step,
        }
    }
}
