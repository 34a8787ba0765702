//! 100,000 random requests over real gRPC against the naive model, all options mixed: no filter violated, no answer short, n,
//! n_scored, log_q and log_q_mix exact, and every ranking the model's own.

use std::sync::Arc;

use negbank::client::rows;
use negbank::model::{Seed, Stream};
use negbank::proto::v1;
use v1::draw::Strategy;

use crate::judge::Judge;
use crate::live::{Live, all_columns, keyed, queue, random_rows, uniform};
use crate::model::{ModelAnchor, ModelBank, ModelRow};

const REQUESTS_PER_BANK: usize = 9_100;
const DIM: usize = 12;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn served_is_what_the_model_says_in_100000_random_requests() {
    let live = Arc::new(Live::start(&[]).await);
    let cosine = v1::Metric::Cosine;
    let halved = |dtype: v1::Dtype, bank| v1::CreateBankRequest { dtype: dtype.into(), ..bank };
    let bounded = v1::CreateBankRequest { capacity: 50, ..keyed("keyed-50", DIM as u32, 8) };
    let banks = [
        (keyed("keyed-1", DIM as u32, 1), cosine),
        (keyed("keyed-8", DIM as u32, 8), cosine),
        (keyed("dot-2", DIM as u32, 2), v1::Metric::Dot),
        (keyed("l2-8", DIM as u32, 8), v1::Metric::L2),
        (queue("queue-1", DIM as u32, 1, 100), cosine),
        (queue("queue-8", DIM as u32, 8, 150), cosine),
        (queue("queue-l2", DIM as u32, 2, 90), v1::Metric::L2),
        (queue("queue-dot", DIM as u32, 8, 40), v1::Metric::Dot),
        (bounded, cosine),
        (halved(v1::Dtype::Bf16, keyed("keyed-bf16", DIM as u32, 8)), cosine),
        (halved(v1::Dtype::F16, queue("queue-f16", DIM as u32, 2, 70)), v1::Metric::Dot),
    ];
    // Side by side, so that each bank is read while the others are written to.
    let driven: Vec<_> =
        banks.into_iter().enumerate().map(|(number, bank)| tokio::spawn(drive(Arc::clone(&live), number, bank))).collect();
    let mut skipped = 0;
    for bank in driven {
        skipped += bank.await.unwrap();
    }
    assert!(skipped < 3_000, "{skipped} of 100,000 requests had a score too close to a bound to be judged");
}

/// Changes one bank and asks it, in turns; returns how many requests could not be judged.
async fn drive(live: Arc<Live>, number: usize, (bank, metric): (v1::CreateBankRequest, v1::Metric)) -> usize {
    let mut random = Seed(77).stream(number, 0);
    let bounded = (bank.capacity > 0).then_some(bank.capacity as usize);
    let is_queue = bank.kind() == v1::BankKind::Queue;
    let dtype = bank.dtype();
    let name = bank.name.clone();
    live.create(v1::CreateBankRequest { metric: metric.into(), ..bank }).await;
    let mut model = ModelBank::new(metric, bounded.filter(|_| is_queue), 0.5);
    model.keyed_capacity = bounded.filter(|_| !is_queue);
    model.dtype = dtype;
    let mut skipped = 0;
    for request in 0..REQUESTS_PER_BANK {
        if request % 25 == 0 {
            change(&live, &name, &mut model, &mut random).await;
            if dtype == v1::Dtype::Bf16 {
                adopt(&live, &name, &mut model).await;
            }
        }
        skipped += usize::from(!check_one(&live, &name, &model, &mut random).await);
    }
    skipped
}

