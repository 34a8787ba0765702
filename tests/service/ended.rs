//! A server that ends by itself leaves nothing behind that a power cut could take.

use negbank::client::Client;
use negbank::proto::v1;

use crate::cut::{Bytes, Names};
use crate::durable::seen_of;
use crate::faults::{Frail, WIDE, sequence, wide, write_wide};
use crate::power::UNSYNCED;

const WRITES: u64 = 5;

/// One small write, which goes into the page cache, and large ones, which go past it.
async fn write_all(client: &Client) {
    for number in 0..WRITES {
        write_wide(client, "b", number, if number == 2 { 3 } else { 300 }).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_server_has_synced_what_it_acknowledged_and_a_killed_one_had_not() {
    for is_drained in [true, false] {
        let frail = Frail::powered(&["data", "checkpoints"]);
        let (server, client) = frail.start_with(&UNSYNCED).await;
        client.create_bank(wide("b", v1::Durability::Interval)).await.unwrap();
        write_all(&client).await;
        let before = seen_of(&client, "b", WIDE as usize).await;
        drop(client);
        if is_drained {
            let (code, log) = server.ended_by("-TERM").await;
            assert_eq!(code, Some(0), "{log}");
        } else {
            drop(server);
        }
        frail.lose(Bytes::Gone, Names::AsSynced);
        let (_server, client) = frail.start_with(&UNSYNCED).await;
        assert_eq!(sequence(&client, "b").await, if is_drained { WRITES } else { 0 });
        if is_drained {
            assert!(seen_of(&client, "b", WIDE as usize).await == before);
        }
    }
}
