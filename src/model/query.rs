//! A request for negatives.

use super::{Filters, Invalid, Matrix, ScoreRules, Seed};

/// Lists of values, one list per anchor.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Lists<T> {
    values: Vec<T>,
    ends: Vec<usize>,
}

impl<T> Lists<T> {
    /// Splits `values` into `anchors` lists: of `counts` values each, or all of the same length where `counts` is empty.
    ///
    /// # Errors
    /// [`Invalid`] on `field` if the counts don't fit the anchors or the values.
    pub fn new(field: &str, values: Vec<T>, counts: &[u32], anchors: usize) -> Result<Self, Invalid> {
        if values.is_empty() && counts.is_empty() {
            return Ok(Self { values, ends: Vec::new() });
        }
        let refuse = |reason: String| Err(Invalid::one(field, reason));
        if counts.is_empty() {
            if anchors == 0 || !values.len().is_multiple_of(anchors) {
                return refuse(format!("{} values don't divide among {anchors} anchors: give counts", values.len()));
            }
            let each = values.len() / anchors;
            return Ok(Self { values, ends: (1..=anchors).map(|anchor| anchor * each).collect() });
        }
        if counts.len() != anchors {
            return refuse(format!("has {} counts for {anchors} anchors", counts.len()));
        }
        let mut ends = Vec::with_capacity(anchors);
        let mut end = 0usize;
        for &count in counts {
            end = end.saturating_add(count as usize);
            ends.push(end);
        }
        if end != values.len() {
            return refuse(format!("counts add up to {end}, but there are {} values", values.len()));
        }
        Ok(Self { values, ends })
    }

    /// The list of one anchor; empty where there is none.
    pub fn of(&self, anchor: usize) -> &[T] {
        let Some(&end) = self.ends.get(anchor) else { return &[] };
        let start = if anchor == 0 { 0 } else { self.ends[anchor - 1] };
        &self.values[start..end]
    }

    /// True if no anchor has a value.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// All values, anchor by anchor.
    pub fn values(&self) -> &[T] {
        &self.values
    }
}

/// What negatives are drawn for; every column has `count` rows or is absent. See the proto's `Anchors`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Anchors {
    /// Number of anchors, B.
    pub count: usize,
    /// B x d.
    pub embeddings: Option<Matrix>,
    /// Ids of entries of the bank that the anchors are.
    pub ids: Option<Vec<u64>>,
    /// Labels of the anchors.
    pub labels: Option<Vec<Option<i64>>>,
    /// Groups of the anchors.
    pub groups: Option<Vec<Option<u64>>>,
    /// Scores of the anchors' positives.
    pub positive_scores: Lists<f32>,
    /// Positives that are entries of the bank.
    pub positive_ids: Lists<u64>,
    /// Ids never to serve to that anchor.
    pub denied_ids: Lists<u64>,
}

/// How k of a window are chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Choose {
    /// The first k; deterministic.
    Top,
    /// k at random, without replacement.
    Uniform,
    /// k at random, an entry of score s with probability proportional to exp(beta * s).
    Softmax {
        /// Inverse temperature.
        beta: f32,
        /// Whether an entry may be picked twice.
        replace: bool,
    },
}

/// Hard negatives: entries ranked by score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Nearest {
    /// First ranks left out.
    pub skip: usize,
    /// Ranks considered after the skip; at least k.
    pub window: usize,
    /// How k of the window are chosen.
    pub choose: Choose,
    /// Raw top entries kept before the score rules; `None`: all.
    pub candidates: Option<usize>,
    /// Which scores are kept.
    pub rules: ScoreRules,
}

impl Nearest {
    /// Ranks that the search must find.
    pub fn depth(&self) -> usize {
        self.candidates.unwrap_or_else(|| self.skip.saturating_add(self.window))
    }
}

/// How entries are picked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Strategy {
    /// Uniformly.
    Uniform {
        /// Whether an entry may be picked twice.
        replace: bool,
    },
    /// By score.
    Nearest(Nearest),
}

/// One strategy with a count.
#[derive(Debug, Clone, PartialEq)]
pub struct Draw {
    /// Entries per anchor.
    pub k: usize,
    /// How they are picked.
    pub strategy: Strategy,
    /// Which are eligible.
    pub filters: Filters,
}

/// What of each negative is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "a set of columns, each wanted or not")]
pub struct Columns {
    /// Ids of the pooled rows.
    pub ids: bool,
    /// Embeddings of the pooled rows.
    pub embeddings: bool,
    /// Labels of the pooled rows.
    pub labels: bool,
    /// Groups of the pooled rows.
    pub groups: bool,
    /// Steps of the pooled rows.
    pub steps: bool,
    /// Score of each pick.
    pub scores: bool,
    /// log_q of each pick.
    pub log_q: bool,
}

/// A whole request, valid by construction.
#[derive(Debug, Clone, PartialEq)]
pub struct SampleQuery {
    anchors: Anchors,
    draws: Vec<Draw>,
    step: Option<u64>,
    seed: Seed,
    columns: Columns,
}

impl SampleQuery {
    /// Most draws in one request.
    pub const MAX_DRAWS: usize = 16;