/// Writes or removes some entries, on both sides.
async fn change(live: &Live, bank: &str, model: &mut ModelBank, random: &mut Stream) {
    let count = 1 + random.below(40) as usize;
    let x = random_rows(random, count, DIM);
    let give_ids = model.capacity.is_none() || random.below(2) == 0;
    let ids: Vec<u64> = (0..count).filter(|_| give_ids).map(|_| random.below(120)).collect();
    let labelled = random.below(4) > 0;
    let labels: Vec<Option<i64>> = (0..count).filter(|_| labelled).map(|_| some(random, 6, 5)).collect();
    let grouped = random.below(3) > 0;
    let groups: Vec<Option<u64>> = (0..count).filter(|_| grouped).map(|_| some(random, 20, 3).map(i64::unsigned_abs)).collect();
    let weighted = random.below(3) > 0;
    let weights: Vec<f32> = (0..count).filter(|_| weighted).map(|_| random.below(9) as f32 / 4.0).collect();
    let step = random.below(1_000);
    let presence = |column: Vec<bool>| column.into_iter().map(u8::from).collect::<Vec<u8>>().into();
    live.client
        .write(v1::WriteRequest {
            bank: bank.to_owned(),
            embeddings: Some(rows(&x)),
            ids: ids.clone(),
            labels: labels.iter().map(|label| label.unwrap_or_default()).collect(),
            has_label: presence(labels.iter().map(Option::is_some).collect()),
            groups: groups.iter().map(|group| group.unwrap_or_default()).collect(),
            has_group: presence(groups.iter().map(Option::is_some).collect()),
            weights: weights.clone(),
            step: Some(step),
            momentum: None,
            ..Default::default()
        })
        .await
        .unwrap();
    let written: Vec<ModelRow> = (0..count)
        .map(|row| ModelRow {
            id: ids.get(row).copied(),
            x: x[row * DIM..(row + 1) * DIM].to_vec(),
            label: labels.get(row).copied(),
            group: groups.get(row).copied(),
            weight: weights.get(row).copied(),
        })
        .collect();
    model.write(&written, Some(step), None);
    if random.below(4) == 0 {
        let ids: Vec<u64> = (0..10).map(|_| random.below(120)).collect();
        let request = v1::RemoveRequest { bank: bank.to_owned(), ids: ids.clone() };
        let removed = live.client.remove(request).await.unwrap().removed;
        assert_eq!(removed as usize, model.remove(&ids));
    }
}

/// The model rounds f64 and the bank f32, so they may differ by a unit in the last place: the model takes over what the bank stored.
async fn adopt(live: &Live, bank: &str, model: &mut ModelBank) {
    let ids: Vec<u64> = model.entries.iter().map(|entry| entry.id).collect();
    if ids.is_empty() {
        return;
    }
    let request = v1::FetchRequest { bank: bank.to_owned(), ids, ..Default::default() };
    let fetched = live.client.fetch(request).await.unwrap();
    assert!(fetched.found.iter().all(|&found| found == 1));
    let x = negbank::client::floats(&fetched.rows.unwrap().embeddings.unwrap());
    for (entry, row) in model.entries.iter_mut().zip(x.chunks_exact(DIM)) {
        for (want, &got) in entry.row.iter_mut().zip(row) {
            // An id may be in a batch several times.
            assert!((*want - f64::from(got)).abs() < 0.01 * want.abs() + 0.002, "{want} is stored as {got}");
            *want = f64::from(got);
        }
    }
}

/// One random request; false if rounding could decide a score rule.
async fn check_one(live: &Live, bank: &str, model: &ModelBank, random: &mut Stream) -> bool {
    let count = 1 + random.below(6) as usize;
    let (message, anchors) = random_anchors(model, random, count);
    let filters = random_filters(random, &message);
    let mut draws: Vec<v1::Draw> = (0..1 + random.below(3)).map(|_| random_draw(model, random, &message)).collect();
    let log_q_mix = random.below(4) == 0;
    if log_q_mix {
        draws.retain(has_log_q);
    }
    if draws.is_empty() {
        draws.push(uniform(7));
    }
    let [f32, floats, f16, bf16] = [1, 2, 3, 4];
    let request = v1::SampleRequest {
        bank: bank.to_owned(),
        anchors: Some(message),
        draws,
        filters: Some(filters),
        seed: Some(random.next_u64()),
        columns: all_columns(),
        step: Some(random.below(1_200)),
        layout: random.below(3) as i32,
        encoding: [f32, f32, floats, f16, bf16][random.below(5) as usize],
        log_q_mix,
        positive_log_q: random.below(3) == 0 && anchors.iter().any(|anchor| !anchor.positive_ids.is_empty()),
        ..Default::default()
    };
    let answer = live.client.sample(request.clone()).await.unwrap_or_else(|fault| panic!("{fault}\n{request:?}"));
    assert!(answer.reproducible && answer.seed == request.seed.unwrap());
    let judge = Judge::new(model, &anchors, &request, &answer);
    judge.answer().unwrap_or_else(|fault| panic!("{fault}\nrequest {request:?}\nanswer {answer:?}"))
}

/// True if every entry of the bank could be asked for its log_q under this draw.
fn has_log_q(draw: &v1::Draw) -> bool {
    let top = matches!(&draw.strategy, Some(Strategy::Nearest(nearest)) if nearest.choose() == v1::Choose::Top);
    !top && draw.scope() != v1::Scope::Shared
}

