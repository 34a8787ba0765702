//! Banks large enough for the scan over codes: the answers are what scoring every row gives, whether codes tell much of the rows or,
//! where all rows are nearly the same, next to nothing.

use negbank::bank::Bank;
use negbank::kernels::score::score;
use negbank::model::{
    Anchors, Applied, BankKind, BankSpec, Columns, Draw, Dtype, Filters, Form, Ids, Matrix, Metric, Mutation, Nearest,
    SampleAnswer, SampleQuery, Scope, ScoreRules, Seed, Strategy, Stream, WriteBatch,
};
use negbank::rows::{Recycler, Shared};
use negbank::sampling::{Merge, answer_block};

use crate::live::random_rows;

const DIM: usize = 37;
const ENTRIES: usize = 6_000;
const ANCHORS: usize = 21;
const K: usize = 24;

/// Some that the scan compares as 32 bits, some that it can't, and those between.
const LABELS: [i64; 7] = [0, 1, -5, 1 << 40, 0xFFFF_FFFE, 0xFFFF_FFFF, 7];

/// Rows at this distance from one of some centres, `run` after each other from the same one; labels by turn.
fn bank(metric: Metric, dtype: Dtype, (spread, run): (f32, usize), random: &mut Stream) -> Shared<Bank> {
    let spec = BankSpec::new(DIM as u32, metric, BankKind::Queue { capacity: ENTRIES as u64 }, 3).unwrap();
    let spec = spec.with_dtype(dtype).unwrap();
    // Far more than a few centres, where one of them has the best rows all by itself.
    let count = if run == 1 { 5 } else { ENTRIES.div_ceil(run) };
    let centres = random_rows(random, count, DIM);
    let mut data = random_rows(random, ENTRIES, DIM);
    for (at, x) in data.iter_mut().enumerate() {
        *x = *x * spread + centres[at / DIM / run % count * DIM + at % DIM];
    }
    let labels = (0..ENTRIES).map(|at| Some(LABELS[at % 7])).collect();
    // Ids repeat: ties are broken by id, then by place.
    let ids = Ids::Given((0..ENTRIES as u64).map(|at| at / 2).collect());
    let rows = Matrix::new("embeddings", DIM, metric, data).unwrap();
    let mutation = Mutation::Write(WriteBatch::new(&spec, ids, rows, Some(labels), None, None, None).unwrap());
    let mut bank = Bank::new(spec);
    bank.reserve(&bank.arrivals(&mutation)).unwrap();
    bank.apply(&mutation, 0, usize::MAX, &mut Applied::default());
    Shared::new(bank)
}

fn query(anchors: usize, metric: Metric, rules: ScoreRules, random: &mut Stream) -> SampleQuery {
    let nearest = Nearest { skip: 2, rules, ..Nearest::top(K) };
    let filters = Filters { exclude_same_label: true, ..Filters::default() };
    let draw = Draw { k: K, strategy: Strategy::Nearest(nearest), filters, scope: Scope::PerAnchor };
    let columns = Columns { ids: true, labels: true, scores: true, ..Columns::default() };
    let anchors = Anchors {
        count: anchors,
        embeddings: Some(Matrix::new("anchors", DIM, metric, random_rows(random, anchors, DIM)).unwrap()),
        labels: Some((0..anchors).map(|at| Some(LABELS[at % 7])).collect()),
        ..Anchors::default()
    };
    SampleQuery::new(anchors, vec![draw], None, Seed(1), Form::pooled(columns)).unwrap()
}

fn answer(bank: &Shared<Bank>, query: &SampleQuery) -> SampleAnswer {
    let mut merge = Merge::new(1, usize::MAX);
    let part = answer_block(bank, query, 0..query.anchors().count, &Recycler::default(), &|| true).unwrap();
    merge.add(0, part).unwrap();
    merge.finish(query.seed()).unwrap()
}

/// Scores and ids of one anchor's answer, computed from every row.
fn expected(bank: &Bank, query: &SampleQuery, at: usize, rules: ScoreRules) -> Vec<(f32, u64)> {
    let mut anchor = query.anchors().embeddings.as_ref().unwrap().row(at).to_vec();
    if bank.spec().metric() == Metric::Cosine {
        negbank::kernels::momentum::normalise(&mut anchor);
    }
    anchor.resize(negbank::kernels::stride(DIM), 0.0);
    let mut all = Vec::new();
    for (number, shard) in bank.shards().iter().enumerate() {
        for &slot in shard.roster() {
            let score = score(bank.spec().metric(), &anchor, &shard.rows().padded(slot).to_vec());
            let kept = rules.range(None).keeps(score) && shard.columns().label(slot) != Some(LABELS[at % 7]);
            if kept {
                all.push((score, shard.columns().id(slot), number, slot));
            }
        }
    }
    all.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2, a.3).cmp(&(b.1, b.2, b.3))));
    all.iter().skip(2).take(K).map(|&(score, id, ..)| (score, id)).collect()
}

#[test]
fn answers_are_those_of_scoring_every_row() {
    let mut random = Seed(20).stream(0, 0);
    let ruled = ScoreRules { min_score: Some(-0.2), max_score: Some(0.4), ..ScoreRules::default() };
    for metric in [Metric::Cosine, Metric::Dot] {
        for dtype in [Dtype::F32, Dtype::BF16, Dtype::F16] {
            for spread in [(1.0, 1), (1e-4, 1), (0.1, 60)] {
                for (anchors, rules) in [(ANCHORS, ScoreRules::default()), (ANCHORS, ruled), (2, ruled)] {
                    let bank = bank(metric, dtype, spread, &mut random);
                    let query = query(anchors, metric, rules, &mut random);
                    let answer = answer(&bank, &query);
                    let mut picks = answer.draws[0].indices.iter().zip(&answer.draws[0].scores);
                    for (at, &count) in answer.draws[0].counts.iter().enumerate() {
                        let got: Vec<(f32, u64)> = picks
                            .by_ref()
                            .take(count as usize)
                            .map(|(&row, &score)| (score, answer.rows.ids[row as usize]))
                            .collect();
                        let expected = expected(&bank.read().unwrap(), &query, at, rules);
                        assert_eq!(got, expected, "{metric:?} {dtype:?}, spread {spread:?}, {rules:?}, anchor {at}");
                    }
                }
            }
        }
    }
}
