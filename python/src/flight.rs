//! Calls that nobody waits for yet.

use std::future::Future;

use negbank::client::ClientError;
use pyo3::IntoPyObjectExt as _;
use pyo3::prelude::*;
use tokio::runtime::Runtime;
use tokio::task::{AbortHandle, spawn_blocking};

use crate::failure::{exception, located};

/// A call in flight.
#[pyclass(frozen, module = "negbank._negbank")]
pub(crate) struct Flight(AbortHandle);

#[pymethods]
impl Flight {
    /// Gives the call up; the server is told and stops its work. Without effect on one that has ended.
    fn cancel(&self) {
        self.0.abort();
    }
}

impl Flight {
    /// Runs `work` on the runtime and calls `landed(answer, fault)`, one of them None, on a thread that may wait for the GIL.
    pub(crate) fn start<T>(
        runtime: &Runtime,
        work: impl Future<Output = Result<T, ClientError>> + Send + 'static,
        address: String,
        landed: Py<PyAny>,
    ) -> Self
    where
        T: for<'py> IntoPyObject<'py> + Send + 'static,
    {
        let task = runtime.spawn(async move {
            let outcome = work.await;
            // Detached: once the answer is here there is nothing left to cancel.
            drop(spawn_blocking(move || land(outcome, &address, &landed)));
        });
        Self(task.abort_handle())
    }
}

/// Hands the outcome over, unless the interpreter is on its way out.
fn land<T: for<'py> IntoPyObject<'py>>(outcome: Result<T, ClientError>, address: &str, landed: &Py<PyAny>) {
    let _ = Python::try_attach(|py| {
        let answer = match outcome {
            Ok(answer) => answer.into_py_any(py),
            Err(fault) => Err(exception(py, located(fault, address))),
        };
        let handed = match answer {
            Ok(answer) => landed.call1(py, (answer, py.None())),
            Err(fault) => landed.call1(py, (py.None(), fault)),
        };
        if let Err(broken) = handed {
            broken.write_unraisable(py, None);
        }
    });
}
