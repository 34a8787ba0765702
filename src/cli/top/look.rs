//! One look at a server: what its banks are, what it has measured, and what changed since the look before.

use std::error::Error;
use std::time::Duration;

use super::super::bench::stopwatch::Stopwatch;
use super::super::figures::Figures;
use super::super::remote::Remote;
use super::super::table::Table;
use crate::client::{Client, messages as v1};

/// One look.
#[derive(Debug, Clone)]
pub(super) struct Look {
    watch: Stopwatch,
    figures: Figures,
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
    banks: Vec<BankRates>,
}

#[derive(Debug, Clone, Copy, Default)]
struct BankRates {
    writes: f64,
    draws: f64,
    served: f64,
    missing: f64,
}

/// How banks are listed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Order {
    #[default]
    Name,
    /// Those first that serve most.
    Served,
}

pub(super) const HEADINGS: [&str; 12] =
    ["BANK", "KIND", "ENTRIES", "MEMORY", "STEP", "WRITES/s", "DRAWS/s", "SERVED/s", "MISSING/s", "INDEX", "LAG", "RECALL"];

const CALLS: &str = "negbank_grpc_request_seconds_count";

impl Look {
    pub(super) async fn take(
        client: &Client,
        remote: &Remote,
        before: Option<&Self>,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let banks = client.list_banks().await?.banks;
        let figures = remote.figures().await?;
        let watch = Stopwatch::start();
        let rates = before.map_or_else(Rates::default, |before| before.rates_until(&banks, &figures, before.watch.elapsed()));
        Ok(Self { watch, figures, banks, rates })
    }

    fn rates_until(&self, banks: &[v1::Bank], figures: &Figures, passed: Duration) -> Rates {
        let rate = |name: &str, labels: &[(&str, &str)]| {
            // A server that was started anew counts from nothing.
            (figures.sum(name, labels) - self.figures.sum(name, labels)).max(0.0) / passed.as_secs_f64().max(1e-3)
        };
        let of_bank = |bank: &v1::Bank| {
            let labels = [("bank", bank.name.as_str())];
            BankRates {
                writes: rate("negbank_bank_sequence", &labels),
                draws: rate("negbank_draws_total", &labels),
                served: rate("negbank_picks_total", &labels),
                missing: rate("negbank_shortfalls_total", &labels),
            }
        };
        Rates {
            calls: rate(CALLS, &[]),
            refused: rate(CALLS, &[("code", "8")]),
            failed: rate(CALLS, &[("code", "2")]) + rate(CALLS, &[("code", "13")]) + rate(CALLS, &[("code", "15")]),
            busy: rate("negbank_compute_seconds_sum", &[]),
            waiting: rate("negbank_compute_queue_seconds_sum", &[]),
            banks: banks.iter().map(of_bank).collect(),
        }
    }

    /// What concerns the whole server.
    pub(super) fn heading(&self) -> String {
        let Rates { calls, refused, failed, busy, waiting, .. } = &self.rates;
        let entries: u64 = self.banks.iter().map(|bank| bank.entries).sum();
        format!(
            "{} banks, {} entries | calls/s {} refused {} failed {} | compute threads busy {busy:.1}, waiting {waiting:.1}",
            self.banks.len(),
            compact(entries as f64),
            compact(*calls),
            compact(*refused),
            compact(*failed)
        )
    }

    /// A row a bank, under [`HEADINGS`].
    pub(super) fn rows(&self, order: Order) -> Vec<Vec<String>> {
        let rates = self.rates.banks.iter().copied().chain(std::iter::repeat(BankRates::default()));
        let mut banks: Vec<(&v1::Bank, BankRates)> = self.banks.iter().zip(rates).collect();
        if order == Order::Served {
            banks.sort_by(|a, b| b.1.served.total_cmp(&a.1.served));
        }
        banks.into_iter().map(|(bank, rates)| self.row(bank, rates)).collect()
    }

    fn row(&self, bank: &v1::Bank, rates: BankRates) -> Vec<String> {
        let none = || "-".to_owned();
        let index = bank.index.as_ref();
        let kind = if bank.kind() == v1::BankKind::Queue { "queue" } else { "keyed" };
        vec![
            bank.name.clone(),
            kind.to_owned(),
            compact(bank.entries as f64),
            bytes(self.figures.sum("negbank_bank_rows_bytes", &[("bank", &bank.name)])),
            bank.step.map_or_else(none, |step| step.to_string()),
            compact(rates.writes),
            compact(rates.draws),
            compact(rates.served),
            compact(rates.missing),
            bank.recovering
                .map_or_else(|| index.map_or_else(none, state), |share| format!("recovering {:.0} %", share * 100.0)),
            index.and_then(|index| index.generation.map(|_| index.lag.to_string())).unwrap_or_else(none),
            index.and_then(|index| index.recall).map_or_else(none, |recall| format!("{recall:.3}")),
        ]
    }

    /// All of it as text.
    pub(super) fn table(&self, order: Order) -> Table {
        let mut table = Table::new(&HEADINGS);
        self.rows(order).into_iter().for_each(|row| table.push(row));
        table
    }
}

fn state(index: &v1::Index) -> String {
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
    use super::{Duration, Figures, Look, Order, Rates, Stopwatch, bytes, compact};
    use crate::client::messages as v1;

    fn look(text: &str, names: &[&str]) -> Look {
        let bank = |name: &&str| v1::Bank { name: (*name).to_owned(), entries: 5, ..Default::default() };
        let banks = names.iter().map(bank).collect();
        Look { watch: Stopwatch::start(), figures: Figures::parse(text), banks, rates: Rates::default() }
    }

    #[test]
    fn rates_are_what_was_counted_between_two_looks() {
        let before = look("negbank_picks_total{bank=\"a\"} 100\nnegbank_picks_total{bank=\"b\"} 7\n", &["a", "b"]);
        let mut after = look("negbank_picks_total{bank=\"a\"} 120\nnegbank_picks_total{bank=\"b\"} 107\n", &["a", "b"]);
        after.rates = before.rates_until(&after.banks, &after.figures, Duration::from_secs(2));
        let served = |order| after.rows(order).iter().map(|row| format!("{} {}", row[0], row[7])).collect::<Vec<_>>();
        assert_eq!(served(Order::Name), ["a 10", "b 50"]);
        assert_eq!(served(Order::Served), ["b 50", "a 10"]);
        let restarted = after.rates_until(&before.banks, &before.figures, Duration::from_secs(2));
        assert!(restarted.banks.iter().all(|bank| bank.served.abs() < 1e-9), "nothing is served a negative number of times");
    }

    #[test]
    fn numbers_are_short() {
        let told = [0.0, 7.0, 0.42, 12.34, 999.6, 1_234.0, 12_345.0, 4_560_000.0, 2e9].map(compact);
        assert_eq!(told, ["0", "7", "0.42", "12.3", "1000", "1234", "12.3k", "4.56M", "2G"]);
        assert_eq!((bytes(512.0), bytes(1_572_864.0)), ("0.5 KiB".to_owned(), "1.5 MiB".to_owned()));
    }
}
