//! The compute pool: threads of its own, so that no scan ever runs on an async worker.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::fair::FairQueue;
use super::job::{Job, Run};
use super::small::{Company, Small, answer_together};
use super::{EngineError, retry};
use crate::model::{Call, Caller, Excess, clock};

/// Threads that run jobs, the callers' in turn. Dropping the pool ends them after what is queued.
#[derive(Debug)]
pub(super) struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    bound: usize,
    state: Mutex<State>,
    arrived: Condvar,
}

struct State {
    queue: FairQueue<Queued>,
    /// Calls that were taken on.
    calls: u64,
    /// What each thread is at: since when, and for how long as it seems.
    at_work: Vec<Option<(Instant, Duration)>>,
    closed: bool,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("waiting", &self.queue.len()).field("closed", &self.closed).finish_non_exhaustive()
    }
}

struct Queued {
    run: Run,
    /// Whose it is, if that call may take it back.
    ticket: Option<Ticket>,
}

/// What a call takes its jobs back by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket(u64);

/// The pool at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    /// Jobs that wait.
    pub(super) jobs: usize,
    /// Whose.
    pub(super) callers: usize,
    /// What they are expected to take, on all threads together.
    pub(super) wait: Duration,
}

/// Of work that takes so many times as long as its caller has, though nothing else waits, nothing is begun. Estimates are wrong too, and only work
/// that is done corrects them; by so much they are not.
const HOPELESS: u32 = 10;

/// Share of a caller's time up to which work is taken on: estimates are means, and half of all work takes longer.
const PROMISED: f64 = 0.6;

impl Pool {
    /// Starts `threads` threads that share a queue of at most `bound` waiting jobs.
    pub(super) fn start(threads: usize, bound: usize) -> std::io::Result<Self> {
        let threads = threads.max(1);
        let queue = FairQueue::new(bound, threads, clock::now());
        let state = State { queue, calls: 0, at_work: vec![None; threads], closed: false };
        let shared = Arc::new(Shared { bound, state: Mutex::new(state), arrived: Condvar::new() });
        let spawn = |number: usize| {
            let shared = Arc::clone(&shared);
            thread::Builder::new().name(format!("compute-{number}")).spawn(move || shared.work(number))
        };
        let threads = (0..threads).map(spawn).collect::<Result<_, _>>()?;
        Ok(Self { shared, threads })
    }

    /// Queues all of a call's `jobs`, or none: if there is no room, or if too much waits for them to be done in time. An estimate alone
    /// refuses only what it says to be hopeless: it may be wrong, and only work corrects it.
    pub(super) fn submit(&self, call: &Call, jobs: Vec<Job>) -> Result<Ticket, EngineError> {
        let now = clock::now();
        let own: Duration = jobs.iter().map(|job| job.estimate).sum();
        let longest = jobs.iter().map(|job| job.estimate).max().unwrap_or_default();
        let several = jobs.len() > 1;
        let limit = self.shared.bound;
        if jobs.len() > limit {
            let what = format!("the request is of {} pieces of work, a block of anchors each", jobs.len());
            return Err(Excess { what, limit, setting: "compute.queue", instead: "ask for fewer anchors at a time" }.into());
        }
        let mut state = self.shared.lock();
        let threads = state.at_work.len() as u32;
        let left = call.deadline.instant().saturating_duration_since(now);
        if own / threads / HOPELESS > left {
            return Err(EngineError::Hopeless { takes: own / threads, left });
        }
        let promised = left.mul_f64(PROMISED);
        let waits = state.wait(&call.caller, own.min(promised * threads / 4), now);
        if state.queue.has_room(&call.caller, jobs.len()).is_err() {
            drop(state);
            let retry_after = retry::after(waits / 2);
            let (queue, setting) = ("the compute queue", "compute.queue");
            return Err(EngineError::Busy { queue, limit, setting, retry_after });
        }
        let done = waits + (own / threads).max(longest).min(promised / 2);
        if !waits.is_zero() && done > promised {
            drop(state);
            return Err(EngineError::Overloaded { done, left, retry_after: retry::after(done - promised) });
        }
        state.calls += 1;
        let ticket = Ticket(state.calls);
        for job in jobs {
            state.queue.push(&call.caller, job.estimate, Queued { run: job.noted().run, ticket: Some(ticket) });
        }
        drop(state);
        if several {
            self.shared.arrived.notify_all();
        } else {
            self.shared.arrived.notify_one();
        }
        Ok(ticket)
    }

    /// Takes a call's waiting jobs out of the queue, whose caller has left: what they hold, and their room, are free at once.
    pub(super) fn withdraw(&self, caller: &Caller, ticket: Ticket) {
        let void = self.shared.lock().queue.withdraw(caller, |job| job.ticket == Some(ticket));
        // Without the lock: it may be much to free.
        drop(void);
    }

