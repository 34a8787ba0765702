//! One look at a server: what its banks are, what it has measured, and what changed since the look before.

use std::collections::BTreeMap;
use std::error::Error;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::bench::stopwatch::Stopwatch;
use super::super::choices::kind;
use super::super::figures::Figures;
use super::super::remote::Remote;
use super::super::table::Table;
use crate::client::{Client, messages as v1};

/// One look.
#[derive(Debug, Clone)]
pub(super) struct Look {
    watch: Stopwatch,
    /// `None`: there are no probes to ask.
    figures: Option<Figures>,
    banks: Vec<v1::Bank>,
    rates: Rates,
}

/// What was done a second between two looks.
#[derive(Debug, Clone, Default)]
struct Rates {
    calls: f64,
    refused: f64,
    failed: f64,
    /// Mean numbers of compute threads at work, and of pieces of work that wait.
    busy: f64,
    waiting: f64,
    banks: BTreeMap<String, BankRates>,
}

#[derive(Debug, Clone, Copy, Default)]
struct BankRates {
    writes: f64,
    draws: f64,
    served: f64,
    missing: f64,
}

/// The amount by which a count rises in a second.
#[derive(Debug, Clone, Copy)]
struct Passed(f64);

/// How banks are listed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Order {
    #[default]
    Name,
    /// Those first that serve most.
    Served,
}

pub(super) const HEADINGS: [&str; 12] =
    ["BANK", "KIND", "ENTRIES", "MEMORY", "STEP", "WRITES/s", "DRAWS/s", "SERVED/s", "MISSING/s", "STATE", "LAG", "RECALL"];
/// Columns that a narrow screen does without, those first that go first.
pub(super) const LEAST: [&str; 8] = ["KIND", "LAG", "MEMORY", "DRAWS/s", "RECALL", "STEP", "WRITES/s", "ENTRIES"];

const CALLS: &str = "negbank_grpc_request_seconds_count";

impl Look {
    pub(super) async fn take(
        client: &Client,
        remote: &Remote,
        before: Option<&Self>,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let banks = client.list_banks().await?.banks;
        let figures = if remote.has_probes() { Some(remote.figures().await?) } else { None };
        let watch = Stopwatch::start();
        let mut look = Self { watch, figures, banks, rates: Rates::default() };
        if let Some(before) = before {
            look.rates = look.rates_since(before, before.watch.elapsed());
        }
        Ok(look)
    }

    fn rates_since(&self, before: &Self, passed: Duration) -> Rates {
        let passed = Passed(passed.as_secs_f64().max(1e-3));
        let rate = |name: &str, labels: &[(&str, &str)]| match (&before.figures, &self.figures) {
            (Some(before), Some(now)) => passed.rate(before.sum(name, labels), now.sum(name, labels)),
            _ => 0.0,
        };
        let of_bank = |bank: &v1::Bank| {
            let labels = [("bank", bank.name.as_str())];
            // Of one that was not there, or not recovered, nobody knows what it had applied.
            let known = before.banks.iter().find(|old| old.name == bank.name && old.recovering.is_none());
            let applied = known.map_or(bank.sequence, |old| old.sequence);
            let rates = BankRates {
                writes: passed.rate(applied as f64, bank.sequence as f64),
                draws: rate("negbank_draws_total", &labels),
                served: rate("negbank_picks_total", &labels),
                missing: rate("negbank_shortfalls_total", &labels),
            };
            (bank.name.clone(), rates)
        };
        Rates {
            calls: rate(CALLS, &[]),
            refused: rate(CALLS, &[("code", "8")]),
            failed: rate(CALLS, &[("code", "2")]) + rate(CALLS, &[("code", "13")]) + rate(CALLS, &[("code", "15")]),
            busy: rate("negbank_compute_seconds_sum", &[]),
            waiting: rate("negbank_compute_queue_seconds_sum", &[]),
            banks: self.banks.iter().map(of_bank).collect(),
        }
    }

    /// What concerns the whole server; what is amiss stands first, where a narrow screen shows it.
    pub(super) fn heading(&self) -> String {
        let Rates { calls, refused, failed, busy, waiting, .. } = &self.rates;
        let entries: u64 = self.banks.iter().map(|bank| bank.entries).sum();
        let mut said = format!("{} banks, {} entries", self.banks.len(), compact(entries as f64));
        said += &match &self.figures {
            Some(_) => format!(
                " | calls/s {} refused {} failed {} | compute threads busy {busy:.1}, waiting {waiting:.1}",
                compact(*calls),
                compact(*refused),
                compact(*failed)
            ),
            None => " | without probes: what is drawn is not known".to_owned(),
        };
        let damaged: Vec<&str> =
            self.banks.iter().filter(|bank| bank.damage.is_some()).map(|bank| bank.name.as_str()).collect();
        if !damaged.is_empty() {
            said = format!("DAMAGED, and take no writes (negbank doctor says where): {}\n{said}", damaged.join(", "));
        }
        said
    }

