//! The engine in process, on one thread: 65,536 entries of 128 floats, cosine. Times are for the whole batch of anchors.

#![allow(clippy::unwrap_used, reason = "a benchmark may fail loudly")]

use negbank::bank::Bank;
use negbank::model::{
    Anchors, Applied, Band, BankKind, BankSpec, Columns, Draw, Filters, Form, Ids, Layout, Matrix, Metric, Mutation, Nearest,
    SampleQuery, Scope, ScoreRules, Seed, Softmax, Strategy, WriteBatch,
};
use negbank::rows::{Recycler, Shared};
use negbank::sampling::{BLOCK, answer_block};

const DIM: usize = 128;
const ENTRIES: usize = 65_536;
const LABELS: u64 = 100;

fn main() {
    divan::main();
}

/// Top 64, the anchor's own label excluded.
#[divan::bench(args = [1, 32, 256], sample_count = 20)]
fn nearest_of_65536(bencher: divan::Bencher<'_, '_>, anchors: usize) {
    let nearest = Nearest::top(64);
    let filters = Filters { exclude_same_label: true, ..Filters::default() };
    let draw = Draw { k: 64, strategy: Strategy::Nearest(nearest), filters, scope: Scope::PerAnchor };
    answer(bencher, anchors, draw, Layout::Pooled, true);
}

/// Strategies that score everything, own label excluded, beside a scan in f32: the nearest by l2, of which there are no codes.
#[divan::bench(args = ["scan in f32", "softmax", "softmax, without replacement", "softmax, with rules", "band"], sample_count = 10)]
fn whole_256_of_65536(bencher: divan::Bencher<'_, '_>, what: &str) {
    let (none, rules) = (ScoreRules::NONE, ScoreRules { max_score: Some(0.9), ..ScoreRules::NONE });
    let softmax = |replace, rules| Strategy::Softmax(Softmax { beta: 20.0, replace, rules });
    let (metric, strategy) = match what {
        "scan in f32" => (Metric::L2, Strategy::Nearest(Nearest::top(64))),
        "softmax" => (Metric::Cosine, softmax(true, none)),
        "softmax, without replacement" => (Metric::Cosine, softmax(false, none)),
        "softmax, with rules" => (Metric::Cosine, softmax(true, rules)),
        _ => (Metric::Cosine, Strategy::Band(Band { lo: 0.9, hi: 0.95, replace: false, rules: none })),
    };
    let filters = Filters { exclude_same_label: true, ..Filters::default() };
    let draw = Draw { k: 64, strategy, filters, scope: Scope::PerAnchor };
    answer_by(bencher, metric, 256, draw, Layout::Pooled, false);
}

/// Random draws without columns, own label excluded.
#[divan::bench(args = ["uniform", "weighted", "weighted, without replacement", "balanced"], sample_count = 50)]
fn random_256_of_65536_own_label_excluded(bencher: divan::Bencher<'_, '_>, what: &str) {
    let strategy = match what {
        "uniform" => Strategy::Uniform { replace: false },
        "weighted" => Strategy::Weighted { alpha: 0.75, replace: true },
        "weighted, without replacement" => Strategy::Weighted { alpha: 0.75, replace: false },
        _ => Strategy::Balanced { replace: true },
    };
    let filters = Filters { exclude_same_label: true, ..Filters::default() };
    let draw = Draw { k: 64, strategy, filters, scope: Scope::PerAnchor };
    answer(bencher, 256, draw, Layout::Pooled, false);
}

/// 64 at random with their vectors, gathered as they are sent.
#[divan::bench(args = [Layout::PerAnchor, Layout::Pooled], sample_count = 50)]
fn uniform_256_of_65536(bencher: divan::Bencher<'_, '_>, layout: Layout) {
    answer(bencher, 256, uniform(64), layout, true);
}

/// The same draws without a column, and few of them: what is paid for an anchor rather than for a row.
#[divan::bench(args = [8, 64], sample_count = 50)]
fn uniform_256_of_65536_indices_only(bencher: divan::Bencher<'_, '_>, k: usize) {
    answer(bencher, 256, uniform(k), Layout::Pooled, false);
}

fn uniform(k: usize) -> Draw {
    let strategy = Strategy::Uniform { replace: false };
    Draw { k, strategy, filters: Filters::default(), scope: Scope::PerAnchor }
}

fn answer(bencher: divan::Bencher<'_, '_>, anchors: usize, draw: Draw, layout: Layout, columns: bool) {
    answer_by(bencher, Metric::Cosine, anchors, draw, layout, columns);
}

fn answer_by(bencher: divan::Bencher<'_, '_>, metric: Metric, anchors: usize, draw: Draw, layout: Layout, columns: bool) {
    let bank = bank(metric);
    let (query, recycler) = (query(anchors, draw, layout, columns), Recycler::default());
    bencher.counter(divan::counter::ItemsCount::new(anchors)).bench_local(|| {
        let starts = (0..anchors).step_by(BLOCK);
        let blocks = starts.map(|start| answer_block(&bank, &query, start..anchors.min(start + BLOCK), &recycler, &|| true));
        blocks.map(Result::unwrap).count()
    });
}

fn bank(metric: Metric) -> Shared<Bank> {
    let spec = BankSpec::new(DIM as u32, metric, BankKind::Keyed { momentum: 0.5, capacity: None }, 8).unwrap();
    let mut bank = Bank::new(spec);
    let ids: Vec<u64> = (0..ENTRIES as u64).collect();
    let labels = ids.iter().map(|id| Some((id % LABELS) as i64)).collect();
    let batch = WriteBatch::new(&spec, Ids::Given(ids), rows(ENTRIES, 1), Some(labels), None, None, None).unwrap();
    let batch = batch.with_weights((0..ENTRIES).map(|id| (id % 1_000 + 1) as f32).collect()).unwrap();
    let mutation = Mutation::Write(batch);
    bank.reserve(&bank.arrivals(&mutation)).unwrap();
    bank.apply(&mutation, 0, usize::MAX, &mut Applied::default());
    Shared::new(bank)
}

fn query(count: usize, draw: Draw, layout: Layout, wanted: bool) -> SampleQuery {
    let labels = (0..count as u64).map(|at| Some((at % LABELS) as i64)).collect();
    let anchors = Anchors { count, embeddings: Some(rows(count, 2)), labels: Some(labels), ..Anchors::default() };
    let columns = Columns {
        ids: wanted,
        embeddings: wanted,
        labels: false,
        groups: false,
        steps: false,
        weights: false,
        scores: draw.strategy.is_scored(),
        log_q: wanted,
    };
    SampleQuery::new(anchors, vec![draw], None, Seed(1), Form { layout, ..Form::pooled(columns) }).unwrap()
}

fn rows(count: usize, seed: u64) -> Matrix {
    let mut stream = Seed(seed).stream(0, 0);
    let data = (0..count * DIM).map(|_| stream.below(2_000_001) as f32 / 1e6 - 1.0).collect();
    Matrix::new("rows", DIM, Metric::Cosine, data).unwrap()
}
