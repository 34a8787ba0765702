//! The layers in front of the services, outermost first.

use tonic::body::Body;
use tower::ServiceBuilder;
use tower::layer::util::{Identity, Stack};
use tower::util::MapResponseLayer;
use tower_http::classify::{GrpcErrorsAsFailures, SharedClassifier};
use tower_http::trace::{DefaultOnFailure, DefaultOnRequest, DefaultOnResponse, TraceLayer};
use tracing::{Level, Span};

use super::access::AccessLayer;
use super::deadline::DeadlineLayer;
use super::endless::EndlessLayer;
use super::inbound::InboundLayer;
use super::measured::MeasuredLayer;
use super::outbound::OutboundLayer;
use super::readers::Readers;
use super::small_requests::SmallRequestsLayer;
use super::{Config, status};
use crate::engine::Ledger;
use crate::telemetry::{Metrics, Traces};

/// The layers' type.
pub(super) type Layers =
    Stack<InboundLayer, Stack<SmallRequestsLayer, Stack<EndlessLayer, Stack<DeadlineLayer, Stack<AccessLayer, Answers>>>>>;

/// Those of answers, refusals too.
type Answers = Stack<MapResponseLayer<Respond>, Stack<OutboundLayer, Stack<MeasuredLayer, Stack<Traced, Identity>>>>;

type Traced = TraceLayer<SharedClassifier<GrpcErrorsAsFailures>, fn(&http::Request<Body>) -> Span>;

type Respond = fn(http::Response<Body>) -> http::Response<Body>;

/// The layers of every call.
pub(super) fn layers(
    config: &Config,
    (metrics, traces): (Metrics, Traces),
    (access, endless): (AccessLayer, EndlessLayer),
    (ledger, readers): (Ledger, Readers),
) -> Layers {
    ServiceBuilder::new()
        // A span for each call, for whoever looks closer (`tower_http=debug,negbank=debug`): it would be most of what logs cost. A refused
        // call is its caller's mistake; what is ours, status.rs logs as an error, with the method.
        .layer(
            TraceLayer::new_for_grpc()
                .make_span_with(span as fn(&http::Request<Body>) -> Span)
                .on_failure(DefaultOnFailure::new().level(Level::DEBUG))
                .on_request(DefaultOnRequest::new().level(Level::TRACE))
                .on_response(DefaultOnResponse::new().level(Level::DEBUG)),
        )
        // Outside of what may refuse a call, so that refusals are measured too.
        .layer(MeasuredLayer { metrics, traces })
        // Every answer, refusals too: a client that reads nothing holds what it was answered.
        .layer(OutboundLayer(readers))
        // tonic refuses a large message without a word about the setting that allows it, and calls rubbish an error of ours.
        .layer(MapResponseLayer::new(status::in_our_words as Respond))
        // Before a byte of the message is taken.
        .layer(access)
        // From the headers on, so that the time of the upload counts, and so that a call that comes too late is not even decoded.
        // tonic keeps the caller's deadline too, but answers CANCELLED; this one is sooner.
        .layer(DeadlineLayer { default: config.default_deadline })
        // A drain waits for no call that was never to end.
        .layer(endless)
        // Of what a conversation asks, no more is kept than it may ask.
        .layer(SmallRequestsLayer)
        // Innermost, so that a call that is cut gives back its share with everything else.
        .layer(InboundLayer::new(config.max_inbound_bytes, config.default_deadline, ledger))
        .into_inner()
}

fn span(request: &http::Request<Body>) -> Span {
    tracing::debug_span!("call", method = request.uri().path().trim_start_matches('/'))
}

/// Calls at once on one connection; more wait for their turn at the client.
pub(super) const STREAMS: u32 = 1_024;
