//! The bank's state against the naive model, over random histories of writes and removals on 1, 2 and 8 shards.

use std::collections::{BTreeMap, BTreeSet};

use negbank::bank::{Bank, Place, exponent};
use negbank::model::{Applied, BankKind, BankSpec, Dtype, Ids, Matrix, Metric, Mutation, WriteBatch};
use negbank::proto::v1;
use proptest::prelude::*;

use crate::model::{ModelBank, ModelEntry, ModelRow};

const DIM: usize = 5;

#[derive(Debug, Clone)]
enum Operation {
    Write { rows: Vec<ModelRow>, step: Option<u64>, momentum: Option<f32>, rows_per_hold: usize },
    Remove(Vec<u64>),
}

fn row(ids: bool, labels: bool, groups: bool, weights: bool) -> impl Strategy<Value = ModelRow> {
    let x = prop::collection::vec(-100i32..100, DIM).prop_map(|x| {
        let mut x: Vec<f32> = x.into_iter().map(|x| x as f32 / 50.0).collect();
        x[0] += 0.013; // never zero
        x
    });
    let weight = (0u32..9).prop_map(|weight| weight as f32 / 4.0);
    let columns = (prop::option::of(0i64..4), prop::option::of(0u64..5), weight);
    (0u64..24, x, columns).prop_map(move |(id, x, (label, group, weight))| ModelRow {
        id: ids.then_some(id),
        x,
        label: labels.then_some(label),
        group: groups.then_some(group),
        weight: weights.then_some(weight),
    })
}

fn operation(queue: bool) -> impl Strategy<Value = Operation> {
    let columns = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    let write =
        (columns, prop::option::of(0u64..9), prop::option::of(0.0f32..0.99), 1usize..9).prop_flat_map(
            move |((ids, labels, groups, weights), step, momentum, rows_per_hold)| {
                prop::collection::vec(row(ids || !queue, labels, groups, weights), 1..20)
                    .prop_map(move |rows| Operation::Write { rows, step, momentum: momentum.filter(|_| !queue), rows_per_hold })
            },
        );
    let remove = prop::collection::vec(0u64..24, 1..6).prop_map(Operation::Remove);
    prop_oneof![4 => write, 1 => remove]
}

