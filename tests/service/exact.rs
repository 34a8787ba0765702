//! Served equals computed in process: ids and scores of 1,000 requests against a float64 search over the same rows, at a size
//! at which the scan runs in tiles over several chunks and shards.

use negbank::client::rows;
use negbank::model::Seed;
use negbank::proto::v1;

use crate::live::{Live, keyed, nearest, random_rows};
use crate::model::{ModelAnchor, ModelBank, ModelRow, TOLERANCE};

const ENTRIES: usize = 12_000;
const DIM: usize = 128;
const K: u32 = 64;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_requests_equal_float64() {
    let live = Live::start(&[]).await;
    let mut random = Seed(5).stream(0, 0);
    for (name, metric) in [("cosine", v1::Metric::Cosine), ("l2", v1::Metric::L2)] {
        live.create(v1::CreateBankRequest { metric: metric.into(), ..keyed(name, DIM as u32, 8) }).await;
        let x = random_rows(&mut random, ENTRIES, DIM);
        let mut model = ModelBank::new(metric, None, 0.5);
        for start in (0..ENTRIES).step_by(1_000) {
            let ids: Vec<u64> = (start as u64..start as u64 + 1_000).collect();
            let labels: Vec<i64> = ids.iter().map(|id| (id % 10) as i64).collect();
            live.write(name, &ids, &x[start * DIM..(start + 1_000) * DIM], &labels).await;
        }
        // The model's own upsert looks each id up in a list; these ids are new, so the entries can be laid down directly.
        model.capacity = Some(usize::MAX);
        let written: Vec<ModelRow> = (0..ENTRIES)
            .map(|row| ModelRow {
                id: Some(row as u64),
                x: x[row * DIM..(row + 1) * DIM].to_vec(),
                label: Some(Some((row % 10) as i64)),
                group: None,
                weight: None,
            })
            .collect();
        model.write(&written, None, None);

        // 500 requests a metric, of every shape: single anchors, a few, and more than one block of them.
        let shapes = (0..500).map(|request| [1usize, 2, 5][request % 3].max(if request % 100 == 99 { 130 } else { 0 }));
        for block in shapes {
            let anchors = random_rows(&mut random, block, DIM);
            let labels: Vec<i64> = (0..block).map(|_| random.below(10) as i64).collect();
            let filters = v1::Filters { exclude_same_label: true, ..Default::default() };
            let request = v1::SampleRequest {
                bank: name.to_owned(),
                anchors: Some(v1::Anchors { embeddings: Some(rows(&anchors)), labels: labels.clone(), ..Default::default() }),
                draws: vec![nearest(K)],
                filters: Some(filters.clone()),
                columns: vec![v1::Column::Ids.into(), v1::Column::Scores.into()],
                ..Default::default()
            };
            let answer = live.client.sample(request).await.unwrap();
            let (pool, draw) = (answer.rows.unwrap(), &answer.draws[0]);
            assert_eq!(draw.counts, vec![K; block]);
            for at in 0..block {
                let row = model.prepared(&anchors[at * DIM..(at + 1) * DIM]);
                let anchor = ModelAnchor { row, label: Some(labels[at]), ..Default::default() };
                let expected = model.eligible(&anchor, &filters, None);
                let served = at * K as usize..(at + 1) * K as usize;
                let ids = draw.indices[served.clone()].iter().map(|&row| pool.ids[row as usize]);
                for (rank, (id, &score)) in ids.zip(&draw.scores[served]).enumerate() {
                    let (want, entry) = &expected[rank];
                    let tolerance = TOLERANCE * want.abs().max(1.0);
                    assert!((want - f64::from(score)).abs() < tolerance, "{name} anchor {at} rank {rank}: {score} not {want}");
                    let tied =
                        |other: usize| expected.get(other).is_some_and(|(near, _)| (near - want).abs() < 2.0 * tolerance);
                    let is_tied = tied(rank + 1) || (rank > 0 && tied(rank - 1));
                    assert!(is_tied || id == entry.id, "{name} anchor {at} rank {rank}: id {id}, not {}", entry.id);
                }
            }
        }
    }
}
