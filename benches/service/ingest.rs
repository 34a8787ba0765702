//! Writes of 256 rows by one and by eight writers, each on its own connection, with a reader beside them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use negbank::client::rows;
use negbank::proto::v1;
use tokio::runtime::Runtime;

use crate::bank::{BANK, DIM, ENTRIES, Serving, connect, random, request, uniform};
use crate::timing::{Times, now};

const BATCH: u64 = 256;
const LASTS: Duration = Duration::from_secs(4);
const QUEUE: &str = "bench-queue";

/// One kind of bank under one number of writers.
pub(crate) struct Ingest {
    pub(crate) bank: &'static str,
    pub(crate) writers: u64,
    pub(crate) rows_s: f64,
    pub(crate) writes: Times,
    pub(crate) reads: Times,
}

pub(crate) fn measure(client: &Runtime, serving: &Serving) -> Vec<Ingest> {
    client.block_on(async {
        let queue = v1::CreateBankRequest {
            name: QUEUE.into(),
            dim: DIM as u32,
            kind: v1::BankKind::Queue.into(),
            capacity: ENTRIES,
            ..Default::default()
        };
        connect(&serving.address).await.create_bank(queue).await.unwrap();
    });
    println!("\ningest, batches of {BATCH} x {DIM} f32; a reader (32 anchors x 64 uniform, pooled) beside it");
    println!(
        "{:<22} {:>8} {:>12} {:>10} {:>10} {:>14} {:>14}",
        "bank", "writers", "rows/s", "p50 ms", "p99 ms", "read p50 ms", "read p99 ms"
    );
    let mut all = Vec::new();
    for (bank, writers) in [("keyed", 0), ("keyed", 1), ("keyed", 8), ("queue", 1), ("queue", 8)] {
        let measured = client.block_on(run(&serving.address, bank, writers));
        let (p50, p99) =
            if writers == 0 { (0.0, 0.0) } else { (measured.writes.median_ms(), measured.writes.quantile_ms(0.99)) };
        println!(
            "{bank:<22} {writers:>8} {:>12.0} {p50:>10.3} {p99:>10.3} {:>14.3} {:>14.3}",
            measured.rows_s,
            measured.reads.median_ms(),
            measured.reads.quantile_ms(0.99)
        );
        all.push(measured);
    }
    all
}

async fn run(address: &str, bank: &'static str, writers: u64) -> Ingest {
    let stop = Arc::new(AtomicBool::new(false));
    let reader = tokio::spawn(read(address.to_owned(), Arc::clone(&stop)));
    let began = now();
    let tasks: Vec<_> =
        (0..writers).map(|writer| tokio::spawn(write(address.to_owned(), bank, writer, Arc::clone(&stop)))).collect();
    tokio::time::sleep(LASTS).await;
    stop.store(true, Ordering::Relaxed);
    let mut writes = Times::default();
    for task in tasks {
        writes.extend(task.await.unwrap());
    }
    let lasted = began.elapsed().as_secs_f64();
    let rows_s = (writes.len() as u64 * BATCH) as f64 / lasted;
    Ingest { bank, writers, rows_s, writes, reads: reader.await.unwrap() }
}

async fn write(address: String, bank: &str, writer: u64, stop: Arc<AtomicBool>) -> Times {
    let client = connect(&address).await;
    let (mut times, mut batch) = (Times::default(), 0);
    let embeddings = rows(&random(BATCH as usize, writer));
    while !stop.load(Ordering::Relaxed) {
        let ids = (0..BATCH).map(|row| (batch * BATCH + row * 31 + writer * 7_919) % ENTRIES).collect();
        let name = if bank == "keyed" { BANK } else { QUEUE };
        let request = v1::WriteRequest { bank: name.into(), ids, embeddings: Some(embeddings.clone()), ..Default::default() };
        let sent = now();
        client.write(request).await.unwrap();
        times.push(sent.elapsed());
        batch += 1;
    }
    times
}

async fn read(address: String, stop: Arc<AtomicBool>) -> Times {
    let client = connect(&address).await;
    let (mut times, mut seed) = (Times::default(), 0);
    while !stop.load(Ordering::Relaxed) {
        let sent = now();
        client.sample(request(32, uniform(64, v1::Scope::PerAnchor), seed)).await.unwrap();
        times.push(sent.elapsed());
        seed += 1;
    }
    times
}
