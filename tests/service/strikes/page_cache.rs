//! What the system takes for written after a sync that failed, and is not.

use negbank::proto::v1;

use super::{Strikes, scanned, wide, write};
use crate::cut::{Bytes, Names};
use crate::faults::{Frail, sequence};

/// After a sync that failed the system believes that the disk has what it was given. A record of which nobody knows whether it was kept is
/// in its cache, so the next server has it, and acknowledges it when it comes again: from then on no power cut may take it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_failed_sync_left_in_the_cache_only_is_written_again_before_it_is_acknowledged() {
    let (frail, strikes) = Strikes::on(Frail::powered(&["data", "checkpoints"]));
    let (server, client) = frail.start().await;
    client.create_bank(wide("b", v1::Durability::Always)).await.unwrap();
    for number in 0..3 {
        write(&client, "b", number).await.unwrap();
    }
    // One that goes past the cache can't be lost in it.
    let strike = strikes.order(("sync", "lose"), 1, "/log-");
    let refused = (write(&client, "b", 4).await, write(&client, "b", 4).await);
    assert!(strike.has_struck() && matches!(refused, (Err(_), Err(_))));
    drop((strike, server));

    let (server, client) = frail.start().await;
    assert_eq!(sequence(&client, "b").await, 4, "the cache has it");
    assert!(write(&client, "b", 4).await.unwrap().duplicate, "it is acknowledged");
    let before = scanned(&client, "b").await;
    frail.cut(server, Bytes::Gone, Names::AsSynced);

    let (_server, client) = frail.start().await;
    assert_eq!(sequence(&client, "b").await, 4, "what was acknowledged is lost");
    assert!(scanned(&client, "b").await == before);
}
