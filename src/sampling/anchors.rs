//! Anchors with everything that a draw needs of them, looked up in the bank.

use std::ops::Range;

use super::SampleError;
use super::observed::Observed;
use crate::bank::{Bank, Place};
use crate::kernels::{momentum, score::score, stride};
use crate::model::{Anchors, Combine, Invalid, Matrix, Metric, SampleQuery, ScoreRules, Views};

/// One anchor, complete.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Anchor {
    /// Number in the request: keys its randomness.
    pub(super) number: usize,
    /// The embedding, padded; normalised in a cosine bank. `None`: only unscored draws are possible.
    pub(super) row: Option<Vec<f32>>,
    /// The embeddings of its other views.
    pub(super) others: Vec<Vec<f32>>,
    pub(super) combine: Combine,
    pub(super) id: Option<u64>,
    pub(super) label: Option<i64>,
    pub(super) group: Option<u64>,
    /// Smallest score of its positives.
    pub(super) positive: Option<f32>,
    /// Sorted.
    pub(super) positive_ids: Vec<u64>,
    /// Sorted.
    pub(super) denied_ids: Vec<u64>,
}

impl Anchor {
    /// Score of the entry at `place`; `None` if the anchor has no embedding.
    pub(super) fn score(&self, bank: &Bank, place: Place) -> Option<f32> {
        let mut scratch = Vec::new();
        self.score_of(bank.spec().metric(), bank.padded_row(place).floats(&mut scratch))
    }

    /// Score of an entry of this row.
    pub(super) fn score_of(&self, metric: Metric, row: &[f32]) -> Option<f32> {
        let first = score(metric, self.row.as_deref()?, row);
        let others = self.others.iter().map(|view| score(metric, view, row));
        let all = others.fold(first, |so_far, more| self.combine.and(so_far, more));
        Some(self.combine.of_all(all, 1 + self.others.len()))
    }

    /// Where its positives lie, in the order in which they were given, if their log_q is asked for; `None` of one that has left.
    pub(super) fn positives(&self, bank: &Bank, query: &SampleQuery) -> Vec<Option<Place>> {
        let ids = query.anchors().positive_ids.of(self.number).iter().filter(|_| query.form().positive_log_q);
        ids.map(|&id| bank.find(id)).collect()
    }

    /// The embeddings of all its views; none of an anchor that can't be scored.
    pub(super) fn views(&self) -> impl Iterator<Item = &[f32]> {
        self.row.iter().chain(&self.others).map(Vec::as_slice)
    }
}

/// Positives scored in one hold of the bank.
const POSITIVES_PER_HOLD: usize = 256;

/// Looks up a block of the query's anchors, in short holds of the bank.
pub(super) fn resolve(
    observed: &mut Observed<'_>,
    query: &SampleQuery,
    block: Range<usize>,
) -> Result<Vec<Anchor>, SampleError> {
    let mut invalid = Invalid::default();
    let mut resolved = Vec::with_capacity(block.len());
    for number in block {
        let bank = observed.read()?;
        match look_up(&bank, query.anchors(), number).and_then(|anchor| complete(&bank, query, anchor)) {
            Ok(anchor) => resolved.push(anchor),
            Err(fault) => invalid.merge(fault),
        }
    }
    for anchor in resolved.iter_mut().filter(|_| scores_positives(query)) {
        let ids = std::mem::take(&mut anchor.positive_ids);
        for part in ids.chunks(POSITIVES_PER_HOLD) {
            if let Err(fault) = score_positives(&*observed.read()?, anchor, part) {
                invalid.merge(fault);
            }
        }
        anchor.positive_ids = ids;
    }
    Ok(invalid.or(resolved)?)
}

/// The anchor as it would be looked up now, if that differs: its entry or its positives may have been rewritten since. An
/// entry that is gone leaves the anchor as it was.
pub(super) fn changed(bank: &Bank, query: &SampleQuery, anchor: &Anchor) -> Option<Anchor> {
    let scored = scores_positives(query);
    let named = anchor.id.is_some() || (scored && !anchor.positive_ids.is_empty());
    if !named {
        return None;
    }
    let mut now = look_up(bank, query.anchors(), anchor.number).ok()?;
    if scored {
        let ids = now.positive_ids.clone();
        score_positives(bank, &mut now, &ids).ok()?;
    }
    (now != *anchor).then_some(now)
}

