//! A real server, killed at random moments while writers write: nothing acknowledged is lost, nothing else appears.
//!
//! Ten cycles here, or more, until kills have met a recovery and a checkpoint; `make crash-test` runs 200 (`NEGBANK_CRASH_CYCLES`) and writes
//! `target/reports/crash.json` (`NEGBANK_CRASH_REPORT`).
//! A writer may have several batches in flight, and then they apply in any order (`Origin.number`): each is there or not, and what is there
//! is the bank's first so many mutations. The state hash is compared with that of a server which was given the same mutations and never
//! killed; what both would get wrong is found by a model of the bank's own arithmetic, to what floats may differ by (`replay.rs`).

mod checkpoints;
mod history;
mod replay;
mod writer;

use std::fs::{self, File};
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use futures_util::FutureExt as _;
use negbank::client::{Client, Options};
use negbank::model::{Seed, Stream, clock};
use negbank::proto::v1;
use tokio::task::JoinSet;

use self::checkpoints::Possible;
use self::history::History;
use self::writer::{Kill, Writer};
use crate::lifecycle::{Process, READY};
use crate::live::{Live, keyed, queue};

/// A bank that is written to.
struct BankKind {
    name: &'static str,
    dim: usize,
    /// Of a queue; 0: it is keyed.
    capacity: u64,
    /// Ids are below.
    ids: u64,
    /// Many batches go past the page cache, some in several pieces.
    is_large: bool,
    /// How many batches each of its writers has in flight.
    writers: &'static [usize],
    /// Somebody removes entries meanwhile.
    is_pruned: bool,
    durability: v1::Durability,
    dtype: v1::Dtype,
}

const ALWAYS: v1::Durability = v1::Durability::Always;
const INTERVAL: v1::Durability = v1::Durability::Interval;

/// What was not synced outlives a kill as well: it is in the system's page cache.
static BANKS: [BankKind; 4] = [
    BankKind { name: "keyed", writers: &[1, 1, 1, 3], is_pruned: true, ..SMALL },
    BankKind { name: "queue", capacity: 300, writers: &[1, 1, 1, 1], is_pruned: true, ..SMALL },
    BankKind { name: "large", dim: 256, ids: 900, is_large: true, ..SMALL },
    BankKind { name: "interval", dim: 64, ids: 500, is_large: true, durability: INTERVAL, dtype: v1::Dtype::F16, ..SMALL },
];

const SMALL: BankKind = BankKind {
    name: "",
    dim: 12,
    capacity: 0,
    ids: 400,
    is_large: false,
    writers: &[1, 3],
    is_pruned: false,
    durability: ALWAYS,
    dtype: v1::Dtype::F32,
};

/// Cycles from which on everything that is to happen by chance must have happened.
const MANY: u64 = 100;

/// Cycles beyond those asked for, at most, until kills have met what every run is to meet.
const MORE: u64 = 50;

#[derive(Debug, Default, serde::Serialize)]
struct Report {
    /// False: a fault, or a panic, ended it early.
    finished: bool,
    cycles: u64,
    /// Before a kill; what was sent again after it is not counted.
    acknowledged: u64,
    /// Of these, batches of 256 KiB and more.
    large: u64,
    /// And removals, those too that were sent again.
    removed: u64,
    /// Restored after a crash.
    checkpoints: u64,
    /// Kills before the server had recovered its banks.
    killed_in_recovery: u64,
    /// Kills while a checkpoint was being made: the server had taken the call, and not told what came of it.
    killed_in_checkpoint: u64,
    /// Kills while a bank was being restored from a checkpoint.
    killed_in_restore: u64,
    /// Records of which a kill left a part, as recovered servers tell.
    cut_short: u64,
    /// Logs that ended with a record that had gone past the page cache: zeros fill its last block.
    past_cache: u64,
    lost: u64,
    phantom: u64,
    torn: u64,
    reapplied: u64,
    hash_mismatch: u64,
    /// Banks of which a recovered server thought that the page cache was gone.
    distrusted: u64,
    /// Entries that are not as the model says, or not in their place.
    wrong: u64,
}

impl Report {
    fn faults(&self) -> u64 {
        self.lost + self.phantom + self.torn + self.reapplied + self.hash_mismatch + self.distrusted + self.wrong
    }

    /// Whether kills have met what every run is to meet.
    fn has_met_all(&self) -> bool {
        self.killed_in_recovery > 0 && self.killed_in_checkpoint > 0
    }

