//! A mixed load on a real server for some minutes, and whether anything grows: `make soak MINUTES=10`. Prints resident memory, threads and
//! open files as they are, writes `target/reports/soak.json`, and fails if memory, threads or files at the end are more than at the
//! beginning.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark may fail loudly and prints its figures")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use negbank::client::{Client, Options, rows};
use negbank::model::{Seed, Stream};
use negbank::proto::v1;
use v1::draw::Strategy;

const DIM: usize = 128;
const IDS: u64 = 50_000;
const LABELS: u64 = 50;

#[tokio::main]
async fn main() -> ExitCode {
    let minutes: f64 = std::env::var("MINUTES").ok().and_then(|given| given.parse().ok()).unwrap_or(10.0);
    let server = Process::start();
    let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    set_up(&connect(&server.address).await).await;
    let loads: Vec<_> = (0..6)
        .map(|number| tokio::spawn(load(server.address.clone(), number, Arc::clone(&stop), Arc::clone(&calls))))
        .collect();
    let lasts = Duration::from_secs_f64(minutes * 60.0);
    println!("{minutes} minutes of mixed load\n{:>8} {:>12} {:>10} {:>8} {:>8}", "s", "calls", "MiB", "threads", "files");
    let began = now();
    let mut readings = Vec::new();
    while began.elapsed() < lasts {
        tokio::time::sleep(lasts / 60).await;
        let reading = server.reading();
        let calls = calls.load(Ordering::Relaxed);
        let Reading { resident, threads, files } = reading;
        println!(
            "{:>8.0} {calls:>12} {:>10.1} {threads:>8} {files:>8}",
            began.elapsed().as_secs_f64(),
            resident as f64 / 1_048_576.0
        );
        readings.push(reading);
    }
    stop.store(true, Ordering::Relaxed);
    for load in loads {
        load.await.unwrap();
    }
    verdict(minutes, &readings, calls.load(Ordering::Relaxed))
}

async fn connect(address: &str) -> Client {
    Client::connect(address, Options::default()).await.unwrap()
}

async fn set_up(client: &Client) {
    let keyed = v1::CreateBankRequest { name: "keyed".into(), dim: DIM as u32, ..Default::default() };
    let queue = v1::CreateBankRequest {
        name: "queue".into(),
        kind: v1::BankKind::Queue.into(),
        capacity: IDS,
        dtype: v1::Dtype::F16.into(),
        ..keyed.clone()
    };
    client.create_bank(keyed).await.unwrap();
    client.create_bank(queue).await.unwrap();
    let mut random = Seed(0).stream(0, 0);
    for start in (0..IDS).step_by(5_000) {
        client.write(write("keyed", (start..start + 5_000).collect(), &mut random)).await.unwrap();
        client.write(write("queue", (start..start + 5_000).collect(), &mut random)).await.unwrap();
    }
}

/// One connection that does all there is to do, in random order, until told to stop.
async fn load(address: String, number: usize, stop: Arc<AtomicBool>, calls: Arc<AtomicU64>) {
    let client = connect(&address).await;
    let (mut random, mut sent) = (Seed(1).stream(0, number), 0);
    while !stop.load(Ordering::Relaxed) {
        let bank = if random.below(2) == 0 { "keyed" } else { "queue" };
        match random.below(24) {
            0..8 => {
                let ids = (0..256).map(|_| random.below(IDS)).collect();
                let mut request = write(bank, ids, &mut random);
                // One in ten is sent again.
                sent += u64::from(random.below(10) > 0);
                let (writer, number) = (format!("soak-{number}"), 1 + sent);
                request.origin = Some(v1::Origin { writer, incarnation: 1, number });
                drop(client.write(request).await.unwrap());
            }
            8..15 => drop(client.sample(sample(bank, &mut random)).await.unwrap()),
            15 => {
                // The caller leaves in the middle.
                let _left = tokio::time::timeout(Duration::from_micros(300), client.sample(sample(bank, &mut random))).await;
            }
            16 => {
                let ids = (0..100).map(|_| random.below(IDS)).collect();
                drop(client.fetch(v1::FetchRequest { bank: bank.into(), ids, ..Default::default() }).await.unwrap());
            }
            17 => {
                let ids = (0..20).map(|_| random.below(IDS)).collect();
                drop(client.remove(v1::RemoveRequest { bank: bank.into(), ids }).await.unwrap());
            }
            18 => {
                let name = format!("short-{number}");
                let request = v1::CreateBankRequest { name: name.clone(), dim: 16, ..Default::default() };
                client.create_bank(request).await.unwrap();
                client.delete_bank(v1::DeleteBankRequest { name }).await.unwrap();
            }
            19 => stage(&client, &format!("soak-stage-{number}"), &mut random).await,
            20 => {
                drop(client.stalest(v1::StalestRequest { bank: "keyed".into(), k: 500, ..Default::default() }).await.unwrap());
            }
            21 => read(&client, v1::ScanRequest { bank: bank.into(), ..Default::default() }).await,
            22 => {
                // As a mirror does: what has changed since a write.
                let ids = (0..256).map(|_| random.below(IDS)).collect();
                let since = client.write(write(bank, ids, &mut random)).await.unwrap().position;
                read(&client, v1::ScanRequest { bank: bank.into(), since, ..Default::default() }).await;
            }
            _ => drop(connect(&address).await.list_banks().await.unwrap()),
        }
        calls.fetch_add(1, Ordering::Relaxed);
    }
}

