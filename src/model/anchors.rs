//! What negatives are drawn for.

use super::{Invalid, Matrix};

/// What negatives are drawn for; every column has `count` rows or is absent. See the proto's `Anchors`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Anchors {
    /// Number of anchors, B.
    pub count: usize,
    /// B x V x d: the views of each anchor, one after the other.
    pub embeddings: Option<Matrix>,
    /// How many views an anchor has, and how their scores are one.
    pub views: Views,
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

/// Views of each anchor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Views {
    /// V, at least 1.
    pub each: usize,
    /// How their scores are one.
    pub combine: Combine,
}

impl Default for Views {
    fn default() -> Self {
        Self { each: 1, combine: Combine::default() }
    }
}

/// How the scores of an entry against an anchor's views are one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Combine {
    /// The largest.
    #[default]
    Max,
    /// Their sum, in the order of the views, over their number.
    Mean,
}

impl Combine {
    /// The scores so far, and one more.
    pub fn and(self, so_far: f32, more: f32) -> f32 {
        match self {
            Self::Max => {
                if more > so_far {
                    more
                } else {
                    so_far
                }
            }
            Self::Mean => so_far + more,
        }
    }

    /// What all of them come to.
    pub fn of_all(self, so_far: f32, views: usize) -> f32 {
        match self {
            Self::Max => so_far,
            Self::Mean => so_far / views as f32,
        }
    }
}

/// Lists of values, one list per anchor.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Lists<T> {
    values: Vec<T>,
    ends: Vec<usize>,
}

impl Anchors {
    /// Anchor number `at` alone.
    pub fn only(&self, at: usize) -> Self {
        Self {
            count: 1,
            embeddings: self.embeddings.as_ref().map(|rows| rows.only(at * self.views.each..(at + 1) * self.views.each)),
            views: self.views,
            ids: self.ids.as_ref().map(|ids| vec![ids[at]]),
            labels: self.labels.as_ref().map(|labels| vec![labels[at]]),
            groups: self.groups.as_ref().map(|groups| vec![groups[at]]),
            positive_scores: self.positive_scores.only(at),
            positive_ids: self.positive_ids.only(at),
            denied_ids: self.denied_ids.only(at),
        }
    }
}

impl<T: Clone> Lists<T> {
    /// One anchor's list alone.
    fn only(&self, anchor: usize) -> Self {
        let values = self.of(anchor).to_vec();
        Self { ends: vec![values.len()], values }
    }
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

#[cfg(test)]
mod tests {
    use super::{Anchors, Lists};

    #[test]
    fn one_anchor_alone_keeps_what_is_its_own() {
        let denied_ids = Lists::new("x", vec![1, 2, 3], &[2, 0, 1], 3).unwrap();
        let anchors = Anchors { count: 3, ids: Some(vec![7, 8, 9]), denied_ids, ..Anchors::default() };
        let only = |at: usize| (anchors.only(at).ids, anchors.only(at).denied_ids.of(0).to_vec());
        assert_eq!(
            [only(0), only(1), only(2)],
            [(Some(vec![7]), vec![1, 2]), (Some(vec![8]), vec![]), (Some(vec![9]), vec![3])]
        );
    }

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
