//! A scan as its reader sees it.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::{BankHandle, Engine, Leave, wait};
use crate::engine::EngineError;
use crate::engine::costs::{Effort, Kind};
use crate::engine::job::Job;
use crate::engine::query::Wanted;
use crate::engine::scan::{Cursor, ScanPart};
use crate::model::{Call, clock};
use crate::telemetry::Work;

/// A bank, and how far it has been read.
type ScanWork = (Arc<BankHandle>, Cursor);

pub(super) type NextPart = oneshot::Receiver<Result<(ScanWork, ScanPart), EngineError>>;

/// A scan under way. No compute thread waits for its reader; dropped, it ends.
pub struct Scan {
    engine: Engine,
    leave: Leave<'static>,
    call: Call,
    /// Of the call, which is over when the stream is read.
    work: Work,
    ahead: Arc<Mutex<Ahead>>,
    /// Lets go of the bank at the deadline, whether or not the reader ever asks again.
    watch: JoinHandle<()>,
    ended: bool,
}

/// What is read ahead of the reader.
enum Ahead {
    Next(NextPart),
    Nothing,
    Expired,
}

impl Scan {
    pub(super) fn begin(engine: Engine, first: NextPart, wanted: Wanted, call: Call) -> Self {
        let ahead = Arc::new(Mutex::new(Ahead::Next(first)));
        let watched = Arc::clone(&ahead);
        let until = call.deadline.instant();
        let watch = tokio::spawn(async move {
            tokio::time::sleep_until(until.into()).await;
            *watched.lock().unwrap_or_else(PoisonError::into_inner) = Ahead::Expired;
        });
        Self { engine, leave: Leave { wanted, queued: None }, call, work: Work::current(), ahead, watch, ended: false }
    }

    /// The next part; `None` after the last one or an error.
    ///
    /// # Errors
    /// [`EngineError`]
    pub async fn next(&mut self) -> Option<Result<ScanPart, EngineError>> {
        if self.ended {
            return None;
        }
        let read = match self.turn(Ahead::Nothing) {
            Ahead::Next(next) => wait(next, self.call.deadline).await,
            Ahead::Nothing | Ahead::Expired => Err(EngineError::DeadlineExceeded),
        };
        let part = read.map(|(work, part)| {
            if part.closing.is_none() {
                let (job, next) = job(work, self.leave.wanted.clone());
                self.work.within(|| self.engine.inner.pool.go_on(&self.call.caller, job));
                self.turn(Ahead::Next(next));
            }
            part
        });
        self.ended = part.as_ref().map_or(true, |part| part.closing.is_some());
        Some(part)
    }

    /// Replaces what is read ahead; at the deadline that is nothing for good.
    fn turn(&self, to: Ahead) -> Ahead {
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*ahead, Ahead::Expired) { Ahead::Expired } else { std::mem::replace(&mut *ahead, to) }
    }
}

impl Drop for Scan {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

/// The job that reads the next part, and where that comes in.
pub(super) fn job((bank, mut cursor): ScanWork, wanted: Wanted) -> (Job, NextPart) {
    let (reply, next) = oneshot::channel();
    let effort = Effort::of(Kind::Read, cursor.rows() * (bank.spec.dim() + 32));
    let estimate = bank.costs.estimate(&effort);
    let job = Job::new(estimate, move || {
        let began = clock::now();
        let part = cursor.next(&bank.state, &wanted);
        if part.is_ok() {
            bank.costs.learn(&effort, clock::now().duration_since(began));
        }
        drop(reply.send(part.map(|part| ((bank, cursor), part))));
    });
    (job, next)
}
