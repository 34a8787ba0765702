//! Keyed banks that are searched by a graph: what is promised of every answer holds of these too, whatever is built meanwhile.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use negbank::client::rows;
use negbank::kernels::momentum;
use negbank::model::{Seed, Stream};
use negbank::proto::v1;

use crate::live::{Live, keyed, nearest_with};

pub(crate) const DIM: usize = 16;
const K: u32 = 64;
const LABELS: i64 = 40;

/// Settings under which a bank of this file gets a graph.
const SMALL: &[&str] =
    &["index.min_entries=1000", "index.m=12", "index.ef_construction=100", "index.threads=1", "index.max_percent=60"];

/// Unit rows in clusters, row by row with its cluster.
pub(crate) fn clustered(random: &mut Stream, count: usize) -> (Vec<f32>, Vec<i64>) {
    let mut centres = Seed(77).stream(0, 0);
    let centres: Vec<f32> = (0..LABELS as usize * DIM).map(|_| centres.gumbel() as f32 - 0.577).collect();
    let (mut all, mut labels) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let label = (random.unit() * random.unit() * LABELS as f64) as usize;
        let centre = &centres[label * DIM..(label + 1) * DIM];
        let mut row: Vec<f32> = centre.iter().map(|c| c + 0.6 * (random.gumbel() as f32 - 0.577)).collect();
        momentum::normalise(&mut row);
        all.extend(row);
        labels.push(label as i64);
    }
    (all, labels)
}

pub(crate) async fn fill(live: &Live, bank: &str, random: &mut Stream, ids: &[u64]) {
    for ids in ids.chunks(1_000) {
        let (x, labels) = clustered(random, ids.len());
        live.write(bank, ids, &x, &labels).await;
    }
}

async fn index(live: &Live, bank: &str) -> v1::Index {
    live.client.get_bank(v1::GetBankRequest { name: bank.to_owned() }).await.unwrap().index.unwrap()
}

