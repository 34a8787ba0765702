//! The probability law of each strategy, by its definition.

use std::collections::BTreeMap;

use negbank::proto::v1;
use v1::draw::Strategy;

use crate::judge::{Picks, close, ensure};
use crate::model::{ModelEntry, TOLERANCE, keep};

/// Entries with the probability with which one draw picks each; those that can't be picked have 0.
pub(crate) type Law<'e> = Vec<(f64, &'e ModelEntry)>;

/// True if a draw may pick an entry twice.
pub(crate) fn replaces(strategy: &Strategy) -> bool {
    match strategy {
        Strategy::Uniform(uniform) => uniform.with_replacement,
        Strategy::Weighted(weighted) => !weighted.without_replacement,
        Strategy::Balanced(balanced) => !balanced.without_replacement,
        Strategy::Softmax(softmax) => !softmax.without_replacement,
        Strategy::Band(band) => band.with_replacement,
        Strategy::Nearest(nearest) => nearest.choose() == v1::Choose::Softmax && !nearest.without_replacement,
    }
}

/// The filters that a draw has in effect.
pub(crate) fn effective(strategy: &Strategy, filters: &v1::Filters) -> v1::Filters {
    let balanced = matches!(strategy, Strategy::Balanced(_));
    v1::Filters { exclude_unlabelled: filters.exclude_unlabelled || balanced, ..filters.clone() }
}

/// The score rules of a draw over everything that is eligible.
pub(crate) fn rules(strategy: &Strategy) -> v1::ScoreRules {
    match strategy {
        Strategy::Softmax(softmax) => softmax.rules.unwrap_or_default(),
        Strategy::Band(band) => band.rules.unwrap_or_default(),
        _ => v1::ScoreRules::default(),
    }
}

/// The law of a draw over these eligible entries, best first; `None` if rounding decides who belongs to it.
pub(crate) fn whole<'e>(strategy: &Strategy, eligible: &[(f64, &'e ModelEntry)], positive: Option<f64>) -> Option<Law<'e>> {
    of_kept(strategy, &keep(eligible.to_vec(), &rules(strategy), positive)?)
}

/// The same of what the score rules leave.
fn of_kept<'e>(strategy: &Strategy, kept: &[(f64, &'e ModelEntry)]) -> Option<Law<'e>> {
    let masses: Law<'e> = match strategy {
        Strategy::Softmax(softmax) => {
            let logit = |score: f64| f64::from(softmax.beta) * score;
            let largest = kept.iter().map(|(score, _)| logit(*score)).fold(f64::NEG_INFINITY, f64::max);
            kept.iter().map(|(score, entry)| ((logit(*score) - largest).exp(), *entry)).collect()
        }
        Strategy::Band(band) => {
            let (n, hi) = (kept.len() as f64, band.hi.unwrap_or(1.0));
            let first = (band.lo * n).floor();
            let end = (hi * n).ceil().max(first + 1.0);
            // The last of the list has rank 0.
            let within = |at: usize| (first..end).contains(&(n - 1.0 - at as f64));
            let is_edge = |at: usize| at > 0 && within(at) != within(at - 1);
            if (0..kept.len()).any(|at| is_edge(at) && (kept[at].0 - kept[at - 1].0).abs() < TOLERANCE) {
                return None;
            }
            kept.iter().enumerate().map(|(at, (_, entry))| (f64::from(u8::from(within(at))), *entry)).collect()
        }
        _ => return Some(unscored(strategy, kept)),
    };
    Some(normalised(masses))
}

