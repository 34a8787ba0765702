//! The naive model: a plain list of entries and f64 arithmetic.

use std::collections::HashSet;

use half::{bf16, f16};
use negbank::proto::v1;

/// Scores computed here and by the server may differ by this much: f32 against f64 on rows of norm up to a few.
pub(crate) const TOLERANCE: f64 = 3e-6;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ModelEntry {
    pub(crate) id: u64,
    pub(crate) row: Vec<f64>,
    pub(crate) label: Option<i64>,
    pub(crate) group: Option<u64>,
    pub(crate) weight: f32,
    pub(crate) step: u64,
    /// Number of the entry's last write among the bank's.
    pub(crate) written: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct ModelBank {
    pub(crate) metric: v1::Metric,
    /// `Some` in a queue.
    pub(crate) capacity: Option<usize>,
    /// Capacity of a keyed bank that has one.
    pub(crate) keyed_capacity: Option<usize>,
    pub(crate) momentum: f64,
    /// What rows are rounded to when they are stored.
    pub(crate) dtype: v1::Dtype,
    /// In a queue the oldest first.
    pub(crate) entries: Vec<ModelEntry>,
    pub(crate) appended: u64,
    pub(crate) evicted: u64,
    written: u64,
}

/// One written row; the outer `None` of label and group: the batch has no such column.
#[derive(Debug, Clone)]
pub(crate) struct ModelRow {
    pub(crate) id: Option<u64>,
    pub(crate) x: Vec<f32>,
    pub(crate) label: Option<Option<i64>>,
    pub(crate) group: Option<Option<u64>>,
    pub(crate) weight: Option<f32>,
}

/// One anchor of a request.
#[derive(Debug, Clone, Default)]
pub(crate) struct ModelAnchor {
    pub(crate) row: Vec<f64>,
    /// Its other views.
    pub(crate) others: Vec<Vec<f64>>,
    /// Whether the views' scores are averaged, rather than the largest taken.
    pub(crate) mean: bool,
    pub(crate) id: Option<u64>,
    pub(crate) label: Option<i64>,
    pub(crate) group: Option<u64>,
    pub(crate) positive: Option<f64>,
    pub(crate) positive_ids: Vec<u64>,
    pub(crate) denied_ids: Vec<u64>,
}

impl ModelBank {
    pub(crate) fn new(metric: v1::Metric, capacity: Option<usize>, momentum: f64) -> Self {
        let (keyed_capacity, entries) = (None, Vec::new());
        let dtype = v1::Dtype::F32;
        Self { metric, capacity, keyed_capacity, momentum, dtype, entries, appended: 0, evicted: 0, written: 0 }
    }

    pub(crate) fn write(&mut self, rows: &[ModelRow], step: Option<u64>, momentum: Option<f64>) {
        for row in rows {
            let x = self.prepared(&row.x);
            match self.capacity {
                Some(_) => {
                    let id = row.id.unwrap_or(self.appended);
                    self.appended += 1;
                    self.insert(id, row, x, step.unwrap_or(0));
                }
                None => self.upsert(row, x, step.unwrap_or(0), momentum.unwrap_or(self.momentum)),
            }
        }
        if let Some(capacity) = self.capacity {
            let excess = self.entries.len().saturating_sub(capacity);
            self.entries.drain(..excess);
        }
    }

    fn upsert(&mut self, row: &ModelRow, x: Vec<f64>, step: u64, m: f64) {
        let id = row.id.unwrap();
        let cosine = self.metric == v1::Metric::Cosine;
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.id == id) {
            let mixed: Vec<f64> = entry.row.iter().zip(&x).map(|(v, x)| m * v + (1.0 - m) * x).collect();
            let moved = match norm(&mixed) {
                length if cosine && length < 1e-6 => x,
                length if cosine => mixed.iter().map(|v| v / length).collect(),
                _ => mixed,
            };
            entry.row = rounded(self.dtype, moved);
            entry.label = row.label.unwrap_or(entry.label);
            entry.group = row.group.unwrap_or(entry.group);
            entry.weight = row.weight.unwrap_or(entry.weight);
            entry.step = step;
            self.written += 1;
            entry.written = self.written;
        } else {
            if self.keyed_capacity.is_some_and(|capacity| self.entries.len() >= capacity) {
                let stalest = (0..self.entries.len()).min_by_key(|&at| (self.entries[at].step, self.entries[at].written));
                self.entries.remove(stalest.unwrap());
                self.evicted += 1;
            }
            self.insert(id, row, x, step);
        }
    }

    fn insert(&mut self, id: u64, row: &ModelRow, x: Vec<f64>, step: u64) {
        self.written += 1;
        self.entries.push(ModelEntry {
            id,
            row: rounded(self.dtype, x),
            label: row.label.flatten(),
            group: row.group.flatten(),
            weight: row.weight.unwrap_or(1.0),
            step,
            written: self.written,
        });
    }

    /// Ids from the one that most needs a refresh on.
    pub(crate) fn stalest(&self) -> Vec<u64> {
        let mut entries: Vec<&ModelEntry> = self.entries.iter().collect();
        entries.sort_by_key(|entry| (entry.step, entry.written));
        entries.into_iter().map(|entry| entry.id).collect()
    }

    pub(crate) fn remove(&mut self, ids: &[u64]) -> usize {
        let before = self.entries.len();
        self.entries.retain(|entry| !ids.contains(&entry.id));
        before - self.entries.len()
    }

    /// A row as the bank keeps it.
    pub(crate) fn prepared(&self, x: &[f32]) -> Vec<f64> {
        let row: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
        if self.metric != v1::Metric::Cosine {
            return row;
        }
        let length = norm(&row);
        row.into_iter().map(|x| x / length).collect()
    }

    pub(crate) fn find(&self, id: u64) -> Option<&ModelEntry> {
        self.entries.iter().rev().find(|entry| entry.id == id)
    }

    pub(crate) fn score(&self, a: &[f64], b: &[f64]) -> f64 {
        match self.metric {
            v1::Metric::L2 => -a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>(),
            _ => a.iter().zip(b).map(|(a, b)| a * b).sum(),
        }
    }

    /// The score of a row against all views of an anchor; 0 if it has none.
    pub(crate) fn anchor_score(&self, anchor: &ModelAnchor, row: &[f64]) -> f64 {
        if anchor.row.is_empty() {
            return 0.0;
        }
        let scores: Vec<f64> = std::iter::once(&anchor.row).chain(&anchor.others).map(|view| self.score(view, row)).collect();
        match anchor.mean {
            true => scores.iter().sum::<f64>() / scores.len() as f64,
            false => scores.into_iter().fold(f64::NEG_INFINITY, f64::max),
        }
    }

    /// The entries that may be served, with their scores, best first.
    pub(crate) fn eligible(&self, anchor: &ModelAnchor, filters: &v1::Filters, step: Option<u64>) -> Vec<(f64, &ModelEntry)> {
        let denied: HashSet<u64> =
            anchor.denied_ids.iter().chain(&anchor.positive_ids).chain(&filters.exclude_ids).copied().collect();
        let passes = |entry: &&ModelEntry| {
            let itself = filters.exclude_self.unwrap_or(true) && anchor.id == Some(entry.id);
            let excludes_group = filters.exclude_same_group.unwrap_or(!filters.only_same_group);
            let same_group = excludes_group && entry.group.is_some() && entry.group == anchor.group;
            let other_label = filters.only_same_label && anchor.label.is_some() && entry.label != anchor.label;
            let other_group = filters.only_same_group && anchor.group.is_some() && entry.group != anchor.group;
            let same_label = filters.exclude_same_label && entry.label.is_some() && entry.label == anchor.label;
            let listed =
                filters.only_labels.is_empty() || entry.label.is_some_and(|label| filters.only_labels.contains(&label));
            let barred = entry.label.is_some_and(|label| filters.exclude_labels.contains(&label));
            let unlabelled = filters.exclude_unlabelled && entry.label.is_none();
            let early = filters.min_step.is_some_and(|min_step| entry.step < min_step);
            let age = i128::from(step.unwrap_or(0)) - i128::from(entry.step);
            let old = filters.max_age.is_some_and(|max_age| age > i128::from(max_age));
            !itself
                && !unlabelled
                && !early
                && !old
                && !denied.contains(&entry.id)
                && !same_group
                && !same_label
                && !other_label
                && !other_group
                && listed
                && !barred
        };
        let score = |entry: &ModelEntry| self.anchor_score(anchor, &entry.row);
        let passing = self.entries.iter().filter(passes);
        let mut eligible: Vec<(f64, &ModelEntry)> = passing.map(|entry| (score(entry), entry)).collect();
        eligible.sort_by(|(a, left), (b, right)| b.total_cmp(a).then(left.id.cmp(&right.id)));
        eligible
    }
}

