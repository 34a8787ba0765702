//! The forms of an answer: layouts, encodings, shared sets, and the write that comes with a request.

use half::{bf16, f16};
use negbank::client::{ClientError, floats, rows};
use negbank::model::Seed;
use negbank::proto::v1;

use crate::live::{Live, all_columns, keyed, nearest, nearest_with, random_rows, uniform};

const DIM: usize = 5;
const ENTRIES: u64 = 300;

async fn live(settings: &[&str]) -> Live {
    let live = Live::start(settings).await;
    live.create(keyed("docs", DIM as u32, 4)).await;
    let ids: Vec<u64> = (0..ENTRIES).collect();
    let labels: Vec<i64> = ids.iter().map(|id| (id % 7) as i64).collect();
    live.write("docs", &ids, &random_rows(&mut Seed(1).stream(0, 0), ENTRIES as usize, DIM), &labels).await;
    live
}

/// 150 anchors are three blocks, so that answers are joined from parts.
fn request(draws: Vec<v1::Draw>) -> v1::SampleRequest {
    v1::SampleRequest {
        bank: "docs".into(),
        anchors: Some(v1::Anchors {
            embeddings: Some(rows(&random_rows(&mut Seed(2).stream(0, 0), 150, DIM))),
            labels: (0..150).map(|at| at % 7).collect(),
            ..Default::default()
        }),
        draws,
        filters: Some(v1::Filters { exclude_same_label: true, ..Default::default() }),
        seed: Some(3),
        columns: all_columns(),
        ..Default::default()
    }
}

