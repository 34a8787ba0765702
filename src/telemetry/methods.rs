//! Times of calls, and why they were refused, by method.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use rustc_hash::FxHashMap;

/// gRPC's status codes are 0 to 16.
const CODES: usize = 17;
/// What every method is called that there is not: anybody may call such, and that must not make a series each.
const UNKNOWN: &str = "unknown";

type ByMethod = Family<OfMethod, Histogram>;
type ByCode = Family<OfCode, Histogram>;

/// All methods and their series.
#[derive(Debug)]
pub(super) struct Methods {
    calls: ByCode,
    compute: [ByMethod; 2],
    commit: [ByMethod; 2],
    refusals: Family<OfRefusal, Counter>,
    known: OnceLock<FxHashMap<Box<str>, Arc<Method>>>,
    unknown: Arc<Method>,
}

/// One method: its series, looked up once, from the first call on that has something for them.
#[derive(Debug)]
pub(super) struct Method {
    name: String,
    calls: [OnceLock<Histogram>; CODES],
    compute: OnceLock<[Histogram; 2]>,
    commit: OnceLock<[Histogram; 2]>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfMethod {
    method: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfCode {
    method: String,
    code: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfRefusal {
    method: String,
    reason: &'static str,
}

impl Methods {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let mut add = |name: &str, help: &str| {
            let family = Family::new_with_constructor(seconds as fn() -> Histogram);
            registry.register_with_unit(name, help, Unit::Seconds, family.clone());
            family
        };
        let compute = [
            add("compute_queue", "Time that a call waited for a compute thread, by method; of its pieces, the longest"),
            add("compute", "Time that a call took on compute threads, by method; of its pieces, the sum"),
        ];
        let commit = [
            add("commit_queue", "Time that a call's write waited for its bank's committer, by method"),
            add("commit", "Time from then until the write was logged, as its bank's policy says, and applied, by method"),
        ];
        let calls = Family::new_with_constructor(seconds as fn() -> Histogram);
        let help = "Time from a call's headers to those of its answer, by method and gRPC status code";
        registry.register_with_unit("grpc_request", help, Unit::Seconds, calls.clone());
        let refusals = Family::default();
        let help = "Calls that were refused for want of time or room, by method and reason";
        registry.register("refusals", help, refusals.clone());
        Self { calls, compute, commit, refusals, known: OnceLock::new(), unknown: Arc::new(Method::new(UNKNOWN.to_owned())) }
    }

    /// These are all that there are, as `package.Service/Method`. Said again it changes nothing.
    pub(super) fn serve(&self, methods: Vec<String>) {
        let known = methods.into_iter().map(|name| (name.as_str().into(), Arc::new(Method::new(name)))).collect();
        let _again = self.known.set(known);
    }

    /// The method of `/package.Service/Method`.
    pub(super) fn of(&self, path: &str) -> Arc<Method> {
        let name = path.strip_prefix('/').unwrap_or(path);
        let known = self.known.get().and_then(|known| known.get(name));
        Arc::clone(known.unwrap_or(&self.unknown))
    }

    /// Notes a call that was answered with `code`.
    pub(super) fn called(&self, method: &Method, code: i32, took: Duration) {
        let Some(calls) = usize::try_from(code).ok().and_then(|code| method.calls.get(code)) else { return };
        let of = || OfCode { method: method.name.clone(), code: code.to_string() };
        calls.get_or_init(|| self.calls.get_or_create(&of()).clone()).observe(took.as_secs_f64());
    }

    /// Notes that a call was refused.
    pub(super) fn refused(&self, method: &Method, reason: &'static str) {
        self.refusals.get_or_create(&OfRefusal { method: method.name.clone(), reason }).inc();
    }

    /// Notes how long a call waited for compute threads, and took on them.
    pub(super) fn computed(&self, method: &Method, waited: Duration, took: Duration) {
        method.observe((&method.compute, &self.compute), [waited, took]);
    }

    /// Notes how long a write waited for its committer, and took there.
    pub(super) fn committed(&self, method: &Method, waited: Duration, took: Duration) {
        method.observe((&method.commit, &self.commit), [waited, took]);
    }
}

impl Method {
    fn new(name: String) -> Self {
        let calls = [const { OnceLock::new() }; CODES];
        Self { name, calls, compute: OnceLock::new(), commit: OnceLock::new() }
    }

    /// `package.Service/Method`
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    fn observe(&self, (kept, families): (&OnceLock<[Histogram; 2]>, &[ByMethod; 2]), times: [Duration; 2]) {
        let of = || OfMethod { method: self.name.clone() };
        let series = kept.get_or_init(|| families.each_ref().map(|family| family.get_or_create(&of()).clone()));
        series.iter().zip(times).for_each(|(series, time)| series.observe(time.as_secs_f64()));
    }
}

/// 50 microseconds to 26 seconds.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(5e-5, 2.0, 20))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::Methods;

    #[test]
    fn what_there_is_not_has_no_series_of_its_own() {
        let mut registry = Registry::default();
        let methods = Methods::register(&mut registry);
        methods.serve(vec!["negbank.v1.Banks/GetBank".to_owned()]);
        for number in 0..100 {
            // Not served, without a token, too late.
            for code in [12, 16, 4] {
                methods.called(&methods.of(&format!("/a/{number}")), code, Duration::ZERO);
            }
        }
        for code in [0, 0, 5, 99, -1] {
            methods.called(&methods.of("/negbank.v1.Banks/GetBank"), code, Duration::ZERO);
        }
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        let counts: Vec<&str> = text.lines().filter(|line| line.contains("_count")).collect();
        assert_eq!(counts.len(), 5, "{counts:?}");
        for line in [
            "grpc_request_seconds_count{method=\"unknown\",code=\"12\"} 100",
            "grpc_request_seconds_count{method=\"unknown\",code=\"16\"} 100",
            "grpc_request_seconds_count{method=\"unknown\",code=\"4\"} 100",
            "grpc_request_seconds_count{method=\"negbank.v1.Banks/GetBank\",code=\"0\"} 2",
            "grpc_request_seconds_count{method=\"negbank.v1.Banks/GetBank\",code=\"5\"} 1",
        ] {
            assert!(counts.contains(&line), "{line} in {counts:?}");
        }
    }
}
