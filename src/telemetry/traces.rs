//! Spans of calls, sent to a collector by OTLP over gRPC.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use http::HeaderMap;
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::{Span as _, SpanBuilder, SpanKind, Status, TraceContextExt as _, TracerProvider as _};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithTonicConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, IdGenerator as _, RandomIdGenerator, Sampler, SdkTracer, SdkTracerProvider, Span,
};
use tonic::transport::ClientTlsConfig;

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
/// How an endpoint begins to which spans go encrypted.
const HTTPS: &str = "https:";

/// Where spans go. Cheap to clone.
#[derive(Clone, Default)]
pub struct Traces(Option<Arc<Started>>);

struct Started {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    /// Of 2^63 calls that come without a trace, how many begin one.
    begin_below: u64,
}

impl Traces {
    /// Starts the thread that sends spans, if the settings say where. To be called where tokio runs; the collector need not be there.
    ///
    /// # Errors
    /// [`TracesError`]
    pub fn start(config: &Config) -> Result<Self, TracesError> {
        let Some(endpoint) = &config.endpoint else { return Ok(Self(None)) };
        let mut exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint).with_timeout(EXPORT_AT_MOST);
        if endpoint.get(..HTTPS.len()).is_some_and(|scheme| scheme.eq_ignore_ascii_case(HTTPS)) {
            // By itself the exporter trusts no authority at all.
            exporter = exporter.with_tls_config(ClientTlsConfig::new().with_native_roots());
        }
        let exporter = exporter.build().map_err(|source| TracesError { endpoint: endpoint.clone(), source })?;
        let batches = BatchConfigBuilder::default().with_max_queue_size(QUEUE).with_scheduled_delay(BATCH_EVERY).build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(BatchSpanProcessor::builder(exporter).with_batch_config(batches).build())
            .with_sampler(Sampler::AlwaysOn)
            .with_resource(Resource::builder().with_service_name(config.service_name.clone()).build())
            .build();
        let tracer = provider.tracer(env!("CARGO_PKG_NAME"));
        let begin_below = (config.sample_per_million as f64 / 1e6 * (1u64 << 63) as f64) as u64;
        Ok(Self(Some(Arc::new(Started { provider, tracer, begin_below }))))
    }

    /// True if calls may be traced.
    pub(super) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Begins the span of a call of `method`, `package.Service/Method`; `None` if it is not recorded.
    pub(super) fn begin(&self, method: &str, headers: &HeaderMap) -> Option<CallSpan> {
        let Started { tracer, begin_below, .. } = self.0.as_deref()?;
        let parent = parent(headers);
        // Drawn before anything is made for a span: by default ninety-nine calls of a hundred have none.
        let begins = || random() >> 1 < *begin_below;
        let is_traced = parent.as_ref().map_or_else(begins, |parent| parent.span().span_context().is_sampled());
        if !is_traced {
            return None;
        }
        let builder = SpanBuilder::from_name(method.to_owned()).with_kind(SpanKind::Server);
        let span = builder.start_with_context(tracer, &parent.unwrap_or_default());
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
        let Some(started) = &self.0 else { return Ok(()) };
        started.provider.shutdown_with_timeout(limit).map_err(|fault| fault.to_string())
    }
}

impl fmt::Debug for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Traces").field(&self.is_on()).finish()
    }
}

/// What a trace's number would be, of which SDKs draw by the last 64 bits.
fn random() -> u64 {
    let [.., a, b, c, d, e, f, g, h] = RandomIdGenerator::default().new_trace_id().to_bytes();
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// The span of its caller that a call came with.
fn parent(headers: &HeaderMap) -> Option<Context> {
    // Most calls come without, and are asked no more.
    headers.get("traceparent")?;
    let parent = TraceContextPropagator::new().extract_with_context(&Context::new(), &Headers(headers));
    parent.span().span_context().is_valid().then_some(parent)
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
