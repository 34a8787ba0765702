//! Staged writes: which ranks' batches are in, and when a stage is complete.

use std::collections::BTreeMap;
use std::time::Instant;

use super::{Config, EngineError};
use crate::model::{Applied, Invalid, Stage, StageAt, WriteBatch};

/// The open stages of a bank. Nothing here waits: whoever contributes, or whose time is up, is told what to do.
///
/// `W` stands for a caller who waits.
#[derive(Debug)]
pub(super) struct Staging<W> {
    open: BTreeMap<StageAt, Open<W>>,
    /// The micro-batch that comes next in each of the last steps.
    next: BTreeMap<u64, u32>,
    limits: StagingLimits,
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
struct Open<W> {
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

/// A stage whose ranks are all in, and whose turn it is.
#[derive(Debug)]
pub(super) struct Complete<W> {
    /// In the order of the ranks.
    pub(super) batches: Vec<WriteBatch>,
    /// Who waits for each rank's part.
    pub(super) waiting: Vec<Vec<W>>,
}

/// Which of the ids that the bank gave are each rank's.
#[derive(Debug)]
pub(super) struct Shares(Vec<usize>);

impl<W> Complete<W> {
    /// How the bank's answer is to be shared out.
    pub(super) fn shares(&self) -> Shares {
        let numbered = |batch: &WriteBatch| if batch.is_numbered_by_bank() { batch.rows() } else { 0 };
        Shares(self.batches.iter().map(numbered).collect())
    }
}

impl Shares {
    /// Calls `tell` for everybody who waits, with what came of the stage and the ids of their own rows.
    pub(super) fn tell<W>(
        &self,
        result: &Result<Applied, EngineError>,
        waiting: Vec<Vec<W>>,
        tell: impl Fn(W, Result<Applied, EngineError>),
    ) {
        let mut first = 0;
        for (&numbered, waiting) in self.0.iter().zip(waiting) {
            let of_rank = |applied: &Applied| Applied {
                assigned: applied.assigned.get(first..first + numbered).unwrap_or_default().to_vec(),
                ..applied.clone()
            };
            let share = result.as_ref().map(of_rank).map_err(Clone::clone);
            waiting.into_iter().for_each(|caller| tell(caller, share.clone()));
            first += numbered;
        }
    }
}

/// A stage that failed: nothing of it is applied.
#[derive(Debug)]
pub(super) struct Failed<W> {
    pub(super) error: EngineError,
    pub(super) waiting: Vec<W>,
}

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

/// Steps whose next micro-batch is remembered.
const STEPS_REMEMBERED: usize = 1_024;

impl StagingLimits {
    /// The limits of an engine.
    pub(super) fn of(config: &Config) -> Self {
        Self { stages: config.max_stages, rows: config.max_staged_rows }
    }
}

impl<W> Staging<W> {
    pub(super) fn new(limits: StagingLimits) -> Self {
        Self { open: BTreeMap::new(), next: BTreeMap::new(), limits }
    }

    /// Adds a rank's batch, for which `waiting` waits until `deadline`, and returns until when the stage waits. The caller is given
    /// back with the reason if the batch is refused.
    pub(super) fn contribute(
        &mut self,
        stage: Stage,
        batch: WriteBatch,
        deadline: Instant,
        waiting: W,
    ) -> Result<Instant, Failed<W>> {
        if let Err(error) = self.check(stage, &batch) {
            return Err(Failed { error, waiting: vec![waiting] });
        }
        let new = || Open { parts: (0..stage.world_size).map(|_| None).collect(), deadline };
        let open = self.open.entry(stage.at).or_insert_with(new);
        open.deadline = open.deadline.min(deadline);
        if let Some(place) = open.parts.get_mut(stage.rank as usize) {
            place.get_or_insert_with(|| Part { batch, waiting: Vec::new() }).waiting.push(waiting);
        }
        Ok(open.deadline)
    }

    /// Takes the first stage, if its ranks are all in and its turn has come.
    pub(super) fn complete(&mut self) -> Option<Complete<W>> {
        let (at, open) = self.open.first_key_value()?;
        let (at, expected) = (*at, self.next.get(&at.step).copied().unwrap_or(0));
        // A resumed job comes back to steps that have been: it may begin anew, but not skip a micro-batch.
        if at.micro_batch > expected || open.parts.iter().any(Option::is_none) {
            return None;
        }
        let (_, open) = self.open.pop_first()?;
        self.next.insert(at.step, at.micro_batch + 1);
        if self.next.len() > STEPS_REMEMBERED {
            self.next.pop_first();
        }
        let parts = open.parts.into_iter().flatten();
        let (batches, waiting) = parts.map(|part| (part.batch, part.waiting)).unzip();
        Some(Complete { batches, waiting })
    }

