//! The compute pool: threads of its own, so that no scan ever runs on an async worker.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use crate::model::clock;
use crate::telemetry::{Piece, Work};

/// One single-threaded piece of work.
pub(super) type Job = Box<dyn FnOnce() + Send>;

/// Threads that run jobs in the order in which they came. Dropping the pool ends them after what is queued.
#[derive(Debug)]
pub(super) struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    bound: usize,
    queue: Mutex<Queue>,
    arrived: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    closed: bool,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("waiting", &self.jobs.len()).field("closed", &self.closed).finish()
    }
}

/// Runs a job. One that panics drops its reply channel, which its caller hears as an internal error; the thread lives on.
pub(super) fn run(job: Job) {
    if catch_unwind(AssertUnwindSafe(job)).is_err() {
        tracing::error!("a compute job panicked: this is a defect of negbank");
    }
}

/// A job whose wait from now on, and whose run, are noted of the call on whose behalf this is.
pub(super) fn noted(job: Job) -> Job {
    let work = Work::current();
    if !work.is_noted() {
        return job;
    }
    let came = clock::now();
    Box::new(move || {
        let began = clock::now();
        work.within(job);
        work.computed(Piece { came, began, ended: clock::now() });
    })
}

/// The queue has no room for so many jobs.
#[derive(Debug)]
pub(super) struct Full;

impl Pool {
    /// Starts `threads` threads that share a queue of at most `bound` waiting jobs.
    pub(super) fn start(threads: usize, bound: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared { bound, queue: Mutex::default(), arrived: Condvar::new() });
        let spawn = |number: usize| {
            let shared = Arc::clone(&shared);
            thread::Builder::new().name(format!("compute-{number}")).spawn(move || shared.work())
        };
        let threads = (0..threads.max(1)).map(spawn).collect::<Result<_, _>>()?;
        Ok(Self { shared, threads })
    }

    /// Queues all of `jobs`, or none.
    pub(super) fn submit(&self, jobs: Vec<Job>) -> Result<(), Full> {
        let mut queue = self.shared.lock();
        if queue.jobs.len() + jobs.len() > self.shared.bound {
            return Err(Full);
        }
        let several = jobs.len() > 1;
        queue.jobs.extend(jobs.into_iter().map(noted));
        drop(queue);
        if several {
            self.shared.arrived.notify_all();
        } else {
            self.shared.arrived.notify_one();
        }
        Ok(())
    }

    /// Queues the next job of a request that was admitted, whose job before has ended, however full the queue is.
    pub(super) fn go_on(&self, job: Job) {
        self.shared.lock().jobs.push_back(noted(job));
        self.shared.arrived.notify_one();
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.arrived.notify_all();
        let this = thread::current().id();
        for thread in self.threads.drain(..).filter(|thread| thread.thread().id() != this) {
            let _panicked = thread.join();
        }
    }
}

impl Shared {
    fn work(&self) {
        while let Some(job) = self.next() {
            run(job);
        }
    }

    fn next(&self) -> Option<Job> {
        let mut queue = self.lock();
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                return Some(job);
            }
            if queue.closed {
                return None;
            }
            queue = self.arrived.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Jobs run outside the lock, so a panic can't leave the queue half changed.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::{Job, Pool};
    use crate::model::clock;
    use crate::telemetry::{Metrics, Piece, Traces, Work};

    #[test]
    fn a_full_queue_takes_none_and_a_panic_kills_no_thread() {
        let pool = Pool::start(1, 2).unwrap();
        let (started, has_started) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let block: Job = Box::new(move || {
            started.send(()).unwrap();
            released.recv().unwrap();
        });
        pool.submit(vec![block]).unwrap();
        has_started.recv().unwrap();
        let (done, results) = mpsc::channel();
        let late = done.clone();
        assert!(pool.submit((0..3).map(|_| Box::new(|| ()) as Job).collect()).is_err());
        pool.submit(vec![Box::new(|| panic!("on purpose")), Box::new(move || late.send(7).unwrap())]).unwrap();
        release.send(()).unwrap();
        assert_eq!(results.recv().unwrap(), 7);
    }

    #[test]
    fn a_call_counts_once_however_many_pieces_it_was() {
        let (metrics, now) = (Metrics::default(), clock::now());
        let of = |path: &str| Work::of(path, &http::HeaderMap::new(), now, (&metrics, &Traces::default()));
        let piece = |waited: u64, took: u64| {
            let began = now + Duration::from_secs(waited);
            Piece { came: now, began, ended: began + Duration::from_secs(took) }
        };
        let work = of("/negbank.v1.Sampling/Sample");
        let kept = work.within(|| {
            of("/inner").within(|| ());
            Work::current()
        });
        drop(work);
        kept.computed(piece(3, 1));
        kept.computed(piece(2, 4));
        Work::current().computed(piece(100, 100));
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
        assert!(!Work::of("/a", &http::HeaderMap::new(), now, (&Metrics::off(), &Traces::default())).is_noted());
    }
}
