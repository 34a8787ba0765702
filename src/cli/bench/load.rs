//! Callers and writers: each sends one call, waits for its end, and sends the next.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use super::anchors::Anchors;
use super::args::LoadArgs;
use super::batches::Batches;
use super::progress::Progress;
use super::stopwatch::Stopwatch;
use super::tally::Tally;
use crate::app::StopSignals;
use crate::client::{Client, ClientError, messages as v1};

/// How long a caller rests after a failure, so that a server that is gone isn't asked a million times; where the server says when
/// to come back, that long.
const REST: Duration = Duration::from_millis(100);

/// Callers share so many tallies at most: each takes about 200 KiB.
const TALLIES: usize = 64;

const TICK: Duration = Duration::from_millis(200);

/// All that callers and writers need.
#[derive(Debug)]
pub(super) struct Work {
    /// Connections of the callers.
    pub(super) callers: Vec<Client>,
    /// One for each writer.
    pub(super) writers: Vec<Client>,
    /// What every call asks for, but for its anchors and seed.
    pub(super) request: v1::SampleRequest,
    pub(super) anchors: Anchors,
    pub(super) batches: Batches,
    pub(super) seed: u64,
}

impl Work {
    /// Call number `call`.
    pub(super) fn request(&self, call: u64) -> v1::SampleRequest {
        let mut request = self.request.clone();
        request.anchors = Some(self.anchors.next(call));
        request.seed = Some(self.seed.wrapping_add(call));
        request
    }
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) calls: Tally,
    pub(super) writes: Tally,
    /// From the end of the warm-up to the end of the last call that counts.
    pub(super) elapsed: Duration,
    /// A signal ended it early.
    pub(super) interrupted: bool,
}

/// Runs callers and writers through warm-up and measurement, or until a signal.
pub(super) async fn run(work: Arc<Work>, load: &LoadArgs, progress: &Progress, signals: &mut StopSignals) -> Outcome {
    let board = Arc::new(Board::new((load.concurrency as usize).min(TALLIES)));
    let mut tasks = JoinSet::new();
    for caller in 0..load.concurrency as usize {
        tasks.spawn(call(Arc::clone(&work), Arc::clone(&board), caller));
    }
    for writer in 0..work.writers.len() {
        tasks.spawn(write(Arc::clone(&work), Arc::clone(&board), writer));
    }
    board.set(if load.warm_up.is_zero() { Phase::Counts } else { Phase::WarmsUp });
    let mut began = Stopwatch::start();
    let timed = async {
        sleep(load.warm_up).await;
        began = Stopwatch::start();
        board.set(Phase::Counts);
        watch(&board, load.duration, progress).await;
        board.set(Phase::Ends);
        while tasks.join_next().await.is_some() {}
    };
    let interrupted = tokio::select! {
        () = timed => false,
        () = signals.next() => true,
    };
    let elapsed = if board.phase() == Phase::WarmsUp { Duration::ZERO } else { began.elapsed() };
    tasks.abort_all();
    Outcome { calls: merged(&board.calls), writes: merged(std::slice::from_ref(&board.writes)), elapsed, interrupted }
}

/// Shows how it goes while it lasts.
async fn watch(board: &Board, lasts: Duration, progress: &Progress) {
    let (began, bar) = (Stopwatch::start(), progress.measuring(lasts));
    while let Some(left) = lasts.checked_sub(began.elapsed()).filter(|left| !left.is_zero()) {
        sleep(left.min(TICK)).await;
        if !bar.is_hidden() {
            let (mut answered, mut rows, mut failed) = (0, 0, 0);
            for tally in board.calls.iter().map(locked) {
                answered += tally.answered;
                rows += tally.rows;
                failed += tally.failures();
            }
            let seconds = began.elapsed().as_secs_f64();
            bar.set_position(began.elapsed().min(lasts).as_millis() as u64);
            bar.set_message(Progress::rates(answered as f64 / seconds, rows as f64 / seconds, failed));
        }
    }
    bar.finish_and_clear();
}

async fn call(work: Arc<Work>, board: Arc<Board>, caller: usize) {
    let Some(client) = work.callers.get(caller % work.callers.len().max(1)) else { return };
    let Some(tally) = board.calls.get(caller % board.calls.len().max(1)) else { return };
    loop {
        let phase = board.phase();
        if phase == Phase::Ends {
            return;
        }
        let request = work.request(board.next_call.fetch_add(1, Ordering::Relaxed));
        let sent = Stopwatch::start();
        let answer = client.sample_columns(request).await;
        let took = sent.elapsed();
        if phase == Phase::Counts {
            let mut tally = locked(tally);
            match &answer {
                Ok(answer) => tally.sampled(answer, took),
                Err(fault) => tally.failed(fault),
            }
        }
        rest_after(answer.err()).await;
    }
}

async fn write(work: Arc<Work>, board: Arc<Board>, writer: usize) {
    let Some(client) = work.writers.get(writer) else { return };
    for number in 0.. {
        let phase = board.phase();
        if phase == Phase::Ends {
            return;
        }
        let batch = work.batches.get(writer, number);
        let (rows, sent) = (batch.ids.len() as u64, Stopwatch::start());
        let answer = client.write(batch).await;
        let took = sent.elapsed();
        if phase == Phase::Counts {
            let mut tally = locked(&board.writes);
            match &answer {
                Ok(_) => tally.written(rows, took),
                Err(fault) => tally.failed(fault),
            }
        }
        rest_after(answer.err()).await;
    }
}

async fn rest_after(fault: Option<ClientError>) {
    match fault {
        Some(ClientError::ResourceExhausted { retry_after: Some(wait), .. }) => sleep(wait).await,
        Some(_) => sleep(REST).await,
        None => {}
    }
}

/// Where the run stands, and what came of it so far.
#[derive(Debug)]
struct Board {
    phase: AtomicU8,
    next_call: AtomicU64,
    calls: Vec<Mutex<Tally>>,
    writes: Mutex<Tally>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Phase {
    WarmsUp,
    Counts,
    Ends,
}

impl Board {
    fn new(tallies: usize) -> Self {
        let calls = (0..tallies.max(1)).map(|_| Mutex::default()).collect();
        // Call 0 has been made: it was the trial.
        Self { phase: AtomicU8::new(Phase::WarmsUp as u8), next_call: AtomicU64::new(1), calls, writes: Mutex::default() }
    }

    fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::WarmsUp,
            1 => Phase::Counts,
            _ => Phase::Ends,
        }
    }

    fn set(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }
}

fn locked(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

fn merged(tallies: &[Mutex<Tally>]) -> Tally {
    let mut all = Tally::default();
    tallies.iter().for_each(|tally| all.merge(&locked(tally)));
    all
}
