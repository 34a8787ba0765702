//! Waiting for the network as Python code has to: without the GIL, and open to Ctrl-C.

use std::future::Future;
use std::pin::pin;
use std::process;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use pyo3::prelude::*;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

/// Threads that move bytes; encoding and decoding happen on the thread that calls.
const WORKERS: usize = 2;

/// How late a Ctrl-C may be noticed.
const SIGNALS_EVERY: Duration = Duration::from_millis(100);

/// The runtime, with the process that its threads live in: a forked child has the memory and not the threads.
static RUNTIME: Mutex<Option<(u32, &'static Runtime)>> = Mutex::new(None);

/// Runs `work` to its end on the calling thread. Other Python threads run meanwhile; a signal handler that raises
/// (`KeyboardInterrupt`) drops `work`, which cancels its call.
pub(crate) fn wait<T: Send>(py: Python<'_>, work: impl Future<Output = T> + Send) -> PyResult<T> {
    let runtime = runtime()?;
    py.detach(|| {
        runtime.block_on(async {
            let mut work = pin!(work);
            loop {
                if let Ok(done) = timeout(SIGNALS_EVERY, &mut work).await {
                    return Ok(done);
                }
                Python::attach(|py| py.check_signals())?;
            }
        })
    })
}

/// The process's runtime, started by the first call. The lock is only ever held with the GIL, under which Python forks, so
/// that no child inherits it locked.
pub(crate) fn runtime() -> PyResult<&'static Runtime> {
    let mut known = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
    let here = process::id();
    if let Some((process, runtime)) = *known
        && process == here
    {
        return Ok(runtime);
    }
    let built = Builder::new_multi_thread().worker_threads(WORKERS).thread_name("negbank").enable_all().build()?;
    let runtime: &'static Runtime = Box::leak(Box::new(built));
    *known = Some((here, runtime));
    Ok(runtime)
}
