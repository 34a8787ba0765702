//! Draws follow their log_q: chi-square of how often each eligible entry is picked, over many seeds.

use std::collections::HashMap;

use negbank::client::rows;
use negbank::model::Seed;
use negbank::proto::v1;

use crate::live::{Live, keyed, nearest_with, queue, random_rows, uniform};

const ENTRIES: u64 = 60;
const REQUESTS: u64 = 60;
const ANCHORS: usize = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inclusion_counts_pass_chi_square_by_every_plan() {
    let live = Live::start(&[]).await;
    let mut random = Seed(3).stream(0, 0);
    for bank in [keyed("keyed", 4, 8), queue("queue", 4, 2, ENTRIES)] {
        let name = bank.name.clone();
        live.create(bank).await;
        let ids: Vec<u64> = (0..ENTRIES).collect();
        let labels: Vec<i64> = ids.iter().map(|id| (id % 6) as i64).collect();
        live.write(&name, &ids, &random_rows(&mut random, ENTRIES as usize, 4), &labels).await;

        let all = v1::Filters::default();
        let few = v1::Filters { exclude_labels: vec![0, 1, 2, 3, 4], ..Default::default() };
        let listed = v1::Filters { only_labels: vec![1, 4], exclude_ids: vec![1, 4, 2], ..Default::default() };
        let most = v1::Filters { exclude_ids: (0..10).collect(), ..Default::default() };
        let cases = [
            (all.clone(), 60, uniform(7), v1::Plan::Roster),
            (few, 10, uniform(3), v1::Plan::Enumeration),
            (listed, 18, uniform(5), v1::Plan::PostingList),
            (most, 50, uniform(40), v1::Plan::Enumeration),
        ];
        for (filters, n, draw, plan) in cases {
            let k = draw.k;
            let seen = inclusions(&live, &name, &filters, draw, plan).await;
            assert_uniform(&name, &seen, n, k);
        }
        // k of a window: the same promise over the window's entries.
        let window = v1::Nearest { window: Some(20), skip: 2, choose: v1::Choose::Uniform.into(), ..Default::default() };
        let seen = inclusions(&live, &name, &all, nearest_with(6, window), v1::Plan::Scan).await;
        assert_uniform(&name, &seen, 20, 6);
    }
}

/// How often each id was served, over all requests and anchors.
async fn inclusions(live: &Live, bank: &str, filters: &v1::Filters, draw: v1::Draw, plan: v1::Plan) -> HashMap<u64, u64> {
    let mut seen = HashMap::new();
    for seed in 0..REQUESTS {
        let anchors = [0.3, -0.2, 0.9, 0.1].repeat(ANCHORS);
        let request = v1::SampleRequest {
            bank: bank.to_owned(),
            anchors: Some(v1::Anchors { embeddings: Some(rows(&anchors)), ..Default::default() }),
            draws: vec![draw.clone()],
            filters: Some(filters.clone()),
            seed: Some(seed),
            columns: vec![v1::Column::Ids.into()],
            ..Default::default()
        };
        let answer = live.client.sample(request).await.unwrap();
        assert_eq!(answer.draws[0].plan(), plan, "{bank} {filters:?}");
        let ids = answer.rows.unwrap().ids;
        for &row in &answer.draws[0].indices {
            *seen.entry(ids[row as usize]).or_default() += 1;
        }
    }
    seen
}

/// Inclusion counts of k of n without replacement: sum (O-E)^2/E * (n-1)/(n-k) is chi-square with n-1 degrees of freedom.
fn assert_uniform(bank: &str, seen: &HashMap<u64, u64>, n: u64, k: u32) {
    let (n, k, draws) = (n as f64, f64::from(k), (REQUESTS as usize * ANCHORS) as f64);
    assert_eq!(seen.len() as f64, n, "{bank}: every eligible entry is served some time, and no other");
    let expected = draws * k / n;
    let spread: f64 = seen.values().map(|&count| (count as f64 - expected).powi(2) / expected).sum();
    let chi2 = spread * (n - 1.0) / (n - k);
    assert_below_limit(&format!("{bank} k={k} n={n}"), chi2, n - 1.0);
}

/// Wilson and Hilferty's approximation of the 99.99 % point.
pub(crate) fn assert_below_limit(what: &str, chi2: f64, degrees: f64) {
    let limit = degrees * (1.0 - 2.0 / (9.0 * degrees) + 3.719 * (2.0 / (9.0 * degrees)).sqrt()).powi(3);
    assert!(chi2 < limit, "{what}: chi-square {chi2:.1} over {degrees} degrees of freedom is past {limit:.1}");
}

