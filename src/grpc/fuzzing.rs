//! What callers send, and the token file, for fuzzers.

use prost::Message;

use super::access::Tokens;
use super::convert::{self, Limits};
use crate::engine::fuzzing::{SmallBank, must, spec};
use crate::model::{BankKind, Seed};
use crate::proto::v1;

/// Low, so that small inputs come near.
fn limits() -> Limits {
    Limits {
        max_dim: 16,
        max_entries: 64,
        max_write_rows: 32,
        max_fetch_rows: 32,
        max_anchors: 8,
        max_ranks: 8,
        max_k: 32,
        max_ranked: 512,
        max_scored_entries: 64,
        softmax_candidates: 8,
        max_picks: 256,
        max_filter_values: 8,
        max_listed_ids: 32,
        max_answer_bytes: 64 << 10,
    }
}

/// The first byte chooses the bank; what is accepted is answered, within the limits.
pub(crate) fn sample_request(bytes: &[u8]) {
    let Some((&choice, message)) = bytes.split_first() else { return };
    let Ok(request) = v1::SampleRequest::decode(message) else { return };
    let (spec, limits, bank) = (spec(choice), limits(), SmallBank::new(choice));
    let _at_least = convert::position(&request.at_least);
    let Ok(query) = convert::query(request, &spec, Seed(1), &limits) else { return };
    let anchors = query.anchors().count;
    assert!(anchors <= limits.max_anchors);
    assert!(query.draws().iter().all(|draw| draw.k <= limits.max_k));
    for entries in [0, 1, limits.max_scored_entries + 1, usize::MAX] {
        let _large_or_not = convert::check_size(&query, &spec, entries, &limits);
    }
    let query = if choice > 127 { query.over_candidates(limits.softmax_candidates) } else { query };
    if convert::check_size(&query, &spec, limits.max_entries, &limits).is_err() {
        return;
    }
    let encoding = query.form().encoding;
    let most: Vec<usize> = query.draws().iter().map(|draw| draw.k).collect();
    let Some(answer) = bank.sample(query) else { return };
    assert_eq!(answer.draws.len(), most.len());
    for (draw, k) in answer.draws.iter().zip(most) {
        assert!(draw.counts.iter().all(|&count| count as usize <= k), "at most k of each anchor");
        assert!(draw.log_q.iter().all(|log_q| !log_q.is_nan()), "{:?}", draw.log_q);
    }
    let sent = convert::sampled(answer, spec.dim(), encoding).into_pieces();
    let (len, message) = (sent.iter().map(bytes::Bytes::len).sum::<usize>(), sent.concat());
    assert!(len <= limits.max_answer_bytes, "an answer of {len} bytes");
    must(v1::SampleResponse::decode(message.get(5..).unwrap_or_default()));
}

/// Draws of every strategy, with and without what a request may carry.
pub(crate) fn sample_requests() -> Vec<Vec<u8>> {
    use v1::draw::Strategy;
    let rules = v1::ScoreRules { min_score: Some(-0.9), max_positive_fraction: Some(0.95), ..Default::default() };
    let strategies = [
        Strategy::Uniform(v1::Uniform { with_replacement: false }),
        Strategy::Weighted(v1::Weighted { alpha: Some(0.75), without_replacement: true }),
        Strategy::Balanced(v1::Balanced { without_replacement: false }),
        Strategy::Nearest(v1::Nearest {
            skip: 1,
            window: Some(4),
            count_exact: true,
            rules: Some(rules),
            ..Default::default()
        }),
        Strategy::Nearest(v1::Nearest {
            choose: 3,
            beta: 2.0,
            candidates: Some(8),
            without_replacement: true,
            ..Default::default()
        }),
        Strategy::Softmax(v1::Softmax { beta: 3.0, rules: Some(rules), ..Default::default() }),
        Strategy::Band(v1::Band { lo: 0.2, hi: Some(0.9), ..Default::default() }),
    ];
    let embeddings = v1::Matrix { values: vec![0.3, -0.4, 0.5, 1.0, 0.0, 0.0], ..Default::default() };
    let plain = v1::Anchors { embeddings: Some(embeddings), labels: vec![1, 2], ..Default::default() };
    let rich = v1::Anchors {
        ids: vec![1, 9],
        groups: vec![3, 4],
        has_group: vec![1, 0].into(),
        positive_ids: Some(v1::IdLists { values: vec![2, 3], counts: vec![1, 1] }),
        denied_ids: Some(v1::IdLists { values: vec![5], counts: vec![0, 1] }),
        ..Default::default()
    };
    let filters = v1::Filters {
        exclude_same_label: true,
        exclude_ids: vec![7],
        only_labels: vec![1, 2],
        max_age: Some(9),
        ..Default::default()
    };
    let mut seeds = Vec::new();
    for (at, strategy) in strategies.iter().enumerate() {
        for (anchors, filters, rich) in [(&plain, None, false), (&rich, Some(filters.clone()), true)] {
            let own = v1::Draw { k: 5, strategy: Some(*strategy), ..Default::default() };
            let shared = v1::Draw { k: 3, scope: 2, strategy: Some(strategies[at % 3]), ..Default::default() };
            let request = v1::SampleRequest {
                anchors: Some(anchors.clone()),
                draws: if rich { vec![own, shared] } else { vec![own] },
                filters,
                step: Some(12),
                seed: rich.then_some(3),
                columns: if rich { vec![1, 2, 3, 4, 5, 6, 7, 8] } else { Vec::new() },
                layout: i32::from(rich) + 1,
                log_q_mix: !rich,
                positive_log_q: rich,
                ..Default::default()
            };
            seeds.push([&[at as u8][..], &request.encode_to_vec()].concat());
        }
    }
    seeds
}

