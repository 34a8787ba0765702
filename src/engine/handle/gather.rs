//! Gathers between their callers and the clock.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::{Notify, oneshot};

use super::{Engine, wait};
use crate::engine::EngineError;
use crate::engine::ledger::Ledger;
use crate::gather::{self, Contribution, GatherId, GatherInfo, Gathered, Gathering, Ticket};
use crate::model::clock::{Deadline, now};

type Caller = oneshot::Sender<Result<Arc<Gathered>, EngineError>>;
type Answer = gather::Answer<Caller>;

/// All gathers, and what tells them the time. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Gathers {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    clocked: Mutex<Clocked>,
    /// Something may be due earlier than before.
    sooner: Notify,
}

#[derive(Debug)]
struct Clocked {
    gathering: Gathering<Caller>,
    /// A task tells the time, for as long as there is any gather.
    ticking: bool,
}

impl Engine {
    /// Hands in a rank's rows at once, before what is returned is awaited: the rows of all ranks, once they are there, or when the first
    /// of the callers' times is up: its `wait`, or shortly before its deadline, so that it still hears of it.
    ///
    /// # Errors
    /// [`EngineError`]; [`EngineError::Busy`] if there is no room for as much from every rank, which changes nothing.
    pub fn gather(
        &self,
        from: Contribution,
        deadline: Deadline,
    ) -> impl Future<Output = Result<Arc<Gathered>, EngineError>> + Send {
        let patience = from.wait.map(|wait| Deadline::after(wait).instant());
        let last_word = deadline.a_little_before().instant();
        let until = patience.map_or(last_word, |patience| patience.min(last_word));
        let gathers = &self.inner.gathers;
        let (reply, answer) = oneshot::channel();
        let id = from.id.clone();
        let ticket = gathers.act(|gathering| gathering.contribute(from, until, now(), reply));
        let leave = Leave { gathers, id, ticket };
        gathers.keep_time();
        async move {
            let _leave = leave;
            wait(answer, deadline).await
        }
    }

    /// The gathers that wait for ranks, and those that are remembered.
    pub fn gathers(&self) -> Vec<GatherInfo> {
        self.inner.gathers.act(|gathering| (gathering.describe(), Vec::new()))
    }

    /// Ends the waits for other ranks.
    pub(super) fn stop_gathers(&self) {
        self.inner.gathers.act(|gathering| ((), gathering.stop()));
    }
}

impl Gathers {
    pub(super) fn new(config: gather::Config, ledger: &Ledger) -> Self {
        let clocked = Clocked { gathering: Gathering::new(config, Box::new(ledger.clone())), ticking: false };
        Self { inner: Arc::new(Inner { clocked: Mutex::new(clocked), sooner: Notify::new() }) }
    }

    /// Does something with the gathers, after those whose time is up, and passes on what callers are told.
    fn act<T>(&self, act: impl FnOnce(&mut Gathering<Caller>) -> (T, Vec<Answer>)) -> T {
        let mut clocked = self.inner.clocked.lock().unwrap_or_else(PoisonError::into_inner);
        let expired = clocked.gathering.expire(now());
        let (done, answers) = act(&mut clocked.gathering);
        drop(clocked);
        for (caller, answer) in expired.into_iter().chain(answers) {
            // One who has hung up hears nothing.
            let _gone = caller.send(answer.map_err(EngineError::from));
        }
        done
    }

    /// Sees to it that somebody tells the time.
    fn keep_time(&self) {
        let mut clocked = self.inner.clocked.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut clocked.ticking, true) {
            self.inner.sooner.notify_one();
            return;
        }
        let gathers = self.clone();
        tokio::spawn(async move {
            while let Some(due) = gathers.next_due() {
                tokio::select! {
                    () = tokio::time::sleep_until(due.into()) => {}
                    () = gathers.inner.sooner.notified() => {}
                }
            }
        });
    }

    /// Lets what is due expire, and says when to come again; `None`: there is nothing left.
    fn next_due(&self) -> Option<Instant> {
        self.act(|_| ((), Vec::new()));
        let mut clocked = self.inner.clocked.lock().unwrap_or_else(PoisonError::into_inner);
        let due = clocked.gathering.next_due();
        clocked.ticking = due.is_some();
        due
    }
}

/// Forgets a caller that has its answer, or has hung up.
struct Leave<'a> {
    gathers: &'a Gathers,
    id: GatherId,
    ticket: Ticket,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.gathers.act(|gathering| (gathering.leave(&self.id, self.ticket), Vec::new()));
    }
}
