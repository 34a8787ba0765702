//! What a call can come back with.

use std::error::Error;
use std::time::Duration;

use tonic::{Code, Status, TimeoutExpired};
use tonic_types::StatusExt;

/// One fault of a request, as the server named it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldViolation {
    /// Path of the field, with the row where it has rows.
    pub field: String,
    /// What was wrong with it.
    pub reason: String,
}

/// Why a call failed, by what the caller should do.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClientError {
    /// Mend the request.
    #[error("{message}")]
    InvalidArgument {
        /// All faults in one line.
        message: String,
        /// The faults.
        violations: Vec<FieldViolation>,
    },
    /// There is no such bank.
    #[error("{0}")]
    NotFound(String),
    /// It is there, with other settings.
    #[error("{0}")]
    AlreadyExists(String),
    /// The bank is not in the state that the call needs.
    #[error("{0}")]
    FailedPrecondition(String),
    /// The server is at a limit; where it says when to come back, do.
    #[error("{message}")]
    ResourceExhausted {
        /// Which limit, and its setting.
        message: String,
        /// When to try again; `None`: trying again won't help.
        retry_after: Option<Duration>,
    },
    /// No server answers at the address, or it is stopping, or recovering the bank.
    #[error("{message}")]
    Unavailable {
        /// Why, as far as it is known.
        message: String,
        /// When to try again, where a server says so.
        retry_after: Option<Duration>,
    },
    /// Give the call more time, or ask for less.
    #[error("{0}")]
    DeadlineExceeded(String),
    /// Anything else.
    #[error("{code:?}: {message}")]
    Other {
        /// The gRPC code.
        code: Code,
        /// The server's words.
        message: String,
    },
}

impl ClientError {
    /// The gRPC code of the failure, whether the server or this side named it.
    pub fn code(&self) -> Code {
        match self {
            Self::InvalidArgument { .. } => Code::InvalidArgument,
            Self::NotFound(_) => Code::NotFound,
            Self::AlreadyExists(_) => Code::AlreadyExists,
            Self::FailedPrecondition(_) => Code::FailedPrecondition,
            Self::ResourceExhausted { .. } => Code::ResourceExhausted,
            Self::Unavailable { .. } => Code::Unavailable,
            Self::DeadlineExceeded(_) => Code::DeadlineExceeded,
            Self::Other { code, .. } => *code,
        }
    }

    /// When to try again, where a server that refused the call and did nothing of it says so (google.rpc.RetryInfo).
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::ResourceExhausted { retry_after, .. } | Self::Unavailable { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// The same, where nothing was ever heard from the address.
    pub(super) fn of_a_stranger(self) -> Self {
        match self {
            Self::Unavailable { message, retry_after: None } if message.starts_with(BROKE) => Self::away(format!(
                "{message}; nothing was heard from there yet: is it the server's gRPC port, does it speak TLS (then give its address as \
                 https://host:port), does it want a client's certificate?"
            )),
            known => known,
        }
    }

    /// Nobody answers, or answered.
    pub(super) fn away(message: impl Into<String>) -> Self {
        Self::Unavailable { message: message.into(), retry_after: None }
    }
}

impl From<Status> for ClientError {
    fn from(status: Status) -> Self {
        let message = status.message().to_owned();
        match status.code() {
            Code::InvalidArgument => Self::InvalidArgument { message, violations: violations(&status) },
            Code::NotFound => Self::NotFound(message),
            Code::AlreadyExists => Self::AlreadyExists(message),
            Code::FailedPrecondition => Self::FailedPrecondition(message),
            Code::ResourceExhausted => Self::ResourceExhausted { message, retry_after: told(&status) },
            Code::Unavailable if is_silent(&status) => Self::away(lost(&status)),
            Code::Unavailable => Self::Unavailable { message, retry_after: told(&status) },
            Code::DeadlineExceeded => Self::DeadlineExceeded(message),
            // tonic's client reports its own expired deadline as cancelled.
            Code::Cancelled if causes(&status).any(|cause| cause.is::<TimeoutExpired>()) || status.source().is_none() => {
                Self::DeadlineExceeded(message)
            }
            Code::Internal if is_other_protocol(&status) => Self::away(
                "what answers there speaks no gRPC in the clear; if it speaks TLS, give its address as https://host:port",
            ),
            // A status with a cause was made on this side: the transport failed under the call, or a draining server closed it.
            Code::Unknown | Code::Cancelled if status.source().is_some() => Self::away(lost(&status)),
            Code::Internal if causes(&status).any(|cause| cause.is::<h2::Error>()) => Self::away(lost(&status)),
            // Only the message size limits answer so, this side's and the server's.
            Code::OutOfRange => {
                let message = format!(
                    "{message}; ask for less, or raise the client's max_message_bytes or the server's server.max_message_bytes"
                );
                Self::ResourceExhausted { message, retry_after: None }
            }
            code => Self::Other { code, message },
        }
    }
}

/// When the server, which refused the call and did nothing of it, wants to see it again.
pub(super) fn told(status: &Status) -> Option<Duration> {
    let refused = matches!(status.code(), Code::ResourceExhausted | Code::Unavailable);
    status.get_details_retry_info().filter(|_| refused)?.retry_delay
}

/// Whether nobody has taken the call that ended so: its connection was ending, as an old one does and those of a server that stops, and
/// takes no more. Either HTTP/2 says so, or hyper that it was cancelled, of which tonic makes such a status and of a time that is up.
pub(super) fn was_never_taken(status: &Status) -> bool {
    let goes_away = |fault: &h2::Error| fault.is_go_away() && fault.is_remote() && fault.reason() == Some(h2::Reason::NO_ERROR);
    match causes(status).find_map(|cause| cause.downcast_ref()) {
        Some(fault) => goes_away(fault),
        None => {
            let late = causes(status).any(|cause| cause.is::<TimeoutExpired>());
            status.code() == Code::Cancelled && status.source().is_some() && !late
        }
    }
}

/// Whether the first bytes from the other side made no sense: to HTTP/2 an alert of TLS looks like a frame that is far too long.
fn is_other_protocol(status: &Status) -> bool {
    let reasons = causes(status).filter_map(|cause| cause.downcast_ref::<h2::Error>()?.reason());
    reasons.into_iter().any(|reason| reason == h2::Reason::FRAME_SIZE_ERROR)
}

/// Whether the server gave no sign of life any more. hyper names the cause by its words only.
fn is_silent(status: &Status) -> bool {
    causes(status).any(|cause| cause.to_string() == "keep-alive timed out")
}

/// The chain of causes, the deepest last.
fn causes(status: &Status) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(status.source(), |&fault| fault.source())
}

/// How what is said of a connection that broke begins.
const BROKE: &str = "the connection broke during the call";

fn lost(status: &Status) -> String {
    let cause = causes(status).last().map_or_else(String::new, |fault| format!(" ({fault})"));
    format!("{BROKE}{cause}; a write may or may not have been applied")
}

fn violations(status: &Status) -> Vec<FieldViolation> {
    let listed = status.get_details_bad_request().map(|details| details.field_violations).unwrap_or_default();
    listed.into_iter().map(|fault| FieldViolation { field: fault.field, reason: fault.description }).collect()
}