/// Two ranks write a step together, in a bank of their own.
async fn stage(client: &Client, name: &str, random: &mut Stream) {
    let bank = v1::CreateBankRequest { name: name.into(), dim: DIM as u32, ..Default::default() };
    client.create_bank(bank).await.unwrap();
    let part = |rank| {
        let ids = (0..64).map(|_| random.below(IDS)).collect();
        let stage = Some(v1::Stage { rank, world_size: 2, ..Default::default() });
        v1::WriteRequest { stage, ..write(name, ids, random) }
    };
    let [first, second] = [0, 1].map(part);
    tokio::try_join!(client.write(first), client.write(second)).unwrap();
    client.delete_bank(v1::DeleteBankRequest { name: name.into() }).await.unwrap();
}

/// Reads a stream to its end. A bank may have forgotten what a mirror asks for.
async fn read(client: &Client, request: v1::ScanRequest) {
    let mut chunks = client.scan(request).await.unwrap();
    while let Ok(Some(_)) = chunks.next().await {}
}

fn write(bank: &str, ids: Vec<u64>, random: &mut Stream) -> v1::WriteRequest {
    let labels = ids.iter().map(|_| random.below(LABELS) as i64).collect();
    let embeddings = Some(rows(&random_rows(ids.len(), random)));
    v1::WriteRequest { bank: bank.into(), ids, labels, embeddings, step: Some(random.below(1_000)), ..Default::default() }
}

fn sample(bank: &str, random: &mut Stream) -> v1::SampleRequest {
    let anchors = 1 + random.below(64) as usize;
    let (strategy, scope) = match random.below(3) {
        0 => (Strategy::Nearest(v1::Nearest::default()), v1::Scope::PerAnchor),
        1 => (Strategy::Uniform(v1::Uniform::default()), v1::Scope::PerAnchor),
        _ => (Strategy::Uniform(v1::Uniform::default()), v1::Scope::Shared),
    };
    let draw =
        v1::Draw { k: 1 + random.below(128) as u32, strategy: Some(strategy), scope: scope.into(), ..Default::default() };
    v1::SampleRequest {
        bank: bank.into(),
        anchors: Some(v1::Anchors {
            embeddings: Some(rows(&random_rows(anchors, random))),
            labels: (0..anchors).map(|_| random.below(LABELS) as i64).collect(),
            ..Default::default()
        }),
        draws: vec![draw],
        filters: Some(v1::Filters { exclude_same_label: true, ..Default::default() }),
        layout: random.below(3) as i32,
        seed: Some(random.below(1_000)),
        ..Default::default()
    }
}

fn random_rows(count: usize, random: &mut Stream) -> Vec<f32> {
    (0..count * DIM).map(|_| random.below(2_000_001) as f32 / 1e6 - 1.0).collect()
}

/// Compares the second fifth of the run (the first warms up) with the last.
fn verdict(minutes: f64, readings: &[Reading], calls: u64) -> ExitCode {
    let fifth = readings.len() / 5;
    let middle = |part: &[Reading], of: fn(&Reading) -> u64| {
        let mut values: Vec<u64> = part.iter().map(of).collect();
        values.sort_unstable();
        values[values.len() / 2]
    };
    let growth = |of: fn(&Reading) -> u64| {
        let (first, last) = (middle(&readings[fifth..2 * fifth], of), middle(&readings[4 * fifth..], of));
        last as f64 / first as f64 - 1.0
    };
    let resident = growth(|reading| reading.resident);
    let (threads, files) = (growth(|reading| reading.threads), growth(|reading| reading.files));
    println!(
        "\ngrowth from the second fifth of the run to the last: memory {:+.1} %, threads {:+.1} %, files {:+.1} %",
        resident * 100.0,
        threads * 100.0,
        files * 100.0
    );
    let report = serde_json::json!({
        "minutes": minutes, "calls": calls, "growth": { "resident": resident, "threads": threads, "files": files },
        "resident_mib": readings.iter().map(|reading| reading.resident as f64 / 1_048_576.0).collect::<Vec<f64>>(),
    });
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("target/reports");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("soak.json"), format!("{report:#}\n")).unwrap();
    // Threads and files are few and move by whole ones; a leak would add one a call.
    let steady = resident < 0.05 && threads < 0.2 && files < 0.5;
    println!("{}", if steady { "nothing grows" } else { "*** something grows ***" });
    if steady { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[derive(Clone, Copy)]
struct Reading {
    resident: u64,
    threads: u64,
    files: u64,
}

struct Process {
    child: Child,
    address: String,
}

impl Process {
    fn start() -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_negbank"))
            .args([
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--set",
                "http.listen=none",
                "--set",
                "log.filter=warn,negbank::app=info",
            ])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        log.read_line(&mut line).unwrap();
        std::thread::spawn(move || log.read_to_string(&mut String::new()));
        let address = line.split("address=").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
        Self { child, address }
    }

    fn reading(&self) -> Reading {
        let process = std::path::PathBuf::from(format!("/proc/{}", self.child.id()));
        let status = std::fs::read_to_string(process.join("status")).unwrap();
        let number = |key: &str| {
            let line = status.lines().find(|line| line.starts_with(key)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
        };
        let files = std::fs::read_dir(process.join("fd")).unwrap().count() as u64;
        Reading { resident: number("VmRSS:") * 1024, threads: number("Threads:"), files }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures")]
fn now() -> Instant {
    Instant::now()
}
