//! A restore over a bank that fails, and whose way back fails as well.

use negbank::client::{Client, Code};
use negbank::proto::v1;

use crate::faults::{checkpoint, restore_into, sequence, wide, write_wide};
use crate::strikes::{Fault, Strikes};

/// The new folder gets its name, and nobody can be sure of that.
const NAMED: (Fault, u64) = (("rename", "after"), 1);
/// It can't be given up again.
const NOT_UNNAMED: (Fault, u64) = (("rename", "eio"), 2);
/// Given up, it goes on saying which folder it replaces.
const NOT_UNSAID: (Fault, u64) = (("unlink", "eio"), 1);

async fn about(client: &Client, bank: &str) -> Result<v1::Bank, Code> {
    client.get_bank(v1::GetBankRequest { name: bank.into() }).await.map_err(|refused| refused.code())
}

/// A bank that goes on acknowledging is there after the next start; one that the next start may remove leaves service.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_can_not_be_taken_back_takes_no_bank_that_is_written_on() {
    let (frail, strikes) = Strikes::quick();
    let (server, client) = frail.start().await;
    client.create_bank(wide("source", v1::Durability::Always)).await.unwrap();
    for number in 0..5 {
        write_wide(&client, "source", number, 1).await.unwrap();
    }
    checkpoint(&client, "source", "1").await.unwrap();
    let cases = [
        ("unnamed", vec![(NAMED, "/unnamed@"), (NOT_UNSAID, "/.new-")]),
        ("lost", vec![(NAMED, "/lost@"), (NOT_UNNAMED, "/lost@")]),
    ];
    for (bank, faults) in cases {
        client.create_bank(wide(bank, v1::Durability::Always)).await.unwrap();
        write_wide(&client, bank, 0, 1).await.unwrap();
        let orders: Vec<_> = faults.into_iter().map(|((fault, n), pattern)| strikes.order(fault, n, pattern)).collect();
        let refused = restore_into(&client, "source", "1", bank).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{bank}: {refused}");
        assert!(orders.iter().all(|order| order.has_struck()), "{bank}");
        drop(orders);
        if bank == "lost" {
            assert_eq!(about(&client, bank).await, Err(Code::FailedPrecondition), "what is written to it would be lost");
            assert_eq!(write_wide(&client, bank, 1, 1).await.unwrap_err().code(), Code::FailedPrecondition);
        } else {
            assert_eq!(write_wide(&client, bank, 1, 1).await.unwrap().sequence, 2, "{bank}");
        }
    }
    drop(server);

    let (_server, client) = frail.start().await;
    assert_eq!(sequence(&client, "unnamed").await, 2);
    assert_eq!(sequence(&client, "lost").await, 5, "it is what the checkpoint was");
}
