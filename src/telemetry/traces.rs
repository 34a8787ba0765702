//! Spans of calls, sent to a collector by OTLP over gRPC.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use http::HeaderMap;
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::{Span as _, SpanBuilder, SpanKind, Status, TraceContextExt as _, TracerProvider as _};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider, Span};

/// Settings of the traces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where a collector takes OTLP over gRPC, as in `http://127.0.0.1:4317`; `None`: no call is traced.
    pub endpoint: Option<String>,
    /// Of a million calls that come without a trace, how many begin one. A call that comes with a trace is part of it if its caller
    /// records it, and else not.
    pub sample_per_million: usize,
    /// What the server is called in traces.
    pub service_name: String,
}

impl Default for Config {
    fn default() -> Self {
        Self { endpoint: None, sample_per_million: 10_000, service_name: "negbank".to_owned() }
    }
}

/// Traces can't be sent there.
#[derive(Debug, thiserror::Error)]
#[error("traces.endpoint {endpoint:?}: {source}")]
pub struct TracesError {
    endpoint: String,
    source: opentelemetry_otlp::ExporterBuildError,
}

/// Spans that wait to be sent; more are dropped, and the log says so.
const QUEUE: usize = 4_096;
/// How long a span waits for others at most.
const BATCH_EVERY: Duration = Duration::from_secs(1);
/// How long one export may take.
const EXPORT_AT_MOST: Duration = Duration::from_secs(10);

/// Where spans go. Cheap to clone.
#[derive(Clone, Default)]
pub struct Traces(Option<(SdkTracerProvider, SdkTracer)>);

impl Traces {
    /// Starts the thread that sends spans, if the settings say where. To be called where tokio runs; the collector need not be there.
    ///
    /// # Errors
    /// [`TracesError`]
    pub fn start(config: &Config) -> Result<Self, TracesError> {
        let Some(endpoint) = &config.endpoint else { return Ok(Self(None)) };
        let exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint).with_timeout(EXPORT_AT_MOST).build();
        let exporter = exporter.map_err(|source| TracesError { endpoint: endpoint.clone(), source })?;
        let batches = BatchConfigBuilder::default().with_max_queue_size(QUEUE).with_scheduled_delay(BATCH_EVERY).build();
        let ratio = config.sample_per_million as f64 / 1e6;
        let provider = SdkTracerProvider::builder()
            .with_span_processor(BatchSpanProcessor::builder(exporter).with_batch_config(batches).build())
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(ratio))))
            .with_resource(Resource::builder().with_service_name(config.service_name.clone()).build())
            .build();
        let tracer = provider.tracer(env!("CARGO_PKG_NAME"));
        Ok(Self(Some((provider, tracer))))
    }

    /// True if calls may be traced.
    pub(super) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Begins the span of a call of `method`, `package.Service/Method`; `None` if it is not recorded.
    pub(super) fn begin(&self, method: &str, headers: &HeaderMap) -> Option<CallSpan> {
        let (_, tracer) = self.0.as_ref()?;
        let parent = TraceContextPropagator::new().extract_with_context(&Context::new(), &Headers(headers));
        let span = SpanBuilder::from_name(method.to_owned()).with_kind(SpanKind::Server).start_with_context(tracer, &parent);
        if !span.is_recording() {
            return None;
        }
        let began = opentelemetry::time::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let context = Context::new().with_remote_span_context(span.span_context().clone());
        let call = CallSpan { tracer: tracer.clone(), began, context, span: Mutex::new(span) };
        let (service, name) = method.split_once('/').unwrap_or((method, ""));
        call.attribute("rpc.system", "grpc");
        call.attribute("rpc.service", service.to_owned());
        call.attribute("rpc.method", name.to_owned());
        Some(call)
    }

    /// Sends what waits, for as long as `limit` at most. Blocks.
    ///
    /// # Errors
    /// What kept it from that.
    pub fn finish(&self, limit: Duration) -> Result<(), String> {
        let Some((provider, _)) = &self.0 else { return Ok(()) };
        provider.shutdown_with_timeout(limit).map_err(|fault| fault.to_string())
    }
}

impl fmt::Debug for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Traces").field(&self.is_on()).finish()
    }
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

/// The span of one call that is recorded.
pub(super) struct CallSpan {
    tracer: SdkTracer,
    span: Mutex<Span>,
    context: Context,
    /// Since 1970.
    began: Duration,
}

impl CallSpan {
    pub(super) fn attribute(&self, key: &'static str, value: impl Into<Value>) {
        self.span.lock().unwrap_or_else(PoisonError::into_inner).set_attribute(KeyValue::new(key, value));
    }

    /// The answer has begun, with this gRPC status code.
    pub(super) fn answered(&self, code: i32) {
        let mut span = self.span.lock().unwrap_or_else(PoisonError::into_inner);
        span.set_attribute(KeyValue::new("rpc.grpc.status_code", i64::from(code)));
        // The server's faults, as the semantic conventions list them: the others are its caller's.
        if matches!(code, 2 | 4 | 12 | 13 | 14 | 15) {
            span.set_status(Status::error(format!("gRPC status {code}")));
        }
        span.end();
    }

    /// What was done for the call between two moments after its beginning.
    pub(super) fn child(&self, name: &'static str, (from, to): (Duration, Duration), attributes: Vec<KeyValue>) {
        let builder = SpanBuilder::from_name(name).with_start_time(UNIX_EPOCH + self.began + from).with_attributes(attributes);
        builder.start_with_context(&self.tracer, &self.context).end_with_timestamp(UNIX_EPOCH + self.began + to);
    }
}

impl fmt::Debug for CallSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallSpan").finish_non_exhaustive()
    }
}
