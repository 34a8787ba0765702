//! What lies among the banks and is none: it stops no server, and is not passed over in silence if it may have been a bank.

use std::fs;

use negbank::client::Code;
use negbank::proto::v1;

use crate::durable::bank_folder;
use crate::faults::{sequence, wide, write_wide};
use crate::strikes::Strikes;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_lies_among_the_banks_stops_no_server() {
    let (frail, strikes) = Strikes::quick();
    let (server, client) = frail.start().await;
    for bank in ["b", "renamed"] {
        client.create_bank(wide(bank, v1::Durability::Always)).await.unwrap();
        write_wide(&client, bank, 0, 3).await.unwrap();
    }
    drop(server);
    let (banks, folder) = (frail.disk("data/banks"), bank_folder(&frail.disk("data"), "renamed"));
    let copied = banks.join("renamed@ (copy)");
    fs::rename(&folder, &copied).unwrap();
    let hidden = [".nfs00000001", ".DS_Store"].map(|name| banks.join(name));
    hidden.iter().for_each(|path| fs::write(path, "x").unwrap());
    fs::write(banks.join("notes"), "x").unwrap();
    // What can't be removed is not taken at its word either.
    let left = banks.join(".new-0000000000000009");
    fs::create_dir(&left).unwrap();
    let there = bank_folder(&frail.disk("data"), "b");
    fs::write(left.join("replaces"), there.file_name().unwrap().to_str().unwrap()).unwrap();

    let strike = strikes.order(("unlink", "eio"), 1, "/.new-");
    let (server, client) = frail.start().await;
    assert!(strike.has_struck());
    drop(strike);
    assert_eq!(sequence(&client, "b").await, 1);
    let missing = client.get_bank(v1::GetBankRequest { name: "renamed".into() }).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
    let log = server.killed();
    let says = |level: &str, what: &str| log.lines().any(|line| line.contains(level) && line.contains(what));
    assert!(says("WARN", left.to_str().unwrap()), "{log}");
    assert!(says("ERROR", copied.to_str().unwrap()) && says("ERROR", banks.join("notes").to_str().unwrap()), "{log}");
    assert!(left.exists() && hidden.iter().all(|path| path.exists() && !log.contains(path.to_str().unwrap())), "{log}");

    fs::rename(&copied, &folder).unwrap();
    let (_server, client) = frail.start().await;
    assert!(!left.exists());
    assert_eq!((sequence(&client, "b").await, sequence(&client, "renamed").await), (1, 1));
}
