//! A real server, killed at random moments while writers write: nothing acknowledged is lost, nothing else appears.
//!
//! Ten cycles here; `make crash-test` runs 200 (`NEGBANK_CRASH_CYCLES`) and writes `target/reports/crash.json` (`NEGBANK_CRASH_REPORT`).

use std::process::{Command, Stdio};
use std::time::Duration;

use negbank::client::{Client, Options, rows};
use negbank::model::{Seed, Stream, clock};
use negbank::proto::v1;
use tokio::task::JoinSet;

use crate::durable::seen;
use crate::lifecycle::Process;
use crate::live::{Live, keyed, queue, random_rows};

const DIM: usize = 12;
const WRITERS: u64 = 4;

/// One writer of one bank: it sends a batch until that is acknowledged, then the next.
struct Writer {
    bank: &'static str,
    name: u64,
    number: u64,
    random: Stream,
    /// Sent, and not acknowledged.
    pending: Option<v1::WriteRequest>,
}

/// Batches of one bank in the order in which they were acknowledged, with the sequence they got.
#[derive(Default)]
struct History {
    acknowledged: Vec<(u64, v1::WriteRequest)>,
    /// How many of them the reference has.
    replayed: usize,
}

#[derive(Debug, Default, PartialEq, serde::Serialize)]
struct Report {
    cycles: u64,
    acknowledged: u64,
    /// Restored after a crash.
    checkpoints: u64,
    lost: u64,
    phantom: u64,
    torn: u64,
    reapplied: u64,
    hash_mismatch: u64,
}

impl Writer {
    fn next(&mut self) -> v1::WriteRequest {
        self.number += 1;
        let count = self.random.below(24) as usize + 1;
        let ids: Vec<u64> = (0..count).map(|_| self.random.below(400)).collect();
        v1::WriteRequest {
            bank: self.bank.to_owned(),
            embeddings: Some(rows(&random_rows(&mut self.random, count, DIM))),
            labels: ids.iter().map(|id| (id % 7) as i64).collect(),
            groups: if self.number.is_multiple_of(3) { ids.iter().map(|id| id / 3).collect() } else { Vec::new() },
            ids: if self.bank == "queue" && self.number.is_multiple_of(2) { Vec::new() } else { ids },
            step: Some(self.number),
            origin: Some(v1::Origin { writer: format!("writer-{}", self.name), incarnation: 1, number: self.number }),
            ..Default::default()
        }
    }

    /// Writes until the server is gone; what was sent last stays pending.
    async fn write(mut self, client: Client) -> (Self, Vec<(u64, v1::WriteRequest)>) {
        let mut acknowledged = Vec::new();
        loop {
            let request = self.next();
            self.pending = Some(request.clone());
            match client.write(request.clone()).await {
                Ok(answer) => {
                    assert!(!answer.duplicate, "the first copy of a batch was taken for another");
                    acknowledged.push((answer.sequence, request));
                    self.pending = None;
                }
                Err(_) => return (self, acknowledged),
            }
        }
    }
}

impl History {
    /// Judges a server that was just started, before anything is written: `pending` batches may be there or not.
    async fn judge(&mut self, bank: &str, client: &Client, pending: Vec<v1::WriteRequest>, report: &mut Report) {
        let there = client.get_bank(v1::GetBankRequest { name: bank.to_owned() }).await.unwrap().sequence;
        let (acknowledged, unknown) = (self.acknowledged.len() as u64, pending.len() as u64);
        let last = self.acknowledged.iter().map(|(sequence, _)| *sequence).max().unwrap_or(0);
        report.lost += last.max(acknowledged).saturating_sub(there);
        report.phantom += there.saturating_sub(acknowledged + unknown);
        let mut duplicates = 0;
        for request in pending {
            let answer = client.write(request.clone()).await.unwrap();
            duplicates += u64::from(answer.duplicate);
            self.acknowledged.push((answer.sequence, request));
        }
        // Whatever was applied and not acknowledged is pending, and must be known.
        report.reapplied += there.saturating_sub(acknowledged).abs_diff(duplicates);
        self.acknowledged[self.replayed..].sort_by_key(|(sequence, _)| *sequence);
        let in_order = self.acknowledged.iter().zip(1..).all(|((sequence, _), expected)| *sequence == expected);
        report.torn += u64::from(!in_order);
    }

    /// Brings the reference, a server that never ended, up to date, and compares all that can be seen of both.
    async fn compare(&mut self, bank: &str, client: &Client, reference: &Client, report: &mut Report) {
        for (_, request) in &self.acknowledged[self.replayed..] {
            reference.write(request.clone()).await.unwrap();
        }
        self.replayed = self.acknowledged.len();
        let (about, chunks, answers) = seen(client, bank).await;
        let (expected, expected_chunks, expected_answers) = seen(reference, bank).await;
        report.torn += u64::from(chunks != expected_chunks);
        report.hash_mismatch +=
            u64::from(v1::Bank { durability: expected.durability, ..about } != expected || answers != expected_answers);
    }
}

/// Makes checkpoints until the server is gone.
async fn keep(client: Client, cycle: u64) {
    for number in 0.. {
        let bank = ["keyed", "queue"][number % 2].to_owned();
        let request = v1::CreateCheckpointRequest { bank, tag: format!("{cycle}-{number}"), ..Default::default() };
        let Ok(making) = client.create_checkpoint(request).await else { return };
        if making.done().await.is_err() {
            return;
        }
    }
}

