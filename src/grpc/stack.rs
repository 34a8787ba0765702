//! The layers in front of the services, outermost first.

use std::time::Duration;

use tower::ServiceBuilder;
use tower::layer::util::{Identity, Stack};
use tower_http::classify::{GrpcErrorsAsFailures, SharedClassifier};
use tower_http::trace::{DefaultMakeSpan, DefaultOnFailure, DefaultOnRequest, DefaultOnResponse, TraceLayer};
use tracing::Level;

/// The layers' type.
pub(super) type Layers = Stack<TraceLayer<SharedClassifier<GrpcErrorsAsFailures>>, Identity>;

/// The layers of every call.
pub(super) fn layers() -> Layers {
    ServiceBuilder::new()
        // A span for each call, so that whatever is logged on its behalf can be told from its neighbours'. A refused call is its
        // caller's mistake and only of interest to whoever looks for it; what is ours, status.rs logs as an error.
        .layer(
            TraceLayer::new_for_grpc()
                .make_span_with(DefaultMakeSpan::new().level(Level::INFO))
                .on_failure(DefaultOnFailure::new().level(Level::DEBUG))
                .on_request(DefaultOnRequest::new().level(Level::TRACE))
                .on_response(DefaultOnResponse::new().level(Level::DEBUG)),
        )
        .into_inner()
}

/// How often an idle connection is asked whether its client still lives.
pub(super) const KEEPALIVE: Duration = Duration::from_secs(30);

/// How long its answer may take before the connection is dropped.
pub(super) const KEEPALIVE_ANSWER: Duration = Duration::from_secs(20);