/// Keeps the scores that pass the rules; `None` if a score lies so close to a bound that rounding decides.
pub(crate) fn keep<'e>(
    eligible: Vec<(f64, &'e ModelEntry)>,
    rules: &v1::ScoreRules,
    positive: Option<f64>,
) -> Option<Vec<(f64, &'e ModelEntry)>> {
    let mut ceilings: Vec<f64> = rules.max_score.into_iter().map(f64::from).collect();
    let mut floors: Vec<f64> = rules.min_score.into_iter().map(f64::from).collect();
    if let Some(p) = positive {
        ceilings.extend(rules.max_positive_fraction.map(|f| p - p.abs() * (1.0 - f64::from(f))));
        ceilings.extend(rules.margin.map(|m| p - f64::from(m)));
        floors.extend(rules.within.map(|w| p - f64::from(w)));
    }
    let bounds = || ceilings.iter().chain(&floors);
    if eligible.iter().any(|(score, _)| bounds().any(|bound| (score - bound).abs() < TOLERANCE)) {
        return None;
    }
    let passes = |score: f64| ceilings.iter().all(|&bound| score <= bound) && floors.iter().all(|&bound| score >= bound);
    Some(eligible.into_iter().filter(|&(score, _)| passes(score)).collect())
}

fn rounded(dtype: v1::Dtype, row: Vec<f64>) -> Vec<f64> {
    let round = |x: f64| match dtype {
        v1::Dtype::F16 => f64::from(f16::from_f32_const(x as f32).to_f32_const()),
        v1::Dtype::Bf16 => f64::from(bf16::from_f32_const(x as f32).to_f32_const()),
        v1::Dtype::Unspecified | v1::Dtype::F32 => x,
    };
    row.into_iter().map(round).collect()
}

pub(crate) fn norm(row: &[f64]) -> f64 {
    row.iter().map(|x| x * x).sum::<f64>().sqrt()
}
