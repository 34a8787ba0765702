//! Holds an answer against the naive model.

use std::collections::HashSet;

use half::{bf16, f16};
use negbank::proto::v1;
use v1::draw::Strategy;

use crate::laws;
use crate::model::{ModelAnchor, ModelBank, ModelEntry, TOLERANCE, keep};

/// A request, its answer, and the bank that it was asked of.
pub(crate) struct Judge<'a> {
    model: &'a ModelBank,
    anchors: &'a [ModelAnchor],
    request: &'a v1::SampleRequest,
    answer: &'a v1::SampleResponse,
    rows: &'a v1::Rows,
    embeddings: Vec<f32>,
    /// Farthest that a sent float may lie from the bank's, relative to 1.
    precision: f64,
}

/// One anchor's part of a draw's flat columns.
pub(crate) struct Picks<'a> {
    pub(crate) rows: Vec<usize>,
    pub(crate) scores: &'a [f32],
    pub(crate) log_q: &'a [f32],
    pub(crate) log_q_mix: &'a [f32],
}

impl<'a> Judge<'a> {
    pub(crate) fn new(
        model: &'a ModelBank,
        anchors: &'a [ModelAnchor],
        request: &'a v1::SampleRequest,
        answer: &'a v1::SampleResponse,
    ) -> Self {
        let rows = answer.rows.as_ref().unwrap();
        let embeddings = rows.embeddings.as_ref().map(sent).unwrap_or_default();
        let precision = match request.encoding() {
            v1::EmbeddingEncoding::F16 => 5e-4,
            v1::EmbeddingEncoding::Bf16 => 4e-3,
            _ => 0.0,
        };
        Self { model, anchors, request, answer, rows, embeddings, precision }
    }

    /// `Ok(false)` if rounding could decide a rule.
    pub(crate) fn answer(&self) -> Result<bool, String> {
        ensure(self.answer.draws.len() == self.request.draws.len(), || "a draw has no answer".to_owned())?;
        let own = |draw: &v1::DrawAnswer| draw.counts.iter().map(|&count| count as usize).sum::<usize>();
        let (mut judged, mut first) = (true, 0);
        for (draw, got) in self.request.draws.iter().zip(&self.answer.draws) {
            let shared = draw.scope() == v1::Scope::Shared;
            let per_anchor = self.request.layout() == v1::Layout::PerAnchor;
            let len = match (per_anchor, shared) {
                (true, true) => got.mask.len() / self.anchors.len(),
                (true, false) => own(got),
                (false, _) => got.indices.len(),
            };
            ensure(!per_anchor || got.indices.is_empty(), || "the per-anchor layout needs no indices".to_owned())?;
            let rows: Vec<usize> =
                if per_anchor { (first..first + len).collect() } else { got.indices.iter().map(|&row| row as usize).collect() };
            first += len;
            judged &= if shared { self.shared(draw, got, &rows)? } else { self.own(draw, got, &rows)? };
        }
        let expected = match self.request.layout() {
            v1::Layout::PerAnchor => first,
            _ => self.rows.ids.len(),
        };
        ensure(self.rows.ids.len() == expected, || format!("{} rows, not {expected}", self.rows.ids.len()))?;
        Ok(judged)
    }

    /// A draw that each anchor makes for itself.
    fn own(&self, draw: &v1::Draw, got: &v1::DrawAnswer, rows: &[usize]) -> Result<bool, String> {
        let (mut start, mut short) = (0, 0);
        for (at, anchor) in self.anchors.iter().enumerate() {
            let end = start + got.counts[at] as usize;
            let part = |column: &'a [f32]| column.get(start..end).unwrap_or_default();
            let picks = Picks {
                rows: rows[start..end].to_vec(),
                scores: &got.scores[start..end],
                log_q: part(self.column(&got.log_q)),
                log_q_mix: part(self.column(&got.log_q_mix)),
            };
            short += draw.k as usize - (end - start);
            start = end;
            let eligible = self.eligible(anchor, draw);
            let fault = |fault: String| format!("anchor {at}: {fault}");
            self.entries(&eligible, got, at, &picks).map_err(fault)?;
            let judged = match draw.strategy.as_ref().unwrap() {
                strategy @ (Strategy::Uniform(_) | Strategy::Weighted(_) | Strategy::Balanced(_)) => {
                    let law = laws::unscored(strategy, &eligible);
                    let q = |row: usize| self.q(&law, row);
                    laws::follows(&law, draw, &picks, got.kappa.get(at).copied(), q).map(|()| true)
                }
                strategy @ (Strategy::Softmax(_) | Strategy::Band(_)) => {
                    self.whole((draw, strategy), &eligible, (got, at, anchor.positive), &picks)
                }
                Strategy::Nearest(nearest) => ranked(eligible.clone(), nearest, anchor.positive, draw.k, got, at, &picks),
            };
            self.positives(draw, got, at, &eligible).map_err(fault)?;
            if !judged.map_err(fault)? || !self.mixture(anchor, &picks).map_err(fault)? {
                return Ok(false);
            }
        }
        let counted: u64 = got.shortfalls.iter().map(|shortfall| shortfall.count).sum();
        ensure(counted == short as u64, || format!("{short} picks are missing and {counted} are accounted for"))?;
        Ok(true)
    }