fn random_anchors(model: &ModelBank, random: &mut Stream, count: usize) -> (v1::Anchors, Vec<ModelAnchor>) {
    let stored: Vec<u64> = model.entries.iter().map(|entry| entry.id).collect();
    let pick = |random: &mut Stream| stored[random.below(stored.len() as u64) as usize];
    let by_id = !stored.is_empty() && random.below(3) == 0;
    let views = if !by_id && random.below(5) == 0 { 2 + random.below(2) as usize } else { 1 };
    let mean = random.below(2) == 0;
    let x = random_rows(random, count * views, DIM);
    let ids: Vec<u64> = match by_id {
        true => (0..count).map(|_| pick(random)).collect(),
        false if random.below(2) == 0 => (0..count).map(|_| random.below(200)).collect(),
        false => Vec::new(),
    };
    let labels: Vec<i64> = if random.below(2) == 0 { (0..count).map(|_| random.below(6) as i64).collect() } else { Vec::new() };
    let groups: Vec<u64> = if random.below(2) == 0 { (0..count).map(|_| random.below(20)).collect() } else { Vec::new() };
    let positive_ids: Vec<u64> =
        if !stored.is_empty() && random.below(2) == 0 { (0..count).map(|_| pick(random)).collect() } else { Vec::new() };
    let positive_scores: Vec<f32> = if random.below(2) == 0 {
        (0..count).map(|_| random.below(1_999) as f32 / 1_000.0 - 1.0).collect()
    } else {
        Vec::new()
    };
    let denied: Vec<Vec<u64>> = (0..count).map(|_| (0..random.below(5)).map(|_| random.below(120)).collect()).collect();
    let message = v1::Anchors {
        rows: count as u32,
        embeddings: (!by_id).then(|| rows(&x)),
        views: if views == 1 { random.below(2) as u32 } else { views as u32 },
        combine: if mean { v1::Combine::Mean } else { v1::Combine::Unspecified }.into(),
        ids: ids.clone(),
        labels: labels.clone(),
        groups: groups.clone(),
        positive_ids: Some(v1::IdLists { values: positive_ids.clone(), counts: Vec::new() }),
        positive_scores: Some(v1::ScoreLists { values: positive_scores.clone(), counts: Vec::new() }),
        denied_ids: Some(v1::IdLists {
            values: denied.concat(),
            counts: denied.iter().map(|list| list.len() as u32).collect(),
        }),
        ..Default::default()
    };
    let anchors = (0..count)
        .map(|at| {
            let id = ids.get(at).copied();
            let there = id.and_then(|id| model.find(id));
            let mut given = x[at * views * DIM..(at + 1) * views * DIM].chunks_exact(DIM).map(|view| model.prepared(view));
            let row = if by_id { there.unwrap().row.clone() } else { given.next().unwrap() };
            let others = if by_id { Vec::new() } else { given.collect() };
            let anchor = ModelAnchor { row, others, mean, ..ModelAnchor::default() };
            let positive_ids: Vec<u64> = positive_ids.get(at).copied().into_iter().collect();
            let scored = positive_ids.iter().map(|&id| model.anchor_score(&anchor, &model.find(id).unwrap().row));
            let positive = scored.chain(positive_scores.get(at).map(|&score| f64::from(score))).reduce(f64::min);
            ModelAnchor {
                id,
                label: labels.get(at).copied().or(there.and_then(|entry| entry.label).filter(|_| labels.is_empty())),
                group: groups.get(at).copied().or(there.and_then(|entry| entry.group).filter(|_| groups.is_empty())),
                positive,
                positive_ids,
                denied_ids: denied[at].clone(),
                ..anchor
            }
        })
        .collect();
    (message, anchors)
}

fn random_filters(random: &mut Stream, anchors: &v1::Anchors) -> v1::Filters {
    let labels = |random: &mut Stream| (0..1 + random.below(3)).map(|_| random.below(7) as i64).collect::<Vec<i64>>();
    let only_same_label = !anchors.labels.is_empty() && random.below(8) == 0;
    let only_same_group = !anchors.groups.is_empty() && random.below(8) == 0;
    v1::Filters {
        exclude_self: (!anchors.ids.is_empty() && random.below(3) == 0).then(|| random.below(2) == 0),
        exclude_same_group: (!anchors.groups.is_empty() && random.below(3) == 0)
            .then(|| random.below(2) == 0 && !only_same_group),
        exclude_same_label: !only_same_label && (!anchors.labels.is_empty() || !anchors.ids.is_empty()) && random.below(2) == 0,
        exclude_ids: (0..random.below(6)).map(|_| random.below(120)).collect(),
        only_labels: if random.below(4) == 0 { labels(random) } else { Vec::new() },
        exclude_labels: if random.below(4) == 0 { labels(random) } else { Vec::new() },
        exclude_unlabelled: random.below(6) == 0,
        min_step: (random.below(6) == 0).then(|| random.below(1_000)),
        max_age: (random.below(6) == 0).then(|| random.below(1_000)),
        only_same_label,
        only_same_group,
    }
}

