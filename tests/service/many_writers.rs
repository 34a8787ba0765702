//! Writers beside each other, whose writes are logged ahead of what is applied: the disk fails, or the power goes, while some are under way.

use std::collections::BTreeMap;
use std::time::Duration;

use negbank::client::{Client, ClientError, Code, rows};
use negbank::model::clock;
use negbank::proto::v1;
use tokio::task::JoinHandle;

use crate::cut::{Bytes, Names};
use crate::durable::seen_of;
use crate::faults::{Frail, WIDE, sequence, wide};
use crate::power::UNSYNCED;

const WRITERS: u64 = 8;
const LONGEST: Duration = Duration::from_secs(60);

/// A write of a writer, from 1 on; every fifth is large enough to go past the page cache.
async fn write(client: &Client, writer: u64, number: u64) -> Result<v1::WriteResponse, ClientError> {
    let count = if (writer + number).is_multiple_of(5) { 400 } else { 1 + number % 3 };
    let request = v1::WriteRequest {
        bank: "b".into(),
        ids: (0..count).map(|row| writer * 1_000 + (number * 7 + row) % 900).collect(),
        embeddings: Some(rows(&vec![number as f32; (count * u64::from(WIDE)) as usize])),
        origin: Some(v1::Origin { writer: format!("w{writer}"), incarnation: 1, number }),
        ..Default::default()
    };
    client.write(request).await
}

/// The sequence of each number that was acknowledged, and what ended it.
type Written = (BTreeMap<u64, u64>, ClientError);

fn writing(client: &Client) -> Vec<JoinHandle<Written>> {
    let write_all = |writer| {
        let client = client.clone();
        tokio::spawn(async move {
            let mut acknowledged = BTreeMap::new();
            for number in 1.. {
                match write(&client, writer, number).await {
                    Ok(done) => acknowledged.insert(number, done.sequence),
                    Err(refused) => return (acknowledged, refused),
                };
            }
            unreachable!("it writes until it is refused")
        })
    };
    (0..WRITERS).map(write_all).collect()
}

async fn until_written(client: &Client, wanted: u64) {
    let began = clock::now();
    while sequence(client, "b").await < wanted {
        assert!(began.elapsed() < LONGEST, "{wanted} were never written");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn ended(writing: Vec<JoinHandle<Written>>) -> Vec<Written> {
    let mut written = Vec::new();
    for writing in writing {
        written.push(writing.await.unwrap());
    }
    written
}

/// What the bank has is the first of its writes: of each writer its first, all that were acknowledged up to `kept`, and at most one that was
/// not. Each comes again, and is known; what the next brings is new.
async fn check_prefix(client: &Client, written: &[Written], kept: u64) {
    let mut found = 0;
    for (writer, (acknowledged, _)) in (0..).zip(written) {
        let expected = acknowledged.values().filter(|&&sequence| sequence <= kept).count() as u64;
        let mut number = 1;
        while write(client, writer, number).await.unwrap().duplicate {
            number += 1;
        }
        let there = number - 1;
        assert!((expected..=expected + 1).contains(&there), "w{writer}: {there} are there, {expected} were acknowledged");
        assert!(there <= acknowledged.len() as u64 + 1, "w{writer}: {there}");
        found += there;
    }
    assert_eq!(found, kept, "each has its place in the bank's one order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fails_while_many_write_loses_none_that_was_acknowledged() {
    for durability in [v1::Durability::Always, v1::Durability::Interval] {
        let frail = Frail::new();
        let (server, client) = frail.start().await;
        client.create_bank(wide("b", durability)).await.unwrap();
        let writing = writing(&client);
        until_written(&client, 120).await;
        frail.fail("full", true);
        let written = ended(writing).await;
        frail.fail("full", false);
        for (acknowledged, refused) in &written {
            let told = refused.code() == Code::FailedPrecondition && refused.to_string().contains("No space left");
            assert!(told && !acknowledged.is_empty(), "{refused}");
        }
        let applied: u64 = written.iter().map(|(acknowledged, _)| acknowledged.len() as u64).sum();
        assert_eq!(sequence(&client, "b").await, applied, "what was refused is not seen");
        let before = seen_of(&client, "b", WIDE as usize).await;
        drop(server);
        let (_server, client) = frail.start().await;
        let kept = sequence(&client, "b").await;
        // What was logged of a group that failed may be there.
        assert!((applied..=applied + WRITERS).contains(&kept), "{kept} of {applied}");
        assert!(kept > applied || seen_of(&client, "b", WIDE as usize).await.1 == before.1);
        check_prefix(&client, &written, kept).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_while_many_write_leaves_the_first_of_their_writes() {
    for (durability, bytes) in [
        (v1::Durability::Always, Bytes::Gone),
        (v1::Durability::Always, Bytes::Holes),
        (v1::Durability::Interval, Bytes::Half),
        (v1::Durability::Interval, Bytes::Holes),
    ] {
        let frail = Frail::powered(&["data", "checkpoints"]);
        let (server, client) = frail.start_with(&UNSYNCED).await;
        client.create_bank(wide("b", durability)).await.unwrap();
        let writing = writing(&client);
        until_written(&client, 120).await;
        frail.cut(server, bytes, Names::AsSynced);
        let written = ended(writing).await;
        let acknowledged: u64 = written.iter().map(|(acknowledged, _)| acknowledged.len() as u64).sum();
        let (_server, client) = frail.start_with(&UNSYNCED).await;
        let kept = sequence(&client, "b").await;
        assert!(kept <= acknowledged + WRITERS, "{kept} of {acknowledged}");
        assert!(durability != v1::Durability::Always || kept >= acknowledged, "{kept} of {acknowledged}");
        check_prefix(&client, &written, kept).await;
    }
}

/// The second comes while the first is logged, or applied, or after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_comes_twice_beside_others_is_applied_once() {
    let frail = Frail::new();
    let (_server, client) = frail.start().await;
    client.create_bank(wide("b", v1::Durability::Interval)).await.unwrap();
    for number in 1..40 {
        let twice = (0..WRITERS).flat_map(|writer| [writer; 2]).map(|writer| {
            let client = client.clone();
            tokio::spawn(async move { write(&client, writer, number).await.unwrap() })
        });
        let mut answers = Vec::new();
        for answer in twice.collect::<Vec<_>>() {
            answers.push(answer.await.unwrap());
        }
        for pair in answers.chunks(2) {
            assert_eq!(pair[0].sequence, pair[1].sequence);
            assert!(pair[0].duplicate != pair[1].duplicate, "{pair:?}");
        }
        assert_eq!(sequence(&client, "b").await, number * WRITERS);
    }
}
