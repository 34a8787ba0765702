//! Banks that are taken while they are written, and put back.

use std::ops::Range;
use std::sync::Arc;

use proptest::prelude::*;

use super::{Restoring, sections};
use crate::bank::{Bank, Budget};
use crate::codec::{TensorReader, begin_tensors};
use crate::model::{
    Applied, BankImage, BankKind, BankSpec, Dtype, Ids, Matrix, Metric, Mutation, Origin, Seed, StageAt, WriteBatch,
};
use crate::rows::Shared;

fn spec(kind: usize) -> BankSpec {
    let kinds = [
        (BankKind::Keyed { momentum: 0.5, capacity: None }, Metric::Cosine, Dtype::F32),
        (BankKind::Keyed { momentum: 0.5, capacity: Some(60) }, Metric::Dot, Dtype::F16),
        (BankKind::Queue { capacity: 90 }, Metric::L2, Dtype::BF16),
    ];
    let (kind, metric, dtype) = kinds[kind];
    BankSpec::new(3, metric, kind, 3).unwrap().with_dtype(dtype).unwrap()
}

/// Mutation number `number` of a history.
fn mutation(spec: &BankSpec, seed: u64, number: u64) -> Mutation {
    let mut random = Seed(seed).stream(number as usize, 0);
    if random.below(6) == 0 {
        return Mutation::Remove((0..random.below(9)).map(|_| random.below(150)).collect());
    }
    let rows = random.below(20) as usize + 1;
    let values = (0..rows * 3).map(|_| random.unit() as f32 - 0.4).collect();
    let ids: Vec<u64> = (0..rows).map(|_| random.below(150)).collect();
    let labels = (number.is_multiple_of(2)).then(|| ids.iter().map(|id| (id % 5 > 0).then_some((id % 7) as i64)).collect());
    let groups = (number.is_multiple_of(3)).then(|| ids.iter().map(|id| (id % 4 > 0).then_some(id / 3)).collect());
    let weights = (number.is_multiple_of(5)).then(|| ids.iter().map(|id| (id % 9) as f32).collect());
    let matrix = Matrix::new("x", 3, spec.metric(), values).unwrap();
    let queue = matches!(spec.kind(), BankKind::Queue { .. });
    let ids = if queue && number.is_multiple_of(4) { Ids::Assigned } else { Ids::Given(ids) };
    let batch = WriteBatch::new(spec, ids, matrix, labels, groups, Some(number / 3), None).unwrap();
    let batch = weights.map_or(batch.clone(), |weights| batch.with_weights(weights).unwrap());
    let batch = batch.with_origin(Some(Origin::new("w", number % 4, number + 1).unwrap()));
    if number.is_multiple_of(7) {
        Mutation::Stage(StageAt { step: number, micro_batch: 0 }, vec![batch].into())
    } else {
        Mutation::Write(batch)
    }
}

fn apply(bank: &mut Bank, mutation: &Mutation) -> Applied {
    let arrivals = bank.arrivals(mutation);
    bank.reserve(&arrivals).unwrap();
    let mut applied = Applied::default();
    bank.apply(mutation, 0, usize::MAX, &mut applied);
    applied
}

/// The sections that a safetensors file of a bank gives, read in pieces of `piece` bytes.
fn by_file(spec: &BankSpec, bank: Bank, piece: usize) -> Vec<Vec<u8>> {
    let image = bank.image();
    let bank = Shared::new(bank);
    let cut = bank.write().unwrap().begin_cut(budget(usize::MAX));
    let mut file = Vec::new();
    let bytes = begin_tensors(&image, spec, &mut file).unwrap();
    let rows = sections((&image, &cut), &bank, &mut |_, raw| {
        file.extend_from_slice(raw);
        Ok(())
    });
    rows.unwrap();
    assert_eq!(file.len() as u64, bytes);
    let (mut reader, mut given) = (TensorReader::new(*spec), Vec::new());
    for part in file.chunks(piece) {
        assert!(reader.finish().is_err());
        let read = reader.push(part, &mut |section| {
            given.push(section.to_vec());
            Ok(())
        });
        read.unwrap();
    }
    reader.finish().unwrap();
    assert!(reader.push(&[0], &mut |_| Ok(())).is_err());
    given
}

/// All of a bank as bytes.
fn whole(bank: Bank) -> (Vec<Vec<u8>>, u128) {
    let image = bank.image();
    let bank = Shared::new(bank);
    let cut = bank.write().unwrap().begin_cut(budget(usize::MAX));
    let mut all = Vec::new();
    let hash = sections((&image, &cut), &bank, &mut |section, _| {
        all.push(section.to_vec());
        Ok(())
    });
    (all, hash.unwrap().value())
}

