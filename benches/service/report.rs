//! `target/reports/bench.json`.

use serde_json::{Value, json};

use crate::gather::Gather;
use crate::hard::Hard;
use crate::ingest::Ingest;
use crate::memory::Memory;
use crate::sampling::Answer;
use crate::small::Small;

pub(crate) fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown");
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZeroUsize::get);
    format!("{cores} cores{}", model.trim_start_matches(['\t', ' ']))
}

pub(crate) fn write(answers: &[Answer], hard: &Hard, small: &Small, gather: &Gather, (ingest, memory): (&[Ingest], &Memory)) {
    let ceilings: Vec<Value> = answers
        .iter()
        .map(|answer| {
            json!({
                "shape": answer.shape,
                "scope": answer.scope,
                "bytes": answer.bytes,
                "loopback_mb_s": answer.loopback.mb_s(answer.bytes),
                "constant_body_mb_s": answer.constant.mb_s(answer.bytes),
                "plain_tonic_mb_s": answer.plain.mb_s(answer.bytes),
            })
        })
        .collect();
    let uniform: Vec<Value> = answers
        .iter()
        .map(|answer| {
            let (ceiling, served) = (answer.constant.mb_s(answer.bytes), answer.served.mb_s(answer.bytes));
            json!({
                "shape": answer.shape,
                "scope": answer.scope,
                "ceiling_mb_s": ceiling,
                "served_mb_s": served,
                "ratio": served / ceiling,
                "ratio_to_loopback": served / answer.loopback.mb_s(answer.bytes),
                "ceiling_4_in_flight_mb_s": answer.in_flight.0,
                "served_4_in_flight_mb_s": answer.in_flight.1,
                "ratio_4_in_flight": answer.in_flight.1 / answer.in_flight.0,
                "engine_p50_ms": answer.engine.median_ms(),
                "p50_ms": answer.served.median_ms(),
                "p99_ms": answer.served.quantile_ms(0.99),
            })
        })
        .collect();
    let writes: Vec<Value> = ingest
        .iter()
        .map(|run| {
            let p99 = (run.writers > 0).then(|| run.writes.quantile_ms(0.99));
            json!({
                "bank": run.bank, "writers": run.writers, "rows_s": run.rows_s, "p99_ms": p99,
                "read_p50_ms": run.reads.median_ms(), "read_p99_ms": run.reads.quantile_ms(0.99),
            })
        })
        .collect();
    let most = ingest.iter().filter(|run| run.bank == "keyed").max_by_key(|run| run.writers);
    let report = json!({
        "machine": machine(),
        "ceilings": ceilings,
        "uniform": uniform,
        "hard": {
            "shape": "256x64x128", "n": crate::bank::ENTRIES, "engine_p50_ms": hard.engine.median_ms(),
            "served_p50_ms": hard.served.median_ms(), "served_p99_ms": hard.served.quantile_ms(0.99), "ratio": hard.ratio(),
        },
        "small_rps": small.rps,
        "small_rps_in_flight_16": small.rps_in_flight_16,
        "small_p99_ms": small.times.quantile_ms(0.99),
        "gather": {
            "shape": Gather::shape(), "bytes_out": gather.bytes, "p50_ms": gather.times.median_ms(),
            "p99_ms": gather.times.quantile_ms(0.99), "loopback_p50_ms": gather.loopback.median_ms(), "ratio": gather.ratio(),
        },
        "ingest": writes,
        "ingest_rows_s": most.map(|run| run.rows_s),
        "ingest_p99_ms": most.map(|run| run.writes.quantile_ms(0.99)),
        "bytes_per_entry": memory.bytes_per_entry,
        "bytes_per_entry_raw": memory.raw,
    });
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("target/reports");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("bench.json"), format!("{report:#}\n")).unwrap();
}
