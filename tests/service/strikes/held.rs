//! Banks that could be neither made nor taken back: until a restart tells which of them there is, their names are taken.

use std::fs;
use std::path::Path;

use negbank::client::{Client, ClientError, Code, ScanColumns};
use negbank::proto::v1;

use super::{Strikes, names, scanned, unharmed, wide, write};
use crate::faults::{Frail, checkpoint, restore_into};

/// Writes that the checkpoint is of, and those of a bank that it is restored into.
const MADE: u64 = 4;
const THERE: u64 = 2;

fn of(name: &str) -> v1::GetBankRequest {
    v1::GetBankRequest { name: name.into() }
}

fn folders(data: &Path, bank: &str) -> Vec<String> {
    names(&data.join("banks")).into_iter().filter(|name| name.starts_with(&format!("{bank}@"))).collect()
}

/// The folder gets its name, the name can't be synced, and neither can it be taken away again.
async fn fail_twice<T>(
    (frail, strikes): (&Frail, &Strikes),
    bank: &str,
    call: impl Future<Output = Result<T, ClientError>>,
) -> ClientError {
    let back = strikes.order(("rename", "eio"), 2, &format!("/{bank}@"));
    fs::write(frail.faults("folder"), "banks").unwrap();
    let failed = call.await.map(drop).expect_err("the name can't be synced");
    assert!(back.has_struck(), "{bank}: {failed}");
    frail.fail("folder", false);
    failed
}

/// Nothing is served by that name, and nothing can take it.
async fn is_held(client: &Client, bank: &str, failed: &ClientError) {
    let create = client.create_bank(wide(bank, v1::Durability::Always)).await.map(drop);
    let memory = client.create_bank(wide(bank, v1::Durability::Memory)).await.map(drop);
    let get = client.get_bank(of(bank)).await.map(drop);
    let write = write(client, bank, THERE).await.map(drop);
    for refused in [create.unwrap_err(), memory.unwrap_err(), get.unwrap_err(), write.unwrap_err()].iter().chain([failed]) {
        let says = refused.to_string();
        assert!(refused.code() == Code::FailedPrecondition && says.contains("Input/output error"), "{bank}: {says}");
        assert!(says.contains("restart the server once the system is well, or delete the bank"), "{bank}: {says}");
    }
}

/// The bank is what so many writes made, and goes on.
async fn goes_on(client: &Client, bank: &str, there: u64, unharmed: &[Vec<ScanColumns>]) {
    assert!(scanned(client, bank).await == unharmed[there as usize], "{bank}: other rows than {there} writes make");
    assert!(!write(client, bank, there).await.unwrap().duplicate, "{bank}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bank_that_could_be_neither_made_nor_taken_back_keeps_its_name_until_the_restart() {
    let (frail, strikes) = Strikes::on(Frail::new());
    let (server, client) = frail.start().await;
    let data = frail.disk("data");
    let unharmed = unharmed(&client).await;
    client.create_bank(wide("source", v1::Durability::Memory)).await.unwrap();
    for number in 0..MADE {
        write(&client, "source", number).await.unwrap();
    }
    checkpoint(&client, "source", "4").await.unwrap();
    let mut old = Vec::new();
    for kind in ["replaced", "restored", "made"] {
        for then in ["left", "deleted", "mended"] {
            let bank = format!("{kind}-{then}");
            let failed = match kind {
                "replaced" => {
                    client.create_bank(wide(&bank, v1::Durability::Always)).await.unwrap();
                    for number in 0..THERE {
                        write(&client, &bank, number).await.unwrap();
                    }
                    old.push(folders(&data, &bank).remove(0));
                    fail_twice((&frail, &strikes), &bank, restore_into(&client, "source", "4", &bank)).await
                }
                "restored" => fail_twice((&frail, &strikes), &bank, restore_into(&client, "source", "4", &bank)).await,
                _ => {
                    let made = client.create_bank(wide(&bank, v1::Durability::Always));
                    fail_twice((&frail, &strikes), &bank, made).await
                }
            };
            is_held(&client, &bank, &failed).await;
            assert_eq!(folders(&data, &bank).len(), if kind == "replaced" { 2 } else { 1 }, "{bank}");
            match then {
                "deleted" => {
                    client.delete_bank(v1::DeleteBankRequest { name: bank.clone() }).await.unwrap();
                    client.create_bank(wide(&bank, v1::Durability::Always)).await.unwrap();
                    goes_on(&client, &bank, 0, &unharmed).await;
                }
                "mended" => {
                    restore_into(&client, "source", "4", &bank).await.unwrap();
                    goes_on(&client, &bank, MADE, &unharmed).await;
                }
                _ => {}
            }
        }
    }
    drop((server, client));

    // Where the one can't take the place of the other even now, neither is served, and the others are.
    let in_the_way = data.join("banks").join(format!(".gone-{}", old[0]));
    fs::write(&in_the_way, "a file of another program's").unwrap();
    let (server, client) = frail.start().await;
    let refused = client.get_bank(of("replaced-left")).await.unwrap_err();
    let says = refused.to_string();
    assert!(refused.code() == Code::FailedPrecondition && says.contains("take the place of another bank"), "{says}");
    assert_eq!(folders(&data, "replaced-left").len(), 2);
    fs::remove_file(in_the_way).unwrap();
    drop((server, client));

    for life in 0..2 {
        let (_server, client) = frail.start().await;
        for kind in ["replaced", "restored", "made"] {
            for (then, there) in [("left", if kind == "made" { 0 } else { MADE }), ("deleted", 1), ("mended", MADE + 1)] {
                let bank = format!("{kind}-{then}");
                assert_eq!(folders(&data, &bank).len(), 1, "{bank}, life {life}");
                if life == 0 {
                    goes_on(&client, &bank, there, &unharmed).await;
                } else {
                    assert!(scanned(&client, &bank).await == unharmed[there as usize + 1], "{bank}: other rows");
                }
            }
        }
    }
}
