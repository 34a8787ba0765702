//! Writes that come in the middle of a search: the answer is the one that a search at its end would give. The writes are made
//! between two holds of the bank's lock, so what happens is the same in every run.

use std::cell::Cell;

use negbank::bank::Bank;
use negbank::model::{
    Anchors, Applied, Band, BankKind, BankSpec, Columns, Draw, Filters, Form, Ids, Lists, Matrix, Metric, Mutation, Nearest,
    SampleAnswer, SampleQuery, Scope, ScoreRules, Seed, Softmax, Strategy, Stream, WriteBatch,
};
use negbank::rows::{Recycler, Shared};
use negbank::sampling::{BLOCK, Merge, SampleError, Seen, answer_block};

use crate::live::random_rows;

const DIM: usize = 8;
const ENTRIES: u64 = 3_000;
const K: usize = 10;

fn spec() -> BankSpec {
    BankSpec::new(DIM as u32, Metric::Dot, BankKind::Keyed { momentum: 0.0, capacity: None }, 4).unwrap()
}

fn write(ids: Vec<u64>, data: Vec<f32>, label: i64) -> Mutation {
    let labels = Some(vec![Some(label); ids.len()]);
    let rows = Matrix::new("embeddings", DIM, Metric::Dot, data).unwrap();
    Mutation::Write(WriteBatch::new(&spec(), Ids::Given(ids), rows, labels, None, None, None).unwrap())
}

/// All of it, in one hold.
pub(crate) fn apply(bank: &Shared<Bank>, mutation: &Mutation) {
    let mut bank = bank.write().unwrap();
    let arrivals = bank.arrivals(mutation);
    bank.reserve(&arrivals).unwrap();
    assert_eq!(bank.apply(mutation, 0, usize::MAX, &mut Applied::default()), None);
}

fn filled(random: &mut Stream) -> Shared<Bank> {
    let bank = Shared::new(Bank::new(spec()));
    apply(&bank, &write((0..ENTRIES).collect(), random_rows(random, ENTRIES as usize, DIM), 1));
    bank
}

fn query(anchors: Anchors, rules: ScoreRules) -> SampleQuery {
    query_of(anchors, rules, false)
}

fn query_of(anchors: Anchors, rules: ScoreRules, count_exact: bool) -> SampleQuery {
    let nearest = Nearest { rules, count_exact, ..Nearest::top(K) };
    query_by(anchors, Strategy::Nearest(nearest))
}

fn query_by(anchors: Anchors, strategy: Strategy) -> SampleQuery {
    let filters = Filters { exclude_same_label: true, ..Filters::default() };
    let draw = Draw { k: K, strategy, filters, scope: Scope::PerAnchor };
    let columns = Columns {
        ids: true,
        embeddings: true,
        labels: true,
        groups: true,
        steps: true,
        weights: true,
        scores: true,
        log_q: true,
    };
    SampleQuery::new(anchors, vec![draw], None, Seed(1), Form::pooled(columns)).unwrap()
}

fn by_embedding(random: &mut Stream) -> Anchors {
    let rows = Matrix::new("anchors", DIM, Metric::Dot, random_rows(random, BLOCK, DIM)).unwrap();
    Anchors { count: BLOCK, embeddings: Some(rows), labels: Some(vec![Some(2); BLOCK]), ..Anchors::default() }
}

/// The answer for one block of anchors, and which states it was read from.
fn answer(bank: &Shared<Bank>, query: &SampleQuery, wanted: &dyn Fn() -> bool) -> Result<(SampleAnswer, Seen), SampleError> {
    let part = answer_block(bank, query, 0..BLOCK, &Recycler::default(), wanted)?;
    let seen = part.seen;
    let mut merge = Merge::new(query.draws().len(), usize::MAX);
    merge.add(0, part)?;
    Ok((merge.finish(query.seed()).unwrap(), seen))
}

/// Answers with `disturb` run once, in the middle of the scan, and demands what an undisturbed search afterwards gives.
fn assert_settles(bank: &Shared<Bank>, query: &SampleQuery, disturb: impl Fn()) -> SampleAnswer {
    let asked = Cell::new(0);
    let wanted = || {
        asked.set(asked.get() + 1);
        if asked.get() == 3 {
            disturb();
        }
        true
    };
    let (disturbed, read) = answer(bank, query, &wanted).unwrap();
    assert!(asked.get() > 3, "the scan has several holds");
    let (after, reread) = answer(bank, query, &|| true).unwrap();
    assert_eq!((&disturbed.rows.ids, &disturbed.rows.embeddings), (&after.rows.ids, &after.rows.embeddings));
    assert_eq!((&disturbed.rows.labels, &disturbed.rows.steps), (&after.rows.labels, &after.rows.steps));
    assert_eq!((&disturbed.draws[0].indices, &disturbed.draws[0].scores), (&after.draws[0].indices, &after.draws[0].scores));
    assert_eq!((&disturbed.draws[0].counts, &disturbed.draws[0].n), (&after.draws[0].counts, &after.draws[0].n));
    assert_eq!(disturbed.draws[0].n_scored, after.draws[0].n_scored);
    assert_ne!(read.revisions.0, read.revisions.1, "the writes came in the middle");
    assert_eq!(reread.revisions.0, reread.revisions.1);
    assert!(!disturbed.reproducible && after.reproducible, "an answer read across a write is not reproducible");
    disturbed
}

