//! What the banks of formats.rs do not have, as an earlier version left it: rows of bf16 in a keyed bank of a capacity, writes of two
//! writers, staged writes, as a data folder (`tests/fixtures/varied-N/banks`) and as a checkpoint of the same moment (`checkpoints`).

use std::fs;
use std::path::Path;

use negbank::client::Client;
use negbank::proto::v1;

use crate::faults::checkpoint;
use crate::formats::{copy, fixtures, fixtures_of, new_fixture, told, write};
use crate::live::{Live, keyed};

/// The newest.
const VARIED: &str = "varied-1";
const TAG: &str = "20";

fn bank() -> v1::CreateBankRequest {
    v1::CreateBankRequest { dtype: v1::Dtype::Bf16.into(), capacity: 12, ..keyed("varied", 4, 3) }
}

/// A write of formats.rs, by one of two writers.
fn of(writer: &str, number: u64) -> v1::WriteRequest {
    let origin = v1::Origin { writer: writer.into(), incarnation: 9, number };
    v1::WriteRequest { origin: Some(origin), ..write("varied", number) }
}

fn staged(micro_batch: u32) -> v1::WriteRequest {
    let stage = v1::Stage { step: 30, micro_batch, rank: 0, world_size: 1 };
    v1::WriteRequest { stage: Some(stage), origin: None, step: None, ..write("varied", u64::from(micro_batch)) }
}

fn folders(of: &Path) -> [String; 2] {
    let named = |setting: &str, folder: &Path| format!("{setting}={}", folder.display());
    [named("durability.dir", of), named("checkpoints.location", &of.join("checkpoints"))]
}

async fn is_as_it_was(client: &Client, expected: &str) {
    assert_eq!(told(client, "varied").await, expected);
    for (writer, last) in [("w", 20), ("v", 12)] {
        assert!(client.write(of(writer, last)).await.unwrap().duplicate, "the last of {writer}");
    }
    let sequence = client.get_bank(v1::GetBankRequest { name: "varied".into() }).await.unwrap().sequence;
    // Micro-batch 1 may come: the bank knows of micro-batch 0.
    assert_eq!(client.write(staged(1)).await.unwrap().sequence, sequence + 1);
    let new = client.write(of("v", 13)).await.unwrap();
    assert!(!new.duplicate && new.sequence == sequence + 2, "{new:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_varied_bank_of_every_version_is_what_it_was_from_its_folder_and_from_its_checkpoint() {
    assert!(fixtures().join(VARIED).exists(), "`cargo test --test service -- varied_formats::write --ignored` makes it");
    for (fixture, dir) in fixtures_of("varied-") {
        let expected = fs::read_to_string(fixture.join("expected.txt")).unwrap();
        let settings = folders(dir.path());
        let live = Live::start(&[&settings[0], &settings[1]]).await;
        is_as_it_was(&live.client, &expected).await;
        let request = v1::RestoreCheckpointRequest { bank: "varied".into(), tag: TAG.into(), ..Default::default() };
        live.client.restore_checkpoint(request).await.unwrap().done().await.unwrap();
        is_as_it_was(&live.client, &expected).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "writes the fixture of a new format"]
async fn write_a_varied_bank() {
    let fixture = new_fixture(VARIED);
    let dir = tempfile::tempdir().unwrap();
    let [data, checkpoints] = folders(dir.path());
    let settings = [&*data, &checkpoints, "durability.segment_bytes=4096", "durability.snapshot_log_bytes=4096"];
    let live = Live::start(&settings).await;
    live.create(bank()).await;
    for number in 1..=20 {
        live.client.write(of("w", number)).await.unwrap();
        if number <= 12 {
            live.client.write(of("v", number)).await.unwrap();
        }
    }
    live.client.remove(v1::RemoveRequest { bank: "varied".into(), ids: vec![3, 5] }).await.unwrap();
    live.client.write(staged(0)).await.unwrap();
    checkpoint(&live.client, "varied", TAG).await.unwrap();
    let expected = told(&live.client, "varied").await;
    drop(live);
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    for folder in ["banks", "checkpoints"] {
        copy(&dir.path().join(folder), &fixture.join(folder));
    }
    fs::write(fixture.join("expected.txt"), expected).unwrap();
}