fn shared(k: u32) -> v1::Draw {
    v1::Draw { scope: v1::Scope::Shared.into(), ..uniform(k) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_a_pick_is_the_pooled_answer_spread_out() {
    let live = live(&[]).await;
    let draws = vec![uniform(9), shared(4), nearest(6)];
    let pooled = live.client.sample(request(draws.clone())).await.unwrap();
    let asked = v1::SampleRequest { layout: v1::Layout::PerAnchor.into(), ..request(draws) };
    let spread = live.client.sample(asked).await.unwrap();
    let (pool, rows) = (pooled.rows.unwrap(), spread.rows.unwrap());
    let picks: Vec<usize> =
        pooled.draws.iter().flat_map(|draw| &draw.indices).map(|&row| usize::try_from(row).unwrap()).collect();
    assert_eq!(picks.len(), 150 * 9 + 4 + 150 * 6);
    assert_eq!(rows.ids, picks.iter().map(|&row| pool.ids[row]).collect::<Vec<_>>());
    assert_eq!(rows.labels, picks.iter().map(|&row| pool.labels[row]).collect::<Vec<_>>());
    let (of_pool, of_rows) = (floats(&pool.embeddings.unwrap()), floats(&rows.embeddings.unwrap()));
    let expected: Vec<f32> = picks.iter().flat_map(|row| of_pool[row * DIM..(row + 1) * DIM].to_vec()).collect();
    assert_eq!(of_rows, expected);
    for (pooled, spread) in pooled.draws.iter().zip(&spread.draws) {
        assert!(spread.indices.is_empty());
        assert_eq!((&pooled.counts, &pooled.scores, &pooled.log_q), (&spread.counts, &spread.scores, &spread.log_q));
    }
    let mut ids = pool.ids;
    let served = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), served, "a pooled row twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn halves_are_the_floats_rounded_to_the_nearest() {
    let live = live(&[]).await;
    let ask = async |encoding: v1::EmbeddingEncoding| {
        let asked = v1::SampleRequest { encoding: encoding.into(), ..request(vec![uniform(9)]) };
        live.client.sample(asked).await.unwrap().rows.unwrap().embeddings.unwrap()
    };
    let whole = ask(v1::EmbeddingEncoding::F32).await;
    assert_eq!((whole.dtype(), whole.dim), (v1::Dtype::F32, DIM as u32));
    let x = floats(&whole);
    let readable = ask(v1::EmbeddingEncoding::Floats).await;
    assert_eq!((readable.values, readable.data.len()), (x.clone(), 0));
    let narrow = ask(v1::EmbeddingEncoding::F16).await;
    assert_eq!(narrow.dtype(), v1::Dtype::F16);
    assert_eq!(narrow.data.to_vec(), x.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect::<Vec<u8>>());
    let brain = ask(v1::EmbeddingEncoding::Bf16).await;
    assert_eq!(brain.dtype(), v1::Dtype::Bf16);
    assert_eq!(brain.data.to_vec(), x.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect::<Vec<u8>>());
    let fetch = v1::FetchRequest {
        bank: "docs".into(),
        ids: vec![0],
        encoding: v1::EmbeddingEncoding::Bf16.into(),
        ..Default::default()
    };
    let fetched = live.client.fetch(fetch).await.unwrap().rows.unwrap().embeddings.unwrap();
    assert_eq!((fetched.dtype(), fetched.data.len()), (v1::Dtype::Bf16, 2 * DIM));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shared_set_is_the_same_for_ranks_with_different_anchors() {
    let live = live(&[]).await;
    let asked = v1::SampleRequest { columns: vec![v1::Column::Ids.into()], ..request(vec![shared(40)]) };
    let one = live.client.sample(asked.clone()).await.unwrap();
    let mut other = asked.clone();
    other.anchors.as_mut().unwrap().labels.rotate_left(1);
    let two = live.client.sample(other).await.unwrap();
    assert_eq!(one.rows, two.rows, "one seed, one set");
    assert_ne!(one.draws[0].mask, two.draws[0].mask, "and each rank's own mask");
    assert!(one.draws[0].scores.is_empty(), "scores of a shared set are only computed where asked for");
    assert_eq!(live.client.sample(asked.clone()).await.unwrap(), one, "the same request, the same answer");

    live.write("docs", &[1_000], &[1.0; DIM], &[1]).await;
    let after = live.client.sample(asked).await.unwrap();
    assert_eq!((after.sequence_last, after.draws[0].n_shared), (one.sequence_last + 1, one.draws[0].n_shared + 1));
}

/// Ranks that ask at once, while a writer writes: each answer is of one state, and none is older than the last acknowledged write
/// before it was asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shared_answers_are_never_stale() {
    let live = live(&[]).await;
    let asked = v1::SampleRequest { columns: vec![v1::Column::Ids.into()], ..request(vec![shared(40)]) };
    for round in 0..40 {
        let written = live.write("docs", &[2_000 + round], &[1.0; DIM], &[1]).await.sequence;
        let ranks: Vec<_> = (0..6)
            .map(|_| {
                let (client, asked) = (live.client.clone(), asked.clone());
                tokio::spawn(async move { client.sample(asked).await.unwrap() })
            })
            .collect();
        let mut answers = Vec::new();
        for rank in ranks {
            answers.push(rank.await.unwrap());
        }
        assert!(answers.iter().all(|answer| answer == &answers[0] && answer.sequence_first >= written), "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_draws_before_it_writes() {
    let live = live(&[]).await;
    let write =
        v1::WriteRequest { ids: vec![7_000], embeddings: Some(rows(&[1.0; DIM])), step: Some(12), ..Default::default() };
    let asked = v1::SampleRequest { write: Some(write.clone()), ..request(vec![uniform(400)]) };
    let answer = live.client.sample(asked).await.unwrap();
    assert!(!answer.rows.unwrap().ids.contains(&7_000), "the draws come first");
    let written = answer.write.unwrap();
    assert_eq!((written.sequence, written.inserted), (answer.sequence_last + 1, 1));
    let all = v1::SampleRequest { at_least: written.position, filters: None, ..request(vec![uniform(400)]) };
    assert!(live.client.sample(all).await.unwrap().rows.unwrap().ids.contains(&7_000));

    let refuse = async |write: v1::WriteRequest, field: &str| {
        let asked = v1::SampleRequest { write: Some(write), ..request(vec![uniform(1)]) };
        match live.client.sample(asked).await {
            Err(ClientError::InvalidArgument { violations, .. }) => assert_eq!(violations[0].field, field),
            other => panic!("{other:?}"),
        }
    };
    refuse(v1::WriteRequest { bank: "other".into(), ..write.clone() }, "write.bank").await;
    refuse(v1::WriteRequest { ids: vec![1, 2], ..write }, "ids").await;
    let bank = live.client.get_bank(v1::GetBankRequest { name: "docs".into() }).await.unwrap();
    assert_eq!((bank.sequence, bank.step), (2, Some(12)), "a refused write changed nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_answered_is_refused_with_the_cheaper_forms() {
    let live = live(&["limits.max_answer_bytes=65536"]).await;
    let refused = async |request: v1::SampleRequest, field: &str| -> String {
        match live.client.sample(request).await {
            Err(ClientError::InvalidArgument { violations, .. }) => {
                let fault = violations.iter().find(|fault| fault.field == field);
                fault.unwrap_or_else(|| panic!("no {field} in {violations:?}")).reason.clone()
            }
            other => panic!("{other:?}"),
        }
    };
    let large = v1::SampleRequest { layout: v1::Layout::PerAnchor.into(), ..request(vec![uniform(50)]) };
    let reason = refused(large, "draws").await;
    for part in ["limits.max_answer_bytes", "65536", "SHARED", "POOLED", "F16", "without EMBEDDINGS"] {
        assert!(reason.contains(part), "no {part:?} in {reason}");
    }
    let scored = v1::Draw { scope: v1::Scope::Shared.into(), ..nearest(2) };
    assert!(refused(request(vec![scored]), "draws[0].scope").await.contains("scored draw"));
    let mixed = v1::SampleRequest { log_q_mix: true, ..request(vec![uniform(2), nearest(2)]) };
    assert!(refused(mixed, "log_q_mix").await.contains("draws[1] is TOP"));
    let mixed = v1::SampleRequest { log_q_mix: true, ..request(vec![shared(2)]) };
    assert!(refused(mixed, "log_q_mix").await.contains("draws[0] is SHARED"));
    let unknown = v1::Draw { scope: 9, ..uniform(1) };
    assert!(refused(request(vec![unknown]), "draws[0].scope").await.contains("9 is not a Scope"));
    let unknown = v1::SampleRequest { layout: -1, ..request(vec![uniform(1)]) };
    assert!(refused(unknown, "layout").await.contains("-1 is not a Layout"));
}

/// A search among few labels reads their lists and gives what the scan of everything gives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn few_labels_are_searched_by_their_lists() {
    let live = live(&[]).await;
    let ask = async |filters: v1::Filters| {
        let asked = v1::SampleRequest { filters: Some(filters), ..request(vec![nearest(12)]) };
        live.client.sample(asked).await.unwrap()
    };
    let listed = ask(v1::Filters { only_labels: vec![2, 5], ..Default::default() }).await;
    let scanned = ask(v1::Filters { exclude_labels: vec![0, 1, 3, 4, 6], ..Default::default() }).await;
    assert_eq!((listed.draws[0].plan(), scanned.draws[0].plan()), (v1::Plan::PostingList, v1::Plan::Scan));
    assert_eq!(listed.rows, scanned.rows);
    assert_eq!((&listed.draws[0].scores, &listed.draws[0].n), (&scanned.draws[0].scores, &scanned.draws[0].n));
    let examined: u64 = listed.draws[0].rejections.iter().map(|rejected| rejected.count).sum();
    assert_eq!(examined, 0, "what the filter excludes is not looked at");
    let none = ask(v1::Filters { only_labels: vec![99], ..Default::default() }).await;
    assert_eq!((none.draws[0].counts.iter().sum::<u32>(), &none.draws[0].n), (0, &vec![0; 150]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_within_the_rules_are_counted_where_asked_for() {
    let live = live(&[]).await;
    let rules = Some(v1::ScoreRules { min_score: Some(0.2), max_score: Some(0.6), ..Default::default() });
    let counting = nearest_with(3, v1::Nearest { rules, count_exact: true, ..Default::default() });
    let everything = nearest_with(300, v1::Nearest { rules, ..Default::default() });
    let answer = live.client.sample(request(vec![counting, everything])).await.unwrap();
    assert_eq!(answer.draws[0].n_scored, answer.draws[1].counts, "as many as a draw of all of them serves");
    assert!(answer.draws[0].n.iter().zip(&answer.draws[0].n_scored).all(|(n, scored)| n > scored));
    assert!(answer.draws[1].n_scored.is_empty() && answer.draws[1].n.is_empty());
}