    /// Takes what a server logged of its recovery.
    fn note(&mut self, log: &str) {
        self.cut_short += log.matches("was not written whole").count() as u64;
        self.distrusted += log.matches("writes that were acknowledged and not synced may be lost").count() as u64;
        let zeros = log.lines().filter_map(|line| line.split_once(" zeros="));
        self.past_cache += zeros.filter(|(_, zeros)| !zeros.starts_with("0 ")).count() as u64;
    }

    fn write(&self) {
        println!("{}", serde_json::to_string(self).unwrap());
        if let Ok(path) = std::env::var("NEGBANK_CRASH_REPORT") {
            fs::create_dir_all(Path::new(&path).parent().unwrap()).unwrap();
            fs::write(path, serde_json::to_vec_pretty(self).unwrap()).unwrap();
        }
    }
}

impl BankKind {
    fn request(&self) -> v1::CreateBankRequest {
        let asked = match self.capacity {
            0 => keyed(self.name, self.dim as u32, 4),
            capacity => queue(self.name, self.dim as u32, 4, capacity),
        };
        v1::CreateBankRequest { dtype: self.dtype.into(), ..asked }
    }
}

/// The server's folders, and beside them a server that never ends, and a model that is no server.
struct Trial {
    dir: tempfile::TempDir,
    reference: Live,
    writers: Vec<Writer>,
    histories: [History; BANKS.len()],
    restored: Possible,
    random: Stream,
}

