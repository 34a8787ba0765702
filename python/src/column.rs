//! One column of an answer.

use std::convert::Infallible;

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

impl<'py, T: Element> IntoPyObject<'py> for Column<T> {
    type Target = PyArray1<T>;
    type Output = Bound<'py, Self::Target>;
    type Error = Infallible;

    fn into_pyobject(self, py: Python<'py>) -> Result<Self::Output, Self::Error> {
        Ok(PyArray1::from_vec(py, self.0))
    }
}
