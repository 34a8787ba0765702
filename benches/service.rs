//! The service end to end over loopback: one client, one request at a time, 65,536 entries of 128 floats. Prints medians and
//! the 99th percentiles, and writes `target/reports/service.json`.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark may fail loudly and prints its figures")]

use std::time::{Duration, Instant};

use negbank::client::{Client, Options, rows};
use negbank::config::{Settings, Sources};
use negbank::engine::Engine;
use negbank::grpc::Server;
use negbank::model::Seed;
use negbank::proto::v1;
use v1::draw::Strategy;

const DIM: usize = 128;
const ENTRIES: u64 = 65_536;
const BANK: &str = "bench";

struct Figure {
    name: &'static str,
    p50: Duration,
    p99: Duration,
    rows_per_s: f64,
    mb_per_s: f64,
}

#[tokio::main]
async fn main() {
    let client = serve().await;
    fill(&client).await;
    let mut figures = Vec::new();
    let cases = [
        ("uniform, 1 anchor x 16", 1, 16, false, 400),
        ("uniform, 256 anchors x 64", 256, 64, false, 40),
        ("nearest, 1 anchor x 64", 1, 64, true, 100),
        ("nearest, 32 anchors x 64", 32, 64, true, 30),
        ("nearest, 256 anchors x 64", 256, 64, true, 10),
    ];
    for (name, anchors, k, hard, repeats) in cases {
        figures.push(sample(&client, name, anchors, k, hard, repeats).await);
    }
    figures.push(write(&client, "write, 256 rows", 256, 200).await);
    report(&figures);
}

async fn serve() -> Client {
    let sources = Sources { flags: vec!["server.listen=127.0.0.1:0".to_owned()], ..Sources::default() };
    let settings = Settings::load(&sources).unwrap();
    let server = Server::bind(settings.server, settings.limits).await.unwrap();
    let address = server.address().unwrap().to_string();
    let engine = Engine::start(settings.engine).unwrap();
    tokio::spawn(server.serve(engine, std::future::pending()));
    Client::connect(&address, Options::default()).await.unwrap()
}

async fn fill(client: &Client) {
    let request = v1::CreateBankRequest { name: BANK.into(), dim: DIM as u32, ..Default::default() };
    client.create_bank(request).await.unwrap();
    for start in (0..ENTRIES).step_by(8_192) {
        let ids: Vec<u64> = (start..start + 8_192).collect();
        let labels = ids.iter().map(|id| (id % 100) as i64).collect();
        let embeddings = Some(rows(&random(ids.len(), start)));
        let request = v1::WriteRequest { bank: BANK.into(), ids, labels, embeddings, ..Default::default() };
        client.write(request).await.unwrap();
    }
}

async fn sample(client: &Client, name: &'static str, anchors: usize, k: u32, hard: bool, repeats: usize) -> Figure {
    let strategy = if hard { Strategy::Nearest(v1::Nearest::default()) } else { Strategy::Uniform(v1::Uniform::default()) };
    let request = v1::SampleRequest {
        bank: BANK.into(),
        anchors: Some(v1::Anchors {
            embeddings: Some(rows(&random(anchors, 7))),
            labels: (0..anchors as i64).map(|at| at % 100).collect(),
            ..Default::default()
        }),
        draws: vec![v1::Draw { k, strategy: Some(strategy), filters: None, ..Default::default() }],
        filters: Some(v1::Filters { exclude_same_label: true, ..Default::default() }),
        ..Default::default()
    };
    let mut took = Vec::with_capacity(repeats);
    let mut bytes = 0;
    for repeat in 0..repeats + repeats / 10 + 1 {
        let began = now();
        let answer = client.sample(request.clone()).await.unwrap();
        if repeat > repeats / 10 {
            took.push(began.elapsed());
        }
        bytes = prost::Message::encoded_len(&answer);
    }
    figure(name, took, anchors * k as usize, bytes)
}

async fn write(client: &Client, name: &'static str, batch: u64, repeats: u64) -> Figure {
    let mut took = Vec::new();
    let x = random(batch as usize, 99);
    for repeat in 0..repeats {
        let ids = (0..batch).map(|row| (repeat * batch + row * 31) % ENTRIES).collect();
        let request = v1::WriteRequest { bank: BANK.into(), ids, embeddings: Some(rows(&x)), ..Default::default() };
        let began = now();
        client.write(request).await.unwrap();
        took.push(began.elapsed());
    }
    figure(name, took, batch as usize, batch as usize * DIM * 4)
}

fn figure(name: &'static str, mut took: Vec<Duration>, rows: usize, bytes: usize) -> Figure {
    took.sort_unstable();
    let p50 = took[took.len() / 2];
    let p99 = took[(took.len() * 99 / 100).min(took.len() - 1)];
    let rate = |amount: usize| amount as f64 / p50.as_secs_f64();
    Figure { name, p50, p99, rows_per_s: rate(rows), mb_per_s: rate(bytes) / 1e6 }
}

fn report(figures: &[Figure]) {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown");
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZeroUsize::get);
    println!("{cores} cores{model}; {ENTRIES} entries x {DIM}, cosine, own label excluded, answers with vectors");
    println!("{:<28} {:>9} {:>9} {:>12} {:>8}", "", "p50 ms", "p99 ms", "rows/s", "MB/s");
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    for Figure { name, p50, p99, rows_per_s, mb_per_s } in figures {
        println!("{name:<28} {:>9.3} {:>9.3} {rows_per_s:>12.0} {mb_per_s:>8.0}", ms(*p50), ms(*p99));
    }
    let cases: Vec<serde_json::Value> = figures
        .iter()
        .map(|figure| {
            serde_json::json!({
                "name": figure.name, "p50_ms": ms(figure.p50), "p99_ms": ms(figure.p99),
                "rows_s": figure.rows_per_s, "mb_s": figure.mb_per_s,
            })
        })
        .collect();
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("target/reports");
    std::fs::create_dir_all(&folder).unwrap();
    let report = serde_json::json!({ "machine": format!("{cores} cores{model}"), "cases": cases });
    std::fs::write(folder.join("service.json"), format!("{report:#}\n")).unwrap();
}

fn random(count: usize, seed: u64) -> Vec<f32> {
    let mut stream = Seed(seed).stream(0, 0);
    (0..count * DIM).map(|_| stream.below(2_000_001) as f32 / 1e6 - 1.0).collect()
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures")]
fn now() -> Instant {
    Instant::now()
}
