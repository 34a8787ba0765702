//! Banks that are deleted while somebody reads them or waits for them.

use std::time::Duration;

use negbank::client::{Client, ClientError, rows};
use negbank::proto::v1;

use crate::live::{Live, keyed, nearest, random_rows, uniform};

const NOT_HUNG: Duration = Duration::from_secs(20);

fn sample() -> v1::SampleRequest {
    let anchors = Some(v1::Anchors { rows: 1, ..Default::default() });
    v1::SampleRequest { bank: "docs".into(), anchors, draws: vec![uniform(1)], ..Default::default() }
}

async fn delete(client: &Client) {
    client.delete_bank(v1::DeleteBankRequest { name: "docs".into() }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_waits_for_a_bank_hears_that_it_was_deleted() {
    let live = Live::start(&[]).await;
    let client = live.client.with_timeout(Duration::from_secs(600));
    live.create(keyed("docs", 2, 8)).await;
    let position = live.write("docs", &[1], &[1.0, 0.0], &[]).await.position;
    let mut ahead = position.to_vec();
    ahead[8] += 100;
    let ahead = || ahead.clone().into();
    let staged = |rank| v1::WriteRequest {
        bank: "docs".into(),
        ids: vec![1],
        embeddings: Some(rows(&[0.0, 1.0])),
        stage: Some(v1::Stage { step: 1, micro_batch: 0, rank, world_size: 3 }),
        ..Default::default()
    };
    let fetch = v1::FetchRequest { bank: "docs".into(), ids: vec![1], at_least: ahead(), ..Default::default() };
    let stalest = v1::StalestRequest { bank: "docs".into(), k: 1, at_least: ahead() };
    let warm_up = v1::SampleRequest { min_entries: 5, wait_for_entries: true, ..sample() };
    let at_least = v1::SampleRequest { at_least: ahead(), ..sample() };
    let waits = tokio::spawn({
        let (client, staged) = (client.clone(), [staged(0), staged(2)]);
        async move {
            let [first, third] = staged;
            let (a, b, c, d, e, f) = tokio::join!(
                client.fetch(fetch),
                client.stalest(stalest),
                client.sample(warm_up),
                client.sample(at_least),
                client.write(first),
                client.write(third),
            );
            [a.err(), b.err(), c.err(), d.err(), e.err(), f.err()]
        }
    });
    let staged = async {
        while !live
            .client
            .get_bank(v1::GetBankRequest { name: "docs".into() })
            .await
            .unwrap()
            .stages
            .iter()
            .any(|stage| stage.missing_ranks == [1])
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(NOT_HUNG, staged).await.expect("two ranks wait for the third");
    // The others were sent before, but may not have come to wait yet: whether or not, they end the same way.
    delete(&live.client).await;
    let ended = tokio::time::timeout(NOT_HUNG, waits).await.expect("a wait for a deleted bank must end").unwrap();
    for error in ended {
        let Some(ClientError::NotFound(message)) = error else { panic!("{error:?}") };
        assert!(message.contains("docs was deleted") || message.contains("no bank \"docs\""), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn requests_in_flight_end_as_if_the_bank_were_there_or_not() {
    let live = Live::start(&[]).await;
    let mut random = negbank::model::Seed(4).stream(0, 0);
    let x = random_rows(&mut random, 5_000, 32);
    let anchors = random_rows(&mut random, 512, 32);
    let ids: Vec<u64> = (0..5_000).collect();
    let (mut served, mut missed) = (0, 0);
    for round in 0..20u64 {
        live.create(keyed("docs", 32, 8)).await;
        live.write("docs", &ids, &x, &[]).await;
        let anchors = Some(v1::Anchors { embeddings: Some(rows(&anchors)), ..Default::default() });
        let hard = v1::SampleRequest { anchors, draws: vec![nearest(4)], ..sample() };
        let calls: Vec<_> = (0..4)
            .map(|_| {
                let (client, hard, ids) = (live.client.clone(), hard.clone(), ids.clone());
                tokio::spawn(async move {
                    let fetch = v1::FetchRequest { bank: "docs".into(), ids: ids.clone(), ..Default::default() };
                    let write = v1::WriteRequest {
                        bank: "docs".into(),
                        ids,
                        embeddings: Some(rows(&[0.5; 5_000 * 32])),
                        ..Default::default()
                    };
                    let (sampled, fetched, written) =
                        tokio::join!(client.sample(hard), client.fetch(fetch), client.write(write));
                    let whole = |answer: v1::SampleResponse| assert_eq!(answer.draws[0].counts, vec![4; 512]);
                    let found = |answer: v1::FetchResponse| assert_eq!(answer.found, vec![1u8; 5_000]);
                    [sampled.map(whole), fetched.map(found), written.map(drop)]
                })
            })
            .collect();
        // At another moment of the calls in each round.
        tokio::time::sleep(Duration::from_micros(round * 400)).await;
        delete(&live.client).await;
        for call in calls {
            for ended in call.await.unwrap() {
                match ended {
                    Ok(()) => served += 1,
                    Err(ClientError::NotFound(_)) => missed += 1,
                    Err(other) => panic!("{other:?}"),
                }
            }
        }
    }
    assert!(served > 0 && missed > 0, "{served} served, {missed} missed: the deletions all came at one end");
}
