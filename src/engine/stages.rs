//! The staged writes of a bank, between their callers and the committer.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::acknowledge::Acknowledge;
use super::committer::{self, Committer};
use super::ledger::Share;
use super::staging::{Answer, OpenStage, Staging, StagingLimits};
use super::{Config, EngineError};
use crate::bank::{Bank, Staged};
use crate::model::{Applied, Caller, Mutation, Stage, WriteBatch, clock};
use crate::rows::Shared;

/// Called with what came of a rank's batch.
type Reply = Box<dyn FnOnce(Result<Applied, EngineError>) + Send>;

/// The way of a rank's batch to the committer, together with the other ranks'. Cheap to clone.
#[derive(Clone)]
pub(super) struct Stages {
    staging: Arc<Mutex<Staging<Reply>>>,
    committer: Committer,
    memory: Arc<Share>,
}

impl std::fmt::Debug for Stages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stages").finish_non_exhaustive()
    }
}

impl Stages {
    /// The stages of a bank that has applied `staged`.
    pub(super) fn new(config: &Config, staged: Staged, committer: Committer, memory: Share) -> Self {
        let limits = StagingLimits { stages: config.max_stages, rows: config.max_staged_rows };
        Self { staging: Arc::new(Mutex::new(Staging::new(limits, staged))), committer, memory: Arc::new(memory) }
    }

    /// Adds a rank's batch, once there is memory for it beside its request of `held` bytes; `reply` hears what came of its stage, or at
    /// once that the batch was refused or applied before. Returns until when the stage waits: whoever waits calls [`Self::settle`] then.
    pub(super) fn contribute(
        &self,
        bank: &Shared<Bank>,
        stage: Stage,
        (batch, held): (WriteBatch, usize),
        deadline: Instant,
        reply: Reply,
    ) -> Instant {
        self.act(|staging, answers| {
            // The bank knows a batch before the staging forgets it, so that a copy of it is never taken for a new one.
            let known = match staging.is_committing(stage, &batch) {
                true => Ok(None),
                false => bank.read().map_err(EngineError::from).and_then(|bank| committer::known(&bank, &batch)),
            };
            let (until, refused) = match known {
                Ok(None) => {
                    let take = |bytes, of_stage: usize| self.memory.grow_for(bytes, of_stage.saturating_add(held));
                    staging.contribute(stage, batch, deadline, reply, take)
                }
                Ok(Some(done)) => (deadline, Some((reply, Ok(done)))),
                Err(error) => (deadline, Some((reply, Err(error)))),
            };
            answers.extend(refused);
            until
        })
    }

    /// Fails the stages whose time is up, and submits the one whose turn that makes it.
    pub(super) fn settle(&self) {
        self.act(|_, _| ());
    }

    /// Ends the wait of all open stages, and of whoever comes later.
    pub(super) fn close(&self, why: &EngineError) {
        self.act(|staging, answers| answers.extend(staging.close(why)));
    }

    /// The open stages.
    pub(super) fn describe(&self) -> Vec<OpenStage> {
        self.act(|staging, _| staging.describe())
    }

    /// Does something with the staging, after those whose time is up have failed and before the one that is complete is submitted.
    fn act<T>(&self, act: impl FnOnce(&mut Staging<Reply>, &mut Vec<Answer<Reply>>) -> T) -> T {
        let mut staging = self.staging.lock().unwrap_or_else(PoisonError::into_inner);
        let mut answers = staging.expire(clock::now());
        if !answers.is_empty() {
            // What they took is there for others.
            self.memory.set(staging.bytes());
        }
        let done = act(&mut staging, &mut answers);
        self.submit(&mut staging, &mut answers);
        self.memory.set(staging.bytes());
        drop(staging);
        answers.into_iter().for_each(|(reply, answer)| reply(answer));
        done
    }

    /// Sends the stage that is complete to the committer.
    fn submit(&self, staging: &mut Staging<Reply>, answers: &mut Vec<Answer<Reply>>) {
        while let Some((at, batches)) = staging.complete() {
            let stages = self.clone();
            let acknowledge = Acknowledge::new(move |result| stages.committed(&result));
            if let Err(error) = self.committer.submit(&Caller::Stage, Mutation::Stage(at, batches), None, acknowledge) {
                answers.extend(staging.committed(&Err(error)));
            }
        }
    }

    /// Passes on what the bank made of a stage, and submits the next.
    fn committed(&self, result: &Result<Applied, EngineError>) {
        self.act(|staging, answers| answers.extend(staging.committed(result)));
    }
}