    /// A request of the trainer's `step`.
    ///
    /// # Errors
    /// [`Invalid`] naming each column of another length than the anchors, each draw that lacks what it needs (an
    /// embedding, a positive, a label), and each setting out of range.
    pub fn new(anchors: Anchors, draws: Vec<Draw>, step: Option<u64>, seed: Seed, columns: Columns) -> Result<Self, Invalid> {
        let mut invalid = Invalid::default();
        check_anchors(&anchors, &mut invalid);
        if draws.is_empty() || draws.len() > Self::MAX_DRAWS {
            invalid.push("draws", format!("has {} draws: 1 to {} are served", draws.len(), Self::MAX_DRAWS));
        }
        for (at, draw) in draws.iter().enumerate().take(Self::MAX_DRAWS) {
            let field = format!("draws[{at}]");
            check_draw(&field, draw, &anchors, &mut invalid);
            if draw.filters.max_age.is_some() && step.is_none() {
                invalid.push(format!("{field}.filters.max_age"), "needs the request's step: an age is counted from it");
            }
        }
        invalid.or(Self { anchors, draws, step, seed, columns })
    }

    /// What negatives are drawn for.
    pub fn anchors(&self) -> &Anchors {
        &self.anchors
    }

    /// The draws, at least one.
    pub fn draws(&self) -> &[Draw] {
        &self.draws
    }

    /// The trainer's step.
    pub fn step(&self) -> Option<u64> {
        self.step
    }

    /// Seed of the draws.
    pub fn seed(&self) -> Seed {
        self.seed
    }

    /// What to answer.
    pub fn columns(&self) -> Columns {
        self.columns
    }
}

fn check_anchors(anchors: &Anchors, invalid: &mut Invalid) {
    let count = anchors.count;
    if count == 0 {
        invalid.push("anchors", "there are none: give embeddings, ids or rows");
    }
    let columns = [
        ("embeddings", anchors.embeddings.as_ref().map(Matrix::rows)),
        ("ids", anchors.ids.as_ref().map(Vec::len)),
        ("labels", anchors.labels.as_ref().map(Vec::len)),
        ("groups", anchors.groups.as_ref().map(Vec::len)),
    ];
    for (name, len) in columns {
        if let Some(len) = len
            && len != count
        {
            invalid.push(format!("anchors.{name}"), format!("has {len} rows for {count} anchors"));
        }
    }
    if let Some(bad) = anchors.positive_scores.values().iter().find(|score| !score.is_finite()) {
        invalid.push("anchors.positive_scores", format!("holds {bad}: every score must be finite"));
    }
}

fn check_draw(field: &str, draw: &Draw, anchors: &Anchors, invalid: &mut Invalid) {
    if draw.k == 0 {
        invalid.push(format!("{field}.k"), "must be at least 1");
    }
    if draw.filters.exclude_same_label && anchors.labels.is_none() && anchors.ids.is_none() {
        invalid.push(
            format!("{field}.filters.exclude_same_label"),
            "needs the anchors' labels: give anchors.labels, or anchors.ids of entries that have labels",
        );
    }
    if draw.filters.exclude_self == Some(true) && anchors.ids.is_none() {
        invalid.push(format!("{field}.filters.exclude_self"), "needs anchors.ids");
    }
    if draw.filters.exclude_same_group == Some(true) && anchors.groups.is_none() && anchors.ids.is_none() {
        invalid.push(
            format!("{field}.filters.exclude_same_group"),
            "needs the anchors' groups: give anchors.groups, or anchors.ids of entries that have groups",
        );
    }
    if let Strategy::Nearest(nearest) = &draw.strategy {
        check_nearest(&format!("{field}.nearest"), draw.k, nearest, anchors, invalid);
    }
}

fn check_nearest(field: &str, k: usize, nearest: &Nearest, anchors: &Anchors, invalid: &mut Invalid) {
    if anchors.embeddings.is_none() && anchors.ids.is_none() {
        invalid.push("anchors.embeddings", "a scored draw needs the anchors' embeddings, or anchors.ids of stored entries");
    }
    // With replacement one entry is enough.
    let needed = if matches!(nearest.choose, Choose::Softmax { replace: true, .. }) { 1 } else { k };
    if nearest.window < needed {
        invalid
            .push(format!("{field}.window"), format!("{} is below k = {needed}: the draw could never be full", nearest.window));
    }
    if let Choose::Softmax { beta, .. } = nearest.choose
        && !beta.is_finite()
    {
        invalid.push(format!("{field}.beta"), format!("is {beta}: it must be finite"));
    }
    if let Some(candidates) = nearest.candidates
        && candidates < nearest.skip.saturating_add(needed)
    {
        invalid.push(
            format!("{field}.candidates"),
            format!("{candidates} is below skip + k = {}: the draw could never be full", nearest.skip.saturating_add(needed)),
        );
    }
    if let Err(faults) = nearest.rules.check(&format!("{field}.rules")) {
        invalid.merge(faults);
    }
    if nearest.rules.need_positive() {
        let lacking =
            (0..anchors.count).find(|&at| anchors.positive_scores.of(at).is_empty() && anchors.positive_ids.of(at).is_empty());
        if let Some(row) = lacking {
            invalid.push(
                format!("{field}.rules"),
                format!("a rule is relative to the positive, and anchor {row} has none: give positive_scores or positive_ids"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Lists;

    #[test]
    fn lists_split_by_counts_or_evenly() {
        let ragged = Lists::new("x", vec![1, 2, 3], &[2, 0, 1], 3).unwrap();
        assert_eq!([ragged.of(0), ragged.of(1), ragged.of(2)], [&[1, 2][..], &[], &[3]]);
        let even = Lists::new("x", vec![1, 2, 3, 4], &[], 2).unwrap();
        assert_eq!(even.of(1), [3, 4]);
        assert!(Lists::new("x", vec![1, 2, 3], &[], 2).is_err());
        assert!(Lists::new("x", vec![1, 2, 3], &[1, 1], 2).is_err());
        assert!(Lists::new("x", vec![1], &[u32::MAX, u32::MAX], 2).is_err());
    }
}