fn history() -> impl Strategy<Value = (BankKind, Vec<Operation>)> {
    let keyed = prop::option::of(1u64..20).prop_map(|capacity| BankKind::Keyed { momentum: 0.5, capacity });
    let queue = (1u64..30).prop_map(|capacity| BankKind::Queue { capacity });
    prop_oneof![keyed, queue].prop_flat_map(|kind| {
        let queue = matches!(kind, BankKind::Queue { .. });
        (Just(kind), prop::collection::vec(operation(queue), 1..25))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn every_history_leaves_what_the_model_says(
        (kind, operations) in history(),
        shards in prop::sample::select(vec![1u32, 2, 8]),
        metric in prop::sample::select(vec![Metric::Cosine, Metric::Dot, Metric::L2]),
        dtype in prop::sample::select(vec![Dtype::F32, Dtype::F16, Dtype::BF16]),
    ) {
        let (capacity, keyed_capacity) = match kind {
            BankKind::Queue { capacity } => (Some(capacity as usize), None),
            BankKind::Keyed { capacity, .. } => (None, capacity.map(|capacity| capacity as usize)),
        };
        let spec = BankSpec::new(DIM as u32, metric, kind, shards).unwrap().with_dtype(dtype).unwrap();
        let wire = match metric { Metric::Cosine => v1::Metric::Cosine, Metric::Dot => v1::Metric::Dot, Metric::L2 => v1::Metric::L2 };
        let mut model = ModelBank::new(wire, capacity, 0.5);
        model.keyed_capacity = keyed_capacity;
        let mut bank = Bank::new(spec);
        let mut step = None;
        for (number, operation) in operations.into_iter().enumerate() {
            let operation = within(&spec, operation);
            let mutation = mutation(&spec, &operation);
            let (before, evicted) = (model.entries.len(), model.evicted);
            bank.reserve(&bank.arrivals(&mutation)).unwrap();
            let mut applied = Applied::default();
            let rows_per_hold = match &operation { Operation::Write { rows_per_hold, .. } => *rows_per_hold, Operation::Remove(_) => 2 };
            let mut next = Some(0);
            while let Some(from) = next {
                next = bank.apply(&mutation, from, rows_per_hold, &mut applied);
            }
            match operation {
                Operation::Write { rows, step: given, momentum, .. } => {
                    model.write(&rows, given, momentum.map(f64::from));
                    step = given.or(step);
                    let moved = applied.inserted + applied.updated;
                    let kept = capacity.map_or(rows.len(), |capacity| rows.len().min(capacity));
                    prop_assert_eq!(moved, kept as u64);
                    prop_assert!(capacity.is_some() || applied.evicted == model.evicted - evicted);
                    prop_assert_eq!(before as u64 + applied.inserted - applied.evicted, model.entries.len() as u64);
                }
                Operation::Remove(ids) => prop_assert_eq!(applied.removed, model.remove(&ids) as u64),
            }
            prop_assert_eq!(applied.sequence, number as u64 + 1);
            prop_assert_eq!((bank.sequence(), bank.step()), (number as u64 + 1, step));
            compare(&bank, &mut model)?;
            compare_ages(&bank, &model)?;
        }
        compare_ages(&Bank::restore(spec, bank.image()).unwrap(), &model)?;
    }
}

fn compare_ages(bank: &Bank, model: &ModelBank) -> Result<(), TestCaseError> {
    let step = bank.step().unwrap_or_default();
    let mut ages: Vec<u64> = model.entries.iter().map(|entry| step.saturating_sub(entry.step)).collect();
    ages.sort_unstable();
    for percent in [1, 50, 90, 99, 100] {
        let keep_to_it = (ages.len() * percent).div_ceil(100);
        let expected = bank.step().and_then(|_| ages.get(keep_to_it.checked_sub(1)?).copied());
        prop_assert_eq!(bank.age_of(percent), expected, "of {}%", percent);
    }
    Ok(())
}

/// The operation with a momentum that the bank's dtype can follow.
fn within(spec: &BankSpec, operation: Operation) -> Operation {
    match operation {
        Operation::Write { rows, step, momentum, rows_per_hold } => {
            let momentum = momentum.map(|momentum| momentum.min(spec.dtype().largest_momentum()));
            Operation::Write { rows, step, momentum, rows_per_hold }
        }
        remove @ Operation::Remove(_) => remove,
    }
}

fn mutation(spec: &BankSpec, operation: &Operation) -> Mutation {
    match operation {
        Operation::Write { rows, step, momentum, .. } => {
            let flat = rows.iter().flat_map(|row| row.x.iter().copied()).collect();
            let embeddings = Matrix::new("embeddings", DIM, spec.metric(), flat).unwrap();
            let given: Option<Vec<u64>> = rows.iter().map(|row| row.id).collect();
            let labels = rows.iter().map(|row| row.label).collect();
            let groups = rows.iter().map(|row| row.group).collect();
            let ids = given.map_or(Ids::Assigned, Ids::Given);
            let batch = WriteBatch::new(spec, ids, embeddings, labels, groups, *step, *momentum).unwrap();
            let weights: Option<Vec<f32>> = rows.iter().map(|row| row.weight).collect();
            Mutation::Write(match weights {
                Some(weights) => batch.with_weights(weights).unwrap(),
                None => batch,
            })
        }
        Operation::Remove(ids) => Mutation::Remove(ids.clone()),
    }
}

/// Every index of the bank says the same as the model's list. The model knows nothing of rounding: after each comparison it takes over what
/// the bank stored, so that rounding errors don't add up.
fn compare(bank: &Bank, model: &mut ModelBank) -> Result<(), TestCaseError> {
    // An id may be in a batch of at most 19 rows again and again; each time the row, of floats up to 2.1, is rounded.
    let tolerance = match bank.spec().dtype() {
        Dtype::F32 => 1e-5,
        Dtype::F16 => 0.005,
        Dtype::BF16 => 0.04,
    };
    let mut labels: BTreeMap<i64, usize> = BTreeMap::new();
    let mut groups: BTreeMap<u64, usize> = BTreeMap::new();
    let mut ids: BTreeMap<u64, usize> = BTreeMap::new();
    for entry in &model.entries {
        *ids.entry(entry.id).or_default() += 1;
        entry.label.into_iter().for_each(|label| *labels.entry(label).or_default() += 1);
        entry.group.into_iter().for_each(|group| *groups.entry(group).or_default() += 1);
    }
    prop_assert_eq!(bank.entries(), model.entries.len());

    let mut unmatched: Vec<&mut ModelEntry> = model.entries.iter_mut().collect();
    for (number, shard) in (0u32..).zip(bank.shards()) {
        let slots: BTreeSet<u32> = shard.roster().iter().copied().collect();
        prop_assert_eq!(slots.len(), shard.roster().len(), "a slot twice in the roster");
        for slot in 0..shard.columns().len() as u32 {
            prop_assert_eq!(shard.columns().is_occupied(slot), slots.contains(&slot));
        }
        for &slot in shard.roster() {
            let (entry, row) = (shard.columns().entry(slot), bank.row(Place { shard: number, slot }).to_vec());
            let columns = (entry.id, entry.label, entry.group, entry.weight, entry.step);
            let same = |there: &ModelEntry| (there.id, there.label, there.group, there.weight, there.step) == columns;
            let apart =
                |there: &ModelEntry| there.row.iter().zip(&row).map(|(a, b)| (a - f64::from(*b)).abs()).fold(0.0, f64::max);
            let alike = unmatched.iter().enumerate().filter(|(_, there)| same(there));
            let nearest = alike.map(|(at, there)| (apart(there), at)).min_by(|(a, _), (b, _)| a.total_cmp(b));
            let Some((_, at)) = nearest.filter(|&(distance, _)| distance < tolerance) else {
                return Err(TestCaseError::fail(format!(
                    "no such entry in the model: {entry:?} {row:?}, the nearest {nearest:?}"
                )));
            };
            let halves = bank.spec().dtype() != Dtype::F32;
            prop_assert!(!halves || row.iter().all(|x| x.to_bits() & 0x1FFF == 0), "more digits than a half has: {:?}", row);
            unmatched.swap_remove(at).row = row.into_iter().map(f64::from).collect();
            prop_assert!(entry.label.is_none_or(|label| shard.labelled(label).contains(&slot)));
            prop_assert!(entry.group.is_none_or(|group| shard.grouped(group).contains(&slot)));
            prop_assert!(exponent(entry.weight).is_none_or(|exponent| shard.weighing(exponent).contains(&slot)));
        }
    }
    let listed: BTreeSet<i64> = bank.classes().labels().iter().copied().collect();
    prop_assert_eq!(&listed, &labels.keys().copied().collect());
    prop_assert_eq!(listed.len(), bank.classes().labels().len(), "a label twice");
    prop_assert_eq!(bank.classes().entries(), labels.values().sum::<usize>());
    let weighing: usize = (-149..=127).flat_map(|e| bank.shards().iter().map(move |shard| shard.weighing(e).len())).sum();
    let weighted = model.entries.iter().filter(|entry| entry.weight > 0.0);
    prop_assert_eq!(weighing, weighted.clone().count());
    for alpha in [0.75f32, -2.0] {
        let powers = bank.powers(alpha);
        let expected: f64 = weighted.clone().map(|entry| f64::from(entry.weight).powf(f64::from(alpha))).sum();
        prop_assert!((powers.total().value(alpha) - expected).abs() <= 1e-12 * expected);
        prop_assert_eq!(powers.total().entries(), weighing);
    }
    let stalest: Vec<u64> = stalest(bank).map(|place| bank.columns(place).id(place.slot)).collect();
    let expected = if matches!(bank.spec().kind(), BankKind::Keyed { .. }) { model.stalest() } else { Vec::new() };
    prop_assert_eq!(stalest, expected);
    let count = |lens: &dyn Fn(&negbank::bank::Shard) -> usize| bank.shards().iter().map(lens).sum::<usize>();
    for label in 0..4 {
        prop_assert_eq!(bank.classes().entries_of(label), labels.get(&label).copied().unwrap_or_default());
        prop_assert_eq!(count(&|shard| shard.labelled(label).len()), labels.get(&label).copied().unwrap_or_default());
    }
    for group in 0..5 {
        prop_assert_eq!(count(&|shard| shard.grouped(group).len()), groups.get(&group).copied().unwrap_or_default());
    }
    for id in 0..24 {
        prop_assert_eq!(bank.find_all(id).count(), ids.get(&id).copied().unwrap_or_default());
        let newest = bank.find(id).map(|place| bank.row(place).to_vec());
        let expected = model.find(id);
        prop_assert_eq!(newest.is_some(), expected.is_some());
        if let (Some(newest), Some(expected)) = (newest, expected) {
            let close = expected.row.iter().zip(newest).all(|(want, got)| (want - f64::from(got)).abs() < tolerance);
            prop_assert!(close, "find({}) is not the newest entry", id);
        }
    }
    Ok(())
}

/// The entries of a keyed bank, stalest first.
fn stalest(bank: &Bank) -> impl Iterator<Item = Place> {
    let of_shard = |(number, shard): (u32, &negbank::bank::Shard)| {
        let slots = std::iter::successors(shard.stalest(), |&slot| shard.stalest_after(slot));
        slots.map(|slot| (shard.columns().staleness(slot), Place { shard: number, slot })).collect::<Vec<_>>()
    };
    let mut entries: Vec<_> = (0u32..).zip(bank.shards()).flat_map(of_shard).collect();
    entries.sort_unstable();
    entries.into_iter().map(|(_, place)| place)
}
