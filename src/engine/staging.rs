//! Staged writes: which ranks' batches are in, when a stage is complete, and what its callers are told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::EngineError;
use crate::bank::Staged;
use crate::model::{Applied, Excess, Invalid, Stage, StageAt, WriteBatch};

/// The open stages of a bank, and the one that is on its way to the bank: one at a time, so that a stage that the bank refuses
/// holds back those that come after it. Nothing here waits: whoever contributes, or whose time is up, is told what to do.
///
/// `W` stands for a caller who waits.
#[derive(Debug)]
pub(super) struct Staging<W> {
    open: BTreeMap<StageAt, Parts<W>>,
    committing: Option<Committing<W>>,
    /// What has committed.
    staged: Staged,
    limits: StagingLimits,
    /// Why nobody may contribute any more.
    closed: Option<EngineError>,
}

/// How much may wait.
#[derive(Debug, Clone, Copy)]
pub(super) struct StagingLimits {
    /// Open stages of a bank.
    pub(super) stages: usize,
    /// Rows in them.
    pub(super) rows: usize,
}

#[derive(Debug)]
struct Parts<W> {
    /// By rank.
    parts: Vec<Option<Part<W>>>,
    /// The earliest of its callers'.
    deadline: Instant,
}

#[derive(Debug)]
struct Part<W> {
    batch: WriteBatch,
    waiting: Vec<W>,
}

/// A stage that was complete and of which the bank has not been heard yet.
#[derive(Debug)]
struct Committing<W> {
    at: StageAt,
    /// In the order of the ranks.
    batches: Arc<[WriteBatch]>,
    /// Who waits for each rank's part.
    waiting: Vec<Vec<W>>,
}

/// What a caller is told.
pub(super) type Answer<W> = (W, Result<Applied, EngineError>);

/// An open stage, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenStage {
    /// Which.
    pub at: StageAt,
    /// Ranks that must write.
    pub world_size: u32,
    /// Ranks that have not, the first [`OpenStage::MOST_NAMED`].
    pub missing: Vec<u32>,
}

impl OpenStage {
    /// Missing ranks that are named at most.
    pub const MOST_NAMED: usize = 64;
}

impl<W> Staging<W> {
    /// Staging of a bank that has applied `staged`.
    pub(super) fn new(limits: StagingLimits, staged: Staged) -> Self {
        Self { open: BTreeMap::new(), committing: None, staged, limits, closed: None }
    }

    /// Adds a rank's batch, for which `waiting` waits until `deadline`, and returns until when the stage waits. The caller is given
    /// back with the reason if the batch is refused. A copy of a batch joins it; for any other `take` takes memory, or refuses it: so many
    /// bytes, which make so many of the whole stage.
    pub(super) fn contribute(
        &mut self,
        stage: Stage,
        batch: WriteBatch,
        deadline: Instant,
        waiting: W,
        take: impl FnOnce(usize, usize) -> Result<(), EngineError>,
    ) -> (Instant, Option<Answer<W>>) {
        if self.is_committing(stage, &batch)
            && let Some(of_rank) = self.committing.as_mut().and_then(|stage_of| stage_of.waiting.get_mut(stage.rank as usize))
        {
            of_rank.push(waiting);
            return (deadline, None);
        }
        let bytes = batch.bytes();
        let of_stage = self.open.get(&stage.at).map_or(0, Parts::bytes).saturating_add(bytes);
        if let Err(error) = self.check(stage, &batch).and_then(|new| if new { take(bytes, of_stage) } else { Ok(()) }) {
            return (deadline, Some((waiting, Err(error))));
        }
        let new = || Parts { parts: (0..stage.world_size).map(|_| None).collect(), deadline };
        let open = self.open.entry(stage.at).or_insert_with(new);
        open.deadline = open.deadline.min(deadline);
        if let Some(place) = open.parts.get_mut(stage.rank as usize) {
            place.get_or_insert_with(|| Part { batch, waiting: Vec::new() }).waiting.push(waiting);
        }
        (open.deadline, None)
    }

    /// True if this is a part of the stage that is on its way to the bank.
    pub(super) fn is_committing(&self, stage: Stage, batch: &WriteBatch) -> bool {
        self.committing.as_ref().is_some_and(|committing| {
            committing.at == stage.at
                && committing.batches.len() == stage.world_size as usize
                && committing.batches.get(stage.rank as usize) == Some(batch)
        })
    }

    /// The batches of the first stage in the order of their ranks, if they are all in, its turn has come and no other is on its way;
    /// [`Self::committed`] must hear what the bank makes of them.
    pub(super) fn complete(&mut self) -> Option<(StageAt, Arc<[WriteBatch]>)> {
        let (at, open) = self.open.first_key_value()?;
        // A resumed job comes back to steps that have been: it may begin anew, but not skip a micro-batch.
        let early = at.micro_batch > self.staged.expected(at.step);
        if early || self.committing.is_some() || open.parts.iter().any(Option::is_none) {
            return None;
        }
        let (at, open) = self.open.pop_first()?;
        let parts = open.parts.into_iter().flatten();
        let (batches, waiting): (Vec<_>, _) = parts.map(|part| (part.batch, part.waiting)).unzip();
        let batches: Arc<[WriteBatch]> = batches.into();
        self.committing = Some(Committing { at, batches: Arc::clone(&batches), waiting });
        Some((at, batches))
    }

