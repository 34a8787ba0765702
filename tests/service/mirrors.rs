//! Mirrors kept by `since`: over random histories, under writers, and when too much changed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use negbank::client::rows;
use negbank::model::{Seed, Stream};
use negbank::proto::v1;

use crate::live::{Live, keyed, queue, random_rows};
use crate::mirror::{Mirror, banks};
use crate::model::{ModelBank, ModelRow};

const DIM: usize = 5;

/// A random batch, sent and told to the model.
async fn write(live: &Live, bank: &str, model: &mut ModelBank, random: &mut Stream, count: usize, ids: u64) {
    let x = random_rows(random, count, DIM);
    let (labelled, grouped, weighted) = (random.below(2) == 0, random.below(2) == 0, random.below(2) == 0);
    let given = model.capacity.is_none() || random.below(2) == 0;
    let batch: Vec<ModelRow> = x
        .chunks_exact(DIM)
        .map(|x| ModelRow {
            id: given.then(|| random.below(ids)),
            x: x.to_vec(),
            label: labelled.then(|| (random.below(4) > 0).then(|| random.below(9) as i64 - 4)),
            group: grouped.then(|| (random.below(4) > 0).then(|| random.below(9))),
            weight: weighted.then(|| random.below(9) as f32 / 2.0),
        })
        .collect();
    let step = (random.below(3) > 0).then(|| random.below(100));
    let momentum = (model.capacity.is_none() && random.below(2) == 0).then_some(0.25f32);
    let column = |of: &dyn Fn(&ModelRow) -> Option<Option<u64>>| -> (Vec<u64>, Vec<u8>) {
        batch.iter().filter_map(of).map(|value| (value.unwrap_or_default(), u8::from(value.is_some()))).unzip()
    };
    let (labels, has_label) = column(&|row| row.label.map(|label| label.map(|label| label as u64)));
    let (groups, has_group) = column(&|row| row.group);
    let request = v1::WriteRequest {
        bank: bank.to_owned(),
        embeddings: Some(rows(&x)),
        ids: batch.iter().filter_map(|row| row.id).collect(),
        labels: labels.into_iter().map(|label| label as i64).collect(),
        has_label: has_label.into(),
        groups,
        has_group: has_group.into(),
        weights: batch.iter().filter_map(|row| row.weight).collect(),
        step,
        momentum,
        ..Default::default()
    };
    live.client.write(request).await.unwrap();
    model.write(&batch, step, momentum.map(f64::from));
}

