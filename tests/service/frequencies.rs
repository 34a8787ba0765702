//! Draws by unequal probabilities follow their log_q, with filters: chi-square of how often each entry is picked against exp(log_q), and
//! estimates of a sum over the whole set that are unbiased, with replacement and, by kappa, without.

use std::collections::BTreeMap;

use negbank::client::rows;
use negbank::model::Seed;
use negbank::proto::v1;
use v1::draw::Strategy;

use crate::live::{Live, keyed, queue, random_rows};
use crate::uniformity::assert_below_limit;

const ENTRIES: u64 = 60;
const REQUESTS: u64 = 40;
const ANCHORS: usize = 100;
const K: u32 = 9;

/// Of an anchor, one after the other.
const VIEWS: [f32; 12] = [0.3, -0.2, 0.9, 0.1, -0.5, 0.4, 0.2, 0.6, 0.1, 0.9, -0.3, 0.2];

/// A draw, its filters, how it should be found, and how many entries it can pick.
type Case = (&'static str, Strategy, v1::Filters, v1::Plan, usize);

fn weighted(alpha: f32, without_replacement: bool) -> Strategy {
    Strategy::Weighted(v1::Weighted { alpha: Some(alpha), without_replacement })
}

fn balanced(without_replacement: bool) -> Strategy {
    Strategy::Balanced(v1::Balanced { without_replacement })
}

/// Labels 0 to 5, of ten entries each but for those that have none; one in ten has weight 0, and label 5 most of the weight.
async fn fill(live: &Live, bank: v1::CreateBankRequest) {
    let name = bank.name.clone();
    live.create(bank).await;
    let ids: Vec<u64> = (0..ENTRIES).collect();
    let weight =
        |id: u64| if id % 10 == 4 { 0.0 } else { (1 + id % 7) as f32 * if id % 6 == 5 && id % 9 != 8 { 60.0 } else { 0.3 } };
    let request = v1::WriteRequest {
        bank: name,
        embeddings: Some(rows(&random_rows(&mut Seed(8).stream(0, 0), ENTRIES as usize, 4))),
        labels: ids.iter().map(|id| (id % 6) as i64).collect(),
        has_label: ids.iter().map(|id| u8::from(id % 9 != 8)).collect::<Vec<u8>>().into(),
        groups: ids.iter().map(|id| id / 2).collect(),
        weights: ids.iter().map(|&id| weight(id)).collect(),
        ids,
        ..Default::default()
    };
    live.client.write(request).await.unwrap();
}

/// One anchor of label 5 and group 3, with a positive and a denied id, many times over; of so many views.
async fn ask(
    live: &Live,
    bank: &str,
    strategy: Strategy,
    filters: &v1::Filters,
    seed: u64,
    views: usize,
) -> v1::SampleResponse {
    let ids = |id: u64| Some(v1::IdLists { values: vec![id; ANCHORS], counts: Vec::new() });
    let anchors = v1::Anchors {
        embeddings: Some(rows(&VIEWS[..4 * views].repeat(ANCHORS))),
        views: views as u32,
        labels: vec![5; ANCHORS],
        groups: vec![3; ANCHORS],
        positive_ids: ids(11),
        denied_ids: ids(20),
        ..Default::default()
    };
    let request = v1::SampleRequest {
        bank: bank.to_owned(),
        anchors: Some(anchors),
        draws: vec![v1::Draw { k: K, strategy: Some(strategy), ..Default::default() }],
        filters: Some(filters.clone()),
        seed: Some(seed),
        columns: vec![v1::Column::Ids.into(), v1::Column::Scores.into(), v1::Column::LogQ.into()],
        ..Default::default()
    };
    live.client.sample(request).await.unwrap()
}

/// Of each id that was drawn: how often, its probability and its score.
#[derive(Default)]
struct Tally {
    drawn: BTreeMap<u64, (u64, f64, f64)>,
    draws: f64,
    /// Estimates of the sum of exp(s) over everything that can be drawn, one an anchor.
    estimates: Vec<f64>,
    /// Picks of one anchor that are all different and equally likely: counts differ less than those of independent draws.
    simple: Option<f64>,
}

impl Tally {
    /// Picks `each` of every K are counted; `inclusion` gives the probability of being among the K, or the expected number of times.
    fn add(&mut self, answer: &v1::SampleResponse, each: usize, inclusion: impl Fn(f64, usize) -> f64) {
        let (ids, got) = (&answer.rows.as_ref().unwrap().ids, &answer.draws[0]);
        assert_eq!(got.counts, [K; ANCHORS]);
        let picks: Vec<(u64, f64, f64)> = (0..got.indices.len())
            .map(|at| (ids[got.indices[at] as usize], f64::from(got.log_q[at]), f64::from(got.scores[at])))
            .collect();
        for (anchor, picks) in picks.chunks_exact(K as usize).enumerate() {
            for (place, &(id, log_q, score)) in picks.iter().enumerate() {
                let entry = self.drawn.entry(id).or_insert((0, log_q.exp(), score));
                entry.0 += u64::from(place < each);
                assert!((entry.1 / log_q.exp() - 1.0).abs() < 1e-5, "{id} has two probabilities");
            }
            self.draws += each as f64;
            let terms = picks.iter().map(|&(_, log_q, score)| score.exp() / inclusion(log_q, anchor));
            self.estimates.push(terms.sum());
        }
    }

    fn assert_holds(&self, name: &str, support: usize) {
        let cells = self.drawn.len();
        let total: f64 = self.drawn.values().map(|(_, q, _)| q).sum();
        assert!(cells == support && (total - 1.0).abs() < 1e-4, "{name}: {cells} of {support} entries of {total}");
        // Entries that are expected less than five times share a cell.
        let (mut rare, mut chi2, mut freedom) = ((0.0, 0.0), 0.0, -1.0);
        for (count, q, _) in self.drawn.values() {
            let (count, expected) = (*count as f64, self.draws * q);
            if expected < 5.0 {
                rare = (rare.0 + count, rare.1 + expected);
            } else {
                chi2 += (count - expected).powi(2) / expected;
                freedom += 1.0;
            }
        }
        if rare.1 > 0.0 {
            chi2 += (rare.0 - rare.1).powi(2) / rare.1;
            freedom += 1.0;
        }
        let thinner = self.simple.map_or(1.0, |k| (cells as f64 - 1.0) / (cells as f64 - k));
        assert_below_limit(name, chi2 * thinner, freedom);
        let truth: f64 = self.drawn.values().map(|(_, _, score)| score.exp()).sum();
        let n = self.estimates.len() as f64;
        let mean = self.estimates.iter().sum::<f64>() / n;
        let error = (self.estimates.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0) / n).sqrt();
        assert!((mean - truth).abs() < 4.0 * error, "{name}: the sum is {truth}, and its estimate {mean} +- {error}");
        assert!(error < 0.1 * truth, "{name}: {error} says little of {truth}");
    }
}

