//! The only place where an error of ours becomes a gRPC status.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::engine::EngineError;
use crate::model::Invalid;

/// When a caller that met a full queue should come back.
const RETRY_DELAY: Duration = Duration::from_millis(50);

/// The status of a refused request: one violation per fault.
pub(super) fn invalid(refused: &Invalid) -> Status {
    let mut details = ErrorDetails::new();
    for fault in &refused.violations {
        details.add_bad_request_violation(fault.field.clone(), fault.reason.clone());
    }
    Status::with_error_details(Code::InvalidArgument, refused.to_string(), details)
}

/// The status of anything that the engine refused or failed at.
pub(super) fn engine(error: &EngineError) -> Status {
    let message = error.to_string();
    match error {
        EngineError::Invalid(refused) => invalid(refused),
        EngineError::NotFound { .. } => Status::not_found(message),
        EngineError::AlreadyExists { .. } | EngineError::StageTaken { .. } => Status::already_exists(message),
        EngineError::TooFewEntries { .. }
        | EngineError::OtherHistory(_)
        | EngineError::NotKeyed
        | EngineError::Forgotten { .. } => Status::failed_precondition(message),
        EngineError::LimitReached { .. } | EngineError::OutOfMemory(_) => Status::resource_exhausted(message),
        EngineError::Busy { .. } => {
            let details = ErrorDetails::with_retry_info(Some(RETRY_DELAY));
            Status::with_error_details(Code::ResourceExhausted, message, details)
        }
        EngineError::DeadlineExceeded | EngineError::StageExpired { .. } => Status::deadline_exceeded(message),
        EngineError::Poisoned(_) | EngineError::Internal(_) => {
            tracing::error!(%error, "a request failed for a reason that is ours");
            Status::internal(message)
        }
    }
}
