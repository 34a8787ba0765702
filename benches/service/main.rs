//! The service end to end over loopback. Prints three ceilings for the same bytes (raw loopback, a constant body through the same
//! HTTP/2 stack, a plain tonic answer) beside what is served, ingest with readers beside it, and memory; writes
//! `target/reports/bench.json`. Everything that is compared is measured in turns within one run.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark may fail loudly and prints its figures")]

mod bank;
mod ceilings;
#[path = "../index/data.rs"]
mod clustered;
mod gather;
mod hard;
mod in_process;
mod ingest;
mod memory;
mod report;
mod sampling;
mod small;
mod timing;

use tokio::runtime::{Builder, Runtime};

fn main() {
    // As in life, the two ends share no threads.
    let (server, client) = (runtime("server"), runtime("client"));
    let serving = server.block_on(bank::serve());
    client.block_on(bank::fill(&serving.address));
    println!("{}; {} entries x {}, cosine\n", report::machine(), bank::ENTRIES, bank::DIM);

    // For whoever tunes one part: `cargo bench --bench service -- small ingest`.
    let parts: Vec<String> = std::env::args().skip(1).filter(|part| !part.starts_with('-')).collect();
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|named| named == part);
    let answers = wanted("answers").then(|| sampling::measure(&server, &client, &serving));
    let hard = wanted("hard").then(|| hard::measure(&client, &serving));
    let small = wanted("small").then(|| small::measure(&client, &serving));
    let gather = wanted("gather").then(|| gather::measure(&client, &serving));
    let ingest = wanted("ingest").then(|| ingest::measure(&client, &serving));
    let memory = wanted("memory").then(|| memory::measure(&client));
    if let (Some(answers), Some(hard), Some(small), Some(gather), Some(ingest), Some(memory)) =
        (answers, hard, small, gather, ingest, memory)
    {
        report::write(&answers, &hard, &small, &gather, (&ingest, &memory));
    }
}

fn runtime(name: &str) -> Runtime {
    Builder::new_multi_thread().worker_threads(2).thread_name(name).enable_all().build().unwrap()
}
