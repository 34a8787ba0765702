//! Finding the nearest, in process and on one thread, on clustered unit rows. Everything that is compared is measured in turns within
//! one run; times are medians. Writes `target/reports/index.json`.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark may fail loudly and prints its figures")]

mod data;
mod graph;
mod report;
mod scan;
mod timing;

fn main() {
    let mut cases = Vec::new();
    scan::measure(&mut cases);
    graph::measure(&mut cases);
    report::write(&cases);
}
