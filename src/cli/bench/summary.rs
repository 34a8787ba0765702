//! What is told at the end: as a table, or as JSON.

use std::fmt::{self, Write as _};
use std::time::Duration;

use serde_json::{Value, json};

use super::super::choices::{dtype, metric, name};
use super::args::Args;
use super::load::Outcome;
use super::tally::Tally;
use crate::client::messages as v1;

/// One run, told.
#[derive(Debug)]
pub(super) struct Summary<'a> {
    pub(super) args: &'a Args,
    pub(super) address: &'a str,
    pub(super) bank: &'a v1::Bank,
    pub(super) created: bool,
    pub(super) outcome: &'a Outcome,
}

/// Percentiles that are told, and their names.
const QUANTILES: [(f64, &str); 5] = [(0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (0.999, "p99.9"), (1.0, "max")];

const VERSION: &str = env!("CARGO_PKG_VERSION");

impl Summary<'_> {
    /// As one JSON object. Rates are a second, latencies in milliseconds, sizes in bytes or (mb) millions of them.
    pub(super) fn json(&self) -> Value {
        let (request, load) = (&self.args.request, &self.args.load);
        let draws: Vec<&str> = request.draws.iter().map(|draw| draw.text.as_str()).collect();
        let mut told = json!({
            "negbank": VERSION,
            "address": self.address,
            "embedded": self.args.server.address.is_none(),
            "bank": {
                "name": self.bank.name,
                "created": self.created,
                "entries": self.bank.entries,
                "dim": self.bank.dim,
                "metric": metric(self.bank.metric()),
                "dtype": dtype(self.bank.dtype()),
                "labels": self.bank.labels,
            },
            "request": {
                "anchors": request.anchors,
                "k": request.k,
                "draws": draws,
                "form": name(&request.form),
                "encoding": name(&request.encoding),
                "exclude_same_label": request.exclude_same_label,
                "only_labels": request.only_labels,
                "exclude_labels": request.exclude_labels,
                "exclude_unlabelled": request.exclude_unlabelled,
                "min_step": request.min_step,
            },
            "load": {
                "concurrency": load.concurrency,
                "connections": load.connections,
                "duration_s": load.duration.as_secs_f64(),
                "warm_up_s": load.warm_up.as_secs_f64(),
                "writers": load.writers,
                "write_rows": load.write_rows,
                "seed": load.seed,
            },
            "interrupted": self.outcome.interrupted,
            "elapsed_s": self.outcome.elapsed.as_secs_f64(),
        });
        let calls = &self.outcome.calls;
        let mut results = measured(calls, self.outcome.elapsed, "negatives");
        add(&mut results, "bytes", calls.bytes.into());
        add(&mut results, "mb_s", rate(calls.bytes, self.outcome.elapsed).map(|bytes| bytes / 1e6).into());
        add(&mut results, "plans", json!(calls.plans));
        add(&mut results, "shortfalls", json!(calls.shortfalls));
        add(&mut told, "requests", results);
        let writes = (load.writers > 0).then(|| measured(&self.outcome.writes, self.outcome.elapsed, "rows"));
        add(&mut told, "writes", json!(writes));
        told
    }

    fn heading(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (request, load, bank) = (&self.args.request, &self.args.load, self.bank);
        let whose = if self.created { "made for this run" } else { "as it was found" };
        let server = if self.args.server.address.is_none() { " in this process" } else { "" };
        writeln!(f, "negbank {VERSION}, server at {}{server}", self.address)?;
        let (metric, dtype) = (metric(bank.metric()), dtype(bank.dtype()));
        writeln!(
            f,
            "bank: {} entries x {} {dtype}, {metric}, {} labels, {whose}",
            grouped(bank.entries),
            bank.dim,
            grouped(bank.labels)
        )?;
        let draws: Vec<&str> = request.draws.iter().map(|draw| draw.text.as_str()).collect();
        writeln!(
            f,
            "call: {} anchors, {}, k={}, {} {}{}",
            request.anchors,
            draws.join(" + "),
            request.k,
            name(&request.form),
            name(&request.encoding),
            self.filters()
        )?;
        let writers = if load.writers > 0 { format!(", {} writers beside them", load.writers) } else { String::new() };
        let ended = if self.outcome.interrupted { " (interrupted)" } else { "" };
        writeln!(
            f,
            "load: {} in flight on {} connection(s){writers}, {:.1} s{ended} after {:.1} s of warm-up, seed {}",
            load.concurrency,
            load.connections,
            self.outcome.elapsed.as_secs_f64(),
            load.warm_up.as_secs_f64(),
            load.seed
        )
    }

    fn filters(&self) -> String {
        let request = &self.args.request;
        let mut told = String::new();
        if request.exclude_same_label {
            told.push_str(", not the anchor's label");
        }
        for (what, labels) in [("only", &request.only_labels), ("not", &request.exclude_labels)] {
            if !labels.is_empty() {
                let _fits = write!(told, ", {what} labels {labels:?}");
            }
        }
        if request.exclude_unlabelled {
            told.push_str(", not the unlabelled");
        }
        if let Some(step) = request.min_step {
            let _fits = write!(told, ", of step {step} or later");
        }
        told
    }
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Outcome { calls, writes, elapsed, .. } = self.outcome;
        self.heading(f)?;
        writeln!(f, "\n{:<12}{:>16}{:>18}", "", "a second", "in all")?;
        rated(f, "requests", calls.answered, *elapsed)?;
        rated(f, "negatives", calls.rows, *elapsed)?;
        rated(f, "MB", calls.bytes / 1_000_000, *elapsed)?;
        let written = self.args.load.writers > 0;
        if written {
            rated(f, "written rows", writes.rows, *elapsed)?;
        }
        write!(f, "\n{:<12}", "ms")?;
        QUANTILES.iter().try_for_each(|(_, name)| write!(f, "{name:>10}"))?;
        latencies(f, "request", calls)?;
        if written {
            latencies(f, "write", writes)?;
        }
        writeln!(f, "\n\nplans: {}; negatives missing: {}", listed(&calls.plans), listed(&calls.shortfalls))?;
        failures(f, "requests", calls)?;
        if written {
            failures(f, "writes", writes)?;
        }
        Ok(())
    }
}