    /// A row a bank, under [`HEADINGS`].
    pub(super) fn rows(&self, order: Order) -> Vec<Vec<String>> {
        let rates = |bank: &v1::Bank| self.rates.banks.get(&bank.name).copied().unwrap_or_default();
        let mut banks: Vec<(&v1::Bank, BankRates)> = self.banks.iter().map(|bank| (bank, rates(bank))).collect();
        if order == Order::Served {
            banks.sort_by(|a, b| b.1.served.total_cmp(&a.1.served));
        }
        banks.into_iter().map(|(bank, rates)| self.row(bank, rates)).collect()
    }

    fn row(&self, bank: &v1::Bank, rates: BankRates) -> Vec<String> {
        let none = || "-".to_owned();
        let index = bank.index.as_ref();
        let measured = |told: &dyn Fn(&Figures) -> String| self.figures.as_ref().map_or_else(none, told);
        let size = |figures: &Figures| bytes(figures.sum("negbank_bank_rows_bytes", &[("bank", &bank.name)]));
        vec![
            bank.name.clone(),
            kind(bank.kind()).to_owned(),
            compact(bank.entries as f64),
            measured(&size),
            bank.step.map_or_else(none, |step| step.to_string()),
            compact(rates.writes),
            measured(&|_| compact(rates.draws)),
            measured(&|_| compact(rates.served)),
            measured(&|_| compact(rates.missing)),
            state(bank),
            index.and_then(|index| index.generation.map(|_| index.lag.to_string())).unwrap_or_else(none),
            index.and_then(|index| index.recall).map_or_else(none, |recall| format!("{recall:.3}")),
        ]
    }

    /// All of it, unrounded; what is not known is null.
    pub(super) fn json(&self) -> Value {
        let Rates { calls, refused, failed, busy, waiting, .. } = &self.rates;
        let measured = |rate: f64| self.figures.as_ref().map(|_| rate);
        let of_bank = |bank: &v1::Bank| {
            let rates = self.rates.banks.get(&bank.name).copied().unwrap_or_default();
            let index = bank.index.as_ref();
            let rows = |figures: &Figures| figures.sum("negbank_bank_rows_bytes", &[("bank", &bank.name)]);
            json!({
                "bank": bank.name,
                "kind": kind(bank.kind()),
                "entries": bank.entries,
                "rows_bytes": self.figures.as_ref().map(rows),
                "sequence": bank.sequence,
                "step": bank.step,
                "writes_per_second": rates.writes,
                "draws_per_second": measured(rates.draws),
                "served_per_second": measured(rates.served),
                "missing_per_second": measured(rates.missing),
                "state": state(bank),
                "damage": bank.damage,
                "lag": index.and_then(|index| index.generation.map(|_| index.lag)),
                "recall": index.and_then(|index| index.recall),
            })
        };
        json!({
            "calls_per_second": measured(*calls),
            "refused_per_second": measured(*refused),
            "failed_per_second": measured(*failed),
            "threads_busy": measured(*busy),
            "work_waiting": measured(*waiting),
            "banks": self.banks.iter().map(of_bank).collect::<Vec<_>>(),
        })
    }

    /// All of it as text.
    pub(super) fn table(&self, order: Order) -> Table {
        let mut table = Table::new(&HEADINGS);
        self.rows(order).into_iter().for_each(|row| table.push(row));
        table
    }
}

impl Passed {
    fn rate(self, before: f64, now: f64) -> f64 {
        // A server that was started anew counts from nothing.
        (now - before).max(0.0) / self.0
    }
}

/// What it serves by, or why it does not serve as it should.
fn state(bank: &v1::Bank) -> String {
    if let Some(share) = bank.recovering {
        return format!("recovering {:.0} %", share * 100.0);
    }
    if bank.damage.is_some() {
        return "DAMAGED".to_owned();
    }
    let Some(index) = &bank.index else { return "-".to_owned() };
    match index.state() {
        v1::IndexState::Serving => "graph".to_owned(),
        v1::IndexState::Building => format!("building {:.0} %", index.progress * 100.0),
        _ => "scan".to_owned(),
    }
}