/// The first byte chooses the bank; what is accepted is applied.
pub(crate) fn write_request(bytes: &[u8]) {
    let Some((&choice, message)) = bytes.split_first() else { return };
    let Ok(request) = v1::WriteRequest::decode(message) else { return };
    let (spec, limits) = (spec(choice), limits());
    let Ok((batch, stage)) = convert::batch(request, &spec, &limits) else { return };
    assert!((1..=limits.max_write_rows).contains(&batch.rows()));
    assert!(batch.embeddings().values().iter().all(|value| value.is_finite()));
    assert!((0.0..=1.0).contains(&batch.momentum()));
    if let Some(stage) = stage {
        assert!(stage.world_size as usize <= limits.max_ranks && stage.rank < stage.world_size);
    }
    SmallBank::new(choice).write(batch);
}

/// Writes to all kinds of banks.
pub(crate) fn write_requests() -> Vec<Vec<u8>> {
    let request = v1::WriteRequest {
        bank: "b".into(),
        embeddings: Some(v1::Matrix {
            data: [1.0f32, 2.0, 3.0].map(f32::to_le_bytes).as_flattened().to_vec().into(),
            ..Default::default()
        }),
        ids: vec![1],
        labels: vec![-1],
        groups: vec![2],
        has_group: vec![0].into(),
        step: Some(4),
        momentum: Some(0.25),
        weights: vec![0.5],
        origin: Some(v1::Origin { writer: "w".into(), incarnation: 1, number: 2 }),
        stage: Some(v1::Stage { step: 4, micro_batch: 0, rank: 1, world_size: 2 }),
        ..Default::default()
    };
    let queue = v1::WriteRequest {
        embeddings: Some(v1::Matrix { values: vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0], ..Default::default() }),
        ..Default::default()
    };
    let of = |(choice, request): (u8, &v1::WriteRequest)| [&[choice][..], &request.encode_to_vec()].concat();
    [(0, &request), (1, &request), (2, &queue), (3, &queue)].map(of).to_vec()
}

/// Banks to create.
pub(crate) fn bank_request(bytes: &[u8]) {
    let Ok(request) = v1::CreateBankRequest::decode(bytes) else { return };
    let limits = limits();
    let _durability = convert::durability(request.durability);
    let Ok((name, spec)) = convert::spec(&request, &limits) else { return };
    assert_eq!(name.as_str(), request.name);
    assert!((1..=limits.max_dim).contains(&spec.dim()) && spec.shards() >= 1);
    let capacity = match spec.kind() {
        BankKind::Keyed { capacity, momentum } => {
            assert!((0.0..=1.0).contains(&momentum));
            capacity
        }
        BankKind::Queue { capacity } => Some(capacity),
    };
    assert!(capacity.is_none_or(|capacity| (1..=limits.max_entries as u64).contains(&capacity)));
    SmallBank::record(name, spec);
}

