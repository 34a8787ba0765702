//! The same seed and the same history give the same draws, on 1, 2 and 8 compute threads.

use negbank::client::rows;
use negbank::model::Seed;
use negbank::proto::v1;
use v1::draw::Strategy;

use crate::live::{Live, all_columns, keyed, nearest, nearest_with, queue, random_rows, uniform};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_equal_on_any_number_of_threads() {
    let mut answers = Vec::new();
    for threads in ["compute.threads=1", "compute.threads=2", "compute.threads=8"] {
        let live = Live::start(&[threads]).await;
        let mut random = Seed(9).stream(0, 0);
        let mut of_server = Vec::new();
        for bank in [keyed("keyed", 24, 8), queue("queue", 24, 8, 1_500)] {
            let name = bank.name.clone();
            live.create(bank).await;
            for _ in 0..12 {
                let ids: Vec<u64> = (0..300).map(|_| random.below(2_000)).collect();
                let labels: Vec<i64> = ids.iter().map(|id| (id % 7) as i64).collect();
                let request = v1::WriteRequest {
                    bank: name.clone(),
                    embeddings: Some(rows(&random_rows(&mut random, 300, 24))),
                    labels,
                    weights: ids.iter().map(|id| (id % 50) as f32).collect(),
                    ids,
                    ..Default::default()
                };
                live.client.write(request).await.unwrap();
            }
            for seed in 0..5 {
                of_server.push(live.client.sample(request(&name, seed, &mut random)).await.unwrap());
            }
        }
        answers.push(of_server);
    }
    assert!(answers[0].iter().all(|answer| answer.reproducible));
    assert!(answers[0] == answers[1] && answers[0] == answers[2], "answers differ between numbers of threads");
    assert_ne!(answers[0][0].draws[0].indices, answers[0][1].draws[0].indices, "seeds matter");
}

/// 300 anchors are five blocks, so several threads share each request.
fn request(bank: &str, seed: u64, random: &mut negbank::model::Stream) -> v1::SampleRequest {
    let window = v1::Nearest { window: Some(40), choose: v1::Choose::Uniform.into(), ..Default::default() };
    let by = |strategy| v1::Draw { k: 8, strategy: Some(strategy), ..Default::default() };
    let weighted = Strategy::Weighted(v1::Weighted { alpha: Some(0.75), without_replacement: seed.is_multiple_of(2) });
    let balanced = Strategy::Balanced(v1::Balanced { without_replacement: !seed.is_multiple_of(2) });
    let softmax = Strategy::Softmax(v1::Softmax { beta: 4.0, ..Default::default() });
    let distinct = Strategy::Softmax(v1::Softmax { beta: 4.0, without_replacement: true, ..Default::default() });
    let band = Strategy::Band(v1::Band { lo: 0.9, ..Default::default() });
    v1::SampleRequest {
        bank: bank.to_owned(),
        anchors: Some(v1::Anchors {
            embeddings: Some(rows(&random_rows(random, 300, 24))),
            labels: (0..300).map(|_| random.below(7) as i64).collect(),
            ..Default::default()
        }),
        draws: vec![
            uniform(9),
            nearest(5),
            nearest_with(7, window),
            by(weighted),
            by(balanced),
            by(softmax),
            by(distinct),
            by(band),
        ],
        filters: Some(v1::Filters { exclude_same_label: true, ..Default::default() }),
        seed: Some(seed),
        columns: all_columns(),
        ..Default::default()
    }
}
