//! Snapshots that the disk keeps from being taken: nothing is lost, and whoever looks is told until one is.

use std::time::{Duration, Instant};

use negbank::model::clock;
use negbank::proto::v1;

use crate::durable::seen_of;
use crate::faults::{WIDE, wide, write_wide};
use crate::probes::{free, get, value};
use crate::strikes::Strikes;

const TOLD: &str = "bank b: its log grows, since no snapshot of it could be taken: ";
const SERIES: &str = "negbank_snapshot_failed{bank=\"b\"}";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_is_not_taken_is_told_of_until_one_is() {
    let (frail, strikes) = Strikes::quick();
    let http = free();
    let settings = [&format!("http.listen={http}"), "durability.segment_bytes=200000", "durability.snapshot_log_bytes=250000"];
    let (server, client) = frail.start_with(&settings).await;
    for (name, durability) in [("b", v1::Durability::Always), ("memory", v1::Durability::Memory)] {
        client.create_bank(wide(name, durability)).await.unwrap();
    }
    let strike = strikes.order(("rename", "eio"), 1, "/.snapshot-");
    let mut number = 0;
    for is_wrong in [true, false] {
        let began: Instant = clock::now();
        let ready = loop {
            write_wide(&client, "b", number, 100).await.unwrap();
            number += 1;
            let (code, ready) = get(http, "/readyz");
            assert_eq!(code, 200, "{ready}");
            if ready.contains(TOLD) == is_wrong {
                break ready;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "{ready}");
        };
        assert!(strike.has_struck());
        assert_eq!(ready.contains("Input/output error"), is_wrong, "{ready}");
        let metrics = get(http, "/metrics").1;
        assert!((value(&metrics, SERIES) - f64::from(u8::from(is_wrong))).abs() < 1e-9, "{metrics}");
        assert!(!metrics.contains("negbank_snapshot_failed{bank=\"memory\"}"), "nothing of it is kept");
    }
    let before = seen_of(&client, "b", WIDE as usize).await;
    drop(server);
    let (_server, client) = frail.start_with(&settings).await;
    assert!(seen_of(&client, "b", WIDE as usize).await == before);
}