impl Trial {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let reference = Live::start(&[&format!("checkpoints.location={}", dir.path().join("reference").display())]).await;
        for bank in &BANKS {
            reference.create(bank.request()).await;
        }
        let all = BANKS.iter().flat_map(|bank| bank.writers.iter().map(move |&in_flight| (bank, in_flight)));
        let mut writers: Vec<Writer> =
            all.zip(0..).map(|((bank, in_flight), name)| Writer::new(bank, name, in_flight)).collect();
        writers
            .extend(BANKS.iter().filter(|bank| bank.is_pruned).zip(100..).map(|(bank, name)| Writer::that_removes(bank, name)));
        let histories = std::array::from_fn(|at| History::of(&BANKS[at]));
        let (restored, random) = (Possible::default(), Seed(20).stream(0, 0));
        Self { dir, reference, writers, histories, restored, random }
    }

    fn data(&self) -> std::path::PathBuf {
        self.dir.path().join("data")
    }

    /// Of the next server. Small files and many snapshots, so that crashes meet the beginnings and ends of them, or large ones, so that there
    /// is much to replay.
    fn arguments(&mut self) -> Vec<String> {
        let segment = [32 << 10, 4 << 20][self.random.below(2) as usize];
        let log = [128 << 10, 16 << 20][self.random.below(2) as usize];
        let settings = [
            format!("durability.dir={}", self.data().display()),
            format!("checkpoints.location={}", self.dir.path().join("checkpoints").display()),
            "checkpoints.keep=3".to_owned(),
            format!("durability.segment_bytes={segment}"),
            format!("durability.snapshot_log_bytes={log}"),
        ];
        settings.into_iter().flat_map(|setting| ["--set".to_owned(), setting]).collect()
    }

    /// Kills servers and judges what they left, so often at least, until there is a fault.
    async fn run(&mut self, cycles: u64, report: &mut Report) {
        let mut told = clock::now();
        loop {
            while self.random.below(3) == 0 {
                self.crash_while_recovering(report);
            }
            let arguments = self.arguments();
            let server = Process::start(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
            let options = Options { retries: 0, timeout: Duration::from_secs(20), ..Options::default() };
            let client = Client::connect(&server.address, options).await.unwrap();
            self.judge((&server.address, &client), report).await;
            let is_over = report.cycles >= cycles && (report.has_met_all() || report.cycles >= cycles + MORE);
            if report.faults() > 0 || is_over {
                return;
            }
            self.crash(server, client, report).await;
            report.cycles += 1;
            if told.elapsed() > Duration::from_secs(10) {
                told = clock::now();
                println!("{} of {cycles} cycles, {} writes acknowledged", report.cycles, report.acknowledged);
            }
        }
    }

    /// Starts a server and kills it before it can say much: while it recovers, if it has its folder and is not ready.
    fn crash_while_recovering(&mut self, report: &mut Report) {
        let (log, lock, arguments) = (self.dir.path().join("log"), self.data().join("lock"), self.arguments());
        let mut command = Command::new(env!("CARGO_BIN_EXE_negbank"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--set", "http.listen=none"]).args(arguments);
        let mut child = command.stderr(File::create(&log).unwrap()).spawn().unwrap();
        let has_folder = || fs::read_to_string(&lock).is_ok_and(|holder| holder.trim() == child.id().to_string());
        let (from_recovery, started) = (self.random.below(2) == 0, clock::now());
        // Counted from its start or, which meets more of it, from that of the recovery.
        while from_recovery && !has_folder() && started.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_micros(200));
        }
        std::thread::sleep(Duration::from_millis(self.random.below(40)));
        let began = has_folder() && fs::read_dir(self.data().join("banks")).is_ok_and(|mut banks| banks.next().is_some());
        child.kill().unwrap();
        child.wait().unwrap();
        let log = fs::read_to_string(&log).unwrap();
        report.killed_in_recovery += u64::from(began && !log.contains(READY));
        report.note(&log);
    }

    /// Judges a server that was just started.
    async fn judge(&mut self, (address, client): (&str, &Client), report: &mut Report) {
        self.restored.judge(client, report).await;
        for bank in &BANKS {
            let request = v1::CreateBankRequest { durability: bank.durability.into(), ..bank.request() };
            if let Err(refused) = client.create_bank(request).await {
                println!("{}: {refused}", bank.name);
            }
        }
        let made = checkpoints::whole(client, report).await;
        for (bank, history) in BANKS.iter().zip(&mut self.histories) {
            let of_bank = self.writers.iter_mut().filter(|writer| writer.bank.name == bank.name);
            let pending = of_bank.flat_map(|writer| std::mem::take(&mut writer.pending)).collect();
            history.judge(bank, client, pending, report).await;
            if report.faults() > 0 {
                return;
            }
            let made = made.iter().find(|made| made.bank == bank.name);
            history.compare(bank, (address, client, &self.reference.client), made, report).await;
        }
    }

    /// Kills a server while writers write, checkpoints are made and, now and then, restored.
    async fn crash(&mut self, server: Process, client: Client, report: &mut Report) {
        let (mut writing, kill) = (JoinSet::new(), Kill::default());
        self.writers.drain(..).for_each(|writer| drop(writing.spawn(writer.write(client.clone(), kill.clone()))));
        let restores = self.random.below(2) == 0;
        // Of many none is removed while it is restored.
        let kept = if restores { 50 } else { 0 };
        let keeping = tokio::spawn(checkpoints::keep(client.clone(), kill.clone(), report.cycles, kept));
        let restoring = restores.then(|| tokio::spawn(checkpoints::restore(client, kill.clone(), report.cycles)));
        tokio::time::sleep(Duration::from_millis(20 + self.random.below(200))).await;
        kill.begin();
        let log = tokio::task::spawn_blocking(move || server.killed()).await.unwrap();
        report.note(&log);
        while let Some(written) = writing.join_next().await {
            let (writer, acknowledged) = written.unwrap();
            let at = BANKS.iter().position(|bank| bank.name == writer.bank.name).unwrap();
            self.histories[at].extend(acknowledged);
            self.writers.push(writer);
        }
        report.killed_in_checkpoint += u64::from(keeping.await.unwrap());
        self.restored = match restoring {
            Some(restoring) => restoring.await.unwrap(),
            None => Possible::default(),
        };
        // A folder that has no name yet is of a bank that was being restored: no other was made.
        let mut folders = fs::read_dir(self.data().join("banks")).unwrap();
        let is_nascent = |name: &std::ffi::OsStr| name.as_encoded_bytes().starts_with(b".new-");
        report.killed_in_restore += u64::from(folders.any(|folder| is_nascent(&folder.unwrap().file_name())));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_loses_nothing_that_it_acknowledged() {
    let cycles = std::env::var("NEGBANK_CRASH_CYCLES").map_or(10, |cycles| cycles.parse().unwrap());
    let mut report = Report::default();
    let mut trial = Trial::new().await;
    let ran = AssertUnwindSafe(trial.run(cycles, &mut report)).catch_unwind().await;
    report.finished = ran.is_ok() && report.cycles >= cycles && report.has_met_all() && report.faults() == 0;
    // Before anything is asserted, so that a loss is on record.
    report.write();
    if let Err(panic) = ran {
        resume_unwind(panic);
    }
    assert_eq!(report.faults(), 0, "{report:?}");
    assert!(report.acknowledged > cycles * 10, "the server was killed before it could do anything: {report:?}");
    assert!(report.has_met_all(), "no kill met a recovery, or none a checkpoint: {report:?}");
    if cycles >= MANY {
        let by_chance = [report.killed_in_restore, report.large, report.removed, report.past_cache];
        let happened = [by_chance.as_slice(), &[report.checkpoints, report.cut_short]].concat();
        assert!(!happened.contains(&0), "something that was to be met by chance was not: {report:?}");
    }
}
