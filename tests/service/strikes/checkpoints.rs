//! Checkpoints: spooled, named or copied, and published.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use negbank::client::{Client, ClientError, Code, Options, ScanColumns, rows};
use negbank::proto::v1;

use super::{CHANGES, Fault, MANY, Strikes, name, scanned};
use crate::faults::{Frail, checkpoint, listed};
use crate::live::keyed;

/// A location, and what its bank was after each of its writes.
struct Place {
    frail: Frail,
    strikes: Strikes,
    client: Client,
    states: HashMap<u64, Vec<ScanColumns>>,
}

async fn create(client: &Client, tag: &str, replace: bool) -> Result<v1::Checkpoint, ClientError> {
    let request = v1::CreateCheckpointRequest { bank: "b".into(), tag: tag.into(), replace, keep: 0 };
    Ok(client.create_checkpoint(request).await?.done().await?.checkpoint.unwrap())
}

async fn delete(client: &Client, tag: &str) -> Result<(), ClientError> {
    client.delete_checkpoint(v1::DeleteCheckpointRequest { bank: "b".into(), tag: tag.into() }).await.map(|_| ())
}

/// All below a folder, the names too that an object store would hide.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let below = |path: PathBuf| if path.is_dir() { files(&path) } else { vec![path] };
    entries.flat_map(|entry| below(entry.unwrap().path())).collect()
}

fn age(file: &Path) {
    let file = File::options().write(true).open(file).unwrap();
    file.set_modified(file.metadata().unwrap().modified().unwrap() - Duration::from_secs(2 * 3_600)).unwrap();
}

impl Place {
    async fn new() -> (crate::lifecycle::Process, Self) {
        let (frail, strikes) = Strikes::quick();
        let (server, client) = frail.start().await;
        client
            .create_bank(v1::CreateBankRequest { durability: v1::Durability::Memory.into(), ..keyed("b", 4, 2) })
            .await
            .unwrap();
        (server, Self { frail, strikes, client, states: HashMap::new() })
    }

    /// Another state of the bank.
    async fn write(&mut self) -> u64 {
        let number = self.states.len() as u64 + 1;
        let embeddings = Some(rows(&[number as f32, 1.0, 2.0, 3.0, 4.0, 3.0, 2.0, number as f32 - 7.5]));
        let request = v1::WriteRequest { bank: "b".into(), ids: vec![number % 9, 77], embeddings, ..Default::default() };
        let sequence = self.client.write(request).await.unwrap().sequence;
        self.states.insert(sequence, scanned(&self.client, "b").await);
        sequence
    }

    /// The sequence of the checkpoint of that tag, which is whole; `None`: it is not listed.
    async fn whole(&self, tag: &str) -> Option<u64> {
        let made = listed(&self.client).await.into_iter().find(|made| made.tag == tag)?;
        let request = v1::RestoreCheckpointRequest {
            bank: "b".into(),
            tag: tag.into(),
            into: "restored".into(),
            durability: v1::Durability::Memory.into(),
        };
        let restored = self.client.restore_checkpoint(request).await.unwrap().done().await;
        let restored = restored.unwrap_or_else(|refused| panic!("{tag}: {refused}")).restored.unwrap();
        assert_eq!(restored.sequence, made.sequence, "{tag}");
        assert!(scanned(&self.client, "restored").await == self.states[&made.sequence], "{tag}: other rows");
        Some(made.sequence)
    }

    /// Deletes what is left of a tag: a checkpoint at once, and what attempts left when they can't be under way any more.
    async fn clear(&self, tag: &str) {
        delete(&self.client, tag).await.unwrap_or_else(|refused| panic!("{tag}: {refused}"));
        let folder = self.frail.disk("checkpoints").join("b").join(tag);
        let left = files(&folder);
        left.iter().for_each(|file| age(file));
        if !left.is_empty() {
            delete(&self.client, tag).await.unwrap_or_else(|refused| panic!("{tag}: {left:?} stay: {refused}"));
        }
        assert_eq!(files(&folder), Vec::<PathBuf>::new(), "{tag}");
        assert_eq!(delete(&self.client, tag).await.unwrap_err().code(), Code::NotFound, "{tag}");
        assert_eq!(files(&self.frail.disk("data/spool")), Vec::<PathBuf>::new(), "{tag}");
    }