/// Waits until the bank's index is as `wanted`.
#[expect(clippy::disallowed_methods, reason = "a test may wait")]
async fn until(live: &Live, bank: &str, wanted: impl Fn(&v1::Index) -> bool) -> v1::Index {
    let began = Instant::now();
    loop {
        let index = index(live, bank).await;
        if wanted(&index) {
            return index;
        }
        assert!(began.elapsed() < Duration::from_secs(100), "{index:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) async fn until_served(live: &Live, bank: &str) -> v1::Index {
    until(live, bank, |index| index.state() == v1::IndexState::Serving).await
}

pub(crate) fn by(plan: v1::Plan) -> v1::Nearest {
    v1::Nearest { plan: plan.into(), accuracy: v1::Accuracy::Approximate.into(), ..Default::default() }
}

async fn ask(live: &Live, bank: &str, anchors: &[f32], how: v1::Nearest, filters: v1::Filters) -> v1::SampleResponse {
    let count = anchors.len() / DIM;
    let request = v1::SampleRequest {
        bank: bank.to_owned(),
        anchors: Some(v1::Anchors { embeddings: Some(rows(anchors)), labels: vec![3; count], ..Default::default() }),
        draws: vec![nearest_with(K, how)],
        filters: Some(filters),
        columns: vec![v1::Column::Ids.into(), v1::Column::Scores.into(), v1::Column::Labels.into()],
        layout: v1::Layout::PerAnchor.into(),
        ..Default::default()
    };
    live.client.sample(request).await.unwrap()
}

/// Ids by anchor.
pub(crate) fn served(answer: &v1::SampleResponse) -> Vec<BTreeSet<u64>> {
    let mut ids = answer.rows.as_ref().unwrap().ids.iter().copied();
    answer.draws[0].counts.iter().map(|&count| ids.by_ref().take(count as usize).collect()).collect()
}

/// Share of what the scan finds that the graph finds.
pub(crate) async fn recall(live: &Live, bank: &str, anchors: &[f32], filters: &v1::Filters) -> f64 {
    let walked = ask(live, bank, anchors, by(v1::Plan::Graph), filters.clone()).await;
    assert_eq!(walked.draws[0].plan(), v1::Plan::Graph, "{}", walked.draws[0].plan_reason);
    let scanned = ask(live, bank, anchors, by(v1::Plan::Scan), filters.clone()).await;
    assert_eq!(scanned.draws[0].plan(), v1::Plan::Scan);
    assert_eq!(walked.draws[0].counts, scanned.draws[0].counts);
    let (walked, scanned) = (served(&walked), served(&scanned));
    let hits: usize = walked.iter().zip(&scanned).map(|(walked, scanned)| walked.intersection(scanned).count()).sum();
    hits as f64 / scanned.iter().map(BTreeSet::len).sum::<usize>() as f64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bank_gets_a_graph_and_says_so() {
    let live = Live::start(SMALL).await;
    live.create(keyed("b", DIM as u32, 4)).await;
    let mut random = Seed(1).stream(0, 0);
    fill(&live, "b", &mut random, &(0..500).collect::<Vec<_>>()).await;
    let few = until(&live, "b", |index| index.reason.contains("index.min_entries")).await;
    assert_eq!((few.state(), few.generation), (v1::IndexState::Scan, None));
    fill(&live, "b", &mut random, &(500..6_000).collect::<Vec<_>>()).await;
    let index = until_served(&live, "b").await;
    assert_eq!((index.indexed + index.scanned - index.unreachable, index.lag), (6_000, 7 - index.generation.unwrap()));
    assert!((index.mean_similarity - 1.0).abs() < 1e-3 && index.reason.starts_with("built from"), "{index:?}");

    let (anchors, _) = clustered(&mut random, 100);
    for filters in [v1::Filters::default(), v1::Filters { exclude_same_label: true, ..Default::default() }] {
        let recall = recall(&live, "b", &anchors, &filters).await;
        assert!(recall >= 0.97, "{recall}");
    }
    let walked = ask(&live, "b", &anchors, by(v1::Plan::Graph), v1::Filters::default()).await;
    let draw = &walked.draws[0];
    assert_eq!((draw.generation, draw.generation_lag), (index.generation, index.lag));
    assert!(!walked.reproducible);
    let checked = until(&live, "b", |index| index.recall_samples > 0).await;
    assert!(checked.recall() >= 0.8, "one answer of 64: {checked:?}");
    // Who doesn't ask for the graph by name gets what costs less, and a seed means an exact answer.
    let free = v1::Nearest { accuracy: v1::Accuracy::Exact.into(), ..Default::default() };
    let exact = ask(&live, "b", &anchors, free, v1::Filters::default()).await;
    assert!(exact.reproducible && exact.draws[0].plan() == v1::Plan::Scan && exact.draws[0].plan_reason.contains("exact"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_writes_are_seen_at_once_while_graphs_are_built() {
    let live = Live::start(SMALL).await;
    live.create(keyed("b", DIM as u32, 4)).await;
    let mut random = Seed(2).stream(0, 0);
    fill(&live, "b", &mut random, &(0..4_000).collect::<Vec<_>>()).await;
    until_served(&live, "b").await;
    let first = index(&live, "b").await.generation;
    for round in 0..300u64 {
        // Removed, so that the next write of the id is another entry; then written, and moved.
        let id = round * 13 % 4_000;
        let (x, labels) = clustered(&mut random, 1);
        if round % 3 == 0 {
            live.client.remove(v1::RemoveRequest { bank: "b".to_owned(), ids: vec![id] }).await.unwrap();
            let gone = ask(&live, "b", &x, by(v1::Plan::Graph), v1::Filters::default()).await;
            assert!(!served(&gone)[0].contains(&id), "round {round}: a removed entry is served");
        }
        let replace = v1::WriteRequest {
            bank: "b".to_owned(),
            ids: vec![id],
            embeddings: Some(rows(&x)),
            labels,
            momentum: Some(0.0),
            ..Default::default()
        };
        live.client.write(replace).await.unwrap();
        fill(&live, "b", &mut random, &(10_000 + round * 20..10_000 + round * 20 + 20).collect::<Vec<_>>()).await;
        let answer = ask(&live, "b", &x, by(v1::Plan::Graph), v1::Filters::default()).await;
        assert_eq!(answer.rows.as_ref().unwrap().ids[0], id, "round {round}: what was written is nearest to itself");
        assert!((answer.draws[0].scores[0] - 1.0).abs() < 1e-5);
    }
    // Of the graphs that were begun meanwhile the last is ready soon after the writers rest, if none was before.
    let serving = until(&live, "b", |index| index.generation.is_some() && index.generation != first).await;
    assert!(serving.indexed > 4_000, "{serving:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
pub(crate) async fn recall_holds_while_rows_are_replaced_and_while_they_drift() {
    // No build but the first, so that it is the delta that is tried.
    let mut settings = SMALL.to_vec();
    settings.extend(["index.rebuild_percent=100", "index.mean_drift_percent=1"]);
    let live = Live::start(&settings).await;
    let mut random = Seed(3).stream(0, 0);
    let (anchors, _) = clustered(&mut random, 100);
    let ids: Vec<u64> = (0..8_000).collect();
    for (bank, momentum) in [("replaced", 0.0), ("drifting", 0.7)] {
        live.create(v1::CreateBankRequest { momentum: Some(momentum), ..keyed(bank, DIM as u32, 4) }).await;
        fill(&live, bank, &mut random, &ids).await;
        until_served(&live, bank).await;
        for part in 0..8 {
            let written: Vec<u64> = if momentum == 0.0 { (part * 200..(part + 1) * 200).collect() } else { ids.clone() };
            fill(&live, bank, &mut random, &written[..written.len() / if momentum == 0.0 { 1 } else { 4 }]).await;
            let recall = recall(&live, bank, &anchors, &v1::Filters::default()).await;
            assert!(recall >= 0.97, "{bank} after {part}: {recall}");
        }
        let index = index(&live, bank).await;
        assert!(index.scanned > 500, "{index:?}");
    }
}

/// Each cluster goes its own way, and each row a little by itself.
fn moved(random: &mut Stream, x: &[f32], labels: &[i64]) -> Vec<f32> {
    let mut ways = Seed(78).stream(0, 0);
    let ways: Vec<f32> = (0..LABELS as usize * DIM).map(|_| 1.2 * (ways.gumbel() as f32 - 0.577)).collect();
    let mut to = x.to_vec();
    for (row, &label) in to.chunks_exact_mut(DIM).zip(labels) {
        row.iter_mut().zip(&ways[label as usize * DIM..]).for_each(|(x, way)| *x += 0.3 * way + 0.02 * random.gumbel() as f32);
        momentum::normalise(row);
    }
    to
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn walks_find_rows_where_they_have_moved_to() {
    // No build but the first, and next to nothing is scanned beside it.
    let mut settings = SMALL.to_vec();
    settings.extend(["index.rebuild_percent=100", "index.mean_drift_percent=1", "index.drift_percent=1"]);
    let live = Live::start(&settings).await;
    let mut random = Seed(12).stream(0, 0);
    let (anchors, of) = clustered(&mut random, 60);
    let anchors = [anchors.clone(), moved(&mut random, &anchors, &of)].concat();
    for (metric, dtype) in [(v1::Metric::Cosine, v1::Dtype::F32), (v1::Metric::L2, v1::Dtype::Bf16)] {
        let bank = metric.as_str_name();
        let kind = v1::CreateBankRequest { metric: metric.into(), dtype: dtype.into(), ..keyed(bank, DIM as u32, 4) };
        live.create(v1::CreateBankRequest { momentum: Some(0.7), ..kind }).await;
        let (x, labels) = clustered(&mut random, 6_000);
        let (ids, to) = ((0..6_000).collect::<Vec<u64>>(), moved(&mut random, &x, &labels));
        live.write(bank, &ids, &x, &labels).await;
        until_served(&live, bank).await;
        // Some leave, and walks go through where they were.
        live.client.remove(v1::RemoveRequest { bank: bank.to_owned(), ids: (0..500).collect() }).await.unwrap();
        for pass in 0..5 {
            live.write(bank, &ids[500..], &to[500 * DIM..], &labels[500..]).await;
            let recall = recall(&live, bank, &anchors, &v1::Filters::default()).await;
            assert!(recall >= 0.97, "{bank} after {pass}: {recall}");
        }
        let index = index(&live, bank).await;
        assert!(index.scanned < 60 && index.mean_similarity < 0.85, "{index:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filters_hold_and_short_answers_are_scanned_for() {
    let live = Live::start(SMALL).await;
    live.create(keyed("b", DIM as u32, 4)).await;
    let mut random = Seed(4).stream(0, 0);
    fill(&live, "b", &mut random, &(0..6_000).collect::<Vec<_>>()).await;
    until_served(&live, "b").await;
    let (anchors, _) = clustered(&mut random, 20);
    let all: Vec<i64> = (0..LABELS).collect();
    let mut scanned_for = 0;
    let cases = [
        v1::Filters { exclude_same_label: true, ..Default::default() },
        v1::Filters { exclude_labels: all[..LABELS as usize - 1].to_vec(), ..Default::default() },
        v1::Filters { exclude_labels: all.clone(), ..Default::default() },
        v1::Filters { exclude_ids: (0..4_000).collect(), ..Default::default() },
        v1::Filters {
            exclude_ids: (0..5_990).collect::<Vec<_>>()[..4_096].to_vec(),
            exclude_labels: all[1..].to_vec(),
            ..Default::default()
        },
    ];
    for filters in cases {
        let walked = ask(&live, "b", &anchors, by(v1::Plan::Graph), filters.clone()).await;
        let scanned = ask(&live, "b", &anchors, by(v1::Plan::Scan), filters.clone()).await;
        assert_eq!(walked.draws[0].counts, scanned.draws[0].counts, "min(k, n) are served, whatever the plan");
        scanned_for += usize::from(walked.draws[0].plan_reason.contains("too few"));
        let rows = walked.rows.unwrap();
        for (id, label) in rows.ids.iter().zip(&rows.labels) {
            assert!(!filters.exclude_ids.contains(id) && !filters.exclude_labels.contains(label));
            assert!(!(filters.exclude_same_label && *label == 3));
        }
    }
    assert!(scanned_for > 0, "nearly all left out: a walk finds too few");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equal_rows_and_a_bank_of_one_entry() {
    let live = Live::start(&["index.min_entries=1"]).await;
    let x: Vec<f32> = (0..DIM).map(|at| at as f32 - 3.5).collect();
    for (bank, entries) in [("same", 3_000u64), ("one", 1)] {
        live.create(keyed(bank, DIM as u32, 4)).await;
        let ids: Vec<u64> = (0..entries).collect();
        live.write(bank, &ids, &x.repeat(entries as usize), &vec![1; entries as usize]).await;
        until(&live, bank, |index| index.state() == v1::IndexState::Serving && index.lag == 0).await;
        let answer = ask(&live, bank, &x, by(v1::Plan::Graph), v1::Filters::default()).await;
        let wanted: BTreeSet<u64> = ids.into_iter().take(K as usize).collect();
        assert_eq!(served(&answer)[0], wanted, "ties go by id");
        assert_eq!(answer.draws[0].plan(), v1::Plan::Graph);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bank_deleted_during_its_build_is_gone() {
    let live = Live::start(&["index.min_entries=1000", "index.threads=1", "index.cpu_percent=20"]).await;
    let mut random = Seed(5).stream(0, 0);
    for round in 0..2 {
        live.create(keyed("b", DIM as u32, 4)).await;
        fill(&live, "b", &mut random, &(0..10_000).collect::<Vec<_>>()).await;
        until(&live, "b", |index| index.state() == v1::IndexState::Building && index.progress > 0.0).await;
        live.client.delete_bank(v1::DeleteBankRequest { name: "b".to_owned() }).await.unwrap();
        assert!(live.client.get_bank(v1::GetBankRequest { name: "b".to_owned() }).await.is_err(), "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_that_is_asked_for_is_taken_where_it_can_answer() {
    let live = Live::start(&[]).await;
    live.create(keyed("docs", DIM as u32, 8)).await;
    let mut random = Seed(9).stream(0, 0);
    let (x, _) = clustered(&mut random, 1_000);
    let ids: Vec<u64> = (0..1_000).collect();
    let labels: Vec<i64> = ids.iter().map(|id| i64::from(id % 10 < 6)).collect();
    live.write("docs", &ids, &x, &labels).await;
    // Label 1 is on six entries of ten, label 0 on four: by cost the first is scanned for, the second listed.
    for (label, by_cost) in [(1, v1::Plan::Scan), (0, v1::Plan::PostingList)] {
        let filters = v1::Filters { only_labels: vec![label], ..Default::default() };
        let mut answers = Vec::new();
        for asked in [v1::Plan::Unspecified, v1::Plan::Scan, v1::Plan::PostingList] {
            let answer = ask(&live, "docs", &x[..4 * DIM], by(asked), filters.clone()).await;
            let expected = if asked == v1::Plan::Unspecified { by_cost } else { asked };
            assert_eq!(answer.draws[0].plan(), expected, "label {label}");
            answers.push(served(&answer));
        }
        assert!(answers.iter().all(|answer| *answer == answers[0]), "each plan finds the same");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_server_takes_up_the_graph_that_served() {
    let dir = tempfile::tempdir().unwrap();
    let data = format!("durability.dir={}", dir.path().display());
    let settings = [&[data.as_str()], SMALL].concat();
    let mut random = Seed(8).stream(0, 0);
    let ids: Vec<u64> = (0..4_000).collect();
    let live = Live::start(&settings).await;
    for metric in [v1::Metric::Cosine, v1::Metric::Dot, v1::Metric::L2] {
        live.create(v1::CreateBankRequest { metric: metric.into(), ..keyed(metric.as_str_name(), DIM as u32, 3) }).await;
    }
    let names = [v1::Metric::Cosine, v1::Metric::Dot, v1::Metric::L2].map(|metric| metric.as_str_name());
    let mut before = Vec::new();
    for name in names {
        fill(&live, name, &mut random, &ids).await;
        before.push(until_served(&live, name).await);
        // Until it is kept.
        until_kept(dir.path(), name).await;
        // Some rows are others than those that the graph knows.
        fill(&live, name, &mut random, &[7, 8, 9, 5_000, 5_001]).await;
    }
    let damaged = kept_graph(dir.path(), names[2]).unwrap();
    drop(live);
    let mut bytes = std::fs::read(&damaged).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 8;
    std::fs::write(&damaged, bytes).unwrap();

    let live = Live::start(&settings).await;
    let (anchors, _) = clustered(&mut random, 30);
    for (name, before) in names.iter().zip(&before).take(2) {
        let index = until_served(&live, name).await;
        assert!(index.reason.contains("before the restart"), "{index:?}");
        assert_eq!((index.generation, index.indexed), (before.generation, before.indexed));
        assert!(index.scanned >= 5, "{index:?}");
        let recall = recall(&live, name, &anchors, &v1::Filters::default()).await;
        assert!(recall >= 0.97, "{name}: {recall}");
        let answer = ask(&live, name, &anchors, by(v1::Plan::Graph), v1::Filters::default()).await;
        assert_eq!(answer.draws[0].plan(), v1::Plan::Graph);
    }
    let rebuilt = until_served(&live, names[2]).await;
    assert!(rebuilt.reason.contains("built from") && rebuilt.generation > before[2].generation, "{rebuilt:?}");
    let from_then_on = until_kept(dir.path(), names[2]).await;
    assert_ne!(from_then_on, damaged);
}

/// Where a bank's graph is kept.
pub(crate) fn kept_graph(dir: &std::path::Path, bank: &str) -> Option<std::path::PathBuf> {
    let files = std::fs::read_dir(crate::durable::bank_folder(dir, bank)).unwrap().map(|entry| entry.unwrap().path());
    files.into_iter().find(|path| path.file_name().unwrap().to_str().unwrap().starts_with("graph-"))
}

#[expect(clippy::disallowed_methods, reason = "a test may wait")]
pub(crate) async fn until_kept(dir: &std::path::Path, bank: &str) -> std::path::PathBuf {
    let began = Instant::now();
    loop {
        if let Some(path) = kept_graph(dir, bank) {
            return path;
        }
        assert!(began.elapsed() < Duration::from_secs(100), "no graph of {bank} is kept");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
