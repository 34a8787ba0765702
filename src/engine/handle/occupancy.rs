//! How full the server is, looked up when somebody asks.

use std::fmt;
use std::sync::Arc;

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use super::Inner;
use crate::engine::ledger::Part;

/// Writes the memory by part, its limit, and the work that waits.
pub(super) fn encode(inner: &Inner, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    // None of the map's shards is held while one waits for a bank: whoever asks for another bank would wait too.
    let banks: Vec<_> = inner.banks.iter().map(|bank| Arc::clone(&bank)).collect();
    for bank in banks {
        // The rows that lie aside for a checkpoint are gone when it ends, which nobody else notices before the next write.
        if let Ok(state) = bank.state.read() {
            bank.memory.note(&state);
        }
    }
    let mut memory = encoder.encode_descriptor("memory_bytes", "Memory by what it is taken for", None, MetricType::Gauge)?;
    for (part, name) in Part::ALL {
        ConstGauge::new(inner.ledger.taken(part) as f64).encode(memory.encode_family(&[("part", name)])?)?;
    }
    let limit = inner.ledger.limit().map_or(f64::INFINITY, |limit| limit as f64);
    let write_limit = inner.ledger.write_limit().map_or(f64::INFINITY, |limit| limit as f64);
    let load = inner.pool.load();
    let config = &inner.config;
    for (name, help, value) in [
        ("memory_limit_bytes", "Memory that may be taken (setting memory.max_bytes); infinite: no limit", limit),
        ("memory_write_limit_bytes", "Memory from which on banks do not grow (setting memory.write_percent)", write_limit),
        ("recovering_banks", "Banks that are read from disk and not served yet", inner.recovering.len() as f64),
        ("banks_limit", "Banks that there may be (setting limits.max_banks)", config.max_banks as f64),
        ("bank_entries_limit", "Entries that a bank may have (setting limits.max_entries)", config.max_entries as f64),
        ("compute_waiting_jobs_limit", "Pieces of work that may wait (setting compute.queue)", config.queue as f64),
        ("compute_waiting_jobs", "Pieces of work that wait for a compute thread", load.jobs as f64),
        ("compute_waiting_callers", "Callers whose work waits", load.callers as f64),
        ("compute_backlog_seconds", "Time after which the work that waits now is expected to be done", load.wait.as_secs_f64()),
    ] {
        let gauge = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        ConstGauge::new(value).encode(gauge)?;
    }
    Ok(())
}
