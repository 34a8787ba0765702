//! Files that are not as they were written, a bit or their end: refused by name, or the bank is exactly the right one.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use negbank::client::{Client, ClientError, Code, ScanColumns, rows};
use negbank::model::{Seed, clock};
use negbank::proto::v1;

use crate::durable::{bank_folder, seen_of};
use crate::faults::{checkpoint, listed, restore_into};
use crate::live::{Live, keyed, random_rows};

const DIM: usize = 12;

/// All that can be seen of a bank, but its name and durability, and that it may lack writes: with all that there were, none can be missing.
async fn seen(client: &Client, bank: &str) -> (v1::Bank, Vec<ScanColumns>, Vec<v1::SampleResponse>) {
    let (about, chunks, answers) = seen_of(client, bank, DIM).await;
    assert!(about.lost_after.is_none_or(|last| last == about.sequence), "{about:?}");
    (v1::Bank { name: String::new(), durability: 0, lost_after: None, ..about }, chunks, answers)
}

async fn written(live: &Live, bank: &str) {
    live.create(keyed(bank, DIM as u32, 2)).await;
    let mut random = Seed(9).stream(0, 0);
    for number in 0..8u64 {
        let ids: Vec<u64> = (0..20).map(|_| random.below(90)).collect();
        let request = v1::WriteRequest {
            bank: bank.into(),
            embeddings: Some(rows(&random_rows(&mut random, ids.len(), DIM))),
            labels: ids.iter().map(|id| (id % 5) as i64).collect(),
            groups: ids.iter().map(|id| id / 3).collect(),
            weights: ids.iter().map(|id| *id as f32 / 7.0).collect(),
            ids,
            step: Some(number),
            origin: Some(v1::Origin { writer: "w".into(), incarnation: 4, number: number + 1 }),
            ..Default::default()
        };
        live.client.write(request).await.unwrap();
    }
}

/// What becomes of a file.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Damage {
    /// Of the byte at this offset one bit is another.
    Flip(usize),
    /// It is only so long.
    Cut(usize),
    /// So many zeros follow.
    Zeros(usize),
}

impl Damage {
    /// Of a file of this length: each of its first and last bytes, and `spread` places between them.
    pub(crate) fn all(len: usize, spread: usize) -> Vec<Self> {
        let between = (0..spread).map(|number| (number * len + len / 2) / spread);
        let places: BTreeSet<usize> =
            (0..64).chain(between).chain(len.saturating_sub(16)..len).filter(|&at| at < len).collect();
        let flips = places.iter().map(|&at| Self::Flip(at));
        let cuts = places.iter().filter(|&&at| at < 8 || at % 3 == 0 || at + 4 > len).map(|&at| Self::Cut(at));
        flips.chain(cuts).chain([8, 100, 5_000].map(Self::Zeros)).collect()
    }

    pub(crate) fn of(self, content: &[u8]) -> Vec<u8> {
        let mut damaged = content.to_vec();
        match self {
            Self::Flip(at) => damaged[at] ^= 1 << (at % 8),
            Self::Cut(len) => damaged.truncate(len),
            Self::Zeros(count) => damaged.resize(content.len() + count, 0),
        }
        damaged
    }
}

fn file_of(folder: &Path, prefix: &str) -> PathBuf {
    let mut files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.find(|path| path.file_name().unwrap().to_str().unwrap().starts_with(prefix)).unwrap()
}

/// What stands where the damage is.
fn text_around(content: &[u8], damage: Damage) -> String {
    let (Damage::Flip(at) | Damage::Cut(at) | Damage::Zeros(at)) = damage;
    let damaged = damage.of(content);
    let around = at.saturating_sub(16).min(damaged.len())..(at + 4).min(damaged.len());
    String::from_utf8_lossy(&damaged[around]).into_owned()
}