    /// Takes the stages whose time is up.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<Failed<W>> {
        let due: Vec<StageAt> = self.open.iter().filter(|(_, open)| open.deadline <= now).map(|(at, _)| *at).collect();
        let fail = |at: StageAt| {
            let expected = self.next.get(&at.step).copied().unwrap_or(0);
            let open = self.open.remove(&at)?;
            let (world_size, missing) = (open.parts.len(), open.missing());
            let waiting = open.parts.into_iter().flatten().flat_map(|part| part.waiting).collect();
            Some(Failed { error: EngineError::StageExpired { at, world_size, missing, expected }, waiting })
        };
        due.into_iter().filter_map(fail).collect()
    }

    /// The open stages, in the order in which they will commit.
    pub(super) fn describe(&self) -> Vec<OpenStage> {
        let of = |(at, open): (&StageAt, &Open<W>)| OpenStage {
            at: *at,
            world_size: open.parts.len() as u32,
            missing: open.missing().into_iter().take(OpenStage::MOST_NAMED).collect(),
        };
        self.open.iter().map(of).collect()
    }

    fn check(&self, stage: Stage, batch: &WriteBatch) -> Result<(), EngineError> {
        let Some(open) = self.open.get(&stage.at) else {
            return self.has_room(batch.rows(), true);
        };
        if open.parts.len() != stage.world_size as usize {
            let reason = format!("is {}, and other ranks of {} said {}", stage.world_size, stage.at, open.parts.len());
            return Err(Invalid::one("stage.world_size", reason).into());
        }
        match open.parts.get(stage.rank as usize) {
            Some(Some(there)) if there.batch == *batch => Ok(()),
            Some(Some(_)) => Err(EngineError::StageTaken { at: stage.at, rank: stage.rank }),
            _ => self.has_room(batch.rows(), false),
        }
    }