async fn assert_frequencies(live: &Live, bank: &str, case: Case) {
    assert_frequencies_of_views(live, bank, case, 1).await;
}

async fn assert_frequencies_of_views(live: &Live, bank: &str, case: Case, views: usize) {
    let (name, strategy, filters, plan, support) = case;
    let mut tally = Tally::default();
    for seed in 0..REQUESTS {
        let answer = ask(live, bank, strategy, &filters, seed, views).await;
        let got = &answer.draws[0];
        assert_eq!(got.plan(), plan, "{name}");
        let simple = got.kappa.is_empty() && !got.with_replacement && support > K as usize;
        tally.simple = simple.then_some(f64::from(K));
        match got.kappa.is_empty() {
            true => tally.add(&answer, K as usize, |log_q, _| f64::from(K) * log_q.exp()),
            // Only the first of each K is drawn by exp(log_q).
            false => tally.add(&answer, 1, |log_q, anchor| -(-(log_q - f64::from(got.kappa[anchor])).exp()).exp_m1()),
        }
    }
    tally.assert_holds(&format!("{bank}, {name}"), support);
}

/// By each way of drawing: of all, of listed labels, of the few that the shared filters leave, of the few that the anchor's leave.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weighted_draws_follow_their_weights() {
    let live = Live::start(&[]).await;
    let all = v1::Filters { exclude_same_group: Some(false), ..Default::default() };
    let some = v1::Filters { exclude_labels: vec![1], exclude_ids: vec![5, 30], ..Default::default() };
    let listed = v1::Filters { only_labels: vec![5, 2], ..Default::default() };
    let few = v1::Filters { exclude_labels: vec![5], ..Default::default() };
    let own = v1::Filters { exclude_same_label: true, ..Default::default() };
    for bank in [keyed("keyed", 4, 8), queue("queue", 4, 2, ENTRIES)] {
        let name = bank.name.clone();
        fill(&live, bank).await;
        for without in [false, true] {
            let cases: [Case; 5] = [
                ("all", weighted(0.75, without), all.clone(), v1::Plan::Roster, 52),
                ("some", weighted(-0.5, without), some.clone(), v1::Plan::Roster, 39),
                ("listed", weighted(1.0, without), listed.clone(), v1::Plan::PostingList, 11),
                ("few", weighted(1.5, without), few.clone(), v1::Plan::Enumeration, 44),
                ("own", weighted(1.0, without), own.clone(), v1::Plan::Enumeration, 44),
            ];
            for case in cases {
                assert_frequencies(&live, &name, case).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn balanced_draws_are_even_over_labels() {
    let live = Live::start(&[]).await;
    fill(&live, keyed("keyed", 4, 8)).await;
    let all = v1::Filters::default();
    // One entry of label 2 is left, so that it is drawn as often as all of label 0.
    let few = v1::Filters { exclude_ids: (0..ENTRIES).filter(|id| id % 6 == 2 && *id > 2).collect(), ..Default::default() };
    let own = v1::Filters { exclude_same_label: true, only_labels: vec![5, 0, 3], ..Default::default() };
    for without in [false, true] {
        let cases: [Case; 3] = [
            ("all", balanced(without), all.clone(), v1::Plan::PostingList, 50),
            ("few", balanced(without), few.clone(), v1::Plan::PostingList, 45),
            ("own", balanced(without), own.clone(), v1::Plan::PostingList, 19),
        ];
        for case in cases {
            assert_frequencies(&live, "keyed", case).await;
        }
    }
}

fn softmax(beta: f32, without_replacement: bool, rules: v1::ScoreRules) -> Strategy {
    Strategy::Softmax(v1::Softmax { beta, without_replacement, rules: Some(rules) })
}

/// Of everything that is eligible, by exp(beta * s): with filters, with score rules, and where small scores are likelier.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn softmax_draws_follow_their_scores() {
    let live = Live::start(&[]).await;
    let all = v1::Filters { exclude_same_group: Some(false), ..Default::default() };
    let some = v1::Filters { exclude_same_label: true, exclude_labels: vec![1], ..Default::default() };
    let ruled = v1::ScoreRules { max_score: Some(0.6), min_score: Some(-0.7), ..Default::default() };
    let none = v1::ScoreRules::default();
    for bank in [keyed("keyed", 4, 8), queue("queue", 4, 2, ENTRIES)] {
        let name = bank.name.clone();
        fill(&live, bank).await;
        for without in [false, true] {
            let cases: [Case; 4] = [
                ("all", softmax(2.5, without, none), all.clone(), v1::Plan::Scan, 58),
                ("some", softmax(2.5, without, none), some.clone(), v1::Plan::Scan, 41),
                ("far ones", softmax(-1.5, without, none), some.clone(), v1::Plan::Scan, 41),
                ("ruled", softmax(4.0, without, ruled), some.clone(), v1::Plan::Scan, 32),
            ];
            for case in cases {
                assert_frequencies(&live, &name, case).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn band_draws_are_even_within_the_band() {
    let live = Live::start(&[]).await;
    fill(&live, keyed("keyed", 4, 8)).await;
    let band_of =
        |lo, hi, with_replacement| Strategy::Band(v1::Band { lo, hi: Some(hi), with_replacement, ..Default::default() });
    let band = |lo, hi| band_of(lo, hi, true);
    let all = v1::Filters { exclude_same_group: Some(false), ..Default::default() };
    let some = v1::Filters { exclude_same_label: true, exclude_labels: vec![1], ..Default::default() };
    for case in [
        ("all", band(0.0, 1.0), all.clone(), v1::Plan::Scan, 58),
        // Of 58 entries ranks 29 to 43, of 41 ranks 36 to 40.
        ("upper", band(0.5, 0.75), all.clone(), v1::Plan::Scan, 15),
        ("upper, all different", band_of(0.5, 0.75, false), all, v1::Plan::Scan, 15),
        ("lower, all different", band_of(0.0, 0.5, false), some.clone(), v1::Plan::Scan, 21),
        ("nearest", band(0.9, 1.0), some, v1::Plan::Scan, 5),
    ] {
        assert_frequencies(&live, "keyed", case).await;
    }
}

fn nearest(choose: v1::Choose, without_replacement: bool, rules: v1::ScoreRules) -> Strategy {
    let window =
        v1::Nearest { window: Some(30), skip: 2, beta: 2.5, without_replacement, rules: Some(rules), ..Default::default() };
    Strategy::Nearest(v1::Nearest { choose: choose.into(), ..window })
}

/// Of a window of the ranking, under filters and score rules.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn draws_from_a_window_follow_their_law_under_filters() {
    let live = Live::start(&[]).await;
    fill(&live, keyed("keyed", 4, 8)).await;
    let some = v1::Filters { exclude_same_label: true, exclude_labels: vec![1], ..Default::default() };
    let (none, ruled) = (v1::ScoreRules::default(), v1::ScoreRules { max_score: Some(0.6), ..Default::default() });
    let (uniform, softmax) = (v1::Choose::Uniform, v1::Choose::Softmax);
    for case in [
        ("uniform", nearest(uniform, false, none), some.clone(), v1::Plan::Scan, 30),
        ("uniform, ruled", nearest(uniform, false, ruled), some.clone(), v1::Plan::Scan, 30),
        ("softmax", nearest(softmax, false, none), some.clone(), v1::Plan::Scan, 30),
        ("softmax, ruled", nearest(softmax, false, ruled), some.clone(), v1::Plan::Scan, 30),
        ("softmax, all different", nearest(softmax, true, none), some.clone(), v1::Plan::Scan, 30),
        ("softmax, all different, ruled", nearest(softmax, true, ruled), some.clone(), v1::Plan::Scan, 30),
    ] {
        assert_frequencies(&live, "keyed", case).await;
    }
}

/// In a bank too large for it, a softmax over everything is one over the nearest, which says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_softmax_over_too_many_entries_is_over_the_nearest_and_says_so() {
    let live = Live::start(&["limits.max_scored_entries=50", "limits.softmax_candidates=30"]).await;
    fill(&live, keyed("keyed", 4, 8)).await;
    let some = v1::Filters { exclude_same_label: true, exclude_labels: vec![1], ..Default::default() };
    for without in [false, true] {
        let whole = softmax(2.5, without, v1::ScoreRules::default());
        assert_frequencies(&live, "keyed", ("candidates", whole, some.clone(), v1::Plan::Scan, 30)).await;
        let window = v1::Nearest { window: Some(30), beta: 2.5, without_replacement: without, ..Default::default() };
        let window = Strategy::Nearest(v1::Nearest { choose: v1::Choose::Softmax.into(), ..window });
        let mut got = ask(&live, "keyed", whole, &some, 1, 1).await;
        assert_eq!(std::mem::take(&mut got.draws[0].candidates), 30);
        assert_eq!(got, ask(&live, "keyed", window, &some, 1, 1).await);
    }
}

/// By the views' scores combined.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn draws_for_several_views_follow_their_combined_scores() {
    let live = Live::start(&[]).await;
    fill(&live, keyed("keyed", 4, 8)).await;
    let some = v1::Filters { exclude_same_label: true, exclude_labels: vec![1], ..Default::default() };
    let none = v1::ScoreRules::default();
    for case in [
        ("softmax", softmax(2.5, false, none), some.clone(), v1::Plan::Scan, 41),
        ("softmax, all different", softmax(2.5, true, none), some.clone(), v1::Plan::Scan, 41),
        ("window", nearest(v1::Choose::Softmax, false, none), some.clone(), v1::Plan::Scan, 30),
    ] {
        assert_frequencies_of_views(&live, "keyed", case, 3).await;
    }
}

/// SHARED: a set follows its log_q, and what is left of it to an anchor that with the anchor's shift.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shared_sets_of_unequal_probabilities_follow_their_log_q() {
    let live = Live::start(&[]).await;
    fill(&live, keyed("keyed", 4, 8)).await;
    for (name, strategy, supports) in [("weighted", weighted(0.75, false), [44, 36]), ("balanced", balanced(false), [44, 34])] {
        let mut tallies: [BTreeMap<u64, (u64, f64)>; 2] = Default::default();
        let mut totals = [0.0; 2];
        for seed in 0..2_000 {
            let draw = v1::Draw { k: K, strategy: Some(strategy), scope: v1::Scope::Shared.into(), ..Default::default() };
            let request = v1::SampleRequest {
                bank: "keyed".to_owned(),
                anchors: Some(v1::Anchors { rows: 1, labels: vec![0], ..Default::default() }),
                draws: vec![draw],
                filters: Some(v1::Filters { exclude_labels: vec![3], exclude_same_label: true, ..Default::default() }),
                seed: Some(seed),
                columns: vec![v1::Column::Ids.into(), v1::Column::LogQ.into()],
                ..Default::default()
            };
            let answer = live.client.sample(request).await.unwrap();
            let (ids, got) = (answer.rows.unwrap().ids, &answer.draws[0]);
            for (at, &row) in got.indices.iter().enumerate() {
                let log_q = f64::from(got.log_q[at]);
                let survives = (got.mask[at] == 1).then(|| log_q + f64::from(got.log_q_shift[0]));
                for (set, log_q) in [(0, Some(log_q)), (1, survives)] {
                    if let Some(log_q) = log_q {
                        tallies[set].entry(ids[row as usize]).or_insert((0, log_q.exp())).0 += 1;
                        totals[set] += 1.0;
                    }
                }
            }
        }
        for (set, tally) in tallies.iter().enumerate() {
            let sum: f64 = tally.values().map(|(_, q)| q).sum();
            assert!(
                tally.len() == supports[set] && (sum - 1.0).abs() < 1e-4,
                "{name}, {set}: {} entries of {sum}",
                tally.len()
            );
            let chi2 = tally.values().map(|&(count, q)| (count as f64 - totals[set] * q).powi(2) / (totals[set] * q)).sum();
            assert_below_limit(&format!("shared, {name}, {set}"), chi2, tally.len() as f64 - 1.0);
        }
    }
}
