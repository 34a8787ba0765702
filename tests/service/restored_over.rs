//! What a checkpoint may take the place of, and how its bank is kept then; and what no checkpoint is made of.

use std::fs;
use std::path::Path;
use std::time::Duration;

use negbank::client::{Client, Code, rows};
use negbank::proto::v1;

use crate::durable::bank_folder;
use crate::faults::{checkpoint, listed, restore_into};
use crate::live::{Live, keyed};

const ALWAYS: i32 = v1::Durability::Always as i32;

/// A server that keeps banks and checkpoints in `dir`.
async fn served(dir: &Path, settings: &[&str]) -> Live {
    let data = format!("durability.dir={}", dir.join("data").display());
    let kept = format!("checkpoints.location={}", dir.join("checkpoints").display());
    Live::start(&[&[data.as_str(), kept.as_str()], settings].concat()).await
}

/// Banks of two dimensions, each written synced, with a checkpoint, and then once more.
async fn filled(live: &Live) {
    for (name, dim) in [("wide", 4), ("narrow", 2)] {
        live.create(v1::CreateBankRequest { durability: ALWAYS, ..keyed(name, dim, 1) }).await;
        write(&live.client, name, dim, 1).await;
        write(&live.client, name, dim, 2).await;
        checkpoint(&live.client, name, "1").await.unwrap();
        write(&live.client, name, dim, 3).await;
    }
}

async fn write(client: &Client, bank: &str, dim: u32, id: u64) {
    let embeddings = Some(rows(&vec![id as f32; dim as usize]));
    client.write(v1::WriteRequest { bank: bank.into(), ids: vec![id], embeddings, ..Default::default() }).await.unwrap();
}

/// The server's next life, after a bit of a file of the bank `wide` was changed, in the middle of it.
async fn spoiled(dir: &Path, file: &str, settings: &[&str]) -> Live {
    filled(&served(dir, &[]).await).await;
    // Until the folder is free.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut files = fs::read_dir(bank_folder(&dir.join("data"), "wide")).unwrap().map(|entry| entry.unwrap().path());
    let path = files.find(|path| path.file_name().unwrap().to_str().unwrap().starts_with(file)).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(path, bytes).unwrap();
    served(dir, settings).await
}

async fn restored(client: &Client, bank: &str, into: &str, durability: v1::Durability) -> Result<v1::Bank, (Code, String)> {
    let request = v1::RestoreCheckpointRequest {
        bank: bank.into(),
        into: into.into(),
        durability: durability.into(),
        ..Default::default()
    };
    let told = |fault: negbank::client::ClientError| (fault.code(), fault.to_string());
    let done = client.restore_checkpoint(request).await.map_err(told)?.done().await.map_err(told)?;
    Ok(done.restored.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bank_that_can_not_be_read_is_replaced_by_its_like_and_kept_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let live = spoiled(dir.path(), "log-", &[]).await;
    let files = || fs::read_dir(bank_folder(&dir.path().join("data"), "wide")).unwrap().count();
    let before = files();
    let refused = live.client.get_bank(v1::GetBankRequest { name: "wide".into() }).await.unwrap_err();
    assert_eq!(refused.code(), Code::DataLoss, "{refused}");

    let (code, said) = restored(&live.client, "narrow", "wide", v1::Durability::Unspecified).await.unwrap_err();
    assert!(code == Code::AlreadyExists && said.contains("dim is 4, not 2"), "{said}");
    assert_eq!(files(), before, "nothing is changed");
    let bank = restored(&live.client, "wide", "", v1::Durability::Unspecified).await.unwrap();
    assert_eq!((bank.sequence, bank.durability()), (2, v1::Durability::Always), "as its writes were kept before");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_the_place_of_a_bank_whose_settings_are_lost_somebody_must_say_them() {
    let dir = tempfile::tempdir().unwrap();
    let live = spoiled(dir.path(), "bank", &[]).await;
    let (code, said) = restored(&live.client, "wide", "", v1::Durability::Unspecified).await.unwrap_err();
    assert!(code == Code::InvalidArgument && said.contains("durability"), "{said}");
    let bank = restored(&live.client, "wide", "", v1::Durability::Interval).await.unwrap();
    assert_eq!((bank.sequence, bank.durability()), (2, v1::Durability::Interval));
}

/// Kept by number, such checkpoints would push out the whole ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_checkpoint_is_made_of_a_bank_that_lacks_what_was_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let live = spoiled(dir.path(), "log-", &["durability.damaged=read_only"]).await;
    let about = live.client.get_bank(v1::GetBankRequest { name: "wide".into() }).await.unwrap();
    assert!(about.damage.is_some() && about.sequence < 3, "{about:?}");
    let before = listed(&live.client).await;
    let refused = checkpoint(&live.client, "wide", "2").await.unwrap_err();
    assert!(refused.code() == Code::FailedPrecondition && refused.to_string().contains("log-"), "{refused}");
    assert_eq!(listed(&live.client).await, before);
    assert_eq!(restore_into(&live.client, "wide", "1", "").await.unwrap().sequence, 2, "and one takes its place");
    checkpoint(&live.client, "wide", "2").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_checkpoint_is_the_last_that_was_made_though_the_clock_was_set_back() {
    let dir = tempfile::tempdir().unwrap();
    let live = served(dir.path(), &[]).await;
    live.create(keyed("b", 2, 1)).await;
    for (tag, id) in [("a", 1), ("b", 2)] {
        write(&live.client, "b", 2, id).await;
        checkpoint(&live.client, "b", tag).await.unwrap();
    }
    drop(live);
    tokio::time::sleep(Duration::from_secs(1)).await;
    // A day ahead; without the checksum of the manifest, which those of version 1 may lack.
    let manifest = dir.path().join("checkpoints/b/b/manifest.json");
    let mut value: serde_json::Value = serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
    let fields = value.as_object_mut().unwrap();
    fields.remove("manifest_crc32").unwrap();
    fields.insert("version".into(), 1.into());
    let ahead = fields["created_unix_ms"].as_u64().unwrap() + 86_400_000;
    fields.insert("created_unix_ms".into(), ahead.into());
    fs::write(&manifest, value.to_string()).unwrap();

    let live = served(dir.path(), &["checkpoints.keep=2"]).await;
    for (tag, id) in [("c", 3), ("d", 4)] {
        write(&live.client, "b", 2, id).await;
        checkpoint(&live.client, "b", tag).await.unwrap();
    }
    let tags: Vec<String> = listed(&live.client).await.into_iter().map(|made| made.tag).collect();
    assert_eq!(tags, ["c", "d"], "the last two are kept");
    assert_eq!(restore_into(&live.client, "b", "", "").await.unwrap().sequence, 4);
}