async fn remove(live: &Live, bank: &str, model: &mut ModelBank, random: &mut Stream, ids: u64) {
    let ids: Vec<u64> = (0..1 + random.below(6)).map(|_| random.below(ids)).collect();
    live.client.remove(v1::RemoveRequest { bank: bank.to_owned(), ids: ids.clone() }).await.unwrap();
    model.remove(&ids);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_equals_the_bank_after_every_random_history() {
    let live = Live::start(&[]).await;
    let banks = banks(&live.address).await;
    let (mut partial, mut whole) = (0, 0);
    for shards in [1, 2, 8] {
        for (kind, capacity) in [("keyed", None), ("keyed", Some(150)), ("queue", Some(37)), ("queue", Some(400))] {
            let mut random = Seed(u64::from(shards)).stream(0, capacity.unwrap_or(0));
            let name = format!("{kind}{shards}-{}", capacity.unwrap_or(0));
            let queued = kind == "queue";
            let bank = queue(&name, DIM as u32, shards, capacity.unwrap_or(0) as u64);
            let kind = if queued { v1::BankKind::Queue } else { v1::BankKind::Keyed }.into();
            live.create(v1::CreateBankRequest { metric: v1::Metric::Dot.into(), kind, ..bank }).await;
            let mut model = ModelBank::new(v1::Metric::Dot, capacity.filter(|_| queued), 0.5);
            model.keyed_capacity = capacity.filter(|_| !queued);
            let mut mirrors = [Mirror::default(), Mirror::default(), Mirror::default()];
            for round in 0..120 {
                match random.below(5) {
                    0 => remove(&live, &name, &mut model, &mut random, 300).await,
                    _ => {
                        let count = 1 + random.below(60) as usize;
                        write(&live, &name, &mut model, &mut random, count, 300).await;
                    }
                }
                let context = format!("{name}, round {round}");
                for (mirror, every) in mirrors.iter_mut().zip([1, 3, 17]) {
                    if round % every == every - 1 {
                        let chunk_rows = [0, 1, 7, 64][random.below(4) as usize];
                        let scanned = mirror.follow(&banks, &name, chunk_rows).await;
                        assert!(scanned.consistent, "{context}: nobody writes");
                        mirror.assert_equals(&model, &context);
                        assert_eq!(scanned.held, model.entries.len() as u64);
                        assert!(!scanned.whole || round == every - 1, "{context}: so few changes are remembered");
                        *(if scanned.whole { &mut whole } else { &mut partial }) += 1;
                    }
                }
                let mut fresh = Mirror::default();
                let scanned = fresh.follow(&banks, &name, 0).await;
                assert!(scanned.whole && scanned.consistent && scanned.rows == model.entries.len());
                fresh.assert_equals(&model, &context);
            }
        }
    }
    assert!(partial > 1_500 && whole == 36, "{partial} {whole}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_writes_position_serves_as_since() {
    let live = Live::start(&[]).await;
    let banks = banks(&live.address).await;
    live.create(queue("fifo", 1, 2, 100)).await;
    let write = |from: u64, count: u64| {
        let ids: Vec<u64> = (from..from + count).collect();
        let x: Vec<f32> = ids.iter().map(|&id| id as f32 + 1.0).collect();
        let live = &live;
        async move { live.write("fifo", &ids, &x, &[]).await.position }
    };
    let mut positions = Vec::new();
    for at in 0..40 {
        positions.push((write(at * 3, 3).await, (at + 1) * 3));
        let nothing = v1::RemoveRequest { bank: "fifo".into(), ids: vec![u64::MAX] };
        positions.push((live.client.remove(nothing).await.unwrap().position, (at + 1) * 3));
    }
    for (position, written) in positions {
        let mut mirror = Mirror { position: position.to_vec(), ..Mirror::default() };
        let scanned = mirror.follow(&banks, "fifo", 0).await;
        assert!(!scanned.whole && scanned.consistent);
        let ids: Vec<u64> = mirror.entries.values().map(|entry| entry.id).collect();
        assert_eq!(ids, (written.max(20)..120).collect::<Vec<_>>(), "those that came after the position and are there");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_that_missed_more_than_is_remembered_gets_the_whole_bank() {
    let live = Live::start(&[]).await;
    let banks = banks(&live.address).await;
    for bank in [keyed("keyed", DIM as u32, 8), queue("queue", DIM as u32, 2, 64)] {
        let (name, capacity) = (bank.name.clone(), (bank.capacity > 0).then_some(bank.capacity as usize));
        live.create(v1::CreateBankRequest { metric: v1::Metric::Dot.into(), ..bank }).await;
        let mut model = ModelBank::new(v1::Metric::Dot, capacity, 0.5);
        let mut random = Seed(3).stream(0, 0);
        let mut mirror = Mirror::default();
        write(&live, &name, &mut model, &mut random, 50, 60).await;
        assert!(mirror.follow(&banks, &name, 10).await.whole);
        // A row that is appended to a full queue is two changes.
        let rounds = if capacity.is_some() { 600 } else { 1 };
        let rows = if capacity.is_some() { 60 } else { 65_500 };
        for _ in 0..rounds {
            write(&live, &name, &mut model, &mut random, rows, 60).await;
        }
        write(&live, &name, &mut model, &mut random, 60, 60).await;
        let scanned = mirror.follow(&banks, &name, 10).await;
        assert!(scanned.whole && scanned.consistent, "{name}: {scanned:?}");
        mirror.assert_equals(&model, &name);
        write(&live, &name, &mut model, &mut random, 20, 60).await;
        let scanned = mirror.follow(&banks, &name, 10).await;
        assert!(!scanned.whole && scanned.rows <= 20, "{name}: {scanned:?}");
        mirror.assert_equals(&model, &name);
    }
}

const ENTRIES: u64 = 1_500;

/// Every write rewrites or replaces all entries and gives them one step and one value, so that a mixture of two states shows.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn scans_under_writers_are_whole_and_honest_and_the_next_quiet_one_repairs_the_mirror() {
    let live = Arc::new(Live::start(&["compute.threads=2"]).await);
    let banks = banks(&live.address).await;
    for bank in [keyed("keyed", 16, 8), queue("queue", 16, 8, ENTRIES)] {
        let (name, momentum) = (bank.name.clone(), (bank.capacity == 0).then_some(0.0));
        live.create(v1::CreateBankRequest { metric: v1::Metric::Dot.into(), momentum, ..bank }).await;
        rewrite(&live, &name, 1).await;
        let done = Arc::new(AtomicBool::new(false));
        let writer = tokio::spawn({
            let (live, name, done) = (Arc::clone(&live), name.clone(), Arc::clone(&done));
            async move {
                let mut step = 2;
                while !done.load(Ordering::Relaxed) {
                    rewrite(&live, &name, step).await;
                    step += 1;
                }
                step - 1
            }
        });
        let mut mirror = Mirror::default();
        let (mut mixed, mut round) = (0, 0);
        // Until enough scans met a write; how many do is the machine's affair.
        while mixed < 25 || round < 100 {
            assert!(round < 50_000, "only {mixed} of {round} scans met a write");
            round += 1;
            let scanned = mirror.follow(&banks, &name, [0, 40, 200, 999][round % 4]).await;
            for entry in mirror.entries.values() {
                assert!(entry.row.iter().all(|&x| x == entry.step as f32), "a torn row: {entry:?}");
            }
            let one_state = mirror.entries.values().all(|entry| entry.step == mirror.entries.values().next().unwrap().step);
            assert!(!scanned.consistent || (one_state && mirror.entries.len() == ENTRIES as usize), "not of one state");
            mixed += usize::from(!one_state);
        }
        done.store(true, Ordering::Relaxed);
        let last = writer.await.unwrap();
        let scanned = mirror.follow(&banks, &name, 0).await;
        assert!(scanned.consistent, "nobody writes");
        let mut fresh = Mirror::default();
        fresh.follow(&banks, &name, 0).await;
        assert_eq!(mirror.entries, fresh.entries);
        assert!(mirror.entries.values().all(|entry| entry.step == last), "the last write is seen");
        assert_eq!(mirror.entries.values().map(|entry| entry.id).collect::<Vec<_>>(), (0..ENTRIES).collect::<Vec<_>>());
    }
}

async fn rewrite(live: &Live, bank: &str, step: u64) {
    let request = v1::WriteRequest {
        bank: bank.to_owned(),
        ids: (0..ENTRIES).collect(),
        embeddings: Some(rows(&vec![step as f32; 16 * ENTRIES as usize])),
        step: Some(step),
        ..Default::default()
    };
    live.client.write(request).await.unwrap();
}
