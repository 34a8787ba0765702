//! The engine in process, on one thread: 65,536 entries of 128 floats, cosine. Times are for the whole batch of anchors.

#![allow(clippy::unwrap_used, reason = "a benchmark may fail loudly")]

use negbank::bank::Bank;
use negbank::model::{
    Anchors, Applied, BankKind, BankSpec, Columns, Draw, Filters, Form, Ids, Layout, Matrix, Metric, Mutation, Nearest,
    SampleQuery, Scope, Seed, Strategy, WriteBatch,
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
    let bank = bank();
    let (query, recycler) = (query(anchors, draw, layout, columns), Recycler::default());
    bencher.counter(divan::counter::ItemsCount::new(anchors)).bench_local(|| {
        let starts = (0..anchors).step_by(BLOCK);
        let blocks = starts.map(|start| answer_block(&bank, &query, start..anchors.min(start + BLOCK), &recycler, &|| true));
        blocks.map(Result::unwrap).count()
    });
}

fn bank() -> Shared<Bank> {
    let spec = BankSpec::new(DIM as u32, Metric::Cosine, BankKind::Keyed { momentum: 0.5, capacity: None }, 8).unwrap();
    let mut bank = Bank::new(spec);
    let ids: Vec<u64> = (0..ENTRIES as u64).collect();
    let labels = ids.iter().map(|id| Some((id % LABELS) as i64)).collect();
    let batch = WriteBatch::new(&spec, Ids::Given(ids), rows(ENTRIES, 1), Some(labels), None, None, None).unwrap();
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
        scores: draw.strategy != Strategy::Uniform { replace: false },
        log_q: wanted,
    };
    SampleQuery::new(anchors, vec![draw], None, Seed(1), Form { layout, ..Form::pooled(columns) }).unwrap()
}

fn rows(count: usize, seed: u64) -> Matrix {
    let mut stream = Seed(seed).stream(0, 0);
    let data = (0..count * DIM).map(|_| stream.below(2_000_001) as f32 / 1e6 - 1.0).collect();
    Matrix::new("rows", DIM, Metric::Cosine, data).unwrap()
}
