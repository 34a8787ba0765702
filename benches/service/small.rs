//! Small requests, one after the other on one connection.

use negbank::proto::v1;
use tokio::runtime::Runtime;

use crate::bank::{Serving, connect, request, uniform};
use crate::timing::{Times, now};

const REQUESTS: u64 = 8_000;

pub(crate) struct Small {
    pub(crate) times: Times,
    pub(crate) rps: f64,
    pub(crate) rps_in_flight_16: f64,
}

pub(crate) fn measure(client: &Runtime, serving: &Serving) -> Small {
    let ask = |seed| request(1, uniform(16, v1::Scope::PerAnchor), seed);
    let measured = client.block_on(async {
        let connection = connect(&serving.address).await;
        let mut times = Times::default();
        let began = now();
        for seed in 0..REQUESTS {
            let sent = now();
            connection.sample(ask(seed)).await.unwrap();
            times.push(sent.elapsed());
        }
        let rps = REQUESTS as f64 / began.elapsed().as_secs_f64();
        let began = now();
        let lanes: Vec<_> = (0..16)
            .map(|lane| {
                let connection = connection.clone();
                tokio::spawn(async move {
                    for seed in 0..REQUESTS / 16 {
                        connection.sample(ask(lane * REQUESTS + seed)).await.unwrap();
                    }
                })
            })
            .collect();
        for lane in lanes {
            lane.await.unwrap();
        }
        Small { times, rps, rps_in_flight_16: REQUESTS as f64 / began.elapsed().as_secs_f64() }
    });
    println!(
        "\n1 anchor x 16: {:.0} requests/s one by one (p50 {:.3} ms, p99 {:.3} ms), {:.0} with 16 in flight",
        measured.rps,
        measured.times.median_ms(),
        measured.times.quantile_ms(0.99),
        measured.rps_in_flight_16
    );
    measured
}
