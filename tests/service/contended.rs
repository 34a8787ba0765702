//! Calls about one checkpoint at the same time: each is done or refused with a reason, and nothing half is there afterwards.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use negbank::client::{Client, ClientError, Code, rows};
use negbank::model::{Seed, Stream};
use negbank::proto::v1;
use tokio::task::JoinSet;

use crate::live::{Live, keyed, random_rows};

const DIM: usize = 16;
/// Callers at once, and the calls of each in a round.
const CALLERS: u64 = 8;
const CALLS: u64 = 15;
/// Rounds at most until everything that may come of a call has come.
const ROUNDS: u64 = 20;
/// What may come of a call; true: it is done.
const OUTCOMES: [(&str, bool); 7] = [
    ("create", true),
    ("create", false),
    ("replace", true),
    ("delete", true),
    ("delete", false),
    ("restore", true),
    ("restore the newest", true),
];

async fn filled(live: &Live, bank: &str) {
    live.create(keyed(bank, DIM as u32, 2)).await;
    let ids: Vec<u64> = (0..400).collect();
    live.write(bank, &ids, &random_rows(&mut Seed(1).stream(0, 0), ids.len(), DIM), &[]).await;
}

async fn create(client: &Client, tag: &str, replace: bool) -> Result<v1::Checkpoint, ClientError> {
    let request = v1::CreateCheckpointRequest { bank: "b".into(), tag: tag.into(), replace, keep: 0 };
    Ok(client.create_checkpoint(request).await?.done().await?.checkpoint.unwrap())
}

async fn restore(client: &Client, tag: &str, into: &str) -> Result<v1::Bank, ClientError> {
    let request = v1::RestoreCheckpointRequest { bank: "b".into(), tag: tag.into(), into: into.into(), ..Default::default() };
    Ok(client.restore_checkpoint(request).await?.done().await?.restored.unwrap())
}

async fn delete(client: &Client, tag: &str) -> Result<(), ClientError> {
    client.delete_checkpoint(v1::DeleteCheckpointRequest { bank: "b".into(), tag: tag.into() }).await.map(|_| ())
}

async fn tags(client: &Client) -> Vec<String> {
    let listed = client.list_checkpoints(v1::ListCheckpointsRequest::default()).await.unwrap();
    listed.checkpoints.into_iter().map(|made| made.tag).collect()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let below = |path: PathBuf| if path.is_dir() { files(&path) } else { vec![path] };
    entries.flat_map(|entry| below(entry.unwrap().path())).collect()
}

/// A call of one caller; what it did, and what came of it.
async fn call(client: &Client, caller: u64, random: &mut Stream) -> (&'static str, Result<(), ClientError>) {
    match random.below(7) {
        0 | 1 => ("create", create(client, "1", false).await.map(|_| ())),
        2 => ("replace", create(client, "1", true).await.map(|_| ())),
        3 | 4 => ("delete", delete(client, "1").await),
        5 => ("restore", restore(client, "1", &format!("restored-{caller}")).await.map(|_| ())),
        _ => ("restore the newest", restore(client, "", &format!("restored-{caller}")).await.map(|_| ())),
    }
}

async fn calls(client: Client, seed: u64) -> Vec<(&'static str, Option<Code>)> {
    let (mut random, mut outcomes) = (Seed(seed).stream(3, 3), Vec::new());
    let caller = seed % CALLERS;
    for number in 0..CALLS {
        let embeddings = Some(rows(&random_rows(&mut random, 1, DIM)));
        let request = v1::WriteRequest { bank: "b".into(), ids: vec![number], embeddings, ..Default::default() };
        client.write(request).await.unwrap();
        let (what, outcome) = call(&client, caller, &mut random).await;
        let code = outcome.err().map(|refused| {
            let expected = if what == "create" { Code::AlreadyExists } else { Code::NotFound };
            assert!(refused.code() == expected && what != "replace", "{what}: {:?} {refused}", refused.code());
            expected
        });
        outcomes.push((what, code));
    }
    outcomes
}