    /// Borrowed for as long as the answer is.
    fn column(&self, column: &[f32]) -> &'a [f32] {
        let draws = self.answer.draws.iter();
        let columns = draws.flat_map(|draw| [&draw.log_q, &draw.log_q_mix]);
        columns.into_iter().find(|there| std::ptr::eq(there.as_slice(), column)).map_or(&[], Vec::as_slice)
    }

    /// What a draw may serve to an anchor.
    fn eligible(&self, anchor: &ModelAnchor, draw: &v1::Draw) -> Vec<(f64, &'a ModelEntry)> {
        let filters = draw.filters.as_ref().unwrap_or(self.request.filters.as_ref().unwrap());
        self.model.eligible(anchor, &laws::effective(draw.strategy.as_ref().unwrap(), filters), self.request.step)
    }

    /// The log-probability of the anchor's positive, were it eligible; there is one each, or none.
    fn positives(
        &self,
        draw: &v1::Draw,
        got: &v1::DrawAnswer,
        at: usize,
        eligible: &[(f64, &ModelEntry)],
    ) -> Result<(), String> {
        let strategy = draw.strategy.as_ref().unwrap();
        let top = matches!(strategy, Strategy::Nearest(nearest) if nearest.choose() == v1::Choose::Top);
        let told = if self.request.positive_log_q && !top { self.anchors.len() } else { 0 };
        ensure(got.positive_log_q.len() == told, || format!("{} positive_log_q, not {told}", got.positive_log_q.len()))?;
        let (anchor, Some(&log_q)) = (&self.anchors[at], got.positive_log_q.get(at)) else { return Ok(()) };
        let entry = self.model.find(anchor.positive_ids[0]).unwrap();
        let positive = (self.model.anchor_score(anchor, &entry.row), entry);
        let q = match draw.scope() {
            v1::Scope::Shared => {
                let everybody = self.eligible(&ModelAnchor::default(), draw);
                let law = laws::unscored(strategy, &everybody);
                let q = law.iter().find(|(_, other)| std::ptr::eq(*other, entry)).map_or(0.0, |(q, _)| *q);
                let own = |other: &ModelEntry| eligible.iter().any(|(_, there)| std::ptr::eq(*there, other));
                let share: f64 = law.iter().filter(|(_, other)| own(other)).map(|(q, _)| q).sum();
                Some(if q > 0.0 { q / (share + q) } else { 0.0 })
            }
            _ => laws::beside(draw, eligible, anchor.positive, positive),
        };
        let Some(q) = q else { return Ok(()) };
        let expected = q.ln() as f32;
        ensure(log_q == expected || close(log_q, expected), || format!("positive_log_q {log_q}, not {expected}"))
    }

    /// A draw that scores everything.
    fn whole(
        &self,
        (draw, strategy): (&v1::Draw, &Strategy),
        eligible: &[(f64, &ModelEntry)],
        (got, at, positive): (&v1::DrawAnswer, usize, Option<f64>),
        picks: &Picks<'_>,
    ) -> Result<bool, String> {
        let rules = laws::rules(strategy);
        let Some(law) = laws::whole(strategy, eligible, positive) else { return Ok(false) };
        let kept = keep(eligible.to_vec(), &rules, positive).unwrap_or_default();
        let n_scored = (rules != v1::ScoreRules::default()).then_some(kept.len() as u32);
        ensure(got.n.len() == self.anchors.len() && got.n_scored.get(at).copied() == n_scored, || {
            format!("n_scored is {:?}, not {n_scored:?}", got.n_scored.get(at))
        })?;
        match strategy {
            Strategy::Softmax(softmax) => {
                let (told, expected) = (got.log_partition[at], laws::log_partition(softmax.beta, &kept) as f32);
                ensure(told == expected || close(told, expected), || format!("log_partition {told}, not {expected}"))?;
            }
            _ => {
                let n_band = law.iter().filter(|(q, _)| *q > 0.0).count();
                ensure(got.n_band[at] as usize == n_band, || format!("n_band {}, not {n_band}", got.n_band[at]))?;
            }
        }
        laws::follows(&law, draw, picks, got.kappa.get(at).copied(), |row| self.q(&law, row))?;
        Ok(true)
    }

    /// The probability of a row of the answer.
    fn q(&self, law: &laws::Law<'_>, row: usize) -> f64 {
        law.iter().find(|(_, entry)| self.is(entry, row)).map_or(0.0, |(q, _)| *q)
    }

    /// Every pick is an eligible entry with its true score, none twice unless asked for, and n is their number.
    fn entries(
        &self,
        eligible: &[(f64, &ModelEntry)],
        got: &v1::DrawAnswer,
        at: usize,
        picks: &Picks<'_>,
    ) -> Result<(), String> {
        if let Some(&n) = got.n.get(at) {
            ensure(n as usize == eligible.len(), || format!("n is {n}, not {}", eligible.len()))?;
        }
        let mut served = HashSet::new();
        for (&row, &score) in picks.rows.iter().zip(picks.scores) {
            let found = eligible.iter().find(|(_, entry)| self.is(entry, row));
            let Some((expected, entry)) = found else {
                return Err(format!("served row {row} (id {}), which no filter lets pass", self.rows.ids[row]));
            };
            ensure(same(score, *expected), || format!("score {score}, not {expected}"))?;
            let fresh = served.insert(std::ptr::from_ref(*entry));
            // Two entries of one id and one row, in a queue, can't be told apart.
            let twins = eligible.iter().filter(|(_, other)| other == entry).count();
            ensure(fresh || got.with_replacement || twins > 1, || format!("row {row} was served twice"))?;
        }
        Ok(())
    }

    /// log_q_mix of each pick: the mixture of the draws' own probabilities.
    fn mixture(&self, anchor: &ModelAnchor, picks: &Picks<'_>) -> Result<bool, String> {
        if !self.request.log_q_mix {
            return ensure(picks.log_q_mix.is_empty(), || "log_q_mix was not asked for".to_owned()).map(|()| true);
        }
        ensure(picks.log_q_mix.len() == picks.rows.len(), || "log_q_mix of some picks is missing".to_owned())?;
        let total: f64 = self.request.draws.iter().map(|draw| f64::from(draw.k)).sum();
        for (&row, &got) in picks.rows.iter().zip(picks.log_q_mix) {
            let mut q = 0.0;
            for draw in &self.request.draws {
                let eligible = self.eligible(anchor, draw);
                let Some(of_draw) = self.probability(draw, eligible, anchor, row) else { return Ok(false) };
                q += f64::from(draw.k) / total * of_draw;
            }
            ensure(close(got, q.ln() as f32), || format!("log_q_mix of row {row} is {got}, not {}", q.ln()))?;
        }
        Ok(true)
    }

    /// With which probability one draw picks a row; `None` if rounding decides whether it lies in the window.
    fn probability(&self, draw: &v1::Draw, eligible: Vec<(f64, &ModelEntry)>, anchor: &ModelAnchor, row: usize) -> Option<f64> {
        let strategy = draw.strategy.as_ref().unwrap();
        let Strategy::Nearest(nearest) = strategy else {
            return laws::whole(strategy, &eligible, anchor.positive).map(|law| self.q(&law, row));
        };
        let all = eligible.clone();
        let window = window(eligible, nearest, anchor.positive, draw.k)?;
        let score = all.iter().find(|(_, entry)| self.is(entry, row)).map(|(score, _)| *score);
        let within = window.iter().any(|(_, entry)| self.is(entry, row));
        // Entries of nearly one score, some in the window and some not: rounding may have exchanged them.
        let is_near = |other: &&(f64, &ModelEntry)| score.is_some_and(|score| (other.0 - score).abs() < TOLERANCE);
        let near = all.iter().filter(is_near).count();
        let near_within = window.iter().filter(is_near).count();
        if near_within != 0 && near_within != near {
            return None;
        }
        let score = score.unwrap_or_default();
        let beta = if nearest.choose() == v1::Choose::Softmax { f64::from(nearest.beta) } else { 0.0 };
        let sum: f64 = window.iter().map(|(score, _)| (beta * score).exp()).sum();
        Some(if within { (beta * score).exp() / sum } else { 0.0 })
    }

    /// One set for all anchors, from which each one's own filters take.
    fn shared(&self, draw: &v1::Draw, got: &v1::DrawAnswer, rows: &[usize]) -> Result<bool, String> {
        let everybody = self.eligible(&ModelAnchor::default(), draw);
        let law = laws::unscored(draw.strategy.as_ref().unwrap(), &everybody);
        let (n, support) = (everybody.len(), law.iter().filter(|(q, _)| *q > 0.0).count());
        ensure(got.n_shared as usize == n, || format!("n_shared is {}, not {n}", got.n_shared))?;
        let wanted = if got.with_replacement && support > 0 { draw.k as usize } else { support.min(draw.k as usize) };
        ensure(rows.len() == wanted, || format!("the set has {} of {n} entries", rows.len()))?;
        ensure(rows.iter().all(|&row| everybody.iter().any(|(_, entry)| self.is(entry, row))), || {
            "not for everybody".to_owned()
        })?;
        ensure(got.mask.len() == rows.len() * self.anchors.len(), || "the mask has another shape".to_owned())?;
        let mut short = 0;
        for (at, anchor) in self.anchors.iter().enumerate() {
            let eligible = self.eligible(anchor, draw);
            self.positives(draw, got, at, &eligible).map_err(|fault| format!("anchor {at}: {fault}"))?;
            let span = at * rows.len()..(at + 1) * rows.len();
            let mask = &got.mask[span.clone()];
            for ((&row, &bit), &score) in rows.iter().zip(mask).zip(&got.scores[span]) {
                let passes = eligible.iter().any(|(_, entry)| self.is(entry, row));
                ensure(passes == (bit == 1), || format!("anchor {at}: row {row} passes: {passes}, mask {bit}"))?;
                let entry = everybody.iter().find(|(_, entry)| self.is(entry, row)).map(|(_, entry)| entry).unwrap();
                let expected = self.model.anchor_score(anchor, &entry.row);
                ensure(same(score, expected), || format!("anchor {at}: score {score}, not {expected}"))?;
            }
            let left = mask.iter().filter(|&&bit| bit == 1).count();
            short += draw.k as usize - left;
            ensure(got.counts[at] as usize == left, || format!("anchor {at}: counts {}, not {left}", got.counts[at]))?;
            ensure(got.n[at] as usize == eligible.len(), || {
                format!("anchor {at}: n is {}, not {}", got.n[at], eligible.len())
            })?;
            let survivors: Vec<usize> = (0..rows.len()).filter(|&place| mask[place] == 1).collect();
            let own = |entry: &ModelEntry| eligible.iter().any(|(_, other)| std::ptr::eq(*other, entry));
            let share: f64 = law.iter().filter(|(_, entry)| own(entry)).map(|(q, _)| q).sum();
            for place in survivors {
                let log_q = match got.log_q_shift.get(at) {
                    Some(shift) => got.log_q[place] + shift,
                    None => got.log_q[at],
                };
                let expected = (self.q(&law, rows[place]) / share).ln() as f32;
                ensure(close(log_q, expected), || format!("anchor {at}: log_q {log_q}, not {expected}"))?;
            }
        }
        let counted: u64 = got.shortfalls.iter().map(|shortfall| shortfall.count).sum();
        ensure(counted == short as u64, || format!("{short} picks are missing and {counted} are accounted for"))?;
        Ok(true)
    }

    /// True if a row of the answer is this entry.
    fn is(&self, entry: &ModelEntry, row: usize) -> bool {
        let rows = self.rows;
        let label = (rows.has_label[row] == 1).then(|| rows.labels[row]);
        let group = (rows.has_group[row] == 1).then(|| rows.groups[row]);
        let dim = entry.row.len();
        let x = &self.embeddings[row * dim..(row + 1) * dim];
        let near = |(want, got): (&f64, &f32)| (want - f64::from(*got)).abs() < 1e-5 + self.precision * want.abs();
        (entry.id, entry.label, entry.group, entry.step, entry.weight)
            == (rows.ids[row], label, group, rows.steps[row], rows.weights[row])
            && entry.row.iter().zip(x).all(near)
    }
}