fn random_draw(model: &ModelBank, random: &mut Stream, anchors: &v1::Anchors) -> v1::Draw {
    let most = if random.below(4) == 0 { 200 } else { 12 };
    let k = 1 + random.below(most) as u32;
    let filters = (random.below(4) == 0).then(|| random_filters(random, anchors));
    if random.below(2) == 0 {
        let strategy = Some(random_unscored(random));
        return v1::Draw { k, strategy, filters, scope: random.below(3) as i32 };
    }
    let skip = if random.below(3) == 0 { random.below(10) as u32 } else { 0 };
    let window = (random.below(2) == 0).then(|| k + random.below(20) as u32);
    let candidates = (random.below(5) == 0).then(|| skip + k + random.below(30) as u32);
    let choose = [v1::Choose::Top, v1::Choose::Uniform, v1::Choose::Softmax][random.below(3) as usize];
    let beta = random.below(80) as f32 / 4.0 - 4.0;
    let (without_replacement, count_exact) = (random.below(2) == 0, random.below(4) == 0);
    let rules = Some(random_rules(model, random, anchors));
    if random.below(3) == 0 {
        let (lo, hi) = (random.below(100) as f64 / 100.0, random.below(100) as f64 / 100.0);
        let band = v1::Band { lo: lo.min(hi), hi: Some(lo.max(hi)), with_replacement: without_replacement, rules };
        let softmax = v1::Softmax { beta, without_replacement, rules };
        let strategy = if random.below(2) == 0 { Strategy::Band(band) } else { Strategy::Softmax(softmax) };
        return v1::Draw { k, strategy: Some(strategy), filters, ..Default::default() };
    }
    let nearest = v1::Nearest {
        skip,
        window,
        choose: choose.into(),
        candidates,
        rules,
        beta,
        without_replacement,
        count_exact,
        ..Default::default()
    };
    v1::Draw { k, strategy: Some(Strategy::Nearest(nearest)), filters, ..Default::default() }
}

fn random_rules(model: &ModelBank, random: &mut Stream, anchors: &v1::Anchors) -> v1::ScoreRules {
    if random.below(3) == 0 {
        return v1::ScoreRules::default();
    }
    let scale = if model.metric == v1::Metric::Cosine { 1.0 } else { 6.0 };
    let centre = if model.metric == v1::Metric::L2 { -6.0 } else { 0.0 };
    let mut rule = |odds: u64, low: f32, high: f32| {
        (random.below(odds) == 0).then(|| low + (high - low) * random.below(10_007) as f32 / 10_007.0)
    };
    let mut rules = v1::ScoreRules {
        min_score: rule(6, centre - scale, centre),
        max_score: rule(4, centre, centre + scale),
        ..Default::default()
    };
    let has_positive = [
        anchors.positive_ids.as_ref().is_some_and(|lists| !lists.values.is_empty()),
        anchors.positive_scores.as_ref().is_some_and(|lists| !lists.values.is_empty()),
    ];
    if has_positive.contains(&true) {
        rules.max_positive_fraction = rule(4, 0.1, 1.0);
        rules.margin = rule(4, 0.001, 0.5 * scale);
        rules.within = rule(6, 0.1 * scale, scale);
    }
    rules
}

fn random_unscored(random: &mut Stream) -> Strategy {
    // More exponents than a bank keeps powers of.
    let alpha = [None, Some(0.75), Some(0.0), Some(-1.0), Some(2.5), Some(-4.0), Some(4.0)][random.below(7) as usize];
    match random.below(3) {
        0 => Strategy::Uniform(v1::Uniform { with_replacement: random.below(3) == 0 }),
        1 => Strategy::Weighted(v1::Weighted { alpha, without_replacement: random.below(2) == 0 }),
        _ => Strategy::Balanced(v1::Balanced { without_replacement: random.below(2) == 0 }),
    }
}

fn some(random: &mut Stream, values: u64, odds: u64) -> Option<i64> {
    (random.below(odds) > 0).then(|| random.below(values) as i64)
}
