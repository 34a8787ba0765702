//! The native half of the Python package `negbank`: the Rust client, with numpy arrays at its edges.
//!
//! What a Python caller sees (signatures, checks of arguments, docstrings) is in `package/negbank`; here requests become
//! messages, calls wait without the GIL, and answers become arrays.

mod bank;
mod checkpoint;
mod column;
mod failure;
mod fetch;
mod flight;
mod floats;
mod gather;
mod rows;
mod runtime;
mod sample;
mod scan;
mod session;
mod trace;
mod write;

/// The extension module.
#[pyo3::pymodule]
mod _negbank {
    #[pymodule_export]
    use super::flight::Flight;
    #[pymodule_export]
    use super::scan::Chunks;
    #[pymodule_export]
    use super::session::Session;

    /// Version of the package.
    #[pymodule_export]
    const VERSION: &str = env!("CARGO_PKG_VERSION");
}
