//! Figures of the process, as Prometheus reads them.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// The process's metrics. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    queued: Histogram,
    computed: Histogram,
    calls: Family<Call, Histogram>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    method: String,
    code: String,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("negbank");
        let (queued, computed) = (seconds(), seconds());
        let calls = Family::new_with_constructor(seconds as fn() -> Histogram);
        let mut add = |name: &str, help: &str, histogram: Histogram| {
            registry.register_with_unit(name, help, Unit::Seconds, histogram);
        };
        add("compute_queue", "Time that a piece of work waited for a compute thread", queued.clone());
        add("compute", "Time that a piece of work took on its compute thread", computed.clone());
        registry.register_with_unit(
            "grpc_request",
            "Time from a call's headers to those of its answer, by method and gRPC status code",
            Unit::Seconds,
            calls.clone(),
        );
        Self { registry: Arc::new(Mutex::new(registry)), queued, computed, calls }
    }
}

impl Metrics {
    /// Asks `collector` too, whenever somebody reads.
    pub fn register(&self, collector: impl Collector) {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner).register_collector(Box::new(collector));
    }

    /// Notes how long a piece of work waited for its compute thread.
    pub fn queued(&self, waited: Duration) {
        self.queued.observe(waited.as_secs_f64());
    }

    /// Notes how long it took there.
    pub fn computed(&self, took: Duration) {
        self.computed.observe(took.as_secs_f64());
    }

    /// Notes a call of `method` (`/package.Service/Method`) that was answered with `code`.
    pub fn called(&self, method: &str, code: i32, took: Duration) {
        let call = Call { method: method.trim_start_matches('/').to_owned(), code: code.to_string() };
        self.calls.get_or_create(&call).observe(took.as_secs_f64());
    }

    /// All of it, in the text format of OpenMetrics.
    ///
    /// # Errors
    /// If a figure can't be written.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry.lock().unwrap_or_else(PoisonError::into_inner))?;
        Ok(text)
    }
}

/// 50 microseconds to 26 seconds.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(5e-5, 2.0, 20))
}
