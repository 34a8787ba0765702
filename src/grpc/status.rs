//! The only place where an error of ours becomes a gRPC status.

use std::time::Duration;

use tonic::body::Body;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::engine::EngineError;
use crate::model::Invalid;
use crate::telemetry::Work;

/// The status of a refused request: one violation per fault.
pub(super) fn invalid(refused: &Invalid) -> Status {
    let mut details = ErrorDetails::new();
    for fault in &refused.violations {
        details.add_bad_request_violation(fault.field.clone(), fault.reason.clone());
    }
    Status::with_error_details(Code::InvalidArgument, refused.to_string(), details)
}

/// The status of a call whose deadline has passed.
pub(super) fn late() -> Status {
    engine(&EngineError::DeadlineExceeded)
}

/// Of a request that was not there in time, though its deadline was far away.
pub(super) fn slow_upload(most: Duration) -> Status {
    let seconds = most.as_secs_f32();
    Status::deadline_exceeded(format!(
        "the request had not come whole within {seconds} s (setting server.default_deadline_seconds)"
    ))
}

/// Of what there is too much of for the moment: whoever comes back then may be served.
pub(super) fn for_now(message: String, retry_after: Duration) -> Status {
    let details = ErrorDetails::with_retry_info(Some(retry_after));
    Status::with_error_details(Code::ResourceExhausted, message, details)
}

/// When to ask again what the system refused memory or threads for.
const SYSTEM: Duration = Duration::from_secs(1);

/// How the transport begins to tell of a message that is none.
const UNDECODABLE: &str = "failed to decode Protobuf message";

/// Why a request was refused for its size; left in its answer's extensions, for whoever knows the client.
#[derive(Debug, Clone)]
pub(super) struct TooLarge(pub(super) String);

/// What the transport refuses by itself, as we would: a message over its size with the setting (only for that it answers
/// OUT_OF_RANGE), and bytes that are no message as the caller's fault.
pub(super) fn in_our_words(response: http::Response<Body>) -> http::Response<Body> {
    match Status::from_header_map(response.headers()) {
        Some(refused) if refused.code() == Code::Internal && refused.message().starts_with(UNDECODABLE) => {
            invalid(&Invalid::one("request", format!("is not a message of this method: {}", refused.message()))).into_http()
        }
        Some(refused) if refused.code() == Code::OutOfRange => {
            let message = format!("{} (setting server.max_message_bytes): send less at a time", refused.message());
            Work::current().refused("server.max_message_bytes");
            let mut answer = Status::resource_exhausted(message.clone()).into_http();
            answer.extensions_mut().insert(TooLarge(message));
            answer
        }
        _ => response,
    }
}

/// The status of anything that the engine refused or failed at.
pub(super) fn engine(error: &EngineError) -> Status {
    let message = error.to_string();
    refusal(error).into_iter().for_each(|reason| Work::current().refused(reason));
    match error {
        EngineError::Invalid(refused) => invalid(refused),
        EngineError::NotFound { .. } | EngineError::Deleted(_) | EngineError::NoCheckpoint(_) => Status::not_found(message),
        EngineError::AlreadyExists { .. }
        | EngineError::CheckpointExists { .. }
        | EngineError::StageTaken { .. }
        | EngineError::GatherTaken(_) => Status::already_exists(message),
        EngineError::TooFewEntries { .. }
        | EngineError::OtherHistory(_)
        | EngineError::LeftHistory { .. }
        | EngineError::NotKeyed
        | EngineError::LogFailed { .. }
        | EngineError::WritesEnded { .. }
        | EngineError::ReadOnly { .. }
        | EngineError::NotKept { .. }
        | EngineError::Storage(_)
        | EngineError::NotServed { .. }
        | EngineError::Forgotten { .. } => Status::failed_precondition(message),
        EngineError::Refused { .. } | EngineError::Damaged(_) | EngineError::CheckpointDamaged { .. } => {
            Status::data_loss(message)
        }
        EngineError::LimitReached { .. }
        | EngineError::NeverFits(_)
        | EngineError::MemoryFull { .. }
        | EngineError::Overrun(_) => Status::resource_exhausted(message),
        // The system may have more soon.
        EngineError::OutOfMemory(_) | EngineError::NoThreads => for_now(message, SYSTEM),
        EngineError::Busy { retry_after, .. } | EngineError::Overloaded { retry_after, .. } => for_now(message, *retry_after),
        EngineError::DeadlineExceeded
        | EngineError::Hopeless { .. }
        | EngineError::StageExpired { .. }
        | EngineError::CheckpointBusy { .. } => Status::deadline_exceeded(message),
        EngineError::Recovering { retry_after, .. } => {
            let details = ErrorDetails::with_retry_info(Some(*retry_after));
            Status::with_error_details(Code::Unavailable, message, details)
        }
        EngineError::Stopping(_) => Status::unavailable(message),
        EngineError::Poisoned(_) | EngineError::Internal(_) => {
            tracing::error!(method = Work::current().method(), %error, "a request failed for a reason that is ours");
            Status::internal(message)
        }
    }
}

/// Of what there was too little, for `negbank_refusals_total`.
fn refusal(error: &EngineError) -> Option<&'static str> {
    match error {
        EngineError::Overloaded { .. } | EngineError::Hopeless { .. } => Some("deadline"),
        EngineError::Busy { setting, .. } => Some(setting),
        EngineError::MemoryFull { .. } => Some("memory.max_bytes"),
        EngineError::NeverFits(excess) => Some(excess.setting),
        EngineError::LimitReached { setting, .. } => Some(setting),
        EngineError::OutOfMemory(_) | EngineError::NoThreads => Some("system"),
        _ => None,
    }
}