fn budget(bytes: usize) -> Budget {
    Budget { bytes, setting: "durability.snapshot_memory_bytes", writes_wait: false }
}

fn restored(spec: BankSpec, sections: &[Vec<u8>]) -> Bank {
    let mut restoring = Restoring::new(spec);
    let ended: Vec<bool> = sections.iter().map(|section| restoring.section(section).unwrap()).collect();
    assert_eq!(ended.iter().filter(|&&ended| ended).count(), 1);
    restoring.finish()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// A snapshot that is taken while writes go on is of the moment at which it began; restored and written on, the bank is to the
    /// bit what it would be without.
    #[test]
    fn a_bank_goes_on_from_its_snapshot_as_if_nothing_had_been(kind in 0usize..3, seed: u64, before in 0u64..60, during in 0u64..30, after in 0u64..30) {
        let spec = spec(kind);
        let mut bank = Bank::new(spec);
        (0..before).for_each(|number| drop(apply(&mut bank, &mutation(&spec, seed, number))));
        let image = bank.image();
        // Into memory of any size, and over another image.
        let sizes = (0..seed % 5).map(|shard| ((seed >> shard) as usize % 90, (seed >> 9) as usize % 9));
        prop_assert_eq!(&bank.image_in(BankImage::with_room(sizes)), &image);
        let mut other = Bank::new(spec);
        (0..during).for_each(|number| drop(apply(&mut other, &mutation(&spec, seed ^ 1, number))));
        prop_assert_eq!(&bank.image_in(other.image()), &image);
        let cut = bank.begin_cut(budget(usize::MAX));
        let shared = Shared::new(bank);
        let (mut all, mut number) = (Vec::new(), before);
        let hash = sections((&image, &cut), &shared, &mut |section, _| {
            all.push(section.to_vec());
            // Between two sections something is written.
            if number < before + during {
                apply(&mut shared.write().unwrap(), &mutation(&spec, seed, number));
                number += 1;
            }
            Ok(())
        }).unwrap().value();
        (number..before + during + after).for_each(|number| drop(apply(&mut shared.write().unwrap(), &mutation(&spec, seed, number))));
        let (once_more, again) = whole(restored(spec, &all));
        prop_assert_eq!((&once_more, again), (&all, hash));
        let from_file = by_file(&spec, restored(spec, &all), 1 + seed as usize % 5_000);
        prop_assert_eq!(from_file.as_slice(), &all[..all.len() - 1]);
        let mut bank = restored(spec, &all);
        for number in before..before + during + after {
            apply(&mut bank, &mutation(&spec, seed, number));
        }
        let mut unbroken = Bank::new(spec);
        (0..before + during + after).for_each(|number| drop(apply(&mut unbroken, &mutation(&spec, seed, number))));
        prop_assert_eq!(whole(bank), whole(unbroken));
    }
}

/// Several holds a shard, so that rows are taken from aside, and their places used again, while later ones are put there.
#[test]
fn rows_aside_are_those_of_the_cut() {
    let spec = BankSpec::new(3, Metric::Dot, BankKind::Keyed { momentum: 0.5, capacity: None }, 1).unwrap();
    let write = |bank: &mut Bank, ids: Vec<u64>, value: f32| {
        let matrix = Matrix::new("x", 3, Metric::Dot, vec![value; ids.len() * 3]).unwrap();
        let batch = WriteBatch::new(&spec, Ids::Given(ids), matrix, None, None, None, None).unwrap();
        apply(bank, &Mutation::Write(batch));
    };
    let filled = || {
        let mut bank = Bank::new(spec);
        write(&mut bank, (0..8_000).collect(), 1.0);
        bank
    };
    let (expected, hash) = whole(filled());
    let mut bank = filled();
    let (image, cut) = (bank.image(), bank.begin_cut(budget(usize::MAX)));
    let shared = Shared::new(bank);
    let (mut all, mut random) = (Vec::new(), Seed(3).stream(0, 0));
    let taken = sections((&image, &cut), &shared, &mut |section, _| {
        all.push(section.to_vec());
        // Taken ones, some that are not, and new ones.
        let ids: Vec<u64> = (0..300).map(|_| random.below(8_200)).collect();
        write(&mut shared.write().unwrap(), ids, all.len() as f32 + 1.0);
        Ok(())
    });
    assert_eq!((taken.unwrap().value(), all), (hash, expected));
    let bank = shared.read().unwrap();
    let changed = (0..8_000).filter(|&id| bank.row(bank.find(id).unwrap()).to_vec()[0] > 1.0).count();
    assert!(changed > 4_000, "it was written on: {changed}");
}