#[test]
fn the_whole_ranking_is_removed_meanwhile() {
    let mut random = Seed(1).stream(0, 0);
    let bank = filled(&mut random);
    let query = query(by_embedding(&mut random), ScoreRules::default());
    let top = answer(&bank, &query, &|| true).unwrap().0.rows.ids;
    // Every entry that the search has ranked so far is gone, and more than its spares.
    assert_settles(&bank, &query, || {
        apply(&bank, &Mutation::Remove(top.clone()));
        apply(&bank, &Mutation::Remove((0..ENTRIES).step_by(2).collect()));
    });
}

#[test]
fn better_entries_come_meanwhile() {
    let mut random = Seed(2).stream(0, 0);
    let bank = filled(&mut random);
    let anchors = by_embedding(&mut random);
    let better =
        anchors.embeddings.as_ref().map(|rows| (0..BLOCK).flat_map(|at| rows.row(at).iter().map(|x| x * 9.0)).collect());
    let better: Vec<f32> = better.unwrap();
    let query = query(anchors, ScoreRules::default());
    let ids: Vec<u64> = (10_000..10_000 + BLOCK as u64).collect();
    let answer = assert_settles(&bank, &query, || apply(&bank, &write(ids.clone(), better.clone(), 1)));
    assert!(answer.rows.ids.iter().any(|&id| id >= 10_000), "the new entries are served");
}

#[test]
fn entries_move_and_change_their_label_meanwhile() {
    let mut random = Seed(3).stream(0, 0);
    let bank = filled(&mut random);
    let query = query(by_embedding(&mut random), ScoreRules::default());
    let (moved, x) = ((0..ENTRIES).step_by(3).collect::<Vec<_>>(), random_rows(&mut random, 1_000, DIM));
    assert_settles(&bank, &query, || {
        apply(&bank, &write(moved.clone(), x.clone(), 1));
        // Label 2 is the anchors' own.
        apply(&bank, &write(moved[..500].to_vec(), x[..500 * DIM].to_vec(), 2));
    });
}

#[test]
fn counts_are_mended_for_what_was_counted_before() {
    let mut random = Seed(9).stream(0, 0);
    let bank = filled(&mut random);
    let rules = ScoreRules { min_score: Some(-0.5), max_score: Some(1.0), ..ScoreRules::default() };
    let query = query_of(by_embedding(&mut random), rules, true);
    let x = random_rows(&mut random, 1_500, DIM);
    let answer = assert_settles(&bank, &query, || {
        apply(&bank, &Mutation::Remove((0..ENTRIES).step_by(7).collect()));
        apply(&bank, &write((0..ENTRIES).step_by(2).collect(), x.clone(), 1));
        // Label 2 is the anchors' own; and new entries take the places of removed ones.
        apply(&bank, &write((0..ENTRIES).step_by(30).collect(), x[..100 * DIM].to_vec(), 2));
        apply(&bank, &write((20_000..20_300).collect(), x[..300 * DIM].to_vec(), 1));
    });
    let counts = &answer.draws[0].n_scored;
    assert!(counts.len() == BLOCK && counts.iter().all(|&n| n > 500), "{counts:?}");
}

#[test]
fn more_changes_come_than_the_bank_remembers() {
    let mut random = Seed(4).stream(0, 0);
    let bank = filled(&mut random);
    let query = query(by_embedding(&mut random), ScoreRules::default());
    let x = random_rows(&mut random, ENTRIES as usize, DIM);
    // Every entry moves first; then one of them so often that the others' moves are forgotten.
    let often = 17_000;
    let same = x[..DIM].repeat(often);
    assert_settles(&bank, &query, || {
        apply(&bank, &write((0..ENTRIES).collect(), x.clone(), 1));
        apply(&bank, &write(vec![0; often], same.clone(), 1));
    });
}

#[test]
fn the_anchors_own_entries_and_positives_are_rewritten_meanwhile() {
    let mut random = Seed(5).stream(0, 0);
    let bank = filled(&mut random);
    let ids: Vec<u64> = (0..BLOCK as u64).collect();
    let positives: Vec<u64> = (100..100 + BLOCK as u64).collect();
    // Label 3 is nobody else's, so everything is eligible until the anchors take label 1.
    apply(&bank, &write(ids.clone(), random_rows(&mut random, BLOCK, DIM), 3));
    let positive_ids = Lists::new("positive_ids", positives.clone(), &[], BLOCK).unwrap();
    let anchors = Anchors { count: BLOCK, ids: Some(ids.clone()), positive_ids, ..Anchors::default() };
    let query = query(anchors, ScoreRules { margin: Some(0.1), ..ScoreRules::default() });
    let x = random_rows(&mut random, 2 * BLOCK, DIM);
    let answer = assert_settles(&bank, &query, || {
        apply(&bank, &write(positives.clone(), x[BLOCK * DIM..].to_vec(), 3));
        apply(&bank, &write(ids.clone(), x[..BLOCK * DIM].to_vec(), 3));
    });
    assert!(answer.rows.len > 0);
}

