//! Columns of an answer.

use std::convert::Infallible;

use negbank::client::FloatColumn;
use negbank::proto::v1::Dtype;
use numpy::{Element, PyArray1};
use pyo3::prelude::*;

/// Values that become a numpy array, which takes their memory over.
pub(crate) struct Column<T>(Vec<T>);

impl<T> From<Vec<T>> for Column<T> {
    fn from(values: Vec<T>) -> Self {
        Self(values)
    }
}

impl Column<bool> {
    /// A bool for each byte of a mask.
    pub(crate) fn mask(bytes: &[u8]) -> Self {
        Self(bytes.iter().map(|&byte| byte != 0).collect())
    }
}

impl Column<i64> {
    /// Row numbers, as numpy and torch index with them, of packed u32.
    pub(crate) fn rows(packed: &[u8]) -> Self {
        let (words, _) = packed.as_chunks::<4>();
        Self(words.iter().map(|word| i64::from(u32::from_le_bytes(*word))).collect())
    }
}

impl<'py, T: Element> IntoPyObject<'py> for Column<T> {
    type Target = PyArray1<T>;
    type Output = Bound<'py, Self::Target>;
    type Error = Infallible;

    fn into_pyobject(self, py: Python<'py>) -> Result<Self::Output, Self::Error> {
        Ok(PyArray1::from_vec(py, self.0))
    }
}

/// Packed little-endian numbers that become a numpy array of them: it takes over the memory into which they were decoded.
pub(crate) struct Packed {
    bytes: Vec<u8>,
    /// numpy's name of the numbers, such as `<f4`.
    numbers: &'static str,
}

impl Packed {
    /// `<u8`
    pub(crate) fn u64(bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: bytes.into(), numbers: "<u8" }
    }

    /// `<i8`
    pub(crate) fn i64(bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: bytes.into(), numbers: "<i8" }
    }

    /// `<f4`
    pub(crate) fn f32(bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: bytes.into(), numbers: "<f4" }
    }

    /// A matrix's floats, flat. bfloat16, which numpy doesn't have, comes as its bits, `<u2`.
    pub(crate) fn floats(matrix: Option<FloatColumn>) -> Self {
        let matrix = matrix.unwrap_or_default();
        let numbers = match matrix.dtype() {
            Dtype::Unspecified | Dtype::F32 => "<f4",
            Dtype::F16 => "<f2",
            Dtype::Bf16 => "<u2",
        };
        Self { bytes: matrix.data.into(), numbers }
    }
}

impl<'py> IntoPyObject<'py> for Packed {
    type Target = PyAny;
    type Output = Bound<'py, PyAny>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        // The allocator aligns to 16 bytes in practice and promises 1. numpy works on either, torch doesn't.
        let aligned = self.bytes.as_ptr().align_offset(8) == 0;
        let view = Column::from(self.bytes).into_pyobject(py)?.call_method1("view", (self.numbers,))?;
        if aligned { Ok(view) } else { view.call_method0("copy") }
    }
}
