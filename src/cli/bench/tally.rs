//! What came of the calls.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use prost::Message as _;

use crate::client::{ClientError, Code, SampleColumns};

/// Counts and latencies of calls of one kind.
#[derive(Debug)]
pub(super) struct Tally {
    /// Calls that were answered.
    pub(super) answered: u64,
    /// Rows that were served or written.
    pub(super) rows: u64,
    /// Bytes of the answers.
    pub(super) bytes: u64,
    /// Microseconds.
    pub(super) latencies: Histogram<u64>,
    /// By gRPC code.
    pub(super) errors: BTreeMap<String, Failure>,
    /// Negatives missing, by reason.
    pub(super) shortfalls: BTreeMap<String, u64>,
    /// Draws, by the plan that answered them.
    pub(super) plans: BTreeMap<String, u64>,
}

/// Calls that failed alike.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) count: u64,
    /// What the first one was told.
    pub(super) first: String,
}

impl Default for Tally {
    fn default() -> Self {
        #[expect(clippy::expect_used, reason = "it fails on more than five digits only")]
        let latencies = Histogram::new(3).expect("three digits");
        let (errors, shortfalls, plans) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { answered: 0, rows: 0, bytes: 0, latencies, errors, shortfalls, plans }
    }
}

impl Tally {
    /// A call for negatives.
    pub(super) fn sampled(&mut self, answer: &SampleColumns, took: Duration) {
        for draw in &answer.draws {
            self.rows += draw.counts.iter().map(|count| u64::from(*count)).sum::<u64>();
            *self.plans.entry(lower(draw.plan().as_str_name(), "PLAN_")).or_default() += 1;
            for short in &draw.shortfalls {
                *self.shortfalls.entry(lower(short.reason().as_str_name(), "REASON_")).or_default() += short.count;
            }
        }
        self.bytes += answer.encoded_len() as u64;
        self.took(took);
    }

    /// A batch of `rows`.
    pub(super) fn written(&mut self, rows: u64, took: Duration) {
        self.rows += rows;
        self.took(took);
    }

    fn took(&mut self, took: Duration) {
        self.answered += 1;
        // It resizes itself, up to latencies of 580 thousand years.
        let _fits = self.latencies.record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    pub(super) fn failed(&mut self, fault: &ClientError) {
        let failure = self.errors.entry(code_name(fault.code()));
        failure.or_insert_with(|| Failure { count: 0, first: fault.to_string() }).count += 1;
    }

    /// Calls that failed.
    pub(super) fn failures(&self) -> u64 {
        self.errors.values().map(|failure| failure.count).sum()
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.answered += other.answered;
        self.rows += other.rows;
        self.bytes += other.bytes;
        // Both resize themselves, so that no value is out of range.
        let _fits = self.latencies.add(&other.latencies);
        for (code, failure) in &other.errors {
            let known = self.errors.entry(code.clone());
            known.or_insert_with(|| Failure { count: 0, ..failure.clone() }).count += failure.count;
        }
        for (ours, theirs) in [(&mut self.shortfalls, &other.shortfalls), (&mut self.plans, &other.plans)] {
            theirs.iter().for_each(|(name, count)| *ours.entry(name.clone()).or_default() += count);
        }
    }

    /// The latency that the share `quantile` of the answered calls kept to, in milliseconds; 0 without calls.
    pub(super) fn quantile_ms(&self, quantile: f64) -> f64 {
        self.latencies.value_at_quantile(quantile) as f64 / 1e3
    }
}

/// `REASON_TOO_FEW` is too_few.
fn lower(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_lowercase()
}

/// As gRPC writes it: `DEADLINE_EXCEEDED`.
fn code_name(code: Code) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Tally;
    use crate::client::ClientError;

    #[test]
    fn tallies_add_up() {
        let (mut one, mut other) = (Tally::default(), Tally::default());
        for ms in 1..=100 {
            one.written(2, Duration::from_millis(ms));
        }
        other.written(2, Duration::from_secs(3_600));
        other.failed(&ClientError::DeadlineExceeded("late".to_owned()));
        one.merge(&other);
        one.merge(&other);
        assert_eq!((one.answered, one.rows, one.failures()), (102, 204, 2));
        assert_eq!(one.errors["DEADLINE_EXCEEDED"].first, "late");
        assert!((one.quantile_ms(0.5) - 51.0).abs() < 0.1 && (one.quantile_ms(1.0) - 3.6e6).abs() < 3.6e3);
    }
}