/// While one of them fails as well.
#[test]
fn each_of_several_cuts_is_of_its_own_moment() {
    let spec = spec(0);
    let until = |numbers: u64| {
        let mut bank = Bank::new(spec);
        (0..numbers).for_each(|number| drop(apply(&mut bank, &mutation(&spec, 5, number))));
        bank
    };
    let mut bank = until(40);
    let first = (bank.image(), bank.begin_cut(budget(usize::MAX)));
    let short = (bank.image(), bank.begin_cut(budget(40)));
    (40..50).for_each(|number| drop(apply(&mut bank, &mutation(&spec, 5, number))));
    let second = (bank.image(), bank.begin_cut(budget(usize::MAX)));
    let shared = Shared::new(bank);
    let mut number = 50;
    for ((image, cut), numbers) in [(first, 40), (second, 50)] {
        let mut all = Vec::new();
        let hash = sections((&image, &cut), &shared, &mut |section, _| {
            all.push(section.to_vec());
            apply(&mut shared.write().unwrap(), &mutation(&spec, 5, number));
            number += 1;
            Ok(())
        });
        assert_eq!((all, hash.unwrap().value()), whole(until(numbers)), "after {numbers}");
    }
    assert!(sections((&short.0, &short.1), &shared, &mut |_, _| Ok(())).is_err());
}

/// What is left is the image, which whoever has the cut may need still.
#[test]
fn what_lies_aside_goes_when_all_is_taken() {
    let spec = spec(0);
    let bank = Shared::new(Bank::new(spec));
    let write = |numbers: Range<u64>| {
        numbers.for_each(|number| drop(apply(&mut bank.write().unwrap(), &mutation(&spec, 1, number))));
    };
    let aside = || bank.read().unwrap().aside();
    write(0..40);
    for bytes in [usize::MAX, 40] {
        let image = bank.read().unwrap().image();
        let cut = bank.write().unwrap().begin_cut(budget(bytes));
        let before = aside();
        write(40..80);
        assert!(aside() > before);
        assert_eq!(sections((&image, &cut), &bank, &mut |_, _| Ok(())).is_ok(), bytes == usize::MAX);
        cut.forget();
        write(80..81);
        assert_eq!(aside(), before, "not before the image");
    }
}

/// Whether or not the bank is written to again.
#[test]
fn what_lies_aside_goes_with_whoever_takes_the_cut() {
    let spec = spec(0);
    let mut bank = Bank::new(spec);
    (0..40).for_each(|number| drop(apply(&mut bank, &mutation(&spec, 1, number))));
    let cut = bank.begin_cut(budget(usize::MAX));
    (40..80).for_each(|number| drop(apply(&mut bank, &mutation(&spec, 1, number))));
    assert!(bank.aside() > 0);
    let weak = Arc::downgrade(&cut);
    drop(cut);
    assert!(weak.upgrade().is_none() && bank.aside() == 0);
}

/// Without writes that wait it would fail.
#[test]
fn writes_that_are_to_wait_for_a_snapshot_are_told_until_it_has_caught_up_or_is_given_up() {
    let spec = spec(0);
    for is_given_up in [false, true] {
        let filled = || {
            let mut bank = Bank::new(spec);
            (0..40).for_each(|number| drop(apply(&mut bank, &mutation(&spec, 1, number))));
            bank
        };
        let (mut bank, expected) = (filled(), whole(filled()));
        let (image, cut) = (bank.image(), bank.begin_cut(Budget { writes_wait: true, ..budget(100) }));
        assert!(!bank.is_ahead_of_a_copy(), "nothing was written since");
        (40..80).for_each(|number| drop(apply(&mut bank, &mutation(&spec, 1, number))));
        assert!(bank.is_ahead_of_a_copy());
        if is_given_up {
            bank.give_up_copies();
        }
        let (shared, mut all) = (Shared::new(bank), Vec::new());
        let taken = sections((&image, &cut), &shared, &mut |section, _| {
            all.push(section.to_vec());
            Ok(())
        });
        match taken {
            Ok(hash) => assert!(!is_given_up && (all, hash.value()) == expected),
            Err(refused) => assert!(is_given_up && refused.to_string().contains("snapshot_memory_bytes"), "{refused}"),
        }
        assert!(!shared.read().unwrap().is_ahead_of_a_copy());
    }
}

#[test]
fn writes_that_change_more_than_the_budget_end_the_snapshot_and_not_themselves() {
    let spec = spec(0);
    let mut bank = Bank::new(spec);
    (0..40).for_each(|number| drop(apply(&mut bank, &mutation(&spec, 1, number))));
    let (image, cut) = (bank.image(), bank.begin_cut(budget(100)));
    (40..80).for_each(|number| drop(apply(&mut bank, &mutation(&spec, 1, number))));
    let refused = sections((&image, &cut), &Shared::new(bank), &mut |_, _| Ok(())).unwrap_err().to_string();
    assert!(refused.contains("durability.snapshot_memory_bytes"), "{refused}");
}
