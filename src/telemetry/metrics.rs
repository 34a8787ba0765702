//! Figures of the process, as Prometheus reads them.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// The process's metrics. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// False: nobody reads them, and nothing is noted.
    on: bool,
    registry: Arc<Mutex<Registry>>,
    compute: Stage,
    commit: Stage,
    calls: Family<Call, Histogram>,
    readers_cut: Counter,
}

/// Where the work of calls waits, and is done.
#[derive(Debug, Clone)]
struct Stage {
    waited: Family<Method, Histogram>,
    took: Family<Method, Histogram>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Method {
    pub(super) method: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    method: String,
    code: String,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("negbank");
        let calls = Family::new_with_constructor(seconds as fn() -> Histogram);
        let mut add = |name: &str, help: &str| {
            let family = Family::new_with_constructor(seconds as fn() -> Histogram);
            registry.register_with_unit(name, help, Unit::Seconds, family.clone());
            family
        };
        let compute = Stage {
            waited: add("compute_queue", "Time that a call waited for a compute thread, by method; of its pieces, the longest"),
            took: add("compute", "Time that a call took on compute threads, by method; of its pieces, the sum"),
        };
        let commit = Stage {
            waited: add("commit_queue", "Time that a call's write waited for its bank's committer, by method"),
            took: add("commit", "Time from then until the write was logged, as its bank's policy says, and applied, by method"),
        };
        registry.register_with_unit(
            "grpc_request",
            "Time from a call's headers to those of its answer, by method and gRPC status code",
            Unit::Seconds,
            calls.clone(),
        );
        let readers_cut = Counter::default();
        registry.register("readers_cut", "Clients that were cut since they did not read their answers", readers_cut.clone());
        Self { on: true, registry: Arc::new(Mutex::new(registry)), compute, commit, calls, readers_cut }
    }
}

impl Metrics {
    /// Notes nothing.
    pub fn off() -> Self {
        Self { on: false, ..Self::default() }
    }

    /// True if somebody may read them.
    pub fn is_on(&self) -> bool {
        self.on
    }

    /// Asks `collector` too, whenever somebody reads.
    pub fn register(&self, collector: impl Collector) {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner).register_collector(Box::new(collector));
    }

    /// Notes a client that was cut since it did not read its answer.
    pub fn reader_cut(&self) {
        self.readers_cut.inc();
    }

    /// Notes how long a call waited for compute threads, and took on them.
    pub(super) fn computed(&self, method: &Method, waited: Duration, took: Duration) {
        if self.on {
            self.compute.observe(method, waited, took);
        }
    }

    /// Notes how long a write waited for its committer, and took there.
    pub(super) fn committed(&self, method: &Method, waited: Duration, took: Duration) {
        if self.on {
            self.commit.observe(method, waited, took);
        }
    }

    /// Notes a call of `method` (`/package.Service/Method`) that was answered with `code`.
    pub fn called(&self, method: &str, code: i32, took: Duration) {
        if !self.on {
            return;
        }
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

impl Stage {
    fn observe(&self, method: &Method, waited: Duration, took: Duration) {
        self.waited.get_or_create(method).observe(waited.as_secs_f64());
        self.took.get_or_create(method).observe(took.as_secs_f64());
    }
}

/// 50 microseconds to 26 seconds.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(5e-5, 2.0, 20))
}
