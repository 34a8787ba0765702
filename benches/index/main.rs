//! Finding the nearest, in process and on one thread, on clustered unit rows. Everything that is compared is measured in turns within
//! one run; times are medians. Writes `target/reports/index.json`.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark may fail loudly and prints its figures")]

mod data;
mod graph;
mod report;
mod scan;
mod timing;
mod together;

fn main() {
    // For whoever tunes one part: `cargo bench --bench index -- scan`.
    let parts: Vec<String> = std::env::args().skip(1).filter(|part| !part.starts_with('-')).collect();
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|named| named == part);
    let mut cases = Vec::new();
    if wanted("scan") {
        scan::measure(&mut cases);
    }
    if wanted("together") {
        together::measure(&mut cases);
    }
    if wanted("graph") {
        graph::measure(&mut cases);
    }
    report::write(&cases, parts.is_empty());
}
