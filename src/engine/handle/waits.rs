//! Calls that wait for others: for the other ranks of a staged write, for entries, for a position. They end when the server stops.

use std::time::Duration;

use tokio::sync::oneshot;

use super::{BankHandle, Engine, wait};
use crate::engine::EngineError;
use crate::engine::ledger::Part;
use crate::engine::reading::Condition;
use crate::engine::stages::Stages;
use crate::model::clock::Deadline;
use crate::model::{Applied, Stage, WriteBatch};

/// What the ranks of an open stage are told when the server stops.
const STAGE_LEFT: EngineError = EngineError::Stopping("the staged write waited for other ranks, and nothing of it was applied");

/// How often a stopping server looks whether anybody waits for other ranks.
const LOOK: Duration = Duration::from_millis(20);

/// Whether the server stops.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Stopping {
    #[default]
    No,
    /// Nobody waits any more but for other ranks.
    Soon,
    /// Nobody waits any more.
    Now,
}

/// What those are told who wait for something of a bank.
const WAIT_LEFT: EngineError = EngineError::Stopping("what the call waited for had not come");

impl Engine {
    /// Hands in a rank's part of a staged write at once, before what is returned is awaited: it is applied together with the other ranks',
    /// once all are in. Its request is `held` bytes until it is in or refused.
    ///
    /// # Errors
    /// [`EngineError`]; [`EngineError::Busy`] if there is no memory for it, which changes nothing; [`EngineError::StageExpired`] shortly
    /// before the earliest of its callers' deadlines; [`EngineError::Stopping`] when the server stops before all are in.
    pub fn stage(
        &self,
        bank: &BankHandle,
        stage: Stage,
        (batch, held): (WriteBatch, usize),
        deadline: Deadline,
    ) -> impl Future<Output = Result<Applied, EngineError>> + Send {
        let (reply, mut answer) = oneshot::channel();
        let last_word = deadline.a_little_before().instant();
        let reply = Box::new(move |result| drop(reply.send(result)));
        let until = bank.stages.contribute(&bank.state, stage, (batch, held), last_word, reply);
        // Those of a bank that was made meanwhile are closed by nobody else.
        if *self.inner.stopping.borrow() == Stopping::Now {
            bank.stages.close(&STAGE_LEFT);
        }
        let absence = Absence { stages: &bank.stages, until: until.into(), left: true };
        async move {
            // As a whole, or what is dropped when the caller hangs up would not be.
            let mut absence = absence;
            let answered = tokio::time::timeout_at(absence.until, &mut answer).await;
            absence.left = false;
            if let Ok(answered) = answered {
                return answered.unwrap_or(Err(EngineError::Internal("the thread that worked on the request panicked")));
            }
            // Time is up for the stage, unless it is on its way to the bank.
            absence.stages.settle();
            wait(answer, deadline).await
        }
    }

    /// Returns when the bank meets `condition`.
    ///
    /// # Errors
    /// [`EngineError::TooFewEntries`] at once or, if it may wait, shortly before the deadline, so that the caller still hears
    /// it; [`EngineError::OtherHistory`]; [`EngineError::DeadlineExceeded`] if the history does not come so far;
    /// [`EngineError::Deleted`]; [`EngineError::Stopping`].
    pub async fn await_condition(
        &self,
        bank: &BankHandle,
        condition: Condition,
        deadline: Deadline,
    ) -> Result<(), EngineError> {
        if condition == Condition::default() {
            return Ok(());
        }
        let (mut acknowledged, mut deleted) = (bank.acknowledged.subscribe(), bank.deleted.subscribe());
        let mut stopping = self.inner.stopping.subscribe();
        let last_word = deadline.a_little_before().instant().into();
        loop {
            acknowledged.borrow_and_update();
            let unmet = match condition.unmet(&bank.name, (bank.incarnation, &bank.lineage), &bank.state)? {
                None => return Ok(()),
                Some(unmet @ EngineError::TooFewEntries { .. }) if !condition.wait => return Err(unmet),
                Some(unmet) => unmet,
            };
            tokio::select! {
                _ = deleted.wait_for(|&deleted| deleted) => return Err(EngineError::Deleted(bank.name.clone())),
                _ = stopping.wait_for(|&stopping| stopping != Stopping::No) => return Err(WAIT_LEFT),
                waited = tokio::time::timeout_at(last_word, acknowledged.changed()) => drop(waited.map_err(|_| unmet)?),
            }
        }
    }

    /// Ends the waits that could keep a stopping server, and those that come later: for entries and for positions, which may never come, at
    /// once; for other ranks, whose calls may be on their way, after `grace`, or as soon as no request is left that has begun to come.
    pub async fn stop(&self, grace: Duration) {
        self.inner.stopping.send_replace(Stopping::Soon);
        let met = async {
            while self.ranks_may_meet() {
                tokio::time::sleep(LOOK).await;
            }
        };
        let _in_vain = tokio::time::timeout(grace, met).await;
        self.inner.stopping.send_replace(Stopping::Now);
        self.stop_gathers();
        for bank in self.banks() {
            bank.stages.close(&STAGE_LEFT);
        }
    }

    /// Whether anybody waits for other ranks, or is on the way: a request counts until the rows of it are a gather's or a stage's.
    fn ranks_may_meet(&self) -> bool {
        self.inner.ledger.taken(Part::Requests) > 0
            || self.gathers().iter().any(|gather| !gather.finished)
            || self.banks().iter().any(|bank| !bank.stages.describe().is_empty())
    }
}

/// Sees to it that a stage fails in time though a caller has hung up who would have called it.
struct Absence<'a> {
    stages: &'a Stages,
    until: tokio::time::Instant,
    /// False once the caller has waited long enough.
    left: bool,
}

impl Drop for Absence<'_> {
    fn drop(&mut self) {
        if let (true, Ok(runtime)) = (self.left, tokio::runtime::Handle::try_current()) {
            let (stages, until) = (self.stages.clone(), self.until);
            runtime.spawn(async move {
                tokio::time::sleep_until(until).await;
                stages.settle();
            });
        }
    }
}
