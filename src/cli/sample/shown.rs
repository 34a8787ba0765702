//! An answer, laid out for reading.

use std::fmt;

use super::super::table::Table;
use crate::client::messages as v1;

/// What was asked, and what came.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) bank: v1::Bank,
    pub(super) anchors: Vec<Anchor>,
    /// The draws as they were given.
    pub(super) draws: Vec<String>,
    pub(super) answer: v1::SampleResponse,
}

/// What negatives were drawn for.
#[derive(Debug)]
pub(super) enum Anchor {
    Entry { id: u64, label: Option<i64>, group: Option<u64>, step: u64 },
    Vector { label: Option<i64> },
}

impl Anchor {
    /// A row that was fetched.
    pub(super) fn entry(rows: &v1::Rows, row: usize) -> Self {
        Self::Entry {
            id: at(&rows.ids, row).unwrap_or_default(),
            label: present(&rows.labels, &rows.has_label, row),
            group: present(&rows.groups, &rows.has_group, row),
            step: at(&rows.steps, row).unwrap_or_default(),
        }
    }

    pub(super) fn id(&self) -> Option<u64> {
        match self {
            Self::Entry { id, .. } => Some(*id),
            Self::Vector { .. } => None,
        }
    }
}

impl fmt::Display for Anchor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entry { id, label, group, step } => {
                write!(f, "entry {id}, label {}, group {}, step {step}", text(*label), text(*group))
            }
            Self::Vector { label } => write!(f, "the vector given, label {}", text(*label)),
        }
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bank, answer, .. } = self;
        let step = text(answer.step);
        writeln!(
            f,
            "bank {}: {} entries x {}, sequence {}, step {step}",
            bank.name, bank.entries, bank.dim, answer.sequence_last
        )?;
        for (draw, name) in answer.draws.iter().zip(&self.draws) {
            let mut first = 0;
            for (row, anchor) in self.anchors.iter().enumerate() {
                let count = at(&draw.counts, row).unwrap_or_default() as usize;
                writeln!(f, "\nanchor: {anchor}\ndraw {name}: {count} served{}, {}", of(draw, row), plan(draw))?;
                write!(f, "{}", self.picks(draw, first, count))?;
                first += count;
            }
            let kept_back = reasons(&draw.rejections).unwrap_or_else(|| "none that was come across".to_owned());
            let missing = reasons(&draw.shortfalls).unwrap_or_else(|| "none".to_owned());
            writeln!(f, "kept back: {kept_back}; missing: {missing}")?;
        }
        let again =
            if answer.reproducible { "draws the same again until the bank changes" } else { "need not draw the same again" };
        writeln!(f, "\nseed {} {again}", answer.seed)
    }
}

impl Shown {
    fn picks(&self, draw: &v1::DrawAnswer, first: usize, count: usize) -> Table {
        let none = v1::Rows::default();
        let rows = self.answer.rows.as_ref().unwrap_or(&none);
        let mut table = Table::new(&["", "id", "label", "group", "step", "score", "log_q"]);
        for pick in first..first + count {
            let row = at(&draw.indices, pick).unwrap_or_default() as usize;
            let float = |column: &[f32]| at(column, pick).map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"));
            table.push(vec![
                format!("{:>4}", pick - first + 1),
                text(at(&rows.ids, row)),
                text(present(&rows.labels, &rows.has_label, row)),
                text(present(&rows.groups, &rows.has_group, row)),
                text(at(&rows.steps, row)),
                float(&draw.scores),
                float(&draw.log_q),
            ]);
        }
        table
    }
}

/// How many there were to choose from, where the server counted them.
fn of(draw: &v1::DrawAnswer, row: usize) -> String {
    let scored = at(&draw.n_scored, row).map_or_else(String::new, |n| format!(", of which {n} pass the score rules"));
    at(&draw.n, row).map_or_else(String::new, |n| format!(" of n = {n}{scored}"))
}

fn plan(draw: &v1::DrawAnswer) -> String {
    let plan = word(draw.plan().as_str_name(), "PLAN_");
    let generation = draw
        .generation
        .map_or_else(String::new, |generation| format!(", graph of sequence {generation}, {} behind", draw.generation_lag));
    let why = if draw.plan_reason.is_empty() { String::new() } else { format!(" ({})", draw.plan_reason) };
    format!("found by {plan}{why}{generation}")
}

/// None if there are none.
fn reasons(counts: &[v1::ReasonCount]) -> Option<String> {
    let told: Vec<String> =
        counts.iter().map(|count| format!("{} {}", count.count, word(count.reason().as_str_name(), "REASON_"))).collect();
    (!told.is_empty()).then(|| told.join(", "))
}

/// `REASON_TOO_FEW` is "too few".
pub(super) fn word(name: &str, prefix: &str) -> String {
    name.trim_start_matches(prefix).to_lowercase().replace('_', " ")
}

pub(super) fn at<T: Copy>(column: &[T], row: usize) -> Option<T> {
    column.get(row).copied()
}

/// A value that its row may lack.
pub(super) fn present<T: Copy>(column: &[T], has: &[u8], row: usize) -> Option<T> {
    at(column, row).filter(|_| at(has, row) != Some(0))
}

fn text<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}
