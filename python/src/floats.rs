//! Floats on their way to the server.

use negbank::client::ClientError;
use negbank::proto::v1::{Dtype, EmbeddingEncoding, Matrix};
use numpy::PyReadonlyArray1;
use pyo3::prelude::*;

use crate::failure::{exception, invalid};

/// `negbank.requests.FloatMatrix`.
#[derive(FromPyObject)]
pub(crate) struct FloatMatrix<'py> {
    data: PyReadonlyArray1<'py, u8>,
    dim: u32,
    dtype: String,
}

impl FloatMatrix<'_> {
    /// The message, with its width, so that the server can tell another bank's rows from its own.
    pub(crate) fn into_message(self, py: Python<'_>) -> PyResult<Matrix> {
        let dtype = dtype(&self.dtype).map_err(|fault| exception(py, fault))?;
        let data = self.data.as_slice()?.to_vec().into();
        Ok(Matrix { data, dim: self.dim, dtype: dtype.into(), ..Matrix::default() })
    }
}

/// How floats are stored or sent.
pub(crate) fn dtype(name: &str) -> Result<Dtype, ClientError> {
    match name {
        "float32" => Ok(Dtype::F32),
        "float16" => Ok(Dtype::F16),
        "bfloat16" => Ok(Dtype::Bf16),
        other => Err(invalid("dtype", format!("{other:?} is none: give \"float32\", \"float16\" or \"bfloat16\""))),
    }
}

/// How embeddings are to be answered.
pub(crate) fn encoding(name: &str) -> Result<EmbeddingEncoding, ClientError> {
    Ok(match dtype(name)? {
        Dtype::Unspecified | Dtype::F32 => EmbeddingEncoding::F32,
        Dtype::F16 => EmbeddingEncoding::F16,
        Dtype::Bf16 => EmbeddingEncoding::Bf16,
    })
}
