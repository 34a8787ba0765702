//! The trace that a call is part of.

use negbank::client::Client;
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// The client whose calls carry the current span of OpenTelemetry, if the program uses that and there is one.
pub(crate) fn carried(py: Python<'_>, client: Client) -> Client {
    // Nobody's training is to end since a trace can't be told of.
    let carrier = current(py).unwrap_or_default();
    match carrier {
        Some((traceparent, tracestate)) => client.with_trace(&traceparent, &tracestate).unwrap_or(client),
        None => client,
    }
}

fn current(py: Python<'_>) -> PyResult<Option<(String, String)>> {
    // A program that has not imported it has no span; looking it up is all that this costs then.
    if !py.import("sys")?.getattr("modules")?.contains("opentelemetry.trace")? {
        return Ok(None);
    }
    let carrier = PyDict::new(py);
    py.import("opentelemetry.propagate")?.call_method1("inject", (&carrier,))?;
    let of = |name: &str| carrier.get_item(name)?.map(|value| value.extract::<String>()).transpose();
    Ok(of("traceparent")?.map(|parent| (parent, of("tracestate").ok().flatten().unwrap_or_default())))
}