/// Says what the checkpoint is, and why it can't be read.
fn is_named(refused: &ClientError) -> bool {
    matches!(refused.code(), Code::DataLoss | Code::FailedPrecondition)
        && (refused.to_string().contains("checkpoint 1 of bank b")
            || refused.to_string().contains("bank b has no checkpoint 1"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_checkpoint_is_refused_or_restored_exactly() {
    let (dir, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let settings =
        [format!("checkpoints.location={}", dir.path().display()), format!("durability.dir={}", data.path().display())];
    let live = Live::start(&settings.each_ref().map(String::as_str)).await;
    let client = &live.client;
    written(&live, "b").await;
    let made = checkpoint(client, "b", "1").await.unwrap();
    let right = seen(client, "b").await;
    let about = client.get_bank(v1::GetBankRequest { name: "b".into() }).await.unwrap();
    let folder = dir.path().join("b/1");
    for (prefix, spread) in [("bank-", 90), ("manifest.json", 400)] {
        let path = file_of(&folder, prefix);
        let content = fs::read(&path).unwrap();
        let (mut refusals, mut restored) = (0, Vec::new());
        for damage in Damage::all(content.len(), spread) {
            fs::write(&path, damage.of(&content)).unwrap();
            for listed in listed(client).await {
                assert_eq!((listed.bank.as_str(), listed.tag.as_str()), ("b", "1"), "{damage:?}");
            }
            match restore_into(client, "b", "1", "other").await {
                Ok(_) => {
                    restored.push((damage, text_around(&content, damage)));
                    assert!(seen(client, "other").await == right, "restored as another bank: {restored:?}");
                    client.delete_bank(v1::DeleteBankRequest { name: "other".into() }).await.unwrap();
                }
                Err(refused) => {
                    refusals += 1;
                    assert!(is_named(&refused), "{prefix}: {damage:?}: {:?}: {refused}", refused.code());
                    // Nor does it take the place of the bank that there is.
                    let again = restore_into(client, "b", "1", "").await.unwrap_err();
                    assert!(is_named(&again) || again.code() == Code::AlreadyExists, "{prefix}: {damage:?}: {again}");
                }
            }
            assert_eq!(client.list_banks().await.unwrap().banks, std::slice::from_ref(&about), "{prefix}: {damage:?}");
        }
        fs::write(&path, &content).unwrap();
        assert!(refusals > 100, "{prefix}: {refusals}");
        // Every byte counts, but for spaces between a manifest's words.
        let harmless = |(damage, _): &(Damage, String)| matches!(damage, Damage::Flip(at) if content[*at].is_ascii_whitespace() && prefix == "manifest.json");
        assert!(restored.iter().all(harmless), "{prefix}: {restored:?}");
    }
    assert!(seen(client, "b").await == right);
    assert_eq!(listed(client).await, [made]);
    restore_into(client, "b", "1", "").await.unwrap();
    assert!(seen(client, "b").await == right);
    assert_eq!(fs::read_dir(data.path().join("banks")).unwrap().count(), 1, "nothing is left of what was refused");
}

/// One server has many banks, each of which has another damage.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bank_with_a_damaged_file_is_refused_or_exactly_the_right_one() {
    for (prefix, spread) in [("snapshot-", 60), ("bank", 10)] {
        let (dir, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let settings =
            [format!("checkpoints.location={}", dir.path().display()), format!("durability.dir={}", data.path().display())];
        let settings = settings.each_ref().map(String::as_str);
        let live = Live::start(&settings).await;
        written(&live, "b").await;
        checkpoint(&live.client, "b", "1").await.unwrap();
        restore_into(&live.client, "b", "1", "").await.unwrap();
        let right = seen(&live.client, "b").await;
        let len = fs::read(file_of(&bank_folder(data.path(), "b"), prefix)).unwrap().len();
        let damages = Damage::all(len, spread);
        for number in 0..damages.len() {
            restore_into(&live.client, "b", "1", &format!("b{number}")).await.unwrap();
        }
        drop(live);
        let mut damaged = Vec::new();
        for (number, &damage) in damages.iter().enumerate() {
            let path = file_of(&bank_folder(data.path(), &format!("b{number}")), prefix);
            let content = fs::read(&path).unwrap();
            // A bank's settings have its name, and so another length.
            let content = damage.of(&content);
            fs::write(&path, &content).unwrap();
            damaged.push((path, content));
        }

        let live = Live::start(&settings).await;
        let mut refusals = 0;
        for (number, (damage, (path, content))) in damages.iter().zip(&damaged).enumerate() {
            let name = format!("b{number}");
            match live.client.get_bank(v1::GetBankRequest { name: name.clone() }).await {
                Ok(_) => assert!(seen(&live.client, &name).await == right, "{damage:?}: another bank"),
                Err(refused) => {
                    refusals += 1;
                    let text = refused.to_string();
                    let names_it = text.contains(path.to_str().unwrap());
                    assert!(refused.code() == Code::DataLoss && names_it, "{damage:?}: {:?}: {text}", refused.code());
                    assert_eq!(&fs::read(path).unwrap(), content, "{damage:?}: a refused file is left alone");
                }
            }
        }
        // A few zeros behind the last frame are how a block ends that was not filled.
        assert_eq!(refusals, damages.len() - 2, "{prefix}");
        assert!(seen(&live.client, "b").await == right, "the others are served");
    }
}

/// Returns when no thread of a server that was dropped has the folder any more.
fn settled(dir: &Path) {
    let lock = fs::File::open(dir.join("lock")).unwrap();
    let until = clock::now() + Duration::from_secs(10);
    while lock.try_lock().is_err() {
        assert!(clock::now() < until, "the folder is still in use");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A log of which all was synced is refused with any damage, at the end of a record too; without its mark, or with a bad one, the bank is
/// the right one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_log_is_refused_and_a_damaged_mark_changes_nothing() {
    for (prefix, spread) in [("log-", 40), ("synced", 1)] {
        let data = tempfile::tempdir().unwrap();
        let settings = [format!("durability.dir={}", data.path().display())];
        let settings = settings.each_ref().map(String::as_str);
        let live = Live::start(&settings).await;
        written(&live, "b").await;
        let right = seen(&live.client, "b").await;
        let path = file_of(&bank_folder(data.path(), "b"), prefix);
        let len = fs::read(&path).unwrap().len();
        let damages = Damage::all(len, spread);
        for number in 0..=damages.len() {
            written(&live, &format!("b{number}")).await;
        }
        drop(live);
        settled(data.path());
        for (number, &damage) in damages.iter().enumerate() {
            let path = file_of(&bank_folder(data.path(), &format!("b{number}")), prefix);
            let content = fs::read(&path).unwrap();
            assert_eq!(content.len(), len, "{prefix}");
            fs::write(&path, damage.of(&content)).unwrap();
        }
        if prefix == "synced" {
            fs::remove_file(file_of(&bank_folder(data.path(), &format!("b{}", damages.len())), prefix)).unwrap();
        }

        let live = Live::start(&settings).await;
        let mut refusals = 0;
        for number in 0..=damages.len() {
            let (name, damage) = (format!("b{number}"), damages.get(number));
            match live.client.get_bank(v1::GetBankRequest { name: name.clone() }).await {
                Ok(_) => assert!(seen(&live.client, &name).await == right, "{prefix}: {damage:?}: another bank"),
                Err(refused) => {
                    refusals += 1;
                    let path = file_of(&bank_folder(data.path(), &name), prefix);
                    let text = refused.to_string();
                    let is_named = refused.code() == Code::DataLoss && text.contains(path.to_str().unwrap());
                    assert!(is_named, "{prefix}: {damage:?}: {:?}: {text}", refused.code());
                }
            }
        }
        // Zeros behind the last record are the end of a write that was cut short.
        assert_eq!(refusals, if prefix == "log-" { damages.len() - 3 } else { 0 }, "{prefix}");
    }
}

/// A bank that may have lost writes has its settings twice, with another incarnation: with those damaged it is refused, and without them it is
/// what it was, under its first incarnation.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bank_with_damaged_later_settings_is_refused_or_exactly_the_right_one() {
    let data = tempfile::tempdir().unwrap();
    let settings = [format!("durability.dir={}", data.path().display())];
    let settings = settings.each_ref().map(String::as_str);
    let live = Live::start(&settings).await;
    written(&live, "b").await;
    let right = seen(&live.client, "b").await;
    let len = fs::read(file_of(&bank_folder(data.path(), "b"), "bank")).unwrap().len();
    // A history of 16 bytes comes with another incarnation.
    let damages = Damage::all(len + 16, 10);
    let names: Vec<String> = (0..=damages.len()).map(|number| format!("b{number:03}")).collect();
    for name in &names {
        written(&live, name).await;
    }
    drop(live);
    settled(data.path());
    // Nobody knows what lay behind a mark that is gone.
    for name in &names {
        fs::remove_file(bank_folder(data.path(), name).join("synced")).unwrap();
    }
    drop(Live::start(&settings).await);
    settled(data.path());
    let renewed = |name: &str| bank_folder(data.path(), name).join("renewed");
    let mut damaged = Vec::new();
    for (name, &damage) in names.iter().zip(&damages) {
        let content = fs::read(renewed(name)).unwrap();
        let content = match damage {
            // Where a file ends depends on the bank's name.
            Damage::Flip(at) => Damage::Flip(at % content.len()),
            Damage::Cut(at) => Damage::Cut(at % content.len()),
            zeros @ Damage::Zeros(_) => zeros,
        }
        .of(&content);
        fs::write(renewed(name), &content).unwrap();
        damaged.push(content);
    }
    fs::remove_file(renewed(&names[damages.len()])).unwrap();

    let live = Live::start(&settings).await;
    let mut refusals = 0;
    for (number, name) in names.iter().enumerate() {
        match live.client.get_bank(v1::GetBankRequest { name: name.clone() }).await {
            Ok(_) => assert!(seen(&live.client, name).await == right, "{:?}: another bank", damages.get(number)),
            Err(refused) => {
                refusals += 1;
                let (text, damage) = (refused.to_string(), &damages[number]);
                let names_it = text.contains(renewed(name).to_str().unwrap());
                assert!(refused.code() == Code::DataLoss && names_it, "{damage:?}: {:?}: {text}", refused.code());
                assert_eq!(fs::read(renewed(name)).unwrap(), damaged[number], "{damage:?}: a refused file is left alone");
            }
        }
    }
    // A few zeros behind the last frame are how a block ends that was not filled; and one has no such file.
    assert_eq!(refusals, damages.len() - 2);
}

/// Who asks for the newest checkpoint never gets an older one because that can't be read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_checkpoint_is_not_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let live = Live::start(&[&format!("checkpoints.location={}", dir.path().display())]).await;
    let client = &live.client;
    written(&live, "b").await;
    for tag in ["1", "2"] {
        checkpoint(client, "b", tag).await.unwrap();
        live.client.remove(v1::RemoveRequest { bank: "b".into(), ids: vec![7] }).await.unwrap();
    }
    let older = restore_into(client, "b", "1", "older").await.unwrap();
    let newer = restore_into(client, "b", "2", "newer").await.unwrap();
    let manifests = ["1", "2"].map(|tag| dir.path().join("b").join(tag).join("manifest.json"));
    let whole = manifests.each_ref().map(|path| fs::read_to_string(path).unwrap());
    let later = whole[1].replace("\"version\": 2", "\"version\": 99");
    let damaged = whole[1].replace("{", "");
    for (content, code, says) in [(later, Code::FailedPrecondition, "newer negbank"), (damaged, Code::DataLoss, "no JSON")] {
        fs::write(&manifests[1], content).unwrap();
        let refused = restore_into(client, "b", "", "other").await.unwrap_err();
        let text = refused.to_string();
        assert_eq!(refused.code(), code, "{text}");
        for part in ["checkpoint 2 of bank b", says, "ask for an older one by its tag; there are 1"] {
            assert!(text.contains(part), "{text}");
        }
        let none = client.get_bank(v1::GetBankRequest { name: "other".into() }).await.unwrap_err();
        assert_eq!(none.code(), Code::NotFound);
        assert_eq!(restore_into(client, "b", "1", "older").await.unwrap().sequence, older.sequence);
    }
    // An older one that can't be read is in nobody's way.
    fs::write(&manifests[1], &whole[1]).unwrap();
    fs::write(&manifests[0], "").unwrap();
    let file = fs::File::options().write(true).open(&manifests[0]).unwrap();
    file.set_modified(file.metadata().unwrap().modified().unwrap() - Duration::from_secs(3_600)).unwrap();
    assert_eq!(restore_into(client, "b", "", "newer").await.unwrap().sequence, newer.sequence);
    // The only one that is left.
    fs::remove_file(&manifests[1]).unwrap();
    let refused = restore_into(client, "b", "", "other").await.unwrap_err();
    assert!(refused.code() == Code::DataLoss && refused.to_string().contains("no other can be read"), "{refused}");
}
