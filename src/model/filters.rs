//! Which entries are eligible.

/// Filters of a draw, as a caller states them; all must pass. See the proto's `Filters`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "a set of filters, each on or off")]
pub struct Filters {
    /// Excludes the anchor's own id; `None`: where anchors carry ids.
    pub exclude_self: Option<bool>,
    /// Excludes entries of the anchor's group; `None`: where the anchor has one, unless only they are asked for.
    pub exclude_same_group: Option<bool>,
    /// Excludes entries of the anchor's label.
    pub exclude_same_label: bool,
    /// Ids that are never served.
    pub exclude_ids: Vec<u64>,
    /// Only entries of these labels; empty: all.
    pub only_labels: Vec<i64>,
    /// No entries of these labels.
    pub exclude_labels: Vec<i64>,
    /// No entries without a label.
    pub exclude_unlabelled: bool,
    /// Only entries written at this training step or later.
    pub min_step: Option<u64>,
    /// Only entries of at most this age: the request's step less the entry's. Needs the request's step.
    pub max_age: Option<u64>,
    /// Only entries of the anchor's label.
    pub only_same_label: bool,
    /// Only entries of the anchor's group.
    pub only_same_group: bool,
}
