//! Files that attempts at checkpoints left: removed when nobody can be at them any more, and nothing that anybody needs.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use negbank::client::Code;
use negbank::proto::v1;

use crate::live::{Live, keyed};

const DAY: u64 = 24 * 3_600;

struct Kept {
    dir: tempfile::TempDir,
    live: Live,
}

impl Kept {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let live = Live::start(&[&format!("checkpoints.location={}", dir.path().display())]).await;
        for bank in ["b", "other"] {
            live.create(keyed(bank, 2, 1)).await;
            live.write(bank, &[1], &[1.0, 2.0], &[]).await;
        }
        Self { dir, live }
    }

    /// A file of this age, in seconds.
    fn file(&self, name: &str, age: u64) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "of a bank").unwrap();
        aged(&path, age);
        path
    }

    async fn create(&self, bank: &str, tag: &str) {
        let request = v1::CreateCheckpointRequest { bank: bank.into(), tag: tag.into(), ..Default::default() };
        self.live.client.create_checkpoint(request).await.unwrap().done().await.unwrap();
    }

    async fn delete(&self, tag: &str) -> Option<Code> {
        let request = v1::DeleteCheckpointRequest { bank: "b".into(), tag: tag.into() };
        self.live.client.delete_checkpoint(request).await.err().map(|refused| refused.code())
    }

    fn of(&self, bank: &str, tag: &str) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> =
            fs::read_dir(self.dir.path().join(bank).join(tag)).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }
}

fn aged(path: &Path, seconds: u64) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(file.metadata().unwrap().modified().unwrap() - Duration::from_secs(seconds)).unwrap();
}

/// Copies to a directory that were killed are hidden by the object store, and take room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_copy_left_is_deleted_by_its_tag_after_an_hour() {
    let kept = Kept::new().await;
    let left: Vec<PathBuf> = ["b/half/bank-1.safetensors#1", "b/half/manifest.json#2", "b/half/bank-2.safetensors"]
        .map(|name| kept.file(name, 1_800))
        .into();
    assert_eq!(kept.delete("half").await, Some(Code::NotFound));
    assert!(left.iter().all(|file| file.exists()), "they may be on their way");
    aged(&left[1], 3_600);
    assert_eq!(kept.delete("half").await, None);
    assert_eq!(left.iter().map(|file| file.exists()).collect::<Vec<_>>(), [true, false, true]);
    left.iter().filter(|file| file.exists()).for_each(|file| aged(file, 3_600));
    assert_eq!(kept.delete("half").await, None);
    assert!(!kept.dir.path().join("b").exists(), "the last file in it takes its folders along");
    assert_eq!(kept.delete("half").await, Some(Code::NotFound));
    // With a checkpoint of the tag what is old goes too.
    kept.create("b", "1").await;
    kept.file("b/1/bank-3.safetensors#1", 2 * 3_600);
    let young = kept.file("b/1/bank-4.safetensors#1", 1_800);
    assert_eq!(kept.delete("1").await, None);
    assert_eq!(kept.of("b", "1"), [young]);
}

/// Nobody has to know of them: whoever makes a checkpoint of the bank removes what is more than a day older.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_attempts_left_goes_with_the_next_checkpoint_of_the_bank() {
    let kept = Kept::new().await;
    for tag in ["1", "damaged"] {
        kept.create("b", tag).await;
        kept.of("b", tag).iter().for_each(|file| aged(file, 9 * DAY));
    }
    kept.create("other", "1").await;
    // Its file may be any of those that lie there.
    fs::write(kept.dir.path().join("b/damaged/manifest.json"), "{").unwrap();
    aged(&kept.dir.path().join("b/damaged/manifest.json"), 9 * DAY);
    let gone = [
        "b/half/bank-1.safetensors",
        "b/half/bank-2.safetensors#1",
        "b/half/manifest.json#7",
        "b/1/bank-3.safetensors",
        "b/1/manifest.json#1",
        "b/2/bank-3.safetensors",
    ];
    let stays = [
        ("b/half/bank-4.safetensors", DAY - 600),
        ("b/young/bank-5.safetensors#1", 3_601),
        ("b/1/notes.txt", 9 * DAY),
        ("b/1/notes#1", 9 * DAY),
        ("b/bank-6.safetensors", 9 * DAY),
        ("b/1/deeper/bank-7.safetensors", 9 * DAY),
        ("b/damaged/bank-8.safetensors", 9 * DAY),
        ("other/half/bank-9.safetensors", 9 * DAY),
    ];
    let gone = gone.map(|name| kept.file(name, 2 * DAY));
    let stays = stays.map(|(name, age)| kept.file(name, age));
    let before = kept.of("b", "damaged");
    kept.create("b", "2").await;
    let left: Vec<&PathBuf> = gone.iter().filter(|file| file.exists()).collect();
    assert!(left.is_empty(), "{left:?}");
    let lost: Vec<&PathBuf> = stays.iter().filter(|file| !file.exists()).collect();
    assert!(lost.is_empty(), "{lost:?}");
    assert_eq!(kept.of("b", "damaged"), before);
    for tag in ["1", "2"] {
        let request =
            v1::RestoreCheckpointRequest { bank: "b".into(), tag: tag.into(), into: "c".into(), ..Default::default() };
        kept.live.client.restore_checkpoint(request).await.unwrap().done().await.unwrap();
    }
}