/// The floats of a matrix, however they were sent.
fn sent(matrix: &v1::Matrix) -> Vec<f32> {
    let halves = |decode: fn([u8; 2]) -> f32| matrix.data.as_chunks::<2>().0.iter().map(|half| decode(*half)).collect();
    match matrix.dtype() {
        v1::Dtype::F16 => halves(|half| f16::from_le_bytes(half).to_f32()),
        v1::Dtype::Bf16 => halves(|half| bf16::from_le_bytes(half).to_f32()),
        v1::Dtype::Unspecified | v1::Dtype::F32 => negbank::client::floats(matrix),
    }
}

/// The entries that may be chosen from, in order: after candidates, rules, skip and window.
fn window<'e>(
    mut eligible: Vec<(f64, &'e ModelEntry)>,
    nearest: &v1::Nearest,
    positive: Option<f64>,
    k: u32,
) -> Option<Vec<(f64, &'e ModelEntry)>> {
    if let Some(candidates) = nearest.candidates {
        eligible.truncate(candidates as usize);
    }
    let kept = keep(eligible, &nearest.rules.unwrap_or_default(), positive)?;
    Some(kept.into_iter().skip(nearest.skip as usize).take(nearest.window.unwrap_or(k) as usize).collect())
}

fn ranked(
    eligible: Vec<(f64, &ModelEntry)>,
    nearest: &v1::Nearest,
    positive: Option<f64>,
    k: u32,
    got: &v1::DrawAnswer,
    at: usize,
    picks: &Picks<'_>,
) -> Result<bool, String> {
    let rules = nearest.rules.unwrap_or_default();
    let told = rules == v1::ScoreRules::default() || nearest.count_exact;
    ensure(told != got.n.is_empty(), || "n is given without rules, or where it is asked for".to_owned())?;
    ensure(nearest.count_exact != got.n_scored.is_empty(), || "n_scored is given where it is asked for".to_owned())?;
    let Some(kept) = keep(eligible.clone(), &rules, positive) else { return Ok(false) };
    if let Some(&n_scored) = got.n_scored.get(at) {
        ensure(n_scored as usize == kept.len(), || format!("n_scored is {n_scored}, not {}", kept.len()))?;
    }
    let Some(window) = window(eligible, nearest, positive, k) else { return Ok(false) };
    let sums = (got.log_partition.get(at).copied(), got.kappa.get(at).copied());
    chosen(&window, k as usize, nearest, picks, sums)?;
    Ok(true)
}

