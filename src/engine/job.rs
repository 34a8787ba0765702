//! What waits for a compute thread.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::small::Small;
use crate::model::clock;
use crate::telemetry::{Piece, Work};

/// One single-threaded piece of work.
pub(super) struct Job {
    /// What it is expected to take.
    pub(super) estimate: Duration,
    pub(super) run: Run,
}

/// What there is to do.
pub(super) enum Run {
    /// Something of its own.
    Alone(Box<dyn FnOnce() + Send>),
    /// A request whose anchors may be searched for with others'.
    Small(Box<Small>),
}

impl Job {
    /// A job of its own.
    pub(super) fn new(estimate: Duration, run: impl FnOnce() + Send + 'static) -> Self {
        Self { estimate, run: Run::Alone(Box::new(run)) }
    }

    /// The same; its wait from now on, and its run, are noted of the call on whose behalf this is.
    pub(super) fn noted(self) -> Self {
        let work = Work::current();
        if !work.is_noted() {
            return self;
        }
        let came = clock::now();
        let run = match self.run {
            Run::Alone(run) => Run::Alone(Box::new(move || {
                let began = clock::now();
                work.within(run);
                work.computed(Piece { came, began, ended: clock::now() });
            })),
            Run::Small(small) => Run::Small(Box::new(small.noted(work, came))),
        };
        Self { run, ..self }
    }

    /// Does it.
    pub(super) fn go(self) {
        match self.run {
            Run::Alone(run) => run(),
            Run::Small(small) => small.go(),
        }
    }

    /// Does it. If it panics, its reply channel is dropped, which its caller hears as an internal error; the thread lives on.
    pub(super) fn run(self) {
        let _panicked = caught(|| self.go());
    }
}

/// What `act` comes to; `None` if it panics, which is logged.
pub(super) fn caught<T>(act: impl FnOnce() -> T) -> Option<T> {
    let result = catch_unwind(AssertUnwindSafe(act)).ok();
    if result.is_none() {
        tracing::error!("a compute job panicked: this is a defect of negbank");
    }
    result
}
