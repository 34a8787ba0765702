//! Logs, their files and snapshots.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use negbank::client::{Client, Code, ScanColumns};
use negbank::model::clock;
use negbank::proto::v1;
use tokio::task::JoinSet;

use super::{CHANGES, Fault, HISTORY, MANY, SETTINGS, Strike, Strikes, judge, name, names, scanned, unharmed, wide, write};
use crate::durable::bank_folder;
use crate::faults::Frail;

/// Banks that are looked at after the restart at the same time.
const JUDGED_AT_ONCE: usize = 4;

/// A bank that met a fault, and how many of its writes were acknowledged.
struct Met {
    bank: String,
    acknowledged: u64,
    is_refused: bool,
}

/// So many snapshots lie there, and no file of the log that the last of them has taken the place of.
fn is_settled(folder: &Path, snapshots: usize) -> bool {
    let there = names(folder);
    let number = |name: &str| name.rsplit_once('-').and_then(|(_, number)| number.parse::<u64>().ok());
    let numbers = |prefix: &str| there.iter().filter(|name| name.starts_with(prefix)).filter_map(|name| number(name)).collect();
    let (nascent, taken, logs): (Vec<u64>, Vec<u64>, Vec<u64>) = (numbers(".snapshot-"), numbers("snapshot-"), numbers("log-"));
    nascent.is_empty() && taken.len() == snapshots && taken.last().map(|last| last + 1) == logs.first().copied()
}

/// Waits until no thread is at the bank's files any more, if nothing went wrong with them.
async fn settle(folder: PathBuf, strike: &Strike<'_>) {
    let began = clock::now();
    while !strike.has_struck() && !is_settled(&folder, 1) {
        assert!(began.elapsed() < Duration::from_secs(20), "{}: {:?}", folder.display(), names(&folder));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    // The folder is synced after the last file was removed.
    tokio::time::sleep(Duration::from_millis(10)).await;
}

/// The history of one bank, on a disk whose n-th call of a kind fails; `None`: it has fewer.
async fn meet(
    client: &Client,
    (data, strikes): (&Path, &Strikes),
    fault: Fault,
    n: u64,
    unharmed: &[Vec<ScanColumns>],
) -> Option<Met> {
    let bank = name(fault, n);
    client.create_bank(wide(&bank, v1::Durability::Always)).await.unwrap();
    let strike = strikes.order(fault, n, &format!("/{bank}@"));
    let (mut acknowledged, mut refused) = (0, None);
    for number in 0..HISTORY.len() as u64 {
        match write(client, &bank, number).await {
            Ok(_) => acknowledged += 1,
            Err(fault) => {
                refused = Some(fault);
                break;
            }
        }
    }
    if refused.is_none() {
        settle(bank_folder(data, &bank), &strike).await;
    }
    let (is_refused, has_struck) = (refused.is_some(), strike.has_struck());
    if let Some(refused) = refused {
        assert!(has_struck && refused.code() == Code::FailedPrecondition, "{bank}: {refused}");
        let again = write(client, &bank, acknowledged).await.unwrap_err();
        assert_eq!(again.to_string(), refused.to_string(), "{bank}");
    }
    assert!(
        scanned(client, &bank).await == unharmed[acknowledged as usize],
        "{bank}: reads go on, and see what was acknowledged"
    );
    has_struck.then_some(Met { bank, acknowledged, is_refused })
}

/// Each call of a kind in turn.
async fn meet_all(client: Client, of: Arc<(Frail, Strikes)>, fault: Fault, unharmed: Arc<Vec<Vec<ScanColumns>>>) -> Vec<Met> {
    let mut met = Vec::new();
    for n in 1..MANY {
        let data = of.0.disk("data");
        match meet(&client, (&data, &of.1), fault, n, &unharmed).await {
            Some(one) => met.push(one),
            None => return met,
        }
    }
    panic!("{fault:?}: no end of it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whichever_call_fails_while_a_bank_is_written_what_was_acknowledged_is_there() {
    let of = Arc::new(Strikes::quick());
    let (server, client) = of.0.start_with(&SETTINGS).await;
    let unharmed = Arc::new(unharmed(&client).await);
    let faults = CHANGES.into_iter().filter(|(kind, _)| *kind != "link").chain([("truncate", "eio")]);
    let mut meeting = JoinSet::new();
    for fault in faults {
        let all = meet_all(client.clone(), Arc::clone(&of), fault, Arc::clone(&unharmed));
        meeting.spawn(async move { (fault, all.await) });
    }
    let mut met = Vec::new();
    while let Some(all) = meeting.join_next().await {
        let ((kind, how), all) = all.unwrap();
        // A history writes each of its records, and syncs it; it begins files, takes snapshots and removes what lies behind them.
        let least = match kind {
            "write" | "sync" => HISTORY.len() + 3,
            "rename" => 1,
            _ => 2,
        };
        assert!(all.len() >= least, "{kind} {how}: only {} calls", all.len());
        met.extend(all);
    }
    let refused = met.iter().filter(|met| met.is_refused).count();
    assert!(0 < refused && refused < met.len(), "a call of a log that fails is its end, and one of a snapshot is not");
    drop(server);

    let (server, client) = of.0.start_with(&SETTINGS).await;
    let judged = met.into_iter().map(|Met { bank, acknowledged, is_refused }| {
        // The record whose call failed may be there all the same.
        let kept = acknowledged..=acknowledged + u64::from(is_refused);
        let (client, unharmed) = (&client, &unharmed);
        async move {
            judge(client, &bank, kept, unharmed).await;
            bank
        }
    });
    let banks: Vec<String> = stream::iter(judged).buffer_unordered(JUDGED_AT_ONCE).collect().await;
    drop(server);
    let (_server, client) = of.0.start_with(&SETTINGS).await;
    for bank in banks {
        assert!(scanned(&client, &bank).await == unharmed[HISTORY.len()], "{bank}: after another restart");
    }
}

/// A snapshot is good though the one before it could not be removed, which is removed with the next.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_whose_predecessor_cannot_be_removed_is_taken() {
    let (frail, strikes) = Strikes::quick();
    let (server, client) = frail.start_with(&SETTINGS).await;
    client.create_bank(wide("b", v1::Durability::Always)).await.unwrap();
    let folder = bank_folder(&frail.disk("data"), "b");
    let strike = strikes.order(("unlink", "eio"), 1, "/snapshot-");
    let mut snapshots = [1, 2, 1].into_iter();
    for number in 0..HISTORY.len() as u64 {
        write(&client, "b", number).await.unwrap();
        if HISTORY[number as usize] > 256 {
            // Each large write is followed by a snapshot of its own.
            let (began, snapshots) = (clock::now(), snapshots.next().unwrap());
            while !is_settled(&folder, snapshots) {
                assert!(began.elapsed() < Duration::from_secs(20), "{snapshots} of {:?}", names(&folder));
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    assert!(strike.has_struck());
    let log = server.killed();
    assert_eq!(log.matches("snapshot taken").count(), 3, "{log}");
    assert!(log.contains("the snapshot before it stays until the next is taken"), "{log}");
    let (_server, client) = frail.start_with(&SETTINGS).await;
    let unharmed = unharmed(&client).await;
    let all = HISTORY.len() as u64;
    judge(&client, "b", all..=all, &unharmed).await;
}
