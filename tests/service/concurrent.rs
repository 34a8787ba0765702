//! Sampling while writers change the bank: no filter violated, no answer short, no row torn, every score true of its row.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use negbank::client::{floats, rows};
use negbank::model::Seed;
use negbank::proto::v1;

use crate::live::{Live, all_columns, keyed, nearest, queue, random_rows, uniform};

/// A row is sixteen cache lines, so that a torn one would show.
const DIM: usize = 256;
const ENTRIES: u64 = 4_000;
const LABELS: u64 = 4;
const K: u32 = 32;
const READS: usize = 2_000;

/// Rows say whether they are whole: the last float is the sum of the others.
fn checked_rows(random: &mut negbank::model::Stream, count: usize) -> Vec<f32> {
    let mut x = random_rows(random, count, DIM);
    for row in x.chunks_exact_mut(DIM) {
        // Multiples of 2^-6 add up without rounding.
        row.iter_mut().for_each(|x| *x = (*x * 64.0).round() / 64.0);
        row[DIM - 1] = row[..DIM - 1].iter().sum();
    }
    x
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn answers_stay_whole_and_true_under_writers() {
    let live = Arc::new(Live::start(&["compute.threads=4"]).await);
    for bank in [keyed("keyed", DIM as u32, 8), queue("queue", DIM as u32, 8, ENTRIES)] {
        let keyed = bank.capacity == 0;
        let name = bank.name.clone();
        // Dot keeps rows as they were written; momentum 0 replaces.
        let momentum = keyed.then_some(0.0);
        live.create(v1::CreateBankRequest { metric: v1::Metric::Dot.into(), momentum, ..bank }).await;
        let mut random = Seed(1).stream(0, 0);
        let ids: Vec<u64> = (0..ENTRIES).collect();
        let labels: Vec<i64> = ids.iter().map(|id| (id % LABELS) as i64).collect();
        live.write(&name, &ids, &checked_rows(&mut random, ENTRIES as usize), &labels).await;

        let (done, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let start =
            |number| tokio::spawn(write_on(Arc::clone(&live), name.clone(), number, Arc::clone(&done), Arc::clone(&written)));
        let writers: Vec<_> = (0..2).map(start).collect();
        for _ in 0..READS {
            read_once(&live, &name, &mut random, keyed).await;
        }
        done.store(true, Ordering::Relaxed);
        for writer in writers {
            writer.await.unwrap();
        }
        let written = written.load(Ordering::Relaxed);
        assert!(written > READS as u64 / 10, "only {written} batches were written while {READS} requests were served");
    }
}

/// Replaces entries by others of other labels until told to stop: in a keyed bank an entry's label moves with every write.
async fn write_on(live: Arc<Live>, bank: String, number: usize, done: Arc<AtomicBool>, written: Arc<AtomicU64>) {
    let mut random = Seed(50).stream(0, number);
    while !done.load(Ordering::Relaxed) {
        let ids: Vec<u64> = (0..200).map(|_| random.below(ENTRIES)).collect();
        let labels: Vec<i64> = ids.iter().map(|_| random.below(LABELS) as i64).collect();
        live.write(&bank, &ids, &checked_rows(&mut random, 200), &labels).await;
        written.fetch_add(1, Ordering::Relaxed);
        tokio::task::yield_now().await;
    }
}

async fn read_once(live: &Live, bank: &str, random: &mut negbank::model::Stream, keyed: bool) {
    let count = if random.below(30) == 0 { 70 } else { 1 + random.below(6) as usize };
    let anchors = random_rows(random, count, DIM);
    let labels: Vec<i64> = (0..count).map(|_| random.below(LABELS) as i64).collect();
    let shared = v1::Draw { scope: v1::Scope::Shared.into(), ..uniform(K) };
    let same_label = random.below(3) > 0;
    let filters = match random.below(3) {
        0 => v1::Filters { only_labels: vec![0, 1, 2], ..Default::default() },
        1 => v1::Filters { exclude_labels: vec![3], ..Default::default() },
        _ => v1::Filters { only_labels: vec![0, 1, 2], exclude_unlabelled: true, max_age: Some(5), ..Default::default() },
    };
    let request = v1::SampleRequest {
        bank: bank.to_owned(),
        anchors: Some(v1::Anchors { embeddings: Some(rows(&anchors)), labels: labels.clone(), ..Default::default() }),
        draws: vec![nearest(K), uniform(K), shared],
        filters: Some(v1::Filters { exclude_same_label: same_label, ..filters }),
        step: Some(0),
        columns: all_columns(),
        layout: random.below(3) as i32,
        ..Default::default()
    };
    let per_anchor = request.layout() == v1::Layout::PerAnchor;
    let answer = live.client.sample(request).await.unwrap();
    assert!(answer.sequence_first <= answer.sequence_last);
    let pool = answer.rows.unwrap();
    let x = floats(&pool.embeddings.unwrap());
    let row = |at: usize| &x[at * DIM..(at + 1) * DIM];
    for at in 0..pool.ids.len() {
        let (last, rest) = row(at).split_last().unwrap();
        assert_eq!(*last, rest.iter().sum::<f32>(), "a torn row");
        assert!(pool.labels[at] < 3, "{bank}: label 3 was served");
    }
    let true_of = |anchor: usize, pick: usize, score: f32| {
        let anchor = &anchors[anchor * DIM..(anchor + 1) * DIM];
        let expected: f64 = anchor.iter().zip(row(pick)).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        assert!((expected - f64::from(score)).abs() < 1e-3, "score {score} is not true of its row: {expected}");
    };
    let mut first = 0;
    for (number, draw) in answer.draws.iter().enumerate() {
        let len = if number == 2 { K as usize } else { K as usize * count };
        let picks: Vec<usize> =
            if per_anchor { (first..first + len).collect() } else { draw.indices.iter().map(|&row| row as usize).collect() };
        first += len;
        assert_eq!(picks.len(), len, "about half of {ENTRIES} entries are eligible, so {K} always exist");
        for (at, &label) in labels.iter().enumerate() {
            let set = if number == 2 { &picks } else { &picks[at * K as usize..(at + 1) * K as usize] };
            let scores = &draw.scores[at * K as usize..(at + 1) * K as usize];
            assert!(number != 0 || scores.is_sorted_by(|a, b| a >= b), "a ranking out of order");
            for (place, (&pick, &score)) in set.iter().zip(scores).enumerate() {
                let own = same_label && pool.labels[pick] == label;
                let masked = number == 2 && draw.mask[at * K as usize + place] == 0;
                assert_eq!(own, masked, "{bank}: label {} to an anchor of {label}, mask {masked}", pool.labels[pick]);
                true_of(at, pick, score);
            }
            let mut ids: Vec<u64> = set.iter().map(|&pick| pool.ids[pick]).collect();
            ids.sort_unstable();
            ids.dedup();
            assert!(!keyed || ids.len() == K as usize, "an anchor was served an id twice");
        }
    }
}