    /// A checkpoint is made while a call fails; false if there was none of that number.
    async fn meet(&mut self, fault: Fault, n: u64, is_copied: bool) -> bool {
        let tag = name(fault, n);
        let before = if is_copied {
            // In the place of one that is there, since a manifest that must not be there yet needs a link as well.
            let before = self.write().await;
            create(&self.client, &tag, false).await.unwrap();
            self.frail.fail("links", true);
            Some(before)
        } else {
            None
        };
        let now = self.write().await;
        let strike = self.strikes.order(fault, n, "/disk/");
        let made = create(&self.client, &tag, is_copied).await;
        let has_struck = strike.has_struck();
        drop(strike);
        let there = self.whole(&tag).await;
        match &made {
            Ok(made) => assert_eq!((made.sequence, there), (now, Some(now)), "{tag}"),
            Err(refused) => {
                assert!(has_struck && refused.code() == Code::FailedPrecondition, "{tag}: {refused}");
                let says = refused.to_string();
                assert!(says.contains("Input/output error") || says.contains("No space left"), "{tag}: {says}");
                assert!(there == before || there == Some(now), "{tag}: {there:?}");
            }
        }
        // Another attempt makes it.
        if there != Some(now) {
            let again = create(&self.client, &tag, is_copied).await;
            again.unwrap_or_else(|refused| panic!("{tag} again: {refused}"));
            assert_eq!(self.whole(&tag).await, Some(now), "{tag} again");
        }
        if is_copied {
            self.frail.fail("links", false);
        }
        self.clear(&tag).await;
        has_struck
    }
}

/// Each call in turn; tells how many of each kind a checkpoint makes.
async fn meet_all(place: &mut Place, is_copied: bool) -> HashMap<Fault, u64> {
    let reads = [("read", "eio"), ("read", "short"), ("open", "eio")];
    let mut met = HashMap::new();
    for fault in CHANGES.into_iter().chain(reads) {
        let mut n = 1;
        while place.meet(fault, n, is_copied).await {
            n += 1;
            assert!(n < MANY, "{fault:?}: no end of it");
        }
        met.insert(fault, n - 1);
    }
    let least = [("write", 2), ("sync", 4), ("make", 2), ("unlink", 1), ("open", 2)];
    assert!(least.iter().all(|&(kind, least)| met[&(kind, "eio")] >= least), "{met:?}");
    met
}

/// Named, a file is linked, and so is its manifest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whichever_call_fails_while_a_checkpoint_is_made_it_is_whole_or_not_there() {
    let (server, mut place) = Place::new().await;
    let met = meet_all(&mut place, false).await;
    assert_eq!((met[&("link", "after")], met[&("rename", "after")]), (2, 0), "{met:?}");
    let kept = place.write().await;
    create(&place.client, "kept", false).await.unwrap();
    drop(server);
    let (_server, client) = place.frail.start().await;
    let there: Vec<_> = listed(&client).await.into_iter().map(|made| (made.tag, made.sequence)).collect();
    assert_eq!(there, [("kept".to_owned(), kept)]);
}

/// Copied, it is renamed, and its manifest too, in the place of another; it can't be linked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whichever_call_fails_while_a_checkpoint_is_replaced_one_of_the_two_is_there() {
    let (_server, mut place) = Place::new().await;
    let met = meet_all(&mut place, true).await;
    assert_eq!((met[&("link", "after")], met[&("rename", "after")]), (1, 2), "{met:?}");
    assert!(met[&("read", "eio")] >= 2, "its spool is read: {met:?}");
    assert_eq!(listed(&place.client).await, []);
}