    fn has_room(&self, rows: usize, new: bool) -> Result<(), EngineError> {
        let StagingLimits { stages, rows: most } = self.limits;
        if new && self.open.len() >= stages {
            let setting = "limits.max_stages";
            return Err(EngineError::LimitReached { what: "the number of a bank's open stages", limit: stages, setting });
        }
        let parts = self.open.values().flat_map(|open| open.parts.iter().flatten());
        if parts.map(|part| part.batch.rows()).sum::<usize>() + rows > most {
            let setting = "limits.max_staged_rows";
            return Err(EngineError::LimitReached { what: "the number of rows in a bank's open stages", limit: most, setting });
        }
        Ok(())
    }
}

impl<W> Open<W> {
    fn missing(&self) -> Vec<u32> {
        (0u32..).zip(&self.parts).filter(|(_, part)| part.is_none()).map(|(rank, _)| rank).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::{EngineError, Staging, StagingLimits};
    use crate::model::clock::now;
    use crate::model::{BankKind, BankSpec, Ids, Matrix, Metric, Stage, StageAt, WriteBatch};

    const AMPLE: StagingLimits = StagingLimits { stages: 64, rows: 1_000 };

    fn batch(value: f32) -> WriteBatch {
        let spec = BankSpec::new(1, Metric::Dot, BankKind::Keyed { momentum: 0.5, capacity: None }, 1).unwrap();
        let row = Matrix::new("x", 1, Metric::Dot, vec![value]).unwrap();
        WriteBatch::new(&spec, Ids::Given(vec![1]), row, None, None, None, None).unwrap()
    }

    fn stage(step: u64, micro_batch: u32, rank: u32) -> Stage {
        Stage::new(StageAt { step, micro_batch }, rank, 3).unwrap()
    }

    fn soon() -> Instant {
        now() + Duration::from_secs(60)
    }

    proptest! {
        /// Stages commit in (step, micro-batch) order with their batches in rank order, however the ranks' writes arrive.
        #[test]
        fn whatever_comes_first_the_order_is_the_same(order in Just((0..18u32).collect::<Vec<_>>()).prop_shuffle()) {
            let mut staging = Staging::new(AMPLE);
            let mut committed = Vec::new();
            // Each rank sends its micro-batches in order, as a trainer does; ranks overtake each other.
            let mut sent = [0u32; 3];
            for arrival in order {
                let rank = arrival % 3;
                let (step, micro_batch) = (u64::from(sent[rank as usize] / 2), sent[rank as usize] % 2);
                sent[rank as usize] += 1;
                let value = (step * 100) as f32 + (micro_batch * 10 + rank) as f32;
                staging.contribute(stage(step, micro_batch, rank), batch(value), soon(), rank).unwrap();
                while let Some(complete) = staging.complete() {
                    prop_assert_eq!(&complete.waiting, &[vec![0], vec![1], vec![2]]);
                    committed.extend(complete.batches.iter().map(|batch| batch.embedding(0)[0]));
                }
            }
            let expected = (0..3).flat_map(|step| [0, 1, 2, 10, 11, 12].map(|rest| (step * 100 + rest) as f32));
            prop_assert_eq!(committed, expected.collect::<Vec<f32>>());
            prop_assert!(staging.describe().is_empty());
        }
    }

    #[test]
    fn an_expired_stage_names_its_missing_ranks_and_gives_way_to_the_next() {
        let mut staging = Staging::new(AMPLE);
        let early = now() + Duration::from_secs(1);
        staging.contribute(stage(1, 0, 1), batch(0.0), soon(), "a").unwrap();
        assert_eq!(staging.contribute(stage(1, 0, 1), batch(0.0), early, "a again").unwrap(), early);
        for rank in 0..3 {
            staging.contribute(stage(2, 0, rank), batch(0.0), soon(), "b").unwrap();
        }
        assert!(staging.complete().is_none(), "step 1 comes first");
        assert!(staging.expire(now()).is_empty());
        assert_eq!(staging.describe()[0].missing, [0, 2]);
        let failed = staging.expire(early).pop().unwrap();
        assert_eq!(failed.waiting, ["a", "a again"]);
        assert!(failed.error.to_string().contains("ranks 0, 2 of 3"), "{}", failed.error);
        assert_eq!(staging.complete().unwrap().batches.len(), 3);
    }

    #[test]
    fn a_micro_batch_waits_for_the_one_before_it() {
        let mut staging = Staging::new(AMPLE);
        for rank in 0..3 {
            staging.contribute(stage(1, 1, rank), batch(1.0), soon(), ()).unwrap();
        }
        assert!(staging.complete().is_none());
        for rank in 0..3 {
            staging.contribute(stage(1, 0, rank), batch(0.0), soon(), ()).unwrap();
        }
        let values = |batches: Vec<WriteBatch>| batches[0].embedding(0)[0];
        assert_eq!(staging.complete().map(|complete| values(complete.batches)), Some(0.0));
        assert_eq!(staging.complete().map(|complete| values(complete.batches)), Some(1.0));
        for rank in 0..3 {
            staging.contribute(stage(1, 0, rank), batch(2.0), soon(), ()).unwrap();
        }
        assert_eq!(staging.complete().map(|complete| values(complete.batches)), Some(2.0), "a resumed job repeats a step");
    }

    #[test]
    fn contradictions_and_too_much_are_refused() {
        let mut staging = Staging::new(StagingLimits { stages: 2, rows: 3 });
        staging.contribute(stage(1, 0, 0), batch(0.0), soon(), ()).unwrap();
        let other = staging.contribute(stage(1, 0, 0), batch(0.5), soon(), ()).unwrap_err();
        assert!(matches!(other.error, EngineError::StageTaken { rank: 0, .. }));
        let world = Stage { world_size: 4, ..stage(1, 0, 1) };
        let other = staging.contribute(world, batch(0.0), soon(), ()).unwrap_err();
        assert!(other.error.to_string().contains("other ranks of step 1, micro-batch 0 said 3"), "{}", other.error);
        staging.contribute(stage(2, 0, 0), batch(0.0), soon(), ()).unwrap();
        let third = staging.contribute(stage(3, 0, 0), batch(0.0), soon(), ()).unwrap_err();
        assert!(third.error.to_string().contains("limits.max_stages"), "{}", third.error);
        staging.contribute(stage(2, 0, 1), batch(0.0), soon(), ()).unwrap();
        let fourth = staging.contribute(stage(2, 0, 2), batch(0.0), soon(), ()).unwrap_err();
        assert!(fourth.error.to_string().contains("limits.max_staged_rows"), "{}", fourth.error);
    }
}