    /// Hears what the bank made of the stage that was on its way, and says what its callers are told: each the ids of its own rows.
    pub(super) fn committed(&mut self, result: &Result<Applied, EngineError>) -> Vec<Answer<W>> {
        let Some(Committing { at, batches, waiting }) = self.committing.take() else { return Vec::new() };
        if result.is_ok() {
            self.staged.note(at);
        }
        let mut first = 0;
        let mut answers = Vec::new();
        for (batch, waiting) in batches.iter().zip(waiting) {
            let numbered = if batch.is_numbered_by_bank() { batch.rows() } else { 0 };
            let of_rank = |applied: &Applied| Applied {
                assigned: applied.assigned.get(first..first + numbered).unwrap_or_default().to_vec(),
                ..applied.clone()
            };
            let share = result.as_ref().map(of_rank).map_err(Clone::clone);
            answers.extend(waiting.into_iter().map(|caller| (caller, share.clone())));
            first += numbered;
        }
        answers
    }

    /// Fails the stages whose time is up: nothing of them is applied.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<Answer<W>> {
        let due: Vec<StageAt> = self.open.iter().filter(|(_, open)| open.deadline <= now).map(|(at, _)| *at).collect();
        let mut answers = Vec::new();
        for at in due {
            let expected = self.staged.expected(at.step);
            let Some(open) = self.open.remove(&at) else { continue };
            let (world_size, missing) = (open.parts.len(), open.missing());
            let error = EngineError::StageExpired { at, world_size, missing, expected };
            let waiting = open.parts.into_iter().flatten().flat_map(|part| part.waiting);
            answers.extend(waiting.map(|caller| (caller, Err(error.clone()))));
        }
        answers
    }

    /// Fails all open stages, and whoever contributes later, for the reason given.
    pub(super) fn close(&mut self, why: &EngineError) -> Vec<Answer<W>> {
        self.closed = Some(why.clone());
        let parts = std::mem::take(&mut self.open).into_values().flat_map(|open| open.parts.into_iter().flatten());
        parts.flat_map(|part| part.waiting).map(|caller| (caller, Err(why.clone()))).collect()
    }

    /// Memory of the batches that are in.
    pub(super) fn bytes(&self) -> usize {
        let committing = self.committing.iter().flat_map(|committing| committing.batches.iter()).map(WriteBatch::bytes);
        self.open.values().map(Parts::bytes).chain(committing).sum()
    }

    /// The open stages, in the order in which they will commit.
    pub(super) fn describe(&self) -> Vec<OpenStage> {
        let of = |(at, open): (&StageAt, &Parts<W>)| OpenStage {
            at: *at,
            world_size: open.parts.len() as u32,
            missing: open.missing().into_iter().take(OpenStage::MOST_NAMED).collect(),
        };
        self.open.iter().map(of).collect()
    }

    /// Whether there is room for a batch that is not in yet; false: it is in.
    fn check(&self, stage: Stage, batch: &WriteBatch) -> Result<bool, EngineError> {
        if let Some(why) = &self.closed {
            return Err(why.clone());
        }
        let Some(open) = self.open.get(&stage.at) else {
            return self.has_room(batch.rows(), None).map(|()| true);
        };
        if open.parts.len() != stage.world_size as usize {
            let reason = format!("is {}, and other ranks of {} said {}", stage.world_size, stage.at, open.parts.len());
            return Err(Invalid::one("stage.world_size", reason).into());
        }
        match open.parts.get(stage.rank as usize) {
            Some(Some(there)) if there.batch == *batch => Ok(false),
            Some(Some(_)) => Err(EngineError::StageTaken { at: stage.at, rank: stage.rank }),
            _ => self.has_room(batch.rows(), Some(open)).map(|()| true),
        }
    }

    /// Refuses `rows` more for a stage, the one that is `there` or one more, if they pass the limits.
    fn has_room(&self, rows: usize, there: Option<&Parts<W>>) -> Result<(), EngineError> {
        let StagingLimits { stages, rows: limit } = self.limits;
        let (of_stage, setting) = (there.map_or(0, Parts::rows) + rows, "limits.max_staged_rows");
        if of_stage > limit {
            let what = format!("the staged write is of {of_stage} rows with those that other ranks have sent");
            return Err(Excess { what, limit, setting, instead: "write fewer rows at a time" }.into());
        }
        if self.open.values().map(Parts::rows).sum::<usize>() + rows > limit {
            return Err(EngineError::full("the room for rows of staged writes that wait for ranks", limit, setting));
        }
        if there.is_none() && self.open.len() >= stages {
            return Err(EngineError::full("the room for staged writes that wait for ranks", stages, "limits.max_stages"));
        }
        Ok(())
    }
}

impl<W> Parts<W> {
    fn bytes(&self) -> usize {
        self.parts.iter().flatten().map(|part| part.batch.bytes()).sum()
    }

    fn rows(&self) -> usize {
        self.parts.iter().flatten().map(|part| part.batch.rows()).sum()
    }

    fn missing(&self) -> Vec<u32> {
        (0u32..).zip(&self.parts).filter(|(_, part)| part.is_none()).map(|(rank, _)| rank).collect()
    }
}

#[cfg(test)]
mod tests;
