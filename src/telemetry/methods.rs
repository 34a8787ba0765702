//! Times of calls, by method.

use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use rustc_hash::FxHashMap;

/// gRPC's status codes are 0 to 16.
const CODES: usize = 17;
/// Of a method that there is not.
const UNIMPLEMENTED: i32 = 12;

type ByMethod = Family<OfMethod, Histogram>;
type ByCode = Family<OfCode, Histogram>;

/// All methods that were called, and their series.
#[derive(Debug)]
pub(super) struct Methods {
    calls: ByCode,
    compute: [ByMethod; 2],
    commit: [ByMethod; 2],
    known: RwLock<FxHashMap<Box<str>, Arc<Method>>>,
}

/// One method: its series, looked up once, from the first call on that has something for them.
#[derive(Debug)]
pub(super) struct Method {
    name: Box<str>,
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
        Self { calls, compute, commit, known: RwLock::default() }
    }

    /// The method of `/package.Service/Method`. It is kept once [`Self::called`] has shown that there is such a one.
    pub(super) fn of(&self, path: &str) -> Arc<Method> {
        let name = path.trim_start_matches('/');
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        known.unwrap_or_else(|| Arc::new(Method::new(name)))
    }

    /// Notes a call that was answered with `code`. Anybody may call what there is not: that must not make a series each.
    pub(super) fn called(&self, method: &Arc<Method>, code: i32, took: Duration) {
        let observe = |histogram: &Histogram| histogram.observe(took.as_secs_f64());
        let series = |name: &str| self.calls.get_or_create(&OfCode { method: name.to_owned(), code: code.to_string() }).clone();
        if code == UNIMPLEMENTED {
            return observe(&series("unknown"));
        }
        let Some(calls) = usize::try_from(code).ok().and_then(|code| method.calls.get(code)) else { return };
        observe(calls.get_or_init(|| {
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
            known.entry(method.name.clone()).or_insert_with(|| Arc::clone(method));
            series(&method.name)
        }));
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
    fn new(name: &str) -> Self {
        let calls = [const { OnceLock::new() }; CODES];
        Self { name: name.into(), calls, compute: OnceLock::new(), commit: OnceLock::new() }
    }

    /// `package.Service/Method`
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    fn observe(&self, (kept, families): (&OnceLock<[Histogram; 2]>, &[ByMethod; 2]), times: [Duration; 2]) {
        let of = || OfMethod { method: self.name.to_string() };
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

    use super::{Methods, UNIMPLEMENTED};

    #[test]
    fn what_there_is_not_is_not_remembered() {
        let mut registry = Registry::default();
        let methods = Methods::register(&mut registry);
        for number in 0..100 {
            methods.called(&methods.of(&format!("/a/{number}")), UNIMPLEMENTED, Duration::ZERO);
        }
        for code in [0, 0, 5, 99, -1] {
            methods.called(&methods.of("/negbank.v1.Banks/GetBank"), code, Duration::ZERO);
        }
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        let counts: Vec<&str> = text.lines().filter(|line| line.contains("_count")).collect();
        assert_eq!(counts.len(), 3, "{counts:?}");
        for line in [
            "grpc_request_seconds_count{method=\"unknown\",code=\"12\"} 100",
            "grpc_request_seconds_count{method=\"negbank.v1.Banks/GetBank\",code=\"0\"} 2",
            "grpc_request_seconds_count{method=\"negbank.v1.Banks/GetBank\",code=\"5\"} 1",
        ] {
            assert!(counts.contains(&line), "{line} in {counts:?}");
        }
        assert_eq!(methods.known.read().unwrap().len(), 1);
    }
}