/// Restores the newest checkpoint of each bank, which proves it against its hash; returns how many there were.
async fn whole_checkpoints(client: &Client) -> u64 {
    let listed = client.list_checkpoints(v1::ListCheckpointsRequest::default()).await.unwrap().checkpoints;
    let mut restored = 0;
    for bank in ["keyed", "queue"] {
        let Some(newest) = listed.iter().rev().find(|made| made.bank == bank) else { continue };
        let (bank, tag, into) = (bank.to_owned(), newest.tag.clone(), "restored".to_owned());
        let request = v1::RestoreCheckpointRequest { bank, tag, into, ..Default::default() };
        let there = client.restore_checkpoint(request).await.unwrap().done().await.unwrap().restored.unwrap();
        assert_eq!((there.sequence, there.entries), (newest.sequence, newest.entries));
        client.delete_bank(v1::DeleteBankRequest { name: there.name }).await.unwrap();
        restored += 1;
    }
    restored
}

/// Starts a server and kills it before it can say anything: a crash during recovery.
fn crash_while_recovering(arguments: &[&str], after: Duration) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_negbank"));
    let mut child = command.args(["serve", "--listen", "127.0.0.1:0"]).args(arguments).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(after);
    child.kill().unwrap();
    child.wait().unwrap();
}

async fn connect(server: &Process) -> Client {
    let options = Options { retries: 0, timeout: Duration::from_secs(20), ..Options::default() };
    Client::connect(&server.address, options).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_loses_nothing_that_it_acknowledged() {
    let cycles = std::env::var("NEGBANK_CRASH_CYCLES").map_or(10, |cycles| cycles.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let dir_flag = format!("durability.dir={}", dir.path().display());
    // Small files and many snapshots, so that crashes meet the beginnings and ends of them.
    let small = ["--set", "durability.segment_bytes=32768", "--set", "durability.snapshot_log_bytes=131072"];
    let location = format!("checkpoints.location={}", dir.path().join("checkpoints").display());
    let arguments = [&["--set", &dir_flag, "--set", &location, "--set", "checkpoints.keep=3"][..], &small].concat();
    let reference = Live::start(&[]).await;
    let banks = [("keyed", keyed("keyed", DIM as u32, 4)), ("queue", queue("queue", DIM as u32, 4, 300))];
    for (_, bank) in &banks {
        reference.create(bank.clone()).await;
    }
    let writer = |bank, name| Writer { bank, name, number: 0, random: Seed(name).stream(9, 9), pending: None };
    let mut writers: Vec<Writer> = (0..2 * WRITERS).map(|name| writer(banks[name as usize % 2].0, name)).collect();
    let mut histories = [History::default(), History::default()];
    let mut random = Seed(20).stream(0, 0);
    let mut report = Report::default();
    let mut told = clock::now();

    for cycle in 0..=cycles {
        if random.below(3) == 0 {
            crash_while_recovering(&arguments, Duration::from_millis(random.below(40)));
        }
        let server = Process::start(&arguments);
        let client = connect(&server).await;
        for (_, bank) in &banks {
            let bank = v1::CreateBankRequest { durability: v1::Durability::Always.into(), ..bank.clone() };
            client.create_bank(bank).await.unwrap();
        }
        for ((bank, _), history) in banks.iter().zip(&mut histories) {
            let of_bank = writers.iter_mut().filter(|writer| writer.bank == *bank);
            let pending = of_bank.filter_map(|writer| writer.pending.take()).collect();
            history.judge(bank, &client, pending, &mut report).await;
            history.compare(bank, &client, &reference.client, &mut report).await;
        }
        report.acknowledged = histories.iter().map(|history| history.acknowledged.len() as u64).sum();
        report.checkpoints += whole_checkpoints(&client).await;
        let (checkpoints, acknowledged) = (report.checkpoints, report.acknowledged);
        assert_eq!(report, Report { cycles: report.cycles, acknowledged, checkpoints, ..Report::default() });
        if cycle == cycles {
            break;
        }
        let mut writing = JoinSet::new();
        writers.drain(..).for_each(|writer| drop(writing.spawn(writer.write(client.clone()))));
        let keeping = tokio::spawn(keep(client.clone(), cycle));
        tokio::time::sleep(Duration::from_millis(20 + random.below(200))).await;
        tokio::task::spawn_blocking(move || server.killed()).await.unwrap();
        while let Some(written) = writing.join_next().await {
            let (writer, acknowledged) = written.unwrap();
            histories[usize::from(writer.bank == "queue")].acknowledged.extend(acknowledged);
            writers.push(writer);
        }
        keeping.await.unwrap();
        report.cycles += 1;
        if told.elapsed() > Duration::from_secs(10) {
            told = clock::now();
            println!("{} of {cycles} cycles, {} writes acknowledged", report.cycles, report.acknowledged);
        }
    }
    println!("{}", serde_json::to_string(&report).unwrap());
    assert!(report.acknowledged > cycles * 2, "the server was killed before it could do anything: {report:?}");
    if let Ok(path) = std::env::var("NEGBANK_CRASH_REPORT") {
        std::fs::create_dir_all(std::path::Path::new(&path).parent().unwrap()).unwrap();
        std::fs::write(path, serde_json::to_vec_pretty(&report).unwrap()).unwrap();
    }
}
