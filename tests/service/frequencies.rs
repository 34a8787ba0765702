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

/// One anchor of label 5 and group 3, with a positive and a denied id, many times over.
async fn ask(live: &Live, bank: &str, strategy: Strategy, filters: &v1::Filters, seed: u64) -> v1::SampleResponse {
    let ids = |id: u64| Some(v1::IdLists { values: vec![id; ANCHORS], counts: Vec::new() });
    let anchors = v1::Anchors {
        embeddings: Some(rows(&[0.3, -0.2, 0.9, 0.1].repeat(ANCHORS))),
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
                self.drawn.entry(id).or_insert((0, log_q.exp(), score)).0 += u64::from(place < each);
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
        assert_below_limit(name, chi2, freedom);
        let truth: f64 = self.drawn.values().map(|(_, _, score)| score.exp()).sum();
        let n = self.estimates.len() as f64;
        let mean = self.estimates.iter().sum::<f64>() / n;
        let error = (self.estimates.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0) / n).sqrt();
        assert!((mean - truth).abs() < 4.0 * error, "{name}: the sum is {truth}, and its estimate {mean} +- {error}");
        assert!(error < 0.1 * truth, "{name}: {error} says little of {truth}");
    }
}

async fn assert_frequencies(live: &Live, bank: &str, (name, strategy, filters, plan, support): Case) {
    let mut tally = Tally::default();
    for seed in 0..REQUESTS {
        let answer = ask(live, bank, strategy, &filters, seed).await;
        let got = &answer.draws[0];
        assert_eq!(got.plan(), plan, "{name}");
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
    let band = |lo, hi| Strategy::Band(v1::Band { lo, hi: Some(hi), with_replacement: true, ..Default::default() });
    let all = v1::Filters { exclude_same_group: Some(false), ..Default::default() };
    let some = v1::Filters { exclude_same_label: true, exclude_labels: vec![1], ..Default::default() };
    for case in [
        ("all", band(0.0, 1.0), all.clone(), v1::Plan::Scan, 58),
        // Of 58 entries ranks 29 to 43, of 41 ranks 36 to 40.
        ("upper", band(0.5, 0.75), all, v1::Plan::Scan, 15),
        ("nearest", band(0.9, 1.0), some, v1::Plan::Scan, 5),
    ] {
        assert_frequencies(&live, "keyed", case).await;
    }
}
