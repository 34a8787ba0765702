//! Ten times more than a real server can do, for a minute, three times: `make overload-test SECONDS=60 ROUNDS=3`. Prints what became of it,
//! writes `target/reports/overload.json`, and fails where the server does worse than it promises.
//!
//! The load shares the machine with the server, so it is made to cost little beside the work: a request names 256 entries of a bank of
//! 65,536 x 128 as anchors (a message of 800 bytes), each of which is compared with every entry (about 20 ms of one core), and is answered
//! with 256 ids. One thread sends from ten connections, each a caller of its own by its token, and another asks for the metrics, as
//! Prometheus does.
//!
//! Goodput is what was sent and answered within the SECONDS, over what the server can do in that time: what is answered after them, up to a
//! deadline, does not count, and the time in which the first answers are computed does. The other shares are of everything that was sent.
//! What it can do is the mean of two measurements, half before the load and half after it; the first sets the load. On a machine that is
//! shared either alone may be of another machine than the one that bore the load: how far they are apart, and how much of the CPUs' time was
//! stolen, says what a round is worth, and the goodput is the median of the rounds'. All other figures are of all rounds together.
//!
//! Two other loads, whose figures go to files of their own (`overload-64x0.json`) and which are not held to the goodput:
//! `ANCHORS=64 make overload-test` has smaller requests, and so more refusals for the same work; `ROWS=16 make overload-test` has large answers,
//! 16 nearest of each anchor with their embeddings, up to 2 MiB, with memory for 32 of them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a benchmark may fail loudly and prints its figures"
)]

mod load;
mod report;
mod server;
mod shape;
mod stolen;

use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

use negbank::client::{Client, Options, Security, rows};
use negbank::model::{Seed, clock};
use negbank::proto::v1;
use report::{Capacity, Round, Run};
use server::{Allowed, Server};
use shape::Shape;
use stolen::CpuTime;

const DIM: usize = 128;
const ENTRIES: u64 = 65_536;
const CALLERS: usize = 10;
/// What the load is of the capacity.
const TIMES: f64 = 10.0;
/// What each of the nine polite callers asks for, of the capacity: less than a tenth.
const POLITE: f64 = 0.08;
const DEADLINE: Duration = Duration::from_millis(500);

/// Bytes of a request, of all requests, and of everything that is accounted for; the bank takes 57 MiB of it.
const MAX_MESSAGE: usize = 2 << 20;
const MAX_INBOUND: usize = 4 << 20;
const MAX_MEMORY: usize = 76 << 20;

/// How often the metrics are asked for.
const SCRAPES: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let (seconds, rounds) = (number("SECONDS", 60.0), number("ROUNDS", 3.0).max(1.0) as usize);
    let shape = Shape::given();
    println!(
        "load:     {} anchors a request, answers of {} KiB of embeddings at most",
        shape.anchors,
        shape.answer_bytes() >> 10
    );
    let server = Server::start(CALLERS, shape.max_memory());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(measured(&server, shape, seconds, rounds)).report()
}

/// What the environment gives of `SECONDS` and the like; an empty value is none.
pub(crate) fn number(name: &str, default: f64) -> f64 {
    match std::env::var(name) {
        Ok(given) if !given.is_empty() => given.parse().expect("SECONDS, ROUNDS, ANCHORS and ROWS are numbers"),
        _ => default,
    }
}

async fn measured(server: &Server, shape: Shape, seconds: f64, rounds: usize) -> Run {
    let mut clients = Vec::new();
    for token in &server.tokens {
        let security = Security { token: Some(token.clone()), ..Security::default() };
        let options = Options { security, retries: 0, ..Options::default() };
        clients.push(Client::connect(&server.address, options).await.unwrap());
    }
    fill(&clients[0]).await;
    let allowed = server.at_rest();
    let Allowed { base, bound } = allowed;
    println!("memory:   {base:.0} MiB at rest, may come to {bound:.0} MiB");
    let (scrapes, began) = (Scrapes::start(&server.probes), CpuTime::now());
    let lasts = Duration::from_secs_f64((seconds / 8.0).clamp(1.5, 7.5));
    let mut before = load::capacity(&clients, shape, lasts).await;
    println!("capacity: {before:.0} requests/s at first, {CALLERS} callers with two in flight each");
    let hurried: Vec<Client> = clients.iter().map(|client| client.with_timeout(DEADLINE)).collect();
    let greedy = TIMES - POLITE * (CALLERS - 1) as f64;
    let mut ended = Vec::new();
    for round in 0..rounds {
        let rates: Vec<f64> = (0..CALLERS).map(|of| before * if of == 0 { greedy } else { POLITE }).collect();
        let load = load::offer((&hurried, &rates), shape, Duration::from_secs_f64(seconds), round).await;
        let after = load::capacity(&clients, shape, lasts).await;
        let of = Round { capacity: Capacity { before, after }, load };
        println!("round {}:  {}", round + 1, of.line(seconds));
        ended.push(of);
        before = after;
    }
    let stolen = CpuTime::now().zip(began).and_then(|(now, began)| now.stolen_since(began));
    let (peak, slowest_scrape) = (server.peak_mib(), scrapes.end());
    Run { shape, seconds, rounds: ended, allowed, peak, slowest_scrape, stolen }
}

async fn fill(client: &Client) {
    let bank = v1::CreateBankRequest { name: "docs".into(), dim: DIM as u32, ..Default::default() };
    client.create_bank(bank).await.unwrap();
    let mut random = Seed(0).stream(0, 0);
    for start in (0..ENTRIES).step_by(2_048) {
        let ids: Vec<u64> = (start..start + 2_048).collect();
        let x: Vec<f32> = (0..ids.len() * DIM).map(|_| random.below(2_000_001) as f32 / 1e6 - 1.0).collect();
        let request = v1::WriteRequest { bank: "docs".into(), ids, embeddings: Some(rows(&x)), ..Default::default() };
        client.write(request).await.unwrap();
    }
}

/// Somebody who asks for the metrics all the while.
struct Scrapes {
    stop: mpsc::Sender<()>,
    thread: std::thread::JoinHandle<Duration>,
}

impl Scrapes {
    fn start(probes: &str) -> Self {
        let (stop, stopped) = mpsc::channel();
        let probes = probes.to_owned();
        let thread = std::thread::spawn(move || {
            let mut slowest = Duration::ZERO;
            while stopped.recv_timeout(SCRAPES).is_err_and(|why| why == mpsc::RecvTimeoutError::Timeout) {
                let began = clock::now();
                server::metrics(&probes);
                slowest = slowest.max(began.elapsed());
            }
            slowest
        });
        Self { stop, thread }
    }

    /// What the slowest answer took.
    fn end(self) -> Duration {
        drop(self.stop);
        self.thread.join().expect("the metrics are told under load too")
    }
}
