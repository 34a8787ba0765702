//! Answers that are rightly short say why.

use negbank::client::rows;
use negbank::proto::v1;

use crate::live::{Live, keyed, nearest, nearest_with, queue, uniform};

async fn sample(live: &Live, bank: &str, draws: Vec<v1::Draw>, filters: v1::Filters) -> v1::SampleResponse {
    let request = v1::SampleRequest {
        bank: bank.to_owned(),
        anchors: Some(v1::Anchors { embeddings: Some(rows(&[1.0, 0.0])), labels: vec![1], ..Default::default() }),
        draws,
        filters: Some(filters),
        ..Default::default()
    };
    live.client.sample(request).await.unwrap()
}

fn reasons(counts: &[v1::ReasonCount]) -> Vec<(v1::Reason, u64)> {
    counts.iter().map(|count| (count.reason(), count.count)).collect()
}

#[tokio::test]
async fn an_empty_bank_answers_nothing() {
    let live = Live::start(&[]).await;
    live.create(keyed("empty", 2, 8)).await;
    let answer = sample(&live, "empty", vec![uniform(3), nearest(4)], v1::Filters::default()).await;
    assert_eq!(answer.rows.unwrap_or_default().ids, Vec::<u64>::new());
    for (draw, k) in answer.draws.iter().zip([3, 4]) {
        assert_eq!((draw.counts.as_slice(), draw.n.as_slice()), (&[0][..], &[0][..]));
        assert_eq!(reasons(&draw.shortfalls), [(v1::Reason::TooFew, k)]);
    }
}

#[tokio::test]
async fn a_bank_of_one_entry_answers_it_and_all_filtered_out_answers_why() {
    let live = Live::start(&[]).await;
    live.create(keyed("one", 2, 1)).await;
    live.write("one", &[7], &[0.0, 2.0], &[1]).await;
    let answer = sample(&live, "one", vec![uniform(3), nearest(3)], v1::Filters::default()).await;
    assert_eq!(answer.rows.unwrap().ids, [7], "both draws share the pooled row");
    assert!(answer.draws.iter().all(|draw| draw.indices == [0] && reasons(&draw.shortfalls) == [(v1::Reason::TooFew, 2)]));

    let filters = v1::Filters { exclude_same_label: true, ..Default::default() };
    let answer = sample(&live, "one", vec![nearest(3)], filters).await;
    assert_eq!(reasons(&answer.draws[0].shortfalls), [(v1::Reason::TooFew, 3)]);
    assert_eq!(reasons(&answer.draws[0].rejections), [(v1::Reason::SameLabel, 1)]);
}

#[tokio::test]
async fn rules_and_windows_are_named() {
    let live = Live::start(&[]).await;
    live.create(keyed("four", 2, 2)).await;
    live.write("four", &[1, 2, 3, 4], &[1.0, 0.0, 1.0, 0.1, 0.0, 1.0, -1.0, 0.0], &[0, 0, 0, 0]).await;
    let rules = v1::ScoreRules { max_score: Some(0.5), ..Default::default() };
    let ruled = nearest_with(4, v1::Nearest { rules: Some(rules), ..Default::default() });
    let skipped = nearest_with(2, v1::Nearest { skip: 3, ..Default::default() });
    let answer = sample(&live, "four", vec![ruled, skipped], v1::Filters::default()).await;
    assert_eq!(reasons(&answer.draws[0].shortfalls), [(v1::Reason::Score, 2)]);
    assert_eq!(answer.draws[0].n, Vec::<u32>::new(), "with score rules n is not counted");
    assert_eq!(reasons(&answer.draws[1].shortfalls), [(v1::Reason::Window, 1)]);
    assert_eq!(answer.draws[1].n, [4]);
}

#[tokio::test]
async fn a_queue_smaller_than_a_batch_keeps_its_last_rows() {
    let live = Live::start(&[]).await;
    live.create(queue("small", 1, 8, 3)).await;
    let x: Vec<f32> = (0..10).map(|row| row as f32 + 1.0).collect();
    let request = v1::WriteRequest { bank: "small".to_owned(), embeddings: Some(rows(&x)), ..Default::default() };
    let written = live.client.write(request).await.unwrap();
    assert_eq!((written.ids, written.inserted, written.evicted), ((0..10).collect(), 3, 0));
    let fetched = live
        .client
        .fetch(v1::FetchRequest { bank: "small".into(), ids: (0..10).collect(), encoding: 0, ..Default::default() })
        .await
        .unwrap();
    assert_eq!(fetched.found.to_vec(), [0, 0, 0, 0, 0, 0, 0, 1, 1, 1]);
}
