//! Writes that change more rows than a copy of the bank may lay aside: the copy fails, no write does, and another is made.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use negbank::client::{Client, ClientError};
use negbank::model::clock;
use negbank::proto::v1;

use crate::durable::{bank_folder, seen_of};
use crate::faults::{Frail, WIDE, checkpoint, listed, sequence, wide, write_wide};
use crate::probes::{free, get, value};

/// The least that may be set: of rows of 1 KiB it is as many as a write of [`ROWS`] passes.
const LEAST: usize = 64 << 10;
const ROWS: u64 = 1_000;

const LONGEST: Duration = Duration::from_secs(60);

/// Somebody who writes without a pause, most of a bank's rows of 1 KiB each time.
struct Writing {
    stop: Arc<AtomicBool>,
    writing: tokio::task::JoinHandle<u64>,
}

impl Writing {
    fn start(client: &Client, from: u64) -> Self {
        let (stop, client) = (Arc::new(AtomicBool::new(false)), client.clone());
        let until = Arc::clone(&stop);
        let writing = tokio::spawn(async move {
            let mut number = from;
            while !until.load(Ordering::Relaxed) {
                write_wide(&client, "b", number, ROWS).await.expect("no write fails for a copy");
                number += 1;
            }
            number
        });
        Self { stop, writing }
    }

    /// The number of the next write.
    async fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.writing.await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_that_writes_overtake_is_none_and_the_next_is_whole() {
    let frail = Frail::new();
    let (_server, client) = frail.start_with(&[&format!("checkpoints.memory_bytes={LEAST}")]).await;
    client.create_bank(wide("b", v1::Durability::Memory)).await.unwrap();
    for number in 0..5 {
        write_wide(&client, "b", number, ROWS).await.unwrap();
    }
    let writing = Writing::start(&client, 5);
    let began = clock::now();
    let (mut made, mut attempts) = (Vec::new(), 0);
    let refused = loop {
        attempts += 1;
        let tag = format!("attempt-{attempts}");
        match checkpoint(&client, "b", &tag).await {
            Ok(checkpoint) => made.push(checkpoint.tag),
            Err(refused) => break refused,
        }
        assert!(began.elapsed() < LONGEST, "{attempts} checkpoints outran the writes");
    };
    let ClientError::ResourceExhausted { message, .. } = &refused else { panic!("{refused}") };
    let reason =
        format!("more than {LEAST} bytes of rows were written before they were copied (setting checkpoints.memory_bytes)");
    assert!(message.contains(&reason), "{message}");
    let number = writing.end().await;
    let tags = |of: Vec<v1::Checkpoint>| of.into_iter().map(|checkpoint| checkpoint.tag).collect::<Vec<_>>();
    let listed_now = tags(listed(&client).await);
    assert_eq!(listed_now.len(), made.len(), "{listed_now:?}");
    assert!(!listed_now.contains(&format!("attempt-{attempts}")), "{listed_now:?}");
    // Its tag is free, and nothing of it lies aside any more.
    let whole = checkpoint(&client, "b", &format!("attempt-{attempts}")).await.unwrap();
    let about = client.get_bank(v1::GetBankRequest { name: "b".into() }).await.unwrap();
    assert_eq!((whole.entries, whole.sequence), (about.entries, number));
}

fn bytes(folder: &Path) -> u64 {
    fs::read_dir(folder).unwrap().flatten().map(|entry| entry.metadata().map_or(0, |file| file.len())).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_wait_for_the_snapshot_after_one_that_they_overtook() {
    let frail = Frail::new();
    let http = free();
    let settings = [
        &format!("http.listen={http}"),
        &format!("durability.snapshot_memory_bytes={LEAST}"),
        "durability.segment_bytes=1000000",
        "durability.snapshot_log_bytes=1000000",
    ];
    let (server, client) = frail.start_with(&settings).await;
    client.create_bank(wide("b", v1::Durability::Interval)).await.unwrap();
    let writing = Writing::start(&client, 0);
    let until = async |wanted: f64| {
        let began = clock::now();
        while (value(&get(http, "/metrics").1, "negbank_snapshot_failed{bank=\"b\"}") - wanted).abs() > 1e-9 {
            assert!(began.elapsed() < LONGEST, "negbank_snapshot_failed never came to {wanted}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    until(1.0).await;
    // Nobody has stopped writing.
    until(0.0).await;
    let began = clock::now();
    let (mut most, from) = (0, sequence(&client, "b").await);
    // However much is written, as much lies on disk as some snapshots and logs.
    while sequence(&client, "b").await < from + 80 {
        assert!(began.elapsed() < LONGEST, "80 writes never came");
        most = most.max(bytes(&bank_folder(&frail.disk("data"), "b")));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    writing.end().await;
    let bank = 2_500 * (u64::from(WIDE) * 4 + 69);
    assert!(most <= 16 * bank, "{most} bytes on disk for {bank} of the bank");
    let before = seen_of(&client, "b", WIDE as usize).await;
    drop(server);
    let (_server, client) = frail.start_with(&settings).await;
    assert!(seen_of(&client, "b", WIDE as usize).await == before);
}
