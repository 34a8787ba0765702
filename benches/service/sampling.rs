//! Uniform answers beside the ceilings for the same bytes.

use negbank::client::Client;
use negbank::model::{Layout, Scope};
use negbank::proto::v1;
use prost::Message as _;
use tokio::runtime::Runtime;

use crate::bank::{DIM, Serving, connect, request, uniform};
use crate::ceilings::{Constant, Loopback};
use crate::in_process::{InProcess, Shape};
use crate::timing::{Times, now};

const ANCHORS: usize = 256;
const ROUNDS: usize = 12;
const PER_ROUND: usize = 10;
pub(crate) const IN_FLIGHT: usize = 4;

/// One shape, measured.
pub(crate) struct Answer {
    pub(crate) shape: String,
    pub(crate) scope: &'static str,
    pub(crate) bytes: usize,
    pub(crate) loopback: Times,
    pub(crate) constant: Times,
    pub(crate) plain: Times,
    /// The engine alone, without the transport.
    pub(crate) engine: Times,
    pub(crate) served: Times,
    /// MB/s of the constant body and of what is served, with [`IN_FLIGHT`] requests in flight.
    pub(crate) in_flight: (f64, f64),
}

pub(crate) fn measure(server: &Runtime, client: &Runtime, serving: &Serving) -> Vec<Answer> {
    let (own, shared) = (v1::Scope::PerAnchor, v1::Scope::Shared);
    let (rows, pooled) = (v1::Layout::PerAnchor, v1::Layout::Pooled);
    let cases = [
        ("per_anchor", 64, own, rows),
        ("per_anchor", 8, own, rows),
        ("per_anchor, pooled", 64, own, pooled),
        ("per_anchor, pooled", 8, own, pooled),
        ("shared", 64, shared, pooled),
        ("shared", 8, shared, pooled),
        ("shared", 4_096, shared, pooled),
    ];
    println!(
        "one request at a time, MB/s at the median; spread: quartiles of served / constant; then {IN_FLIGHT} in flight\n{:<14} {:<20} {:>8}  {:>9} {:>9} {:>9} {:>9}  {:>6} {:>6}  {:>9} {:>8} {:>8}  {:>12}  {:>9} {:>9} {:>6}",
        "uniform",
        "scope",
        "MB",
        "loopback",
        "constant",
        "tonic",
        "served",
        "/const",
        "/loop",
        "engine ms",
        "p50 ms",
        "p99 ms",
        "spread",
        "constant",
        "served",
        "/const"
    );
    cases.into_iter().map(|(name, k, scope, layout)| case(server, client, serving, (name, k, scope, layout))).collect()
}

fn case(
    server: &Runtime,
    client: &Runtime,
    serving: &Serving,
    (name, k, scope, layout): (&'static str, u32, v1::Scope, v1::Layout),
) -> Answer {
    let ask = move |seed| v1::SampleRequest { layout: layout.into(), ..request(ANCHORS, uniform(k, scope), seed) };
    let served = client.block_on(connect(&serving.address));
    let answer = client.block_on(served.sample(ask(0))).unwrap();
    let bytes = answer.encoded_len();
    let in_process = InProcess::new(&serving.engine);
    let shape = Shape {
        anchors: ANCHORS,
        k: k as usize,
        scope: if scope == v1::Scope::Shared { Scope::Shared } else { Scope::PerAnchor },
        layout: if layout == v1::Layout::PerAnchor { Layout::PerAnchor } else { Layout::Pooled },
    };
    let mut loopback = Loopback::new(bytes);
    let address = server.block_on(Constant::serve(answer));
    let mut constant = client.block_on(Constant::connect(address));
    let mut measured = Answer {
        shape: format!("{ANCHORS}x{k}x{DIM}"),
        scope: name,
        bytes,
        loopback: Times::default(),
        constant: Times::default(),
        plain: Times::default(),
        engine: Times::default(),
        served: Times::default(),
        in_flight: (0.0, 0.0),
    };
    for round in 0..=ROUNDS {
        let mut times = [(); 5].map(|()| Times::default());
        client.block_on(async {
            for turn in 0..PER_ROUND {
                times[0].push(loopback.get());
                times[1].push(constant.body().await);
                times[2].push(constant.plain().await);
                let seed = (round * PER_ROUND + turn + 1) as u64;
                times[3].push(in_process.sample(shape, seed).await);
                let request = ask(seed);
                let began = now();
                served.sample_columns(request).await.unwrap();
                times[4].push(began.elapsed());
            }
        });
        // The first round warms up.
        if round > 0 {
            let Answer { loopback, constant, plain, engine, served, .. } = &mut measured;
            [loopback, constant, plain, engine, served].into_iter().zip(times).for_each(|(all, times)| all.extend(times));
        }
    }
    measured.in_flight = client.block_on(in_flight(&constant, &served, bytes, ask));
    print(&measured);
    measured
}

/// MB/s of both in turns, medians.
async fn in_flight(
    constant: &Constant,
    served: &Client,
    bytes: usize,
    ask: impl Fn(u64) -> v1::SampleRequest + Copy + Send + 'static,
) -> (f64, f64) {
    let (mut of_constant, mut of_served) = (Vec::new(), Vec::new());
    for round in 0..7 {
        let began = now();
        let lane = |_| {
            let mut constant = constant.clone();
            tokio::spawn(async move {
                for _ in 0..PER_ROUND {
                    constant.body().await;
                }
            })
        };
        for lane in (0..IN_FLIGHT).map(lane).collect::<Vec<_>>() {
            lane.await.unwrap();
        }
        of_constant.push(began.elapsed());
        let began = now();
        let lane = |lane: usize| {
            let served = served.clone();
            tokio::spawn(async move {
                for turn in 0..PER_ROUND {
                    let seed = (round * IN_FLIGHT + lane) * PER_ROUND + turn + 1_000_000;
                    served.sample_columns(ask(seed as u64)).await.unwrap();
                }
            })
        };
        for lane in (0..IN_FLIGHT).map(lane).collect::<Vec<_>>() {
            lane.await.unwrap();
        }
        of_served.push(began.elapsed());
    }
    let rate = |mut took: Vec<std::time::Duration>| {
        took.sort_unstable();
        (bytes * IN_FLIGHT * PER_ROUND) as f64 / 1e6 / took[took.len() / 2].as_secs_f64()
    };
    (rate(of_constant), rate(of_served))
}

fn print(answer: &Answer) {
    let Answer { shape, scope, bytes, loopback, constant, plain, engine, served, in_flight } = answer;
    let rate = |times: &Times| times.mb_s(*bytes);
    println!(
        "{shape:<14} {scope:<20} {:>8.2}  {:>9.0} {:>9.0} {:>9.0} {:>9.0}  {:>6.2} {:>6.2}  {:>9.3} {:>8.3} {:>8.3}  {:>12}  {:>9.0} {:>9.0} {:>6.2}",
        *bytes as f64 / 1e6,
        rate(loopback),
        rate(constant),
        rate(plain),
        rate(served),
        rate(served) / rate(constant),
        rate(served) / rate(loopback),
        engine.median_ms(),
        served.median_ms(),
        served.quantile_ms(0.99),
        format!(
            "{:.2} to {:.2}",
            constant.quantile_ms(0.25) / served.quantile_ms(0.75),
            constant.quantile_ms(0.75) / served.quantile_ms(0.25)
        ),
        in_flight.0,
        in_flight.1,
        in_flight.1 / in_flight.0,
    );
}
