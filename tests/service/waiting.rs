//! Reads that wait: for a position of the bank's history, and for enough entries.

use std::time::Duration;

use negbank::client::{ClientError, rows};
use negbank::proto::v1;

use crate::live::{Live, keyed, uniform};

fn write(id: u64) -> v1::WriteRequest {
    v1::WriteRequest { bank: "docs".into(), ids: vec![id], embeddings: Some(rows(&[1.0, 0.5])), ..Default::default() }
}

fn sample() -> v1::SampleRequest {
    v1::SampleRequest {
        bank: "docs".into(),
        anchors: Some(v1::Anchors { rows: 1, ..Default::default() }),
        draws: vec![uniform(1)],
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn warm_up_is_refused_at_once_or_waits_for_the_entries() {
    let live = Live::start(&[]).await;
    live.create(keyed("docs", 2, 8)).await;
    live.client.write(write(1)).await.unwrap();
    let asking = v1::SampleRequest { min_entries: 3, ..sample() };
    let refused = live.client.sample(asking.clone()).await;
    let Err(ClientError::FailedPrecondition(message)) = refused else { panic!("{refused:?}") };
    assert_eq!(message, "bank docs holds 1 entries, and min_entries asks for 3");

    let waiting = v1::SampleRequest { wait_for_entries: true, ..asking };
    let brief = live.client.with_timeout(Duration::from_millis(400)).sample(waiting.clone()).await;
    assert!(matches!(brief, Err(ClientError::FailedPrecondition(_))), "the caller hears why before its deadline: {brief:?}");

    let client = live.client.clone();
    let waiter = tokio::spawn(async move { client.sample(waiting).await });
    live.client.write(write(2)).await.unwrap();
    live.client.write(write(2)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!waiter.is_finished(), "two entries are not three");
    live.client.write(write(3)).await.unwrap();
    let answer = waiter.await.unwrap().unwrap();
    assert_eq!(answer.draws[0].n, [3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_position_is_waited_for_and_belongs_to_one_history() {
    let live = Live::start(&[]).await;
    live.create(keyed("docs", 2, 8)).await;
    let first = live.client.write(write(1)).await.unwrap().position;
    let fetch = |at_least| v1::FetchRequest { bank: "docs".into(), ids: vec![1], at_least, ..Default::default() };
    assert_eq!(live.client.fetch(fetch(first.clone())).await.unwrap().found.to_vec(), [1]);

    // The position of a write that has not come yet: of the same history, one further.
    let mut next = first.to_vec();
    next[8] += 1;
    let ahead = v1::SampleRequest { at_least: next.clone().into(), ..sample() };
    let late = live.client.with_timeout(Duration::from_millis(300)).sample(ahead.clone()).await;
    assert!(matches!(late, Err(ClientError::DeadlineExceeded(_))), "{late:?}");
    let client = live.client.clone();
    let waiter = tokio::spawn(async move { client.sample(ahead).await });
    tokio::time::sleep(Duration::from_millis(30)).await;
    let removal = live.client.remove(v1::RemoveRequest { bank: "docs".into(), ids: vec![9] }).await.unwrap();
    assert_eq!(removal.position, next, "a removal is a step of the history too");
    assert_eq!(waiter.await.unwrap().unwrap().sequence_first, 2);

    let malformed = live.client.fetch(fetch(vec![1, 2, 3].into())).await;
    let Err(ClientError::InvalidArgument { violations, .. }) = malformed else { panic!("{malformed:?}") };
    assert_eq!(violations[0].field, "at_least");
    live.client.delete_bank(v1::DeleteBankRequest { name: "docs".into() }).await.unwrap();
    live.create(keyed("docs", 2, 8)).await;
    let other = live.client.fetch(fetch(first)).await;
    assert!(matches!(other, Err(ClientError::FailedPrecondition(_))), "{other:?}");
}