/// What is listed is whole, and nothing else lies there.
async fn check(client: &Client, kept: &Path) {
    let listed = client.list_checkpoints(v1::ListCheckpointsRequest::default()).await.unwrap().checkpoints;
    let there = files(kept);
    assert_eq!(there.len(), 2 * listed.len(), "{there:?}");
    for made in listed {
        let restored = restore(client, &made.tag, "checked").await.unwrap();
        assert_eq!((restored.sequence, restored.entries), (made.sequence, made.entries));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_makes_replaces_restores_and_deletes_one_checkpoint_at_once_finds_it_whole_or_not_there() {
    let kept = tempfile::tempdir().unwrap();
    let live = Live::start(&[&format!("checkpoints.location={}", kept.path().display())]).await;
    filled(&live, "b").await;
    let mut outcomes = BTreeMap::<_, u64>::new();
    let mut round = 0;
    while !OUTCOMES.iter().all(|outcome| outcomes.contains_key(outcome)) {
        // What comes when is the machine's to say: it is busy in its own ways.
        assert!(round < ROUNDS, "{OUTCOMES:?} never came all: {outcomes:?}");
        let mut calling = JoinSet::new();
        (0..CALLERS).for_each(|caller| drop(calling.spawn(calls(live.client.clone(), round * CALLERS + caller))));
        for outcome in calling.join_all().await.into_iter().flatten() {
            *outcomes.entry((outcome.0, outcome.1.is_none())).or_default() += 1;
        }
        check(&live.client, kept.path()).await;
        round += 1;
    }
    // Whatever it is, it is replaced and deleted.
    create(&live.client, "1", true).await.unwrap();
    check(&live.client, kept.path()).await;
    delete(&live.client, "1").await.unwrap();
    assert_eq!(files(kept.path()), Vec::<PathBuf>::new());
}

/// Two servers at one location know nothing of one another: of those who make a checkpoint one does, and what is listed is whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_servers_that_make_one_checkpoint_one_does() {
    let kept = tempfile::tempdir().unwrap();
    let setting = format!("checkpoints.location={}", kept.path().display());
    let servers = [Live::start(&[&setting]).await, Live::start(&[&setting]).await];
    for live in &servers {
        filled(live, "b").await;
    }
    for round in 0..10 {
        let tag = round.to_string();
        let [first, second] = [&servers[0].client, &servers[1].client];
        let made = tokio::join!(create(first, &tag, false), create(second, &tag, false));
        let refused: Vec<Code> = [made.0, made.1].into_iter().filter_map(Result::err).map(|refused| refused.code()).collect();
        assert_eq!(refused, [Code::AlreadyExists], "round {round}");
        check(second, kept.path()).await;
        // With both replacing it the last manifest counts, and the file of the other may stay.
        let replaced = tokio::join!(create(first, &tag, true), create(second, &tag, true));
        replaced.0.unwrap();
        replaced.1.unwrap();
        assert_eq!(tags(first).await, std::slice::from_ref(&tag));
        restore(first, &tag, "checked").await.unwrap();
        delete(second, &tag).await.unwrap();
        files(kept.path()).iter().for_each(|left| std::fs::remove_file(left).unwrap());
    }
}

/// Memory for one of two banks that are restored at once: one is, whichever, and the other is refused before it takes any.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn banks_that_are_restored_at_once_never_share_the_room_that_one_needs() {
    const WIDE: usize = 256;
    let kept = tempfile::tempdir().unwrap();
    let at = format!("checkpoints.location={}", kept.path().display());
    let ample = Live::start(&[&at]).await;
    ample.create(keyed("b", WIDE as u32, 2)).await;
    // Five megabytes of 7.5 that banks may have.
    for number in 0..10 {
        let ids: Vec<u64> = (number * 450..(number + 1) * 450).collect();
        ample.write("b", &ids, &random_rows(&mut Seed(number).stream(0, 0), ids.len(), WIDE), &[]).await;
    }
    create(&ample.client, "1", false).await.unwrap();
    for round in 0..4 {
        let narrow = Live::start(&[&at, "memory.max_bytes=8388608", "memory.write_percent=90"]).await;
        let restored = tokio::join!(restore(&narrow.client, "1", "one"), restore(&narrow.client, "1", "other"));
        let (done, refused) = match restored {
            (Ok(done), Err(refused)) | (Err(refused), Ok(done)) => (done, refused),
            other => panic!("round {round}: {other:?}"),
        };
        assert_eq!(done.entries, 4_500);
        let says = refused.to_string();
        assert!(refused.code() == Code::ResourceExhausted && says.contains("memory.max_bytes"), "{says}");
    }
}
