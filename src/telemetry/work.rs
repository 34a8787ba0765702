//! What a call makes the engine's threads do, wherever they do it.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::metrics::{Method, Metrics};

thread_local! {
    static CURRENT: RefCell<Work> = const { RefCell::new(Work(None)) };
}

/// The record of one call's work. It is handed on beside the call and not through it: what is drawn or written must not depend on it.
/// Cheap to clone; the last clone to go writes it into the metrics, so that work which outlives its caller counts too.
#[derive(Debug, Clone, Default)]
pub struct Work(Option<Arc<Record>>);

#[derive(Debug)]
struct Record {
    method: Method,
    metrics: Metrics,
    computed: Stage,
    committed: Stage,
}

/// Times in nanoseconds, of pieces that may run side by side.
#[derive(Debug, Default)]
struct Stage {
    pieces: AtomicU64,
    /// Of the piece that waited longest.
    waited: AtomicU64,
    /// Of all pieces together.
    took: AtomicU64,
}

impl Work {
    /// The record of a call of `method`, `package.Service/Method`.
    pub fn of(method: &str, metrics: &Metrics) -> Self {
        let method = Method { method: method.trim_start_matches('/').to_owned() };
        let (computed, committed) = (Stage::default(), Stage::default());
        Self(Some(Arc::new(Record { method, metrics: metrics.clone(), computed, committed })))
    }

    /// The record of the call that this thread works for; nobody's, if there is none.
    pub fn current() -> Self {
        CURRENT.with_borrow(Self::clone)
    }

    /// Does something on behalf of this call.
    pub fn within<R>(&self, act: impl FnOnce() -> R) -> R {
        struct Back(Work);
        impl Drop for Back {
            fn drop(&mut self) {
                CURRENT.with_borrow_mut(|current| std::mem::swap(current, &mut self.0));
            }
        }
        let _back = Back(CURRENT.with_borrow_mut(|current| std::mem::replace(current, self.clone())));
        act()
    }

    /// Notes a piece of work that waited for a compute thread, and took its time there.
    pub fn computed(&self, waited: Duration, took: Duration) {
        if let Some(record) = &self.0 {
            record.computed.add(waited, took);
        }
    }

    /// Notes a write that waited for its bank's committer, and took its time there.
    pub fn committed(&self, waited: Duration, took: Duration) {
        if let Some(record) = &self.0 {
            record.committed.add(waited, took);
        }
    }
}

impl Stage {
    fn add(&self, waited: Duration, took: Duration) {
        self.waited.fetch_max(waited.as_nanos() as u64, Ordering::Relaxed);
        self.took.fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
        self.pieces.fetch_add(1, Ordering::Relaxed);
    }

    fn times(&self) -> Option<(Duration, Duration)> {
        let of = |nanos: &AtomicU64| Duration::from_nanos(nanos.load(Ordering::Relaxed));
        (self.pieces.load(Ordering::Relaxed) > 0).then(|| (of(&self.waited), of(&self.took)))
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if let Some((waited, took)) = self.computed.times() {
            self.metrics.computed(&self.method, waited, took);
        }
        if let Some((waited, took)) = self.committed.times() {
            self.metrics.committed(&self.method, waited, took);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Metrics, Work};

    #[test]
    fn a_call_counts_once_however_many_pieces_it_was() {
        let metrics = Metrics::default();
        let work = Work::of("/negbank.v1.Sampling/Sample", &metrics);
        let kept = work.within(|| {
            Work::of("/inner", &metrics).within(|| ());
            Work::current()
        });
        drop(work);
        kept.computed(Duration::from_secs(3), Duration::from_secs(1));
        kept.computed(Duration::from_secs(2), Duration::from_secs(4));
        Work::current().computed(Duration::from_secs(100), Duration::from_secs(100));
        let text = || metrics.text().unwrap();
        assert!(!text().contains("Sample"), "it is not over");
        drop(kept);
        let text = text();
        for line in [
            "negbank_compute_queue_seconds_sum{method=\"negbank.v1.Sampling/Sample\"} 3.0",
            "negbank_compute_queue_seconds_count{method=\"negbank.v1.Sampling/Sample\"} 1",
            "negbank_compute_seconds_sum{method=\"negbank.v1.Sampling/Sample\"} 5.0",
            "negbank_compute_seconds_count{method=\"negbank.v1.Sampling/Sample\"} 1",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        assert!(!text.contains("inner") && !text.contains("commit_seconds_sum"), "what did no work has no series:\n{text}");
    }
}