/// Softmax draws and bands: entries move, change their label, go and come, a few or more than there is room for; then anchors and positives
/// are rewritten.
#[test]
fn draws_that_score_everything_are_mended_or_made_anew() {
    let rules = ScoreRules { min_score: Some(-0.5), margin: Some(0.1), ..ScoreRules::default() };
    let none = ScoreRules::default();
    let softmax = |replace, rules| Strategy::Softmax(Softmax { beta: 2.0, replace, rules });
    let band = Strategy::Band(Band { lo: 0.8, hi: 0.95, replace: false, rules: none });
    for strategy in [softmax(true, none), softmax(false, none), softmax(false, rules), band] {
        for fresh in [300, 12_000] {
            let mut random = Seed(11).stream(0, 0);
            let bank = filled(&mut random);
            let x = random_rows(&mut random, 1_500, DIM);
            let new = random_rows(&mut random, fresh, DIM);
            let positive_scores = Lists::new("positive_scores", vec![0.8; BLOCK], &[], BLOCK).unwrap();
            let query = query_by(Anchors { positive_scores, ..by_embedding(&mut random) }, strategy);
            assert_settles(&bank, &query, || {
                apply(&bank, &Mutation::Remove((0..ENTRIES).step_by(7).collect()));
                apply(&bank, &write((0..ENTRIES).step_by(2).collect(), x.clone(), 1));
                apply(&bank, &write((0..ENTRIES).step_by(30).collect(), x[..100 * DIM].to_vec(), 2));
                apply(&bank, &write((20_000..20_000 + fresh as u64).collect(), new.clone(), 1));
            });
        }
        let mut random = Seed(12).stream(0, 0);
        let bank = filled(&mut random);
        let positives: Vec<u64> = (100..100 + BLOCK as u64).collect();
        let positive_ids = Lists::new("positive_ids", positives.clone(), &[], BLOCK).unwrap();
        let ids: Vec<u64> = (0..BLOCK as u64).collect();
        let anchors = Anchors { count: BLOCK, ids: Some(ids.clone()), positive_ids, ..Anchors::default() };
        apply(&bank, &write(ids.clone(), random_rows(&mut random, BLOCK, DIM), 3));
        let x = random_rows(&mut random, 2 * BLOCK, DIM);
        assert_settles(&bank, &query_by(anchors, strategy), || {
            apply(&bank, &write(positives.clone(), x[BLOCK * DIM..].to_vec(), 3));
            apply(&bank, &write(ids.clone(), x[..BLOCK * DIM].to_vec(), 3));
        });
    }
}

#[test]
fn a_half_applied_batch_is_not_reproducible() {
    let mut random = Seed(6).stream(0, 0);
    let bank = filled(&mut random);
    let query = query(by_embedding(&mut random), ScoreRules::default());
    let mutation = write((0..600).collect(), random_rows(&mut random, 600, DIM), 1);
    let mut applied = Applied::default();
    assert_eq!(bank.write().unwrap().apply(&mutation, 0, 256, &mut applied), Some(256));
    assert!(answer(&bank, &query, &|| true).unwrap().1.between);
    assert_eq!(bank.write().unwrap().apply(&mutation, 256, 500, &mut applied), None);
    assert!(!answer(&bank, &query, &|| true).unwrap().1.between);
}

#[test]
fn work_stops_when_nobody_waits() {
    let mut random = Seed(7).stream(0, 0);
    let bank = filled(&mut random);
    let query = query(by_embedding(&mut random), ScoreRules::default());
    let asked = Cell::new(0);
    let wanted = || {
        asked.set(asked.get() + 1);
        asked.get() < 3
    };
    assert!(matches!(answer(&bank, &query, &wanted), Err(SampleError::Unwanted)));
    assert_eq!(asked.get(), 3, "it stops at the next hold");
}

#[test]
fn an_answer_that_writers_make_too_large_is_refused() {
    let mut random = Seed(10).stream(0, 0);
    let bank = filled(&mut random);
    let query = query(by_embedding(&mut random), ScoreRules::default());
    let form = Form { most_bytes: 5_000, ..query.form() };
    let query = SampleQuery::new(query.anchors().clone(), query.draws().to_vec(), None, Seed(1), form).unwrap();
    assert!(matches!(answer(&bank, &query, &|| true), Err(SampleError::TooLarge(5_000))));
}

#[test]
fn ties_are_served_by_id_across_shards() {
    let bank = Shared::new(Bank::new(spec()));
    let ids: Vec<u64> = (0..400).rev().collect();
    apply(&bank, &write(ids, [0.5; DIM].repeat(400), 1));
    let query = query(by_embedding(&mut Seed(8).stream(0, 0)), ScoreRules::default());
    let (answer, _) = answer(&bank, &query, &|| true).unwrap();
    assert_eq!(answer.rows.ids, (0..K as u64).collect::<Vec<_>>());
}