/// True if some draw has a rule relative to the positives.
fn scores_positives(query: &SampleQuery) -> bool {
    query.draws().iter().filter_map(|draw| draw.strategy.rules()).any(ScoreRules::need_positive)
}

fn look_up(bank: &Bank, anchors: &Anchors, number: usize) -> Result<Anchor, Invalid> {
    let id = anchors.ids.as_ref().map(|ids| ids[number]);
    let place = id.and_then(|id| bank.find(id));
    let stored = place.map(|place| bank.columns(place).entry(place.slot));
    let Views { each, combine } = anchors.views;
    let view = |given: &Matrix, view: usize| prepared(bank.spec().metric(), given.row(number * each + view));
    let row = match (&anchors.embeddings, id, place) {
        (Some(given), _, _) => Some(view(given, 0)),
        (None, Some(_), Some(place)) => Some(bank.padded_row(place).to_vec()),
        (None, Some(id), None) => {
            let reason = format!("the bank holds no entry of id {id}: write it first, or give the anchor's embedding");
            return Err(Invalid::one(format!("anchors.ids[{number}]"), reason));
        }
        (None, None, _) => None,
    };
    Ok(Anchor {
        number,
        id,
        label: match &anchors.labels {
            Some(labels) => labels[number],
            None => stored.and_then(|entry| entry.label),
        },
        group: match &anchors.groups {
            Some(groups) => groups[number],
            None => stored.and_then(|entry| entry.group),
        },
        positive: smallest(anchors.positive_scores.of(number).iter().copied()),
        positive_ids: sorted(anchors.positive_ids.of(number)),
        denied_ids: sorted(anchors.denied_ids.of(number)),
        row,
        others: anchors.embeddings.iter().flat_map(|given| (1..each).map(|other| view(given, other))).collect(),
        combine,
    })
}

/// The anchor, if it has what the draws ask of it and its positives are there to be told of.
fn complete(bank: &Bank, query: &SampleQuery, anchor: Anchor) -> Result<Anchor, Invalid> {
    let mut invalid = Invalid::default();
    let filters = || query.draws().iter().map(|draw| &draw.filters);
    let lacking = [
        ("label", anchor.label.is_none() && filters().any(|filters| filters.only_same_label)),
        ("group", anchor.group.is_none() && filters().any(|filters| filters.only_same_group)),
    ];
    for (what, _) in lacking.into_iter().filter(|(_, lacks)| *lacks) {
        let reason = format!("the anchor has no {what}, and only_same_{what} serves entries of it");
        invalid.push(format!("anchors.{what}s[{}]", anchor.number), reason);
    }
    let missing = || anchor.positive_ids.iter().find(|&&id| bank.find(id).is_none());
    if query.form().positive_log_q
        && let Some(id) = missing()
    {
        let reason = format!("the bank holds no entry of id {id}, so it has no log_q");
        invalid.push(format!("anchors.positive_ids[{}]", anchor.number), reason);
    }
    invalid.or(anchor)
}

/// Lowers the anchor's positive score to the smallest of these positives'.
fn score_positives(bank: &Bank, anchor: &mut Anchor, ids: &[u64]) -> Result<(), Invalid> {
    for &id in ids {
        let scored = bank.find(id).and_then(|place| anchor.score(bank, place)).ok_or_else(|| {
            let reason = format!("the bank holds no entry of id {id} to score: give positive_scores instead");
            Invalid::one(format!("anchors.positive_ids[{}]", anchor.number), reason)
        })?;
        anchor.positive = smallest(anchor.positive.into_iter().chain([scored]));
    }
    Ok(())
}

/// An embedding as the bank's rows are: padded, and normalised in a cosine bank.
fn prepared(metric: Metric, embedding: &[f32]) -> Vec<f32> {
    let mut row = embedding.to_vec();
    if metric == Metric::Cosine {
        momentum::normalise(&mut row);
    }
    row.resize(stride(row.len()), 0.0);
    row
}

fn smallest(scores: impl Iterator<Item = f32>) -> Option<f32> {
    scores.min_by(f32::total_cmp)
}

fn sorted(ids: &[u64]) -> Vec<u64> {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    ids.dedup();
    ids
}