/// One of each kind.
pub(crate) fn bank_requests() -> Vec<Vec<u8>> {
    let keyed = v1::CreateBankRequest { name: "a".into(), dim: 4, momentum: Some(0.5), dtype: 2, ..Default::default() };
    let queue =
        v1::CreateBankRequest { name: "b-1".into(), dim: 16, kind: 2, capacity: 9, metric: 3, shards: 7, ..Default::default() };
    vec![keyed.encode_to_vec(), queue.encode_to_vec()]
}

/// All other requests; the first byte chooses which.
pub(crate) fn other_request(bytes: &[u8]) {
    let Some((&choice, message)) = bytes.split_first() else { return };
    let (spec, limits) = (spec(choice >> 4), limits());
    match choice % 8 {
        0 => {
            let query = v1::ScanRequest::decode(message).ok().and_then(|request| convert::scan(&request, &spec, &limits).ok());
            assert!(query.is_none_or(|query| (1..=limits.max_fetch_rows).contains(&query.rows)));
        }
        1 => {
            let ids =
                v1::FetchRequest::decode(message).ok().and_then(|request| convert::fetch_ids(request, &spec, &limits).ok());
            assert!(ids.is_none_or(|(ids, _)| (1..=limits.max_fetch_rows).contains(&ids.len())));
        }
        2 => {
            let ids = v1::RemoveRequest::decode(message).ok().and_then(|request| convert::remove_ids(request, &limits).ok());
            assert!(ids.is_none_or(|ids| (1..=limits.max_write_rows).contains(&ids.len())));
        }
        3 => {
            let k = v1::StalestRequest::decode(message).ok().and_then(|request| convert::stalest_k(&request, &limits).ok());
            assert!(k.is_none_or(|k| (1..=limits.max_fetch_rows).contains(&k)));
        }
        4 => drop(v1::GatherRequest::decode(message).ok().map(|request| convert::contribution(request, &limits))),
        5 => drop(v1::CreateCheckpointRequest::decode(message).ok().map(|request| convert::new_checkpoint(&request))),
        6 => drop(v1::RestoreCheckpointRequest::decode(message).ok().map(|request| convert::restore(&request))),
        _ => drop(v1::DeleteCheckpointRequest::decode(message).ok().map(|request| convert::doomed(&request))),
    }
}

/// One of each.
pub(crate) fn other_requests() -> Vec<Vec<u8>> {
    let part = v1::GatherRequest {
        group: "g".into(),
        world_size: 2,
        embeddings: Some(v1::Matrix { values: vec![1.0, 2.0], dim: 2, ..Default::default() }),
        ids: vec![1],
        labels: vec![3],
        ..Default::default()
    };
    let messages = [
        v1::ScanRequest { chunk_rows: 4, ..Default::default() }.encode_to_vec(),
        v1::FetchRequest { ids: vec![1, 2], encoding: 3, ..Default::default() }.encode_to_vec(),
        v1::RemoveRequest { ids: vec![1], ..Default::default() }.encode_to_vec(),
        v1::StalestRequest { k: 3, ..Default::default() }.encode_to_vec(),
        part.encode_to_vec(),
        v1::CreateCheckpointRequest { bank: "b".into(), tag: "1".into(), keep: 2, ..Default::default() }.encode_to_vec(),
        v1::RestoreCheckpointRequest { bank: "b".into(), tag: "1".into(), into: "c".into(), ..Default::default() }
            .encode_to_vec(),
        v1::DeleteCheckpointRequest { bank: "b".into(), tag: "1".into() }.encode_to_vec(),
    ];
    messages.iter().zip(0u8..).map(|(message, which)| [&[which][..], message].concat()).collect()
}

/// A token file.
pub(crate) fn token_file(bytes: &[u8]) {
    let Ok(tokens) = Tokens::parse(bytes) else { return };
    assert!(tokens.find("").is_none() && tokens.find("a-token-of-nobody-at-all").is_none());
    assert!(tokens.len() <= bytes.len());
}

/// Files as `negbank token` makes them.
pub(crate) fn token_files() -> Vec<Vec<u8>> {
    let entry = |subject: &str, role: &str, banks: &str| {
        let sha256 = super::fingerprint(subject);
        format!("[[tokens]]\nsubject = \"{subject}\"\nsha256 = \"{sha256}\"\nrole = \"{role}\"\nbanks = [{banks}]\n")
    };
    let two = [entry("trainer", "write", "\"a-*\", \"b\""), entry("ops", "admin", "\"*\"")].concat();
    vec![Vec::new(), entry("eval", "read", "\"*\"").into(), two.into()]
}
