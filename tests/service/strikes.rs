//! A disk that fails once, at the n-th call of a kind, for every n until there is no such call: whatever that call was, the server answers an
//! error or goes on, and after a restart without faults each bank and checkpoint is a right one. `strikes.c` is the disk.

mod checkpoints;
mod held;
mod histories;
mod names;
mod page_cache;
mod recoveries;
mod threads;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use negbank::client::{Client, ClientError, ScanColumns, rows};
use negbank::proto::v1;

use crate::faults::{Frail, WIDE};
use crate::live::keyed;

/// What tells the disk which calls fail.
pub(crate) struct Strikes {
    faults: PathBuf,
    orders: Mutex<(u64, BTreeMap<u64, String>)>,
}

/// A call that will fail, once, unless this is dropped before.
pub(crate) struct Strike<'a> {
    of: &'a Strikes,
    id: u64,
}

impl Strikes {
    /// A disk that takes such orders.
    pub(crate) fn on(frail: Frail) -> (Frail, Self) {
        let strikes = Self { faults: frail.faults(""), orders: Mutex::default() };
        (frail.striking(), strikes)
    }

    /// One whose power is never cut, and which need not sync.
    pub(crate) fn quick() -> (Frail, Self) {
        let (frail, strikes) = Self::on(Frail::new());
        frail.fail("skip-syncs", true);
        (frail, strikes)
    }

    /// Of the calls of a kind on paths that have `pattern` in them the n-th of a server fails.
    pub(crate) fn order(&self, (kind, how): Fault, n: u64, pattern: &str) -> Strike<'_> {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        orders.0 += 1;
        let id = orders.0;
        orders.1.insert(id, format!("{id} {kind} {n} {how} {pattern}\n"));
        self.give(&orders.1);
        Strike { of: self, id }
    }

    fn give(&self, orders: &BTreeMap<u64, String>) {
        let next = self.faults.join("next-strikes");
        fs::write(&next, orders.values().map(String::as_str).collect::<String>()).unwrap();
        fs::rename(next, self.faults.join("strikes")).unwrap();
    }
}

impl Strike<'_> {
    pub(crate) fn has_struck(&self) -> bool {
        self.of.faults.join(format!("struck-{}", self.id)).exists()
    }
}

impl Drop for Strike<'_> {
    fn drop(&mut self) {
        let mut orders = self.of.orders.lock().unwrap_or_else(PoisonError::into_inner);
        orders.1.remove(&self.id);
        self.of.give(&orders.1);
    }
}

/// A kind of call, and how it fails.
pub(crate) type Fault = (&'static str, &'static str);

/// Calls that change the disk.
const CHANGES: [Fault; 10] = [
    ("write", "eio"),
    ("write", "half"),
    ("write", "short"),
    ("sync", "eio"),
    ("make", "eio"),
    ("rename", "eio"),
    ("rename", "after"),
    ("link", "eio"),
    ("link", "after"),
    ("unlink", "eio"),
];

/// More calls of a kind than any history makes.
const MANY: u64 = 150;

/// Rows of the writes of a history; from 257 on they go past the page cache.
const HISTORY: [u64; 7] = [1, 260, 2, 260, 3, 260, 1];

/// With them each large write of a history ends a file of the log, and makes a snapshot due.
const SETTINGS: [&str; 3] =
    ["durability.segment_bytes=200000", "durability.snapshot_log_bytes=250000", "durability.interval_ms=60000"];

/// The write of this number. Few ids, so that the bank is small beside its log.
async fn write(client: &Client, bank: &str, number: u64) -> Result<v1::WriteResponse, ClientError> {
    let count = HISTORY[number as usize];
    let value = |at: u64| ((at * 37 + number * 101) % 211) as f32 - 105.3;
    let floats: Vec<f32> = (0..count * u64::from(WIDE)).map(value).collect();
    let request = v1::WriteRequest {
        bank: bank.into(),
        ids: (0..count).map(|row| (number * 7 + row) % 40).collect(),
        labels: (0..count).map(|row| (row % 5) as i64).collect(),
        embeddings: Some(rows(&floats)),
        step: Some(number),
        origin: Some(v1::Origin { writer: "w".into(), incarnation: 1, number: number + 1 }),
        ..Default::default()
    };
    client.write(request).await
}

/// All rows of a bank, with their stamps.
async fn scanned(client: &Client, bank: &str) -> Vec<ScanColumns> {
    let mut scan = client.scan(v1::ScanRequest { bank: bank.into(), ..Default::default() }).await.unwrap();
    let mut chunks = Vec::new();
    while let Some(chunk) = scan.next().await.unwrap() {
        // A position is of one server's bank.
        chunks.push(ScanColumns { position: Default::default(), ..chunk });
    }
    chunks
}

/// What a bank is after each write of the history, none included, if nothing goes wrong.
async fn unharmed(client: &Client) -> Vec<Vec<ScanColumns>> {
    client.create_bank(wide("unharmed", v1::Durability::Memory)).await.unwrap();
    let mut states = vec![scanned(client, "unharmed").await];
    for number in 0..HISTORY.len() as u64 {
        write(client, "unharmed", number).await.unwrap();
        states.push(scanned(client, "unharmed").await);
    }
    states
}

fn wide(name: &str, durability: v1::Durability) -> v1::CreateBankRequest {
    v1::CreateBankRequest { durability: durability.into(), ..keyed(name, WIDE, 2) }
}

/// A bank of a fault.
fn name((kind, how): Fault, n: u64) -> String {
    format!("{kind}-{how}-{n}")
}

/// Names of what lies in a folder.
fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A restarted server's bank is the one that the first so many writes make, and goes on to the one that all make.
async fn judge(client: &Client, bank: &str, kept: std::ops::RangeInclusive<u64>, unharmed: &[Vec<ScanColumns>]) {
    let about = client.get_bank(v1::GetBankRequest { name: bank.into() }).await;
    let there = about.unwrap_or_else(|refused| panic!("{bank}: {refused}")).sequence;
    assert!(kept.contains(&there), "{bank}: {there} writes are there, not {kept:?}");
    assert!(scanned(client, bank).await == unharmed[there as usize], "{bank}: other rows after {there} writes");
    for number in 0..HISTORY.len() as u64 {
        assert_eq!(write(client, bank, number).await.unwrap().duplicate, number < there, "{bank}: write {number}");
    }
    assert!(scanned(client, bank).await == unharmed[HISTORY.len()], "{bank}: other rows after all writes");
}
