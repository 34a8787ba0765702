//! What a call makes the engine's threads do, wherever they do it.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::HeaderMap;
use opentelemetry::{KeyValue, Value};

use super::methods::Method;
use super::metrics::Metrics;
use super::traces::{CallSpan, Traces};

thread_local! {
    static CURRENT: RefCell<Work> = const { RefCell::new(Work(None)) };
}

/// The record of one call's work. It is handed on beside the call and not through it: what is drawn or written must not depend on it.
/// Cheap to clone; the last clone to go writes it into the metrics and the trace, so that work which outlives its caller counts too.
#[derive(Debug, Clone, Default)]
pub struct Work(Option<Arc<Record>>);

#[derive(Debug)]
struct Record {
    method: Arc<Method>,
    metrics: Metrics,
    span: Option<CallSpan>,
    began: Instant,
    computed: Stage,
    committed: Stage,
}

/// Times in nanoseconds, of pieces that may run side by side; moments are counted from the beginning of the call.
#[derive(Debug)]
struct Stage {
    pieces: AtomicU64,
    /// Of the piece that waited longest.
    waited: AtomicU64,
    /// Of all pieces together.
    took: AtomicU64,
    first_came: AtomicU64,
    first_began: AtomicU64,
    last_ended: AtomicU64,
}

/// A piece of work: when it came, began and ended.
#[derive(Debug, Clone, Copy)]
pub struct Piece {
    /// It began to wait.
    pub came: Instant,
    /// A thread took it.
    pub began: Instant,
    /// It was done.
    pub ended: Instant,
}

impl Work {
    /// The record of a call of `/package.Service/Method` that began at that time; nothing if nobody asks for it.
    pub fn of(path: &str, headers: &HeaderMap, began: Instant, (metrics, traces): (&Metrics, &Traces)) -> Self {
        if !metrics.is_on() && !traces.is_on() {
            return Self(None);
        }
        let method = metrics.methods().of(path);
        let span = traces.begin(method.name(), headers);
        let (metrics, computed, committed) = (metrics.clone(), Stage::default(), Stage::default());
        Self(Some(Arc::new(Record { method, metrics, span, began, computed, committed })))
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

    /// `package.Service/Method` of the call, if it is of one.
    pub fn method(&self) -> Option<&str> {
        self.0.as_ref().map(|record| record.method.name())
    }

    /// True if it is of a call.
    pub fn is_noted(&self) -> bool {
        self.0.is_some()
    }

    /// Says something of the call in its trace, if it is traced.
    pub fn attribute<V: Into<Value>>(&self, key: &'static str, value: impl FnOnce() -> V) {
        if let Some(span) = self.0.as_ref().and_then(|record| record.span.as_ref()) {
            span.attribute(key, value());
        }
    }

    /// The call's answer has begun `now`, with this gRPC status code; or nobody waits for it any more, which is a status as well.
    pub fn answered(&self, code: i32, now: Instant) {
        let Some(record) = &self.0 else { return };
        if let Some(span) = &record.span {
            span.answered(code);
        }
        if record.metrics.is_on() {
            record.metrics.methods().called(&record.method, code, now.saturating_duration_since(record.began));
        }
    }

    /// Notes that the call was refused for want of time or room, and of which.
    pub fn refused(&self, reason: &'static str) {
        let Some(record) = &self.0 else { return };
        if let Some(span) = &record.span {
            span.attribute("negbank.refused", reason);
        }
        if record.metrics.is_on() {
            record.metrics.methods().refused(&record.method, reason);
        }
    }

    /// Notes a piece of work that waited for a compute thread.
    pub fn computed(&self, piece: Piece) {
        if let Some(record) = &self.0 {
            record.computed.add(record.began, piece);
        }
    }

    /// Notes a write that waited for its bank's committer.
    pub fn committed(&self, piece: Piece) {
        if let Some(record) = &self.0 {
            record.committed.add(record.began, piece);
        }
    }
}

impl Default for Stage {
    fn default() -> Self {
        let [first_came, first_began] = [u64::MAX; 2].map(AtomicU64::new);
        let [pieces, waited, took, last_ended] = [0; 4].map(AtomicU64::new);
        Self { pieces, waited, took, first_came, first_began, last_ended }
    }
}

impl Stage {
    fn add(&self, call: Instant, Piece { came, began, ended }: Piece) {
        let nanos = |from: Instant, to: Instant| to.saturating_duration_since(from).as_nanos() as u64;
        self.waited.fetch_max(nanos(came, began), Ordering::Relaxed);
        self.took.fetch_add(nanos(began, ended), Ordering::Relaxed);
        self.first_came.fetch_min(nanos(call, came), Ordering::Relaxed);
        self.first_began.fetch_min(nanos(call, began), Ordering::Relaxed);
        self.last_ended.fetch_max(nanos(call, ended), Ordering::Relaxed);
        self.pieces.fetch_add(1, Ordering::Relaxed);
    }

    /// The longest wait and the sum of what was done, if anything was.
    fn times(&self) -> Option<(Duration, Duration)> {
        (self.pieces.load(Ordering::Relaxed) > 0).then(|| (of(&self.waited), of(&self.took)))
    }

    /// Its spans: from the first piece's coming to its beginning, and from there to the end of the last.
    fn trace(&self, span: &CallSpan, [waiting, working]: [&'static str; 2]) {
        let [came, began, ended] = [&self.first_came, &self.first_began, &self.last_ended].map(of);
        span.child(waiting, (came, began), vec![KeyValue::new("negbank.longest_wait_seconds", of(&self.waited).as_secs_f64())]);
        let pieces = KeyValue::new("negbank.pieces", self.pieces.load(Ordering::Relaxed) as i64);
        span.child(
            working,
            (began, ended),
            vec![pieces, KeyValue::new("negbank.thread_seconds", of(&self.took).as_secs_f64())],
        );
    }
}

fn of(nanos: &AtomicU64) -> Duration {
    Duration::from_nanos(nanos.load(Ordering::Relaxed))
}

impl Drop for Record {
    fn drop(&mut self) {
        let methods = self.metrics.is_on().then(|| self.metrics.methods());
        if let Some((waited, took)) = self.computed.times() {
            methods.iter().for_each(|methods| methods.computed(&self.method, waited, took));
            self.span.iter().for_each(|span| self.computed.trace(span, ["compute_queue", "compute"]));
        }
        if let Some((waited, took)) = self.committed.times() {
            methods.iter().for_each(|methods| methods.committed(&self.method, waited, took));
            self.span.iter().for_each(|span| self.committed.trace(span, ["commit_queue", "commit"]));
        }
    }
}
