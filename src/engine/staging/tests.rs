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
    let (_, refused) = staging.contribute(stage, batch(value), soon(), caller, |_, _| Ok(()));
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
    let (until, refused) = staging.contribute(stage(1, 0, 1), batch(0.0), early, "a again", |_, _| Ok(()));
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
        assert!(staging.contribute(stage(1, 0, rank), batch, soon(), rank, |_, _| Ok(())).1.is_none());
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
        let (_, refused) = staging.contribute(stage, batch(value), soon(), (), |_, _| Ok(()));
        refused.unwrap().1.unwrap_err()
    };
    accept(&mut staging, stage(1, 0, 0), 0.0, ());
    let full = |_, _| Err(EngineError::DeadlineExceeded);
    assert!(staging.contribute(stage(1, 0, 1), batch(0.0), soon(), (), full).1.is_some());
    assert_eq!(staging.describe()[0].missing, [1, 2], "what has no room changes nothing");
    assert!(staging.contribute(stage(1, 0, 0), batch(0.0), soon(), (), full).1.is_none(), "a copy needs none");
    assert!(matches!(refusal(&mut staging, stage(1, 0, 0), 0.5), EngineError::StageTaken { rank: 0, .. }));
    let world = refusal(&mut staging, Stage { world_size: 4, ..stage(1, 0, 1) }, 0.0).to_string();
    assert!(world.contains("other ranks of step 1, micro-batch 0 said 3"), "{world}");
    accept(&mut staging, stage(2, 0, 0), 0.0, ());
    let third = refusal(&mut staging, stage(3, 0, 0), 0.0);
    assert!(matches!(third, EngineError::Busy { setting: "limits.max_stages", limit: 2, .. }), "{third}");
    accept(&mut staging, stage(2, 0, 1), 0.0, ());
    let fourth = refusal(&mut staging, stage(2, 0, 2), 0.0);
    assert!(
        matches!(fourth, EngineError::Busy { setting: "limits.max_staged_rows", limit: 3, .. }),
        "it has room beside no other: {fourth}"
    );
}

#[test]
fn a_stage_that_is_larger_than_the_room_for_all_is_refused_for_ever() {
    let mut staging = Staging::new(StagingLimits { stages: 2, rows: 2 }, Staged::default());
    (0..2).for_each(|rank| accept(&mut staging, stage(1, 0, rank), 0.0, ()));
    let (_, refused) = staging.contribute(stage(1, 0, 2), batch(0.0), soon(), (), |_, _| Ok(()));
    let refused = refused.unwrap().1.unwrap_err();
    let EngineError::NeverFits(excess) = &refused else { panic!("{refused}") };
    assert_eq!((excess.limit, excess.setting), (2, "limits.max_staged_rows"));
    assert!(excess.what.contains("of 3 rows"), "{refused}");
    let mut asked = None;
    let take = |bytes, of_stage| {
        asked = Some((bytes, of_stage));
        Err(EngineError::DeadlineExceeded)
    };
    let mut staging = Staging::new(AMPLE, Staged::default());
    accept(&mut staging, stage(1, 0, 0), 0.0, ());
    accept(&mut staging, stage(2, 0, 0), 0.0, ());
    staging.contribute(stage(1, 0, 1), batch(0.0), soon(), (), take);
    assert_eq!(asked, Some((batch(0.0).bytes(), 2 * batch(0.0).bytes())), "of its own stage alone");
}
