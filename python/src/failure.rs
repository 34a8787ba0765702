//! The only place where an error of the client becomes an exception of `negbank.errors`.

use std::time::Duration;

use negbank::client::{ClientError, Code, FieldViolation};
use pyo3::prelude::*;

/// The exception for `error`.
pub(crate) fn exception(py: Python<'_>, error: ClientError) -> PyErr {
    instance(py, error).map_or_else(|broken| broken, PyErr::from_value)
}

/// A fault of an argument that the server never saw.
pub(crate) fn invalid(parameter: &str, reason: String) -> ClientError {
    ClientError::InvalidArgument {
        message: format!("{parameter}: {reason}"),
        violations: vec![FieldViolation { field: parameter.to_owned(), reason }],
    }
}

/// `fault` as a caller of the server at `address` should read it, where the transport's own words or code don't say enough.
pub(crate) fn located(fault: ClientError, address: &str) -> ClientError {
    match fault {
        // A server that says when to call again is there.
        ClientError::Unavailable { message, retry_after: None } => ClientError::Unavailable {
            message: format!(
                "the server at {address} is away ({message}); the connection mends itself, so call again once it is back"
            ),
            retry_after: None,
        },
        other => other,
    }
}

fn instance(py: Python<'_>, error: ClientError) -> PyResult<Bound<'_, PyAny>> {
    let classes = py.import("negbank.errors")?;
    let plain = |class: &str, message: String| classes.getattr(class)?.call1((message,));
    let told = |class: &str, message: String, when: Option<Duration>| {
        classes.getattr(class)?.call1((message, when.map(|when| when.as_secs_f64())))
    };
    match error {
        ClientError::InvalidArgument { message, violations } => {
            let violations: Vec<_> = violations.into_iter().map(|fault| (fault.field, fault.reason)).collect();
            classes.getattr("InvalidArgument")?.call1((message, violations))
        }
        ClientError::ResourceExhausted { message, retry_after } => told("ResourceExhausted", message, retry_after),
        ClientError::NotFound(message) => plain("NotFound", message),
        ClientError::AlreadyExists(message) => plain("AlreadyExists", message),
        ClientError::FailedPrecondition(message) => plain("FailedPrecondition", message),
        ClientError::Unavailable { message, retry_after } => told("Unavailable", message, retry_after),
        ClientError::DeadlineExceeded(message) => {
            plain("DeadlineExceeded", format!("{message}; give the call more time (timeout=, in seconds) or ask for less"))
        }
        ClientError::Other { code, message } => {
            let class = match code {
                Code::Unauthenticated => "Unauthenticated",
                Code::PermissionDenied => "PermissionDenied",
                Code::Unimplemented => "Unimplemented",
                Code::Internal | Code::Unknown | Code::DataLoss => "InternalError",
                Code::Cancelled | Code::Aborted => "Cancelled",
                _ => "Error",
            };
            plain(class, message)
        }
    }
}