/// A manifest whose writing is said to have failed may be there all the same, and then its file must be there too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_that_is_there_after_all_keeps_its_file() {
    let (_server, mut place) = Place::new().await;
    // The second link is the manifest's; in the place of another it is renamed.
    for (fault, pattern, replace) in
        [(("link", "after"), "/manifest.json", false), (("rename", "after"), "/manifest.json", true)]
    {
        let now = place.write().await;
        let strike = place.strikes.order(fault, 1, pattern);
        let refused = create(&place.client, "1", replace).await.unwrap_err();
        assert!(strike.has_struck() && refused.to_string().contains("manifest.json"), "{fault:?}: {refused}");
        drop(strike);
        assert_eq!(place.whole("1").await, Some(now), "{fault:?}");
    }
    place.clear("1").await;
}

/// The object store hides what a copy has not named yet; it takes room all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_was_killed_half_way_is_deleted_by_its_tag() {
    for pattern in [".safetensors#", "/manifest.json#"] {
        let (server, mut place) = Place::new().await;
        place.write().await;
        place.frail.fail("links", true);
        let strike = place.strikes.order(("write", "kill"), 1, pattern);
        create(&place.client, "1", true).await.unwrap_err();
        assert!(strike.has_struck());
        drop((strike, server));
        let (_server, client) = place.frail.start().await;
        let folder = place.frail.disk("checkpoints/b/1");
        let left = files(&folder);
        assert!(left.iter().any(|file| file.to_str().unwrap().contains('#')), "{left:?}");
        assert_eq!(delete(&client, "1").await.unwrap_err().code(), Code::NotFound);
        assert_eq!(files(&folder), left, "it may be under way");
        left.iter().for_each(|file| age(file));
        delete(&client, "1").await.unwrap();
        assert!(!folder.exists(), "{:?}", files(&folder));
    }
}

/// What goes away behind a checkpoint is not what its caller asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_that_is_made_is_told_while_an_older_one_can_not_be_deleted() {
    let (_server, mut place) = Place::new().await;
    place.write().await;
    create(&place.client, "1", false).await.unwrap();
    let now = place.write().await;
    let strike = place.strikes.order(("unlink", "wait"), 1, "/checkpoints/b/1/");
    let request = v1::CreateCheckpointRequest { bank: "b".into(), tag: "2".into(), replace: false, keep: 1 };
    let made = place.client.create_checkpoint(request).await.unwrap().done().await.unwrap().checkpoint.unwrap();
    assert_eq!((made.sequence, strike.has_struck()), (now, true));
    assert_eq!(place.whole("2").await, Some(now));
    // Nor does it take a turn of those which others wait for.
    create(&place.client, "3", false).await.unwrap();
    drop(strike);
    let until = tokio::time::Instant::now() + Duration::from_secs(20);
    while listed(&place.client).await.iter().any(|made| made.tag == "1") {
        assert!(tokio::time::Instant::now() < until, "it is deleted in the end");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Two are made at a time: banks that hang for good may not keep the others from it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn banks_that_hang_hold_up_their_own_checkpoints_only() {
    let (server, mut place) = Place::new().await;
    place.write().await;
    let (hung, client) = (v1::Durability::Always.into(), place.client.clone());
    client.create_bank(v1::CreateBankRequest { durability: hung, ..keyed("hung", 4, 1) }).await.unwrap();
    let strike = place.strikes.order(("sync", "wait"), 1, "/hung@");
    let embeddings = Some(rows(&[1.0, 2.0, 3.0, 4.0]));
    let write = v1::WriteRequest { bank: "hung".into(), ids: vec![1], embeddings, ..Default::default() };
    let written = tokio::spawn({
        let client = client.clone();
        async move { client.write(write).await }
    });
    let impatient = Options { retries: 0, timeout: Duration::from_secs(1), ..Options::default() };
    let impatient = Client::connect(&server.address, impatient).await.unwrap();
    while !strike.has_struck() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let refused = tokio::join!(checkpoint(&impatient, "hung", "1"), checkpoint(&impatient, "hung", "2"));
    for refused in [refused.0.unwrap_err(), refused.1.unwrap_err()] {
        assert_eq!(refused.code(), Code::DeadlineExceeded, "{refused}");
    }
    create(&client, "1", false).await.unwrap();
    drop(strike);
    written.await.unwrap().unwrap();
    checkpoint(&client, "hung", "1").await.unwrap();
}