/// Draws with replacement: the observed frequencies match exp(log_q), which the answer states for each pick.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frequencies_with_replacement_match_exp_log_q() {
    let live = Live::start(&[]).await;
    live.create(keyed("bank", 4, 8)).await;
    let ids: Vec<u64> = (0..ENTRIES).collect();
    let labels: Vec<i64> = ids.iter().map(|id| (id % 6) as i64).collect();
    live.write("bank", &ids, &random_rows(&mut Seed(8).stream(0, 0), ENTRIES as usize, 4), &labels).await;
    let replaced =
        v1::Draw { strategy: Some(v1::draw::Strategy::Uniform(v1::Uniform { with_replacement: true })), ..uniform(9) };
    let softmax = |beta| {
        let choose = v1::Choose::Softmax.into();
        nearest_with(9, v1::Nearest { window: Some(30), skip: 1, choose, beta, ..Default::default() })
    };
    for (draw, support) in [(replaced, 50), (softmax(2.5), 30), (softmax(-1.5), 30)] {
        let mut picked: HashMap<u64, (u64, f64)> = HashMap::new();
        let mut draws = 0.0;
        for seed in 0..REQUESTS {
            let anchors = [0.3, -0.2, 0.9, 0.1].repeat(ANCHORS);
            let request = v1::SampleRequest {
                bank: "bank".to_owned(),
                anchors: Some(v1::Anchors { embeddings: Some(rows(&anchors)), ..Default::default() }),
                draws: vec![draw.clone()],
                filters: Some(v1::Filters { exclude_labels: vec![3], ..Default::default() }),
                seed: Some(seed),
                ..Default::default()
            };
            let answer = live.client.sample(request).await.unwrap();
            let (ids, got) = (answer.rows.unwrap().ids, &answer.draws[0]);
            assert!(got.with_replacement);
            draws += got.indices.len() as f64;
            for (&row, &log_q) in got.indices.iter().zip(&got.log_q) {
                picked.entry(ids[row as usize]).or_insert((0, f64::from(log_q).exp())).0 += 1;
            }
        }
        assert_eq!(picked.len(), support, "every entry of the window is drawn some time");
        let total: f64 = picked.values().map(|(_, q)| q).sum();
        assert!((total - 1.0).abs() < 1e-4, "probabilities add up to {total}");
        let chi2: f64 = picked.values().map(|&(count, q)| (count as f64 - draws * q).powi(2) / (draws * q)).sum();
        assert_below_limit("with replacement", chi2, support as f64 - 1.0);
    }
}

/// A set for all anchors: every eligible entry is as likely to be in it, with and without replacement.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shared_sets_pass_chi_square() {
    let live = Live::start(&[]).await;
    live.create(keyed("bank", 4, 8)).await;
    let ids: Vec<u64> = (0..ENTRIES).collect();
    let labels: Vec<i64> = ids.iter().map(|id| (id % 6) as i64).collect();
    live.write("bank", &ids, &random_rows(&mut Seed(8).stream(0, 0), ENTRIES as usize, 4), &labels).await;
    let (sets, k, n) = (3_000, 7, 50.0);
    for with_replacement in [false, true] {
        let strategy = Some(v1::draw::Strategy::Uniform(v1::Uniform { with_replacement }));
        let draw = v1::Draw { strategy, scope: v1::Scope::Shared.into(), ..uniform(k) };
        let mut seen: HashMap<u64, u64> = HashMap::new();
        for seed in 0..sets {
            let request = v1::SampleRequest {
                bank: "bank".to_owned(),
                anchors: Some(v1::Anchors { rows: 3, ..Default::default() }),
                draws: vec![draw.clone()],
                filters: Some(v1::Filters { exclude_labels: vec![3], ..Default::default() }),
                seed: Some(seed),
                columns: vec![v1::Column::Ids.into(), v1::Column::LogQ.into()],
                ..Default::default()
            };
            let answer = live.client.sample(request).await.unwrap();
            let (ids, got) = (answer.rows.unwrap().ids, &answer.draws[0]);
            assert_eq!(got.log_q, vec![-(n as f32).ln(); 3]);
            got.indices.iter().for_each(|&row| *seen.entry(ids[row as usize]).or_default() += 1);
        }
        assert_eq!(seen.len() as f64, n, "every eligible entry is drawn some time, and no other");
        let expected = sets as f64 * f64::from(k) / n;
        let spread: f64 = seen.values().map(|&count| (count as f64 - expected).powi(2) / expected).sum();
        let chi2 = if with_replacement { spread } else { spread * (n - 1.0) / (n - f64::from(k)) };
        assert_below_limit(&format!("shared, with replacement: {with_replacement}"), chi2, n - 1.0);
    }
}

/// Softmax without replacement: the first of the k is drawn with probability exp(log_q).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_draws_without_replacement_match_exp_log_q() {
    let live = Live::start(&[]).await;
    live.create(keyed("bank", 4, 8)).await;
    let ids: Vec<u64> = (0..ENTRIES).collect();
    live.write("bank", &ids, &random_rows(&mut Seed(8).stream(0, 0), ENTRIES as usize, 4), &[]).await;
    let choose = v1::Choose::Softmax.into();
    let nearest = v1::Nearest { window: Some(30), choose, beta: 2.5, without_replacement: true, ..Default::default() };
    let mut firsts: HashMap<u64, (u64, f64)> = HashMap::new();
    let mut draws = 0.0;
    for seed in 0..REQUESTS {
        let anchors = [0.3, -0.2, 0.9, 0.1].repeat(ANCHORS);
        let request = v1::SampleRequest {
            bank: "bank".to_owned(),
            anchors: Some(v1::Anchors { embeddings: Some(rows(&anchors)), ..Default::default() }),
            draws: vec![nearest_with(9, nearest)],
            seed: Some(seed),
            ..Default::default()
        };
        let answer = live.client.sample(request).await.unwrap();
        let (ids, got) = (answer.rows.unwrap().ids, &answer.draws[0]);
        for (row, log_q) in got.indices.iter().zip(&got.log_q).step_by(9) {
            draws += 1.0;
            firsts.entry(ids[*row as usize]).or_insert((0, f64::from(*log_q).exp())).0 += 1;
        }
    }
    // Entries too improbable to be first even once have no cell; what is left of the probability is theirs.
    let rest = 1.0 - firsts.values().map(|(_, q)| q).sum::<f64>();
    assert!(rest.abs() < 0.01 && firsts.len() > 20, "{} entries, {rest} left", firsts.len());
    let chi2: f64 = firsts.values().map(|&(count, q)| (count as f64 - draws * q).powi(2) / (draws * q)).sum();
    assert_below_limit("first draws", chi2, firsts.len() as f64);
}