fn chosen(
    window: &[(f64, &ModelEntry)],
    k: usize,
    nearest: &v1::Nearest,
    picks: &Picks<'_>,
    (log_partition, kappa): (Option<f32>, Option<f32>),
) -> Result<(), String> {
    let Picks { scores, log_q, .. } = picks;
    let softmax = nearest.choose() == v1::Choose::Softmax;
    let replaced = softmax && !nearest.without_replacement && !window.is_empty();
    let expected = if replaced { k } else { k.min(window.len()) };
    ensure(scores.len() == expected, || format!("{} served, not {expected}", scores.len()))?;
    ensure(log_partition.is_some() == softmax, || format!("log_partition {log_partition:?}"))?;
    ensure(kappa.is_some() == (softmax && nearest.without_replacement), || format!("kappa {kappa:?}"))?;
    if nearest.choose() == v1::Choose::Top {
        ensure(log_q.is_empty(), || "the top is deterministic and has no log_q".to_owned())?;
        for (rank, (&score, (expected, _))) in scores.iter().zip(window).enumerate() {
            ensure(same(score, *expected), || format!("rank {rank} has score {score}, not {expected}"))?;
        }
        return Ok(());
    }
    let worst = window.last().map_or(0.0, |(score, _)| *score);
    ensure(scores.iter().all(|&score| f64::from(score) > worst - TOLERANCE), || "served from below the window".to_owned())?;
    let beta = f64::from(if softmax { nearest.beta } else { 0.0 });
    let sum: f64 = window.iter().map(|(score, _)| (beta * score).exp()).sum();
    if let Some(log_partition) = log_partition {
        let right = if window.is_empty() { log_partition == f32::NEG_INFINITY } else { close(log_partition, sum.ln() as f32) };
        ensure(right, || format!("log_partition {log_partition}, not {}", sum.ln()))?;
    }
    ensure(log_q.len() == scores.len(), || format!("{} log_q for {} picks", log_q.len(), scores.len()))?;
    for (&log_q, &score) in log_q.iter().zip(*scores) {
        let expected = beta * f64::from(score) - sum.ln();
        ensure(close(log_q, expected as f32), || format!("log_q {log_q}, not {expected}"))?;
    }
    Ok(())
}

fn same(score: f32, expected: f64) -> bool {
    (expected - f64::from(score)).abs() < TOLERANCE * 4.0
}

/// Within what scores that are off by the tolerance do to a log_q of beta up to 16.
pub(crate) fn close(got: f32, expected: f32) -> bool {
    (got - expected).abs() < 1e-3
}

pub(crate) fn ensure(holds: bool, fault: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(fault()) }
}
