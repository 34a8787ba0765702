//! The graph beside a scan of all rows as floats, by width (ef). Its rows are walked as bf16 copies; what is found is scored exactly,
//! which is part of the time. `ENTRIES` (default 50,000: a minute or more to build) may be set.

use negbank::index::{BuildConfig, Candidate, Freezer, Generation, Reach, Spot, Taken};
use negbank::kernels::score::score;
use negbank::model::Metric;

use crate::data::Clustered;
use crate::report::Case;
use crate::timing::{median_us, time_us};

const DIM: usize = 128;
const ANCHORS: usize = 200;
const ROUNDS: usize = 9;

/// Ranks wanted, and the widths tried.
const SHAPES: [(usize, &[usize]); 2] = [(10, &[16, 32, 64, 128]), (64, &[96, 128, 192, 256])];

pub(crate) fn measure(cases: &mut Vec<Case>) {
    let n = std::env::var("ENTRIES").map_or(50_000, |entries| entries.parse().unwrap());
    let (entries, anchors) = (Clustered::new(n, DIM, 1), Clustered::new(ANCHORS, DIM, 2));
    let mut freezer = Freezer::new(Metric::Cosine, DIM, n, &[]).unwrap();
    (0..n).for_each(|at| freezer.add(Spot { shard: 0, slot: at as u32, occupied_at: 1 }, entries.row(at)));
    let config = BuildConfig { m: 16, ef_construction: 100, threads: 1 };
    let mut built = None;
    let build_us = time_us(|| {
        built = Some(Generation::build(freezer.finish(), Taken::default(), config, &|_, _| Ok(())).unwrap());
    });
    let generation = built.unwrap();
    println!("{n} x {DIM}: built in {:.1} s, {} unreachable", build_us / 1e6, generation.unreachable().len());
    for (k, efs) in SHAPES {
        let mut scans = Vec::new();
        let truth: Vec<Vec<u32>> = (0..ANCHORS)
            .map(|at| {
                let mut found = Vec::new();
                scans.push(time_us(|| found = best(anchors.row(at), &entries, 0..n as u32, k)));
                found
            })
            .collect();
        let scan = median_us(scans);
        for &ef in efs {
            let reach = Reach { ef, most: usize::MAX };
            let (mut times, mut hits) = (Vec::new(), 0);
            for _ in 0..ROUNDS {
                hits = 0;
                let mut found: Vec<Candidate> = Vec::new();
                times.push(time_us(|| {
                    for (at, truth) in truth.iter().enumerate() {
                        generation.search(anchors.row(at), reach, &mut |_: Spot| true, &mut found);
                        let slots = found.iter().map(|found| found.spot.slot);
                        let served = best(anchors.row(at), &entries, slots, k);
                        hits += served.iter().filter(|slot| truth.contains(slot)).count();
                    }
                }));
            }
            cases.push(Case {
                name: format!("graph {n} x {DIM} ef={ef}"),
                n,
                batch: 1,
                k,
                plan: "graph",
                us_per_anchor: median_us(times) / ANCHORS as f64,
                recall: hits as f64 / (ANCHORS * k) as f64,
                peer: "f32 scan",
                peer_us_per_anchor: scan,
                peer_recall: 1.0,
            });
        }
    }
}

/// The best k of these slots.
fn best(anchor: &[f32], entries: &Clustered, slots: impl Iterator<Item = u32>, k: usize) -> Vec<u32> {
    let mut scored: Vec<(f32, u32)> =
        slots.map(|slot| (score(Metric::Cosine, anchor, entries.row(slot as usize)), slot)).collect();
    let by_score = |a: &(f32, u32), b: &(f32, u32)| b.0.total_cmp(&a.0);
    if scored.len() > k {
        scored.select_nth_unstable_by(k - 1, by_score);
        scored.truncate(k);
    }
    scored.into_iter().map(|(_, slot)| slot).collect()
}
