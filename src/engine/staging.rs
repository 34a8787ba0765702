//! Staged writes: which ranks' batches are in, when a stage is complete, and what its callers are told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::EngineError;
use crate::bank::Staged;
use crate::model::{Applied, Invalid, Stage, StageAt, WriteBatch};

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
    /// back with the reason if the batch is refused. A copy of a batch joins it; for any other `take` takes memory, or refuses it.
    pub(super) fn contribute(
        &mut self,
        stage: Stage,
        batch: WriteBatch,
        deadline: Instant,
        waiting: W,
        take: impl FnOnce(usize) -> Result<(), EngineError>,
    ) -> (Instant, Option<Answer<W>>) {
        if self.is_committing(stage, &batch)
            && let Some(of_rank) = self.committing.as_mut().and_then(|stage_of| stage_of.waiting.get_mut(stage.rank as usize))
        {
            of_rank.push(waiting);
            return (deadline, None);
        }
        if let Err(error) = self.check(stage, &batch).and_then(|new| if new { take(batch.bytes()) } else { Ok(()) }) {
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
        let open = self.open.values().flat_map(|open| open.parts.iter().flatten()).map(|part| part.batch.bytes());
        let committing = self.committing.iter().flat_map(|committing| committing.batches.iter()).map(WriteBatch::bytes);
        open.chain(committing).sum()
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
            return self.has_room(batch.rows(), true).map(|()| true);
        };
        if open.parts.len() != stage.world_size as usize {
            let reason = format!("is {}, and other ranks of {} said {}", stage.world_size, stage.at, open.parts.len());
            return Err(Invalid::one("stage.world_size", reason).into());
        }
        match open.parts.get(stage.rank as usize) {
            Some(Some(there)) if there.batch == *batch => Ok(false),
            Some(Some(_)) => Err(EngineError::StageTaken { at: stage.at, rank: stage.rank }),
            _ => self.has_room(batch.rows(), false).map(|()| true),
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

impl<W> Parts<W> {
    fn missing(&self) -> Vec<u32> {
        (0u32..).zip(&self.parts).filter(|(_, part)| part.is_none()).map(|(rank, _)| rank).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::{EngineError, Staged, Staging, StagingLimits};
    use crate::model::clock::now;
    use crate::model::{Applied, BankKind, BankSpec, Ids, Matrix, Metric, Stage, StageAt, WriteBatch};

    const AMPLE: StagingLimits = StagingLimits { stages: 64, rows: 1_000 };

    fn batch(value: f32) -> WriteBatch {
        let spec = BankSpec::new(1, Metric::Dot, BankKind::Keyed { momentum: 0.5, capacity: None }, 1).unwrap();
        let row = Matrix::new("x", 1, Metric::Dot, vec![value]).unwrap();
        WriteBatch::new(&spec, Ids::Given(vec![1]), row, None, None, None, None).unwrap()
    }

    fn stage(step: u64, micro_batch: u32, rank: u32) -> Stage {
        Stage::new(StageAt { step, micro_batch }, rank, 3).unwrap()
    }

    fn accept<W: std::fmt::Debug>(staging: &mut Staging<W>, stage: Stage, value: f32, caller: W) {
        let (_, refused) = staging.contribute(stage, batch(value), soon(), caller, |_| Ok(()));
        assert!(refused.is_none(), "{refused:?}");
    }

    fn soon() -> Instant {
        now() + Duration::from_secs(60)
    }

    proptest! {
        /// Stages commit in (step, micro-batch) order with their batches in rank order, however the ranks' writes arrive.
        #[test]
        fn whatever_comes_first_the_order_is_the_same(order in Just((0..18u32).collect::<Vec<_>>()).prop_shuffle()) {
            let mut staging = Staging::new(AMPLE, Staged::default());
            let mut committed = Vec::new();
            // Each rank sends its micro-batches in order, as a trainer does; ranks overtake each other.
            let mut sent = [0u32; 3];
            for arrival in order {
                let rank = arrival % 3;
                let (step, micro_batch) = (u64::from(sent[rank as usize] / 2), sent[rank as usize] % 2);
                sent[rank as usize] += 1;
                let value = (step * 100) as f32 + (micro_batch * 10 + rank) as f32;
                accept(&mut staging, stage(step, micro_batch, rank), value, rank);
                while let Some((_, batches)) = staging.complete() {
                    committed.extend(batches.iter().map(|batch| batch.embedding(0)[0]));
                    let told: Vec<u32> = staging.committed(&Ok(Applied::default())).into_iter().map(|(rank, _)| rank).collect();
                    prop_assert_eq!(told, [0, 1, 2]);
                }
            }
            let expected = (0..3).flat_map(|step| [0, 1, 2, 10, 11, 12].map(|rest| (step * 100 + rest) as f32));
            prop_assert_eq!(committed, expected.collect::<Vec<f32>>());
            prop_assert!(staging.describe().is_empty());
        }
    }

    #[test]
    fn an_expired_stage_names_its_missing_ranks_and_gives_way_to_the_next() {
        let mut staging = Staging::new(AMPLE, Staged::default());
        let early = now() + Duration::from_secs(1);
        accept(&mut staging, stage(1, 0, 1), 0.0, "a");
        let (until, refused) = staging.contribute(stage(1, 0, 1), batch(0.0), early, "a again", |_| Ok(()));
        assert!(until == early && refused.is_none());
        (0..3).for_each(|rank| accept(&mut staging, stage(2, 0, rank), 0.0, "b"));
        assert!(staging.complete().is_none(), "step 1 comes first");
        assert!(staging.expire(now()).is_empty());
        assert_eq!(staging.describe()[0].missing, [0, 2]);
        let failed = staging.expire(early);
        assert_eq!(failed.iter().map(|(caller, _)| *caller).collect::<Vec<_>>(), ["a", "a again"]);
        for (_, answer) in failed {
            let error = answer.unwrap_err().to_string();
            assert!(error.contains("ranks 0, 2 of 3"), "{error}");
        }
        assert_eq!(staging.complete().unwrap().1.len(), 3);
    }

    #[test]
    fn a_micro_batch_waits_for_the_one_before_it() {
        let mut staging = Staging::new(AMPLE, Staged::default());
        let commit = |staging: &mut Staging<()>| {
            let value = staging.complete().map(|(_, batches)| batches[0].embedding(0)[0]);
            staging.committed(&Ok(Applied::default()));
            value
        };
        (0..3).for_each(|rank| accept(&mut staging, stage(1, 1, rank), 1.0, ()));
        assert_eq!(commit(&mut staging), None);
        (0..3).for_each(|rank| accept(&mut staging, stage(1, 0, rank), 0.0, ()));
        assert_eq!((commit(&mut staging), commit(&mut staging), commit(&mut staging)), (Some(0.0), Some(1.0), None));
        // A resumed job comes back to an early step, after more steps than are remembered.
        for step in 1_000..1_000 + Staged::REMEMBERED as u64 {
            (0..3).for_each(|rank| accept(&mut staging, stage(step, 0, rank), 3.0, ()));
            assert_eq!(commit(&mut staging), Some(3.0));
        }
        for micro_batch in 0..3 {
            (0..3).for_each(|rank| accept(&mut staging, stage(1, micro_batch, rank), 2.0, ()));
            assert_eq!(commit(&mut staging), Some(2.0), "micro-batch {micro_batch}");
        }
    }

    #[test]
    fn copies_join_a_stage_on_its_way_and_a_refused_one_holds_back_the_next() {
        let mut staging = Staging::new(AMPLE, Staged::default());
        (0..3).for_each(|rank| accept(&mut staging, stage(1, 0, rank), rank as f32, "first"));
        (0..3).for_each(|rank| accept(&mut staging, stage(1, 1, rank), 7.0, "next"));
        assert_eq!(staging.complete().map(|(_, batches)| batches.len()), Some(3));
        assert!(staging.is_committing(stage(1, 0, 2), &batch(2.0)) && !staging.is_committing(stage(1, 0, 2), &batch(1.0)));
        accept(&mut staging, stage(1, 0, 2), 2.0, "copy");
        assert!(staging.complete().is_none(), "one at a time");
        let told = staging.committed(&Err(EngineError::DeadlineExceeded));
        assert_eq!(told.iter().map(|(caller, _)| *caller).collect::<Vec<_>>(), ["first", "first", "first", "copy"]);
        assert!(told.iter().all(|(_, answer)| answer.is_err()));
        assert!(staging.complete().is_none(), "micro-batch 0 was not applied");
        (0..3).for_each(|rank| accept(&mut staging, stage(1, 0, rank), rank as f32, "again"));
        assert!(staging.complete().is_some());
        staging.committed(&Ok(Applied::default()));
        assert_eq!(staging.complete().map(|(_, batches)| batches[0].embedding(0)[0]), Some(7.0));
    }

    #[test]
    fn each_rank_is_told_the_ids_of_its_own_rows() {
        let spec = BankSpec::new(1, Metric::Dot, BankKind::Queue { capacity: 9 }, 1).unwrap();
        let rows = |count: usize, ids| {
            let rows = Matrix::new("x", 1, Metric::Dot, vec![1.0; count]).unwrap();
            WriteBatch::new(&spec, ids, rows, None, None, None, None).unwrap()
        };
        let mut staging = Staging::new(AMPLE, Staged::default());
        let batches = [rows(2, Ids::Assigned), rows(1, Ids::Given(vec![70])), rows(3, Ids::Assigned)];
        for (rank, batch) in (0..).zip(batches) {
            assert!(staging.contribute(stage(1, 0, rank), batch, soon(), rank, |_| Ok(())).1.is_none());
        }
        staging.complete().unwrap();
        let applied = Applied { assigned: vec![10, 11, 13, 14, 15], ..Applied::default() };
        let told: Vec<(u32, Vec<u64>)> =
            staging.committed(&Ok(applied)).into_iter().map(|(rank, answer)| (rank, answer.unwrap().assigned)).collect();
        assert_eq!(told, [(0, vec![10, 11]), (1, vec![]), (2, vec![13, 14, 15])]);
    }

    #[test]
    fn contradictions_and_too_much_are_refused() {
        let mut staging = Staging::new(StagingLimits { stages: 2, rows: 3 }, Staged::default());
        let refusal = |staging: &mut Staging<()>, stage, value| {
            let (_, refused) = staging.contribute(stage, batch(value), soon(), (), |_| Ok(()));
            refused.unwrap().1.unwrap_err()
        };
        accept(&mut staging, stage(1, 0, 0), 0.0, ());
        let full = |_| Err(EngineError::DeadlineExceeded);
        assert!(staging.contribute(stage(1, 0, 1), batch(0.0), soon(), (), full).1.is_some());
        assert_eq!(staging.describe()[0].missing, [1, 2], "what has no room changes nothing");
        assert!(staging.contribute(stage(1, 0, 0), batch(0.0), soon(), (), full).1.is_none(), "a copy needs none");
        assert!(matches!(refusal(&mut staging, stage(1, 0, 0), 0.5), EngineError::StageTaken { rank: 0, .. }));
        let world = refusal(&mut staging, Stage { world_size: 4, ..stage(1, 0, 1) }, 0.0).to_string();
        assert!(world.contains("other ranks of step 1, micro-batch 0 said 3"), "{world}");
        accept(&mut staging, stage(2, 0, 0), 0.0, ());
        let third = refusal(&mut staging, stage(3, 0, 0), 0.0).to_string();
        assert!(third.contains("limits.max_stages"), "{third}");
        accept(&mut staging, stage(2, 0, 1), 0.0, ());
        let fourth = refusal(&mut staging, stage(2, 0, 2), 0.0).to_string();
        assert!(fourth.contains("limits.max_staged_rows"), "{fourth}");
    }
}