    /// Queues the next job of a request that was admitted, whose job before has ended, however full the queue is.
    pub(super) fn go_on(&self, caller: &Caller, job: Job) {
        self.shared.lock().queue.push(caller, job.estimate, Queued { run: job.noted().run, ticket: None });
        self.shared.arrived.notify_one();
    }

    pub(super) fn load(&self) -> Load {
        let state = self.shared.lock();
        let (jobs, callers, threads) = (state.queue.len(), state.queue.callers(), state.at_work.len() as u32);
        Load { jobs, callers, wait: state.queue.backlog() / threads }
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

/// A job that a thread has taken, and small requests that are done with it.
struct Taken {
    caller: Caller,
    job: Job,
    others: Vec<(Caller, Duration, Small)>,
}

/// What a job took, whose it was.
struct Done {
    caller: Caller,
    estimate: Duration,
    took: Duration,
}

/// Waiting jobs that are looked at for whether they can be done with another.
const LOOKED_AT: usize = 128;

impl Taken {
    fn run(self, done: &mut Vec<Done>) {
        let Self { caller, job, others } = self;
        let estimate = job.estimate;
        let first = match job.run {
            Run::Small(small) if !others.is_empty() => *small,
            run => {
                let began = clock::now();
                Job { estimate, run }.run();
                return done.push(Done { caller, estimate, took: clock::now().duration_since(began) });
            }
        };
        let (mut of, mut small) = (vec![(caller, estimate)], vec![first]);
        for (caller, estimate, other) in others {
            of.push((caller, estimate));
            small.push(other);
        }
        let each = of.into_iter().zip(answer_together(&small));
        done.extend(each.map(|((caller, estimate), took)| Done { caller, estimate, took }));
    }
}

impl State {
    /// Small requests that wait now and are done with one that a thread has taken, and what all are expected to take. Each thread takes its
    /// share of what waits: the others may be free as soon.
    fn company(&mut self, small: &Small, estimate: Duration, now: Instant) -> (Vec<(Caller, Duration, Small)>, Duration) {
        let mut company = Company::of(small, estimate, self.queue.len() / self.at_work.len(), now);
        if company.is_full() {
            return (Vec::new(), estimate);
        }
        let fits = |queued: &Queued| matches!(&queued.run, Run::Small(other) if company.admits(other));
        let joined = self.queue.join(LOOKED_AT, fits).into_iter().filter_map(|(caller, estimate, queued)| match queued.run {
            Run::Small(other) => Some((caller, estimate, *other)),
            Run::Alone(_) => None,
        });
        (joined.collect(), company.expected)
    }

    /// Notes what a thread is at.
    fn at_work(&mut self, thread: usize, what: Option<(Instant, Duration)>) {
        if let Some(at_work) = self.at_work.get_mut(thread) {
            *at_work = what;
        }
    }

    /// How long work of a caller that is `own` waits before it begins.
    fn wait(&self, caller: &Caller, own: Duration, now: Instant) -> Duration {
        let left = |at_work: &Option<(Instant, Duration)>| {
            at_work.map_or(Duration::ZERO, |(since, estimate)| estimate.saturating_sub(now.saturating_duration_since(since)))
        };
        if self.queue.len() == 0 && self.at_work.iter().any(Option::is_none) {
            return Duration::ZERO;
        }
        let ahead = self.queue.ahead_of(caller, own, now);
        (ahead + self.at_work.iter().map(left).sum::<Duration>()) / self.at_work.len() as u32
    }
}

impl Shared {
    fn work(&self, thread: usize) {
        let mut done = Vec::new();
        while let Some(taken) = self.next(thread, &mut done) {
            taken.run(&mut done);
        }
    }

    /// Hears of the jobs that a thread has done, and gives it the next, with others that can be done with it.
    fn next(&self, thread: usize, done: &mut Vec<Done>) -> Option<Taken> {
        let mut state = self.lock();
        for Done { caller, estimate, took } in done.drain(..) {
            state.queue.ended(&caller, estimate, took, clock::now());
        }
        loop {
            if let Some((caller, estimate, Queued { run, .. })) = state.queue.pop() {
                let now = clock::now();
                let (others, takes) = match &run {
                    Run::Small(small) if state.queue.len() > 0 => state.company(small, estimate, now),
                    Run::Small(_) | Run::Alone(_) => (Vec::new(), estimate),
                };
                state.at_work(thread, Some((now, takes)));
                return Some(Taken { caller, job: Job { estimate, run }, others });
            }
            state.at_work(thread, None);
            if state.closed {
                return None;
            }
            state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Jobs run outside the lock, so a panic can't leave the queue half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