/// Three digits or so: 7, 0.42, 12.3k, 4.6M.
fn compact(number: f64) -> String {
    let (scaled, unit) = match number {
        n if n >= 1e9 => (n / 1e9, "G"),
        n if n >= 1e6 => (n / 1e6, "M"),
        n if n >= 1e4 => (n / 1e3, "k"),
        n => (n, ""),
    };
    if scaled.fract().abs() < 5e-3 || scaled >= 100.0 {
        format!("{scaled:.0}{unit}")
    } else if scaled >= 10.0 {
        format!("{scaled:.1}{unit}")
    } else {
        format!("{scaled:.2}{unit}")
    }
}

fn bytes(number: f64) -> String {
    let (scaled, unit) = match number {
        n if n >= 1_073_741_824.0 => (n / 1_073_741_824.0, "GiB"),
        n if n >= 1_048_576.0 => (n / 1_048_576.0, "MiB"),
        n => (n / 1_024.0, "KiB"),
    };
    format!("{scaled:.1} {unit}")
}

#[cfg(test)]
mod tests {
    use super::{Duration, Figures, HEADINGS, Look, Order, Rates, Stopwatch, bytes, compact};
    use crate::client::messages as v1;

    fn look(text: Option<&str>, banks: &[(&str, u64)]) -> Look {
        let bank = |(name, sequence): &(&str, u64)| v1::Bank {
            name: (*name).to_owned(),
            entries: 5,
            sequence: *sequence,
            ..Default::default()
        };
        let banks = banks.iter().map(bank).collect();
        Look { watch: Stopwatch::start(), figures: text.map(Figures::parse), banks, rates: Rates::default() }
    }

    fn column(look: &Look, order: Order, heading: &str) -> Vec<String> {
        let at = HEADINGS.iter().position(|known| *known == heading).unwrap();
        look.rows(order).iter().map(|row| format!("{} {}", row[0], row[at])).collect()
    }

    #[test]
    fn rates_are_what_was_counted_between_two_looks() {
        let counted =
            |a: u64, b: u64| format!("negbank_picks_total{{bank=\"a\"}} {a}\nnegbank_picks_total{{bank=\"b\"}} {b}\n");
        let mut before = look(Some(&counted(100, 7)), &[("a", 3), ("b", 4), ("d", 0)]);
        before.banks[2].recovering = Some(0.5);
        let mut after = look(Some(&counted(120, 107)), &[("a", 3), ("b", 8), ("c", 2), ("d", 900_000)]);
        after.rates = after.rates_since(&before, Duration::from_secs(2));
        assert_eq!(column(&after, Order::Name, "SERVED/s"), ["a 10", "b 50", "c 0", "d 0"]);
        assert_eq!(column(&after, Order::Served, "SERVED/s"), ["b 50", "a 10", "c 0", "d 0"]);
        let writes = column(&after, Order::Name, "WRITES/s");
        assert_eq!(writes, ["a 0", "b 2", "c 0", "d 0"], "what is seen for the first time is no storm of writes");
        let restarted = before.rates_since(&after, Duration::from_secs(2));
        assert!(restarted.banks.values().all(|bank| bank.served.abs() < 1e-9), "nothing is served a negative number of times");
    }

    #[test]
    fn without_probes_only_writes_are_counted() {
        let (before, mut after) = (look(None, &[("a", 3)]), look(None, &[("a", 9)]));
        after.rates = after.rates_since(&before, Duration::from_secs(2));
        assert_eq!(column(&after, Order::Name, "WRITES/s"), ["a 3"]);
        assert_eq!(column(&after, Order::Name, "SERVED/s"), ["a -"]);
        assert!(after.heading().contains("without probes"), "{}", after.heading());
    }

    #[test]
    fn a_damaged_bank_is_seen_at_once() {
        let mut look = look(None, &[("a", 3), ("b", 3)]);
        look.banks[1].damage = Some("log-1 at byte 9".to_owned());
        assert_eq!(column(&look, Order::Name, "STATE"), ["a -", "b DAMAGED"]);
        let heading = look.heading();
        let (first, rest) = heading.split_once('\n').unwrap();
        assert!(first.starts_with("DAMAGED") && first.ends_with(": b"), "{heading}");
        assert!(rest.starts_with("2 banks, 10 entries"), "{heading}");
    }

    #[test]
    fn numbers_are_short() {
        let told = [0.0, 7.0, 0.42, 12.34, 999.6, 1_234.0, 12_345.0, 4_560_000.0, 2e9].map(compact);
        assert_eq!(told, ["0", "7", "0.42", "12.3", "1000", "1234", "12.3k", "4.56M", "2G"]);
        assert_eq!((bytes(512.0), bytes(1_572_864.0)), ("0.5 KiB".to_owned(), "1.5 MiB".to_owned()));
    }
}
