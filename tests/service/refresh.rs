//! Keyed banks of a capacity, the entries that most need a refresh, and weights, over real gRPC against the naive model.

use negbank::client::{ClientError, rows};
use negbank::model::Seed;
use negbank::proto::v1;
use negbank::proto::v1::banks_client::BanksClient;
use tonic::Code;

use crate::live::{Live, keyed, queue, random_rows, uniform};
use crate::model::{ModelBank, ModelRow};

const DIM: usize = 4;

async fn stalest(live: &Live, bank: &str, k: u32) -> Result<v1::StalestResponse, tonic::Status> {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", live.address)).unwrap();
    let mut banks = BanksClient::new(endpoint.connect().await.unwrap());
    let request = v1::StalestRequest { bank: bank.to_owned(), k, at_least: Default::default() };
    banks.stalest(request).await.map(tonic::Response::into_inner)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_bank_gives_up_its_stalest_entries_and_lists_the_next() {
    let live = Live::start(&[]).await;
    for shards in [1, 2, 8] {
        let name = format!("bank-{shards}");
        let bank = v1::CreateBankRequest { capacity: 300, ..keyed(&name, DIM as u32, shards) };
        assert_eq!(live.create(bank).await.capacity, 300);
        let mut model = ModelBank::new(v1::Metric::Cosine, None, 0.5);
        model.keyed_capacity = Some(300);
        // The same writes whatever the shards; more of them than one hold lists, and batches of more new ids than the capacity.
        let mut random = Seed(9).stream(0, 0);
        for write in 0..40 {
            let count = if write % 13 == 12 { 700 } else { 1 + random.below(60) as usize };
            let x = random_rows(&mut random, count, DIM);
            let ids: Vec<u64> = (0..count).map(|_| random.below(900)).collect();
            let weights: Vec<f32> = ids.iter().map(|_| random.below(5) as f32).filter(|_| write % 2 == 0).collect();
            let step = (write % 3 > 0).then(|| random.below(12));
            let request = v1::WriteRequest {
                bank: name.clone(),
                ids: ids.clone(),
                embeddings: Some(rows(&x)),
                weights: weights.clone(),
                step,
                ..Default::default()
            };
            let evicted = model.evicted;
            let written = live.client.write(request).await.unwrap();
            let row = |at: usize| ModelRow {
                id: Some(ids[at]),
                x: x[at * DIM..(at + 1) * DIM].to_vec(),
                label: None,
                group: None,
                weight: weights.get(at).copied(),
            };
            model.write(&(0..count).map(row).collect::<Vec<_>>(), step, None);
            assert_eq!(written.evicted, model.evicted - evicted);

            let k = [1, 7, 1_000][write % 3];
            let listed = stalest(&live, &name, k).await.unwrap();
            let rows = listed.rows.unwrap();
            let expected: Vec<u64> = model.stalest().into_iter().take(k as usize).collect();
            assert_eq!((rows.ids.clone(), listed.sequence), (expected, written.sequence));
            assert!(rows.embeddings.is_none());
            for (at, id) in rows.ids.iter().enumerate() {
                let entry = model.find(*id).unwrap();
                assert_eq!((entry.step, entry.weight), (rows.steps[at], rows.weights[at]));
            }
        }
        assert_eq!((model.entries.len(), model.evicted > 300), (300, true));
        // What is fetched and what is drawn carry the weights too.
        let ids: Vec<u64> = model.entries.iter().map(|entry| entry.id).collect();
        let fetch = v1::FetchRequest { bank: name.clone(), ids: ids.clone(), ..Default::default() };
        let weights: Vec<f32> = model.entries.iter().map(|entry| entry.weight).collect();
        assert_eq!(live.client.fetch(fetch).await.unwrap().rows.unwrap().weights, weights);
        let sample = v1::SampleRequest {
            bank: name.clone(),
            anchors: Some(v1::Anchors { rows: 1, ..Default::default() }),
            draws: vec![uniform(300)],
            columns: vec![v1::Column::Ids.into(), v1::Column::Weights.into()],
            ..Default::default()
        };
        let drawn = live.client.sample(sample).await.unwrap().rows.unwrap();
        assert_eq!((drawn.ids.len(), drawn.weights.len()), (300, 300));
        for (id, weight) in drawn.ids.iter().zip(&drawn.weights) {
            assert_eq!(model.find(*id).unwrap().weight, *weight);
        }
    }
}

#[tokio::test]
async fn what_has_no_stalest_entries_says_so() {
    let live = Live::start(&["limits.max_fetch_rows=10"]).await;
    live.create(queue("fifo", 2, 8, 3)).await;
    live.create(keyed("docs", 2, 8)).await;
    let refused = stalest(&live, "fifo", 1).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("only keyed banks are refreshed"), "{refused}");
    for (k, says) in [(0, "k: must be at least 1"), (11, "k: 11 is over the limit of 10 (setting limits.max_fetch_rows)")] {
        let refused = stalest(&live, "docs", k).await.unwrap_err();
        assert_eq!((refused.code(), refused.message()), (Code::InvalidArgument, says));
    }
    assert_eq!(stalest(&live, "nope", 1).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(stalest(&live, "docs", 5).await.unwrap().rows.unwrap().ids, [0u64; 0]);

    // A bank of a capacity never reaches the server's limit; another does.
    let small = Live::start(&["limits.max_entries=2"]).await;
    small.create(v1::CreateBankRequest { capacity: 2, ..keyed("bounded", 2, 8) }).await;
    small.create(keyed("unbounded", 2, 8)).await;
    let x = [1.0, 0.0, 0.0, 1.0, 1.0, 1.0];
    assert_eq!(small.write("bounded", &[1, 2, 3], &x, &[]).await.evicted, 1);
    let unbounded =
        v1::WriteRequest { bank: "unbounded".into(), ids: vec![1, 2, 3], embeddings: Some(rows(&x)), ..Default::default() };
    let refused = small.client.write(unbounded).await;
    assert!(matches!(refused, Err(ClientError::ResourceExhausted { .. })), "{refused:?}");
    let other = small.client.create_bank(v1::CreateBankRequest { capacity: 1, ..keyed("unbounded", 2, 8) }).await;
    let Err(ClientError::AlreadyExists(message)) = other else { panic!("{other:?}") };
    assert!(message.contains("keyed with momentum 0.5, not keyed with momentum 0.5 and capacity 1"), "{message}");
}
