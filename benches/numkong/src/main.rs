//! The tile over codes beside numkong's products of packed matrices: the same anchors, rows and bars, one thread, in turns within one run;
//! times are medians. Writes `target/reports/kernels.json`.
//!
//! The tile tests its sums and hands over those that pass. numkong hands over all of them, so each of its times is told twice: for the
//! products alone, and with the pass that tests them.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark may fail loudly and shares code with another"
)]

#[path = "../../index/data.rs"]
mod data;
#[path = "../../index/report.rs"]
mod report;
#[path = "../../index/scan.rs"]
mod scan;
#[path = "../../index/timing.rs"]
mod timing;

use std::hint::black_box;

use numkong::{Dots, PackedMatrix, Tensor, bf16};
use serde_json::json;

use crate::data::Clustered;
use crate::scan::{DIM, ENTRIES, Flat, ROUNDS};
use crate::timing::{median_us, time_us};

/// Rows whose sums fit the cache together.
const BLOCK: usize = 2_048;

fn main() {
    let entries = Clustered::new(ENTRIES, DIM, 1);
    let flat = Flat::new(&entries);
    let (codes, scales) = quantised(&entries.rows);
    let by_codes = packed(&codes);
    let by_bf16 = packed(&entries.rows.iter().map(|&x| bf16::from_f32(x)).collect::<Vec<_>>());
    let by_f32 = packed(&entries.rows);
    let mut cases = Vec::new();
    println!("{ENTRIES} x {DIM}, us an anchor: products alone, and with the test of bars");
    for batch in [1, 32, 256] {
        let anchors = Clustered::new(batch, DIM, 2);
        let bars = flat.bars(&anchors);
        let (anchor_codes, anchor_scales) = quantised(&anchors.rows);
        let anchor_bf16: Vec<bf16> = anchors.rows.iter().map(|&x| bf16::from_f32(x)).collect();
        // Of a sum of codes it is asked what is left when the scales are taken out.
        let of_codes: Vec<f64> = bars.iter().zip(&anchor_scales).map(|(bar, scale)| bar / f64::from(*scale)).collect();
        let ones = vec![1.0; ENTRIES];
        let mut products: [Box<dyn Turn + '_>; 3] = [
            Products::new("i8", &by_codes, &anchor_codes, of_codes, &scales),
            // They may be less than a bf16 apart from their bars.
            Products::new("bf16", &by_bf16, &anchor_bf16, bars.clone(), &ones),
            Products::new("f32", &by_f32, &anchors.rows, bars.clone(), &ones),
        ];
        let mut times = [(); 7].map(|()| Vec::new());
        for _ in 0..ROUNDS {
            times[0].push(time_us(|| flat.tile(&anchors, &bars)));
            for (at, products) in products.iter_mut().enumerate() {
                times[1 + 2 * at].push(time_us(|| products.turn(false)));
                times[2 + 2 * at].push(time_us(|| products.turn(true)));
            }
        }
        let [tile, rest @ ..] = times.map(|times| median_us(times) / batch as f64);
        println!("batch {batch:>3}: the tile over codes {tile:.1}");
        for (products, of) in products.iter().zip(rest.chunks(2)) {
            println!(
                "           numkong {:<4} {:.1}, {:.1} (the tile's over this: {:.2})",
                products.name(),
                of[0],
                of[1],
                tile / of[1]
            );
            cases.push(json!({
                "name": format!("{} products", products.name()), "n": ENTRIES, "batch": batch, "us_per_anchor": tile,
                "peer": "numkong", "peer_us_per_anchor": of[1], "peer_products_us_per_anchor": of[0], "ratio": tile / of[1],
                "peer_hits_per_anchor": products.hits() as f64 / batch as f64,
            }));
        }
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/reports/kernels.json");
    std::fs::create_dir_all(std::path::Path::new(path).parent().unwrap()).unwrap();
    std::fs::write(path, serde_json::to_vec_pretty(&json!({ "cases": cases })).unwrap()).unwrap();
}

/// Codes of rows, each by its largest value, and what a code of each row is worth.
fn quantised(rows: &[f32]) -> (Vec<i8>, Vec<f32>) {
    let scales: Vec<f32> = rows.chunks(DIM).map(|row| row.iter().fold(0.0f32, |most, x| most.max(x.abs())) / 127.0).collect();
    let codes = rows.chunks(DIM).zip(&scales).flat_map(|(row, scale)| row.iter().map(move |x| (x / scale).round() as i8));
    (codes.collect(), scales)
}

fn packed<T: Dots>(rows: &[T]) -> Vec<PackedMatrix<T>> {
    let blocks = rows.chunks(BLOCK * DIM).map(|block| Tensor::<T>::from_slice(block, &[block.len() / DIM, DIM]));
    blocks.map(|block| PackedMatrix::pack(&block)).collect()
}

/// A turn of a measurement.
trait Turn {
    /// All products, and how many reach their bars if that is to be tested.
    fn turn(&mut self, is_tested: bool);
    fn name(&self) -> &'static str;
    /// How many reached their bars in the last turn.
    fn hits(&self) -> usize;
}

/// All of a kind that is measured.
struct Products<'a, T: Dots> {
    name: &'static str,
    rows: &'a [PackedMatrix<T>],
    anchors: Tensor<T>,
    sums: Tensor<T::Accumulator>,
    bars: Vec<f64>,
    scales: &'a [f32],
    hits: usize,
}

impl<'a, T: Dots> Products<'a, T>
where
    T::Accumulator: Default + Clone,
{
    fn new(name: &'static str, rows: &'a [PackedMatrix<T>], anchors: &[T], bars: Vec<f64>, scales: &'a [f32]) -> Box<Self> {
        let anchors = Tensor::from_slice(anchors, &[anchors.len() / DIM, DIM]);
        let sums = Tensor::try_zeros(&[bars.len(), BLOCK]).unwrap();
        Box::new(Self { name, rows, anchors, sums, bars, scales, hits: 0 })
    }
}

macro_rules! turns {
    ($($scalar:ty),*) => {$(
        impl Turn for Products<'_, $scalar> {
            fn turn(&mut self, is_tested: bool) {
                self.hits = 0;
                for (rows, scales) in self.rows.iter().zip(self.scales.chunks(BLOCK)) {
                    self.anchors.try_dots_packed_into(rows, &mut self.sums).unwrap();
                    if is_tested {
                        for (sums, &bar) in self.sums.as_slice().chunks(BLOCK).zip(&self.bars) {
                            let bar = bar as f32;
                            self.hits += sums.iter().zip(scales).filter(|&(&sum, &scale)| sum as f32 * scale >= bar).count();
                        }
                    }
                    black_box(self.sums.as_slice());
                }
            }

            fn name(&self) -> &'static str {
                self.name
            }

            fn hits(&self) -> usize {
                self.hits
            }
        }
    )*};
}

turns!(i8, bf16, f32);