fn measured(tally: &Tally, elapsed: Duration, rows: &str) -> Value {
    let mut latency: serde_json::Map<String, Value> =
        QUANTILES.iter().map(|(quantile, name)| ((*name).to_owned(), tally.quantile_ms(*quantile).into())).collect();
    latency.insert("mean".to_owned(), (tally.latencies.mean() / 1e3).into());
    let errors: serde_json::Map<String, Value> = tally
        .errors
        .iter()
        .map(|(code, failure)| (code.clone(), json!({ "count": failure.count, "first": failure.first })))
        .collect();
    let mut told = json!({
        "answered": tally.answered,
        "failed": tally.failures(),
        "per_s": rate(tally.answered, elapsed),
        "latency_ms": latency,
        "errors": errors,
    });
    add(&mut told, rows, tally.rows.into());
    add(&mut told, &format!("{rows}_s"), rate(tally.rows, elapsed).into());
    told
}

fn add(object: &mut Value, key: &str, value: Value) {
    if let Some(object) = object.as_object_mut() {
        object.insert(key.to_owned(), value);
    }
}

/// None where no time was measured.
fn rate(count: u64, elapsed: Duration) -> Option<f64> {
    (!elapsed.is_zero()).then(|| count as f64 / elapsed.as_secs_f64())
}

fn rated(f: &mut fmt::Formatter<'_>, what: &str, count: u64, elapsed: Duration) -> fmt::Result {
    let a_second = match rate(count, elapsed) {
        Some(rate) if rate < 100.0 => format!("{rate:.1}"),
        Some(rate) => grouped(rate as u64),
        None => "-".to_owned(),
    };
    writeln!(f, "{what:<12}{a_second:>16}{:>18}", grouped(count))
}

fn latencies(f: &mut fmt::Formatter<'_>, what: &str, tally: &Tally) -> fmt::Result {
    write!(f, "\n{what:<12}")?;
    QUANTILES.iter().try_for_each(|(quantile, _)| match tally.answered {
        0 => write!(f, "{:>10}", "-"),
        _ => write!(f, "{:>10.2}", tally.quantile_ms(*quantile)),
    })
}

fn failures(f: &mut fmt::Formatter<'_>, what: &str, tally: &Tally) -> fmt::Result {
    if tally.errors.is_empty() {
        return writeln!(f, "{what} that failed: none");
    }
    for (code, failure) in &tally.errors {
        writeln!(f, "{what} that failed: {} {code}, the first: {}", grouped(failure.count), failure.first)?;
    }
    Ok(())
}

fn listed(counts: &std::collections::BTreeMap<String, u64>) -> String {
    let all: Vec<String> = counts.iter().map(|(name, count)| format!("{name} {}", grouped(*count))).collect();
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}

/// 1234567 is 1,234,567.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut told = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            told.push(',');
        }
        told.push(digit);
    }
    told
}
