//! Calls that wait for others: for the other ranks of a staged write, for entries, for a position. They end when the server stops.

use tokio::sync::oneshot;

use super::{BankHandle, Engine, wait};
use crate::engine::EngineError;
use crate::engine::reading::Condition;
use crate::engine::stages::Stages;
use crate::model::clock::Deadline;
use crate::model::{Applied, Stage, WriteBatch};

/// What the ranks of an open stage are told when the server stops.
const STAGE_LEFT: EngineError = EngineError::Stopping("the staged write waited for other ranks, and nothing of it was applied");

/// What those are told who wait for something of a bank.
const WAIT_LEFT: EngineError = EngineError::Stopping("what the call waited for had not come");

impl Engine {
    /// Applies a rank's part of a staged write together with the other ranks', once all are in.
    ///
    /// # Errors
    /// [`EngineError`]; [`EngineError::StageExpired`] shortly before the earliest of its callers' deadlines;
    /// [`EngineError::Stopping`] when the server stops before all are in.
    pub async fn stage(
        &self,
        bank: &BankHandle,
        stage: Stage,
        batch: WriteBatch,
        deadline: Deadline,
    ) -> Result<Applied, EngineError> {
        let (reply, mut answer) = oneshot::channel();
        let last_word = deadline.a_little_before().instant();
        let reply = Box::new(move |result| drop(reply.send(result)));
        let until = bank.stages.contribute(&bank.state, stage, batch, last_word, reply);
        // Those of a bank that was made meanwhile are closed by nobody else.
        if *self.inner.stopping.borrow() {
            bank.stages.close(&STAGE_LEFT);
        }
        let mut absence = Absence { stages: &bank.stages, until: until.into(), left: true };
        let answered = tokio::time::timeout_at(until.into(), &mut answer).await;
        absence.left = false;
        if let Ok(answered) = answered {
            return answered.unwrap_or(Err(EngineError::Internal("the thread that worked on the request panicked")));
        }
        // Time is up for the stage, unless it is on its way to the bank.
        bank.stages.settle();
        wait(answer, deadline).await
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
                _ = stopping.wait_for(|&stopping| stopping) => return Err(WAIT_LEFT),
                waited = tokio::time::timeout_at(last_word, acknowledged.changed()) => drop(waited.map_err(|_| unmet)?),
            }
        }
    }

    /// Ends the waits that could keep a stopping server, and those that come later: for other ranks, for entries and for positions, which
    /// may never come.
    pub fn stop(&self) {
        self.inner.stopping.send_replace(true);
        self.stop_gathers();
        for bank in self.banks() {
            bank.stages.close(&STAGE_LEFT);
        }
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
