//! An end of a log that was not written whole, and is as long as a file of it may be.

use std::fs::{self, File};

use negbank::proto::v1;

use crate::durable::{logs, seen_of};
use crate::faults::{Frail, WIDE, wide, write_wide};

/// Bytes of an end that a power cut took: twice what a file of the log has by default.
const TAIL: u64 = 512 << 20;

/// What a recovery holds of it does not grow with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_end_that_is_dropped_takes_no_memory() {
    let frail = Frail::new();
    let (server, client) = frail.start().await;
    client.create_bank(wide("b", v1::Durability::Always)).await.unwrap();
    for number in 0..4 {
        write_wide(&client, "b", number, 3).await.unwrap();
    }
    let before = seen_of(&client, "b", WIDE as usize).await;
    drop((server, client));
    let path = logs(&frail.disk("data"), "b").pop().unwrap();
    let written = fs::metadata(&path).unwrap().len();
    // Zeros, of which the disk keeps none.
    File::options().write(true).open(&path).unwrap().set_len(written + TAIL).unwrap();

    let (server, client) = frail.start().await;
    assert!(seen_of(&client, "b", WIDE as usize).await == before);
    let peak = server.peak_memory() as u64;
    assert!(peak < TAIL / 2, "{} MiB for an end of {}", peak >> 20, TAIL >> 20);
    assert!(fs::metadata(&path).unwrap().len() < written + TAIL, "it was dropped");
    let log = server.killed();
    assert!(log.contains("was dropped") && log.contains(&format!("bytes={TAIL}")), "{log}");
}
