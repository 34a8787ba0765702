//! A gather of the ranks of a step, beside a socket that moves the same bytes.

use negbank::client::{Client, GatherColumns, rows};
use negbank::proto::v1;
use tokio::runtime::Runtime;

use crate::bank::{DIM, Serving, connect, random};
use crate::ceilings::Loopback;
use crate::timing::{Times, now};

const RANKS: u32 = 8;
const ROWS: usize = 256;
const ROUNDS: usize = 6;
const STEPS_PER_ROUND: usize = 20;

pub(crate) struct Gather {
    pub(crate) times: Times,
    pub(crate) loopback: Times,
    /// Sent to all ranks together.
    pub(crate) bytes: usize,
}

impl Gather {
    pub(crate) fn shape() -> String {
        format!("{RANKS} ranks x {ROWS} x {DIM} f32")
    }

    pub(crate) fn ratio(&self) -> f64 {
        self.loopback.median_ms() / self.times.median_ms()
    }
}

/// Each rank has a connection of its own; a step's time is from the first call to the last answer.
pub(crate) fn measure(client: &Runtime, serving: &Serving) -> Gather {
    let parts: Vec<_> = (0..u64::from(RANKS)).map(|rank| rows(&random(ROWS, rank))).collect();
    let bytes = RANKS as usize * RANKS as usize * ROWS * DIM * 4;
    let mut loopback = Loopback::new(bytes);
    let mut measured = Gather { times: Times::default(), loopback: Times::default(), bytes };
    client.block_on(async {
        let mut ranks = Vec::new();
        for _ in 0..RANKS {
            ranks.push(connect(&serving.address).await);
        }
        // The first round warms up.
        for round in 0..=ROUNDS {
            let (mut steps, mut alone) = (Times::default(), Times::default());
            for turn in 0..STEPS_PER_ROUND {
                let step = (round * STEPS_PER_ROUND + turn) as u64;
                let began = now();
                let calls: Vec<_> =
                    (0..).zip(&ranks).zip(&parts).map(|((rank, of), part)| bring(of, step, rank, part.clone())).collect();
                for call in calls {
                    assert_eq!(call.await.unwrap().counts, vec![ROWS as u32; RANKS as usize]);
                }
                steps.push(began.elapsed());
                alone.push(loopback.get());
            }
            if round > 0 {
                measured.times.extend(steps);
                measured.loopback.extend(alone);
            }
        }
    });
    let Gather { times, loopback, .. } = &measured;
    println!(
        "\ngather of {}: {:.1} MB in, {:.1} MB out; a step p50 {:.2} ms (quartiles {:.2} to {:.2}), p99 {:.2} ms; one socket over loopback takes {:.2} ms for what is sent out: {:.2}",
        Gather::shape(),
        bytes as f64 / 1e6 / f64::from(RANKS),
        bytes as f64 / 1e6,
        times.median_ms(),
        times.quantile_ms(0.25),
        times.quantile_ms(0.75),
        times.quantile_ms(0.99),
        loopback.median_ms(),
        measured.ratio(),
    );
    measured
}

fn bring(client: &Client, step: u64, rank: u32, part: v1::Matrix) -> tokio::task::JoinHandle<GatherColumns> {
    let embeddings = Some(v1::Matrix { dim: DIM as u32, ..part });
    let request = v1::GatherRequest { group: "bench".into(), step, rank, world_size: RANKS, embeddings, ..Default::default() };
    let client = client.clone();
    tokio::spawn(async move { client.gather(request).await.unwrap() })
}
