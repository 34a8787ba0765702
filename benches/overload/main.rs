//! Ten times more than a real server can do, for a minute: `make overload-test SECONDS=60`. Prints what became of it, writes
//! `target/reports/overload.json`, and fails where the server does worse than it promises.
//!
//! The load shares the machine with the server, so it is made to cost little beside the work: a request names 256 entries of a bank of
//! 65,536 x 128 as anchors (a message of 800 bytes), each of which is compared with every entry (about 20 ms of one core), and is answered
//! with 256 ids. One thread sends from ten connections, each a caller of its own by its token, and another asks for the metrics, as
//! Prometheus does.
//!
//! Goodput is what was sent and answered within the SECONDS, over what the server can do in that time: what is answered after them, up to a
//! deadline, does not count, and the time in which the first answers are computed does. The other shares are of everything that was sent.
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
mod server;
mod shape;

use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

use load::{Ended, Load, Outcome};
use negbank::client::{Client, Options, Security, rows};
use negbank::model::{Seed, clock};
use negbank::proto::v1;
use server::{Allowed, Server};
use shape::Shape;

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
    let seconds: f64 = std::env::var("SECONDS").ok().and_then(|given| given.parse().ok()).unwrap_or(60.0);
    let shape = Shape::given();
    println!(
        "load:     {} anchors a request, answers of {} KiB of embeddings at most",
        shape.anchors,
        shape.answer_bytes() >> 10
    );
    let server = Server::start(CALLERS, shape.max_memory());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (capacity, load, allowed, scrapes) = runtime.block_on(async {
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
        let scrapes = Scrapes::start(&server.probes);
        let capacity = load::capacity(&clients, shape, Duration::from_secs_f64((seconds / 4.0).clamp(3.0, 15.0))).await;
        println!("capacity: {capacity:.0} requests/s, {CALLERS} callers with two in flight each");
        let clients: Vec<Client> = clients.iter().map(|client| client.with_timeout(DEADLINE)).collect();
        let greedy = TIMES - POLITE * (CALLERS - 1) as f64;
        let rates: Vec<f64> = (0..CALLERS).map(|of| capacity * if of == 0 { greedy } else { POLITE }).collect();
        let load = load::offer(&clients, &rates, shape, Duration::from_secs_f64(seconds)).await;
        (capacity, load, allowed, scrapes.end())
    });
    let memory = Memory { allowed, peak: server.peak_mib() };
    report(shape, (seconds, capacity), &load, &memory, scrapes)
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

struct Memory {
    allowed: Allowed,
    peak: f64,
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

/// The value below which that share lies, in milliseconds.
fn percentile(of: &[Ended], share: f64) -> f64 {
    let mut took: Vec<f64> = of.iter().map(|ended| ended.took.as_secs_f64() * 1e3).collect();
    took.sort_by(f64::total_cmp);
    let at = ((took.len() as f64 * share) as usize).min(took.len().saturating_sub(1));
    took.get(at).copied().unwrap_or(0.0)
}

fn report(shape: Shape, (seconds, capacity): (f64, f64), load: &Load, memory: &Memory, slowest_scrape: Duration) -> ExitCode {
    let of = |outcome: Outcome| load.ended.iter().filter(move |ended| ended.outcome == outcome).copied();
    let (answered, refused): (Vec<Ended>, Vec<Ended>) = (of(Outcome::Answered).collect(), of(Outcome::Refused).collect());
    let late = of(Outcome::Late).count();
    let failed = load.ended.len() - answered.len() - refused.len() - late;
    let of_polite = |ended: &&Ended| ended.caller > 0;
    let in_window = answered.iter().filter(|ended| ended.in_window).count();
    let goodput = in_window as f64 / seconds / capacity;
    let late_share = late as f64 / (answered.len() + late).max(1) as f64;
    let polite_late = of(Outcome::Late).filter(|ended| of_polite(&ended)).count();
    let polite_offered = load.ended.iter().filter(of_polite).count();
    let polite_share = answered.iter().filter(of_polite).count() as f64 / polite_offered.max(1) as f64;
    let (accepted_p99, refusal_p99) = (percentile(&answered, 0.99), percentile(&refused, 0.99));
    let Memory { allowed: Allowed { base, bound }, peak } = *memory;
    let share = |count: usize| format!("{count:>9} {:>6.1} %", count as f64 * 100.0 / load.ended.len() as f64);
    println!(
        "offered:  {:>9}, {:.1} times the capacity for {seconds} s",
        load.ended.len(),
        load.ended.len() as f64 / seconds / capacity
    );
    println!(
        "answered: {}   p50 {:.1} ms, p99 {accepted_p99:.1} ms of a deadline of {} ms",
        share(answered.len()),
        percentile(&answered, 0.5),
        DEADLINE.as_millis()
    );
    println!("refused:  {}   p50 {:.1} ms, p99 {refusal_p99:.1} ms", share(refused.len()), percentile(&refused, 0.5));
    println!("late:     {}   {polite_late} of them of polite callers", share(late));
    println!("failed:   {}", share(failed));
    println!(
        "goodput {goodput:.2} of the capacity, {in_window} answered within the {seconds} s; polite callers: {:.1} % answered; late of what \
         was taken on: {:.2} %",
        polite_share * 100.0,
        late_share * 100.0
    );
    println!(
        "memory:   {base:.1} MiB before, {peak:.1} MiB at most, {bound:.1} MiB allowed; metrics within {slowest_scrape:.0?}"
    );
    let report = serde_json::json!({
        "anchors": shape.anchors, "rows": shape.rows, "answer_bytes": shape.answer_bytes(),
        "seconds": seconds, "capacity_rps": capacity, "offered_rps": load.ended.len() as f64 / seconds,
        "answered_in_window": in_window, "goodput_ratio": goodput, "refusal_p99_ms": refusal_p99, "accepted_p99_ms": accepted_p99,
        "deadline_ms": DEADLINE.as_millis() as u64, "rss_before_mb": base, "rss_bound_mb": bound, "rss_peak_mb": peak,
        "late_share": late_share, "slowest_scrape_ms": slowest_scrape.as_secs_f64() * 1e3,
        "polite_share": polite_share, "late": late, "polite_late": polite_late, "failed": failed, "without_retry_info": load.without_retry_info,
    });
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("target/reports");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(shape.report()), format!("{report:#}\n")).unwrap();
    let promises = [
        (goodput >= 0.8 || !shape.is_promised(), "at least 0.8 of the capacity is done in time"),
        (refusal_p99 < 50.0, "refusals take less than 50 ms at p99"),
        (load.without_retry_info == 0, "each says when to come back"),
        (late_share <= 0.01, "of what is taken on, 99 in a hundred are answered in time"),
        (polite_share >= 0.95, "polite callers are served"),
        (failed == 0, "nothing fails"),
        (peak <= bound, "memory stays within what the settings allow"),
    ];
    let broken: Vec<&str> = promises.iter().filter(|(kept, _)| !kept).map(|(_, promise)| *promise).collect();
    broken.iter().for_each(|promise| println!("*** not so: {promise} ***"));
    if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