/// The probability that a positive, with its score, would have if it were eligible and passed the score rules; `None` if rounding decides, or
/// if the draw is deterministic.
pub(crate) fn beside<'e>(
    draw: &v1::Draw,
    eligible: &[(f64, &'e ModelEntry)],
    threshold: Option<f64>,
    positive: (f64, &'e ModelEntry),
) -> Option<f64> {
    let strategy = draw.strategy.as_ref().unwrap();
    if matches!(strategy, Strategy::Balanced(_)) && positive.1.label.is_none() {
        return Some(0.0);
    }
    let with = |mut entries: Vec<(f64, &'e ModelEntry)>| {
        entries.push(positive);
        entries.sort_by(|(a, left), (b, right)| b.total_cmp(a).then(left.id.cmp(&right.id)));
        entries
    };
    let ranked = matches!(strategy, Strategy::Nearest(_) | Strategy::Band(_));
    if ranked && eligible.iter().any(|(score, _)| (score - positive.0).abs() < TOLERANCE) {
        return None;
    }
    let of = |law: &Law<'_>| law.iter().find(|(_, entry)| std::ptr::eq(*entry, positive.1)).map_or(0.0, |(q, _)| *q);
    let Strategy::Nearest(nearest) = strategy else {
        let kept = keep(eligible.to_vec(), &rules(strategy), threshold)?;
        return Some(of(&of_kept(strategy, &with(kept))?));
    };
    if nearest.choose() == v1::Choose::Top {
        return None;
    }
    let mut raw = with(eligible.to_vec());
    raw.truncate(nearest.candidates.map_or(usize::MAX, |candidates| candidates as usize));
    let others = raw.iter().filter(|(_, entry)| !std::ptr::eq(*entry, positive.1)).copied().collect();
    let kept = keep(others, &nearest.rules.unwrap_or_default(), threshold)?;
    let kept = if raw.iter().any(|(_, entry)| std::ptr::eq(*entry, positive.1)) { with(kept) } else { kept };
    let window: Vec<_> = kept.into_iter().skip(nearest.skip as usize).take(nearest.window.unwrap_or(draw.k) as usize).collect();
    let beta = if nearest.choose() == v1::Choose::Softmax { nearest.beta } else { 0.0 };
    Some(of(&of_kept(&Strategy::Softmax(v1::Softmax { beta, ..Default::default() }), &window)?))
}

fn normalised(masses: Law<'_>) -> Law<'_> {
    let sum: f64 = masses.iter().map(|(mass, _)| mass).sum();
    masses.into_iter().map(|(mass, entry)| (if sum > 0.0 { mass / sum } else { 0.0 }, entry)).collect()
}

/// ln sum exp(beta * s) over what score rules leave.
pub(crate) fn log_partition(beta: f32, kept: &[(f64, &ModelEntry)]) -> f64 {
    let logits = || kept.iter().map(|(score, _)| f64::from(beta) * score);
    let largest = logits().fold(f64::NEG_INFINITY, f64::max);
    if kept.is_empty() { largest } else { largest + logits().map(|logit| (logit - largest).exp()).sum::<f64>().ln() }
}

/// The law of a draw that needs no scores, over these eligible entries.
pub(crate) fn unscored<'e>(strategy: &Strategy, eligible: &[(f64, &'e ModelEntry)]) -> Law<'e> {
    let entries = || eligible.iter().map(|(_, entry)| *entry);
    normalised(match strategy {
        Strategy::Weighted(weighted) => {
            let alpha = f64::from(weighted.alpha.unwrap_or(1.0));
            let mass = |entry: &ModelEntry| if entry.weight > 0.0 { f64::from(entry.weight).powf(alpha) } else { 0.0 };
            entries().map(|entry| (mass(entry), entry)).collect()
        }
        Strategy::Balanced(_) => {
            let mut labels: BTreeMap<i64, f64> = BTreeMap::new();
            entries().for_each(|entry| *labels.entry(entry.label.unwrap()).or_default() += 1.0);
            entries().map(|entry| (1.0 / labels[&entry.label.unwrap()], entry)).collect()
        }
        _ => entries().map(|entry| (1.0, entry)).collect(),
    })
}

/// Holds one anchor's picks against the law that they were drawn by; `q` is its value for a pick.
pub(crate) fn follows(
    law: &Law<'_>,
    draw: &v1::Draw,
    picks: &Picks<'_>,
    kappa: Option<f32>,
    q: impl Fn(usize) -> f64,
) -> Result<(), String> {
    let strategy = draw.strategy.as_ref().unwrap();
    let (k, support) = (draw.k as usize, law.iter().filter(|(q, _)| *q > 0.0).count());
    let wanted = if replaces(strategy) && support > 0 { k } else { support.min(k) };
    ensure(picks.rows.len() == wanted, || format!("{} served of {support} that can be drawn", picks.rows.len()))?;
    ensure(picks.log_q.len() == wanted, || format!("{} log_q for {wanted} picks", picks.log_q.len()))?;
    for (&row, &log_q) in picks.rows.iter().zip(picks.log_q) {
        ensure(close(log_q, q(row).ln() as f32), || format!("log_q of row {row} is {log_q}, not {}", q(row).ln()))?;
    }
    let perturbed = !replaces(strategy) && !matches!(strategy, Strategy::Uniform(_) | Strategy::Band(_));
    ensure(kappa.is_some() == perturbed, || format!("kappa {kappa:?}"))?;
    let bounded = kappa.is_none_or(|kappa| (kappa > f32::NEG_INFINITY) == (k < support));
    ensure(bounded, || format!("kappa {kappa:?} with {support} to draw from"))
}
