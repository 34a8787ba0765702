//! Changes to a bank, as values: what the committer orders and the bank applies.

use std::sync::Arc;

use super::bank_spec::check_momentum;
use super::{BankKind, BankSpec, Dtype, Half, Invalid, Matrix, Metric, Origin, StageAt};

/// One change to a bank. Valid for the bank it was made for; applying it can't fail.
#[derive(Debug, Clone, PartialEq)]
pub enum Mutation {
    /// Rows to insert, move or append.
    Write(WriteBatch),
    /// The batches of all ranks of a stage, in the order of their ranks.
    Stage(StageAt, Arc<[WriteBatch]>),
    /// Entries to remove, by id; unknown ids are ignored.
    Remove(Vec<u64>),
}

impl Mutation {
    /// The batches to write, in order; none of a removal.
    pub fn batches(&self) -> &[WriteBatch] {
        match self {
            Self::Write(batch) => std::slice::from_ref(batch),
            Self::Stage(_, batches) => batches,
            Self::Remove(_) => &[],
        }
    }
}

/// Ids of a batch's rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ids {
    /// One per row, given by the writer.
    Given(Vec<u64>),
    /// The bank numbers the rows (queue banks).
    Assigned,
}

/// Rows that apply together, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct WriteBatch {
    ids: Ids,
    embeddings: Matrix,
    labels: Option<Vec<Option<i64>>>,
    groups: Option<Vec<Option<u64>>>,
    weights: Option<Vec<f32>>,
    step: Option<u64>,
    momentum: f32,
    origin: Option<Origin>,
}

impl WriteBatch {
    /// A batch for a bank of these settings. `labels` and `groups` are whole columns or absent (a rewrite then keeps what
    /// is there); `momentum` overrides the bank's.
    ///
    /// # Errors
    /// [`Invalid`] naming each column of another length than the embeddings, an empty batch, missing ids of a keyed bank, a
    /// momentum out of range or given to a queue, and rows with values beyond what the bank's dtype holds.
    pub fn new(
        spec: &BankSpec,
        ids: Ids,
        embeddings: Matrix,
        labels: Option<Vec<Option<i64>>>,
        groups: Option<Vec<Option<u64>>>,
        step: Option<u64>,
        momentum: Option<f32>,
    ) -> Result<Self, Invalid> {
        let rows = embeddings.rows();
        let mut invalid = Invalid::default();
        if rows == 0 {
            invalid.push("embeddings", "the batch is empty: at least one row is required");
        }
        match (&ids, spec.kind()) {
            (Ids::Assigned, BankKind::Keyed { .. }) => {
                invalid.push("ids", "a keyed bank needs one id per row");
            }
            (Ids::Given(given), _) => check_len("ids", given.len(), rows, &mut invalid),
            (Ids::Assigned, BankKind::Queue { .. }) => {}
        }
        if let Some(labels) = &labels {
            check_len("labels", labels.len(), rows, &mut invalid);
        }
        if let Some(groups) = &groups {
            check_len("groups", groups.len(), rows, &mut invalid);
        }
        check_storable(spec, &embeddings, &mut invalid);
        let momentum = match (momentum, spec.kind()) {
            (Some(_), BankKind::Queue { .. }) => {
                invalid.push("momentum", "a queue bank never moves its entries: leave momentum unset");
                0.0
            }
            (Some(momentum), BankKind::Keyed { .. }) => {
                check_momentum(momentum, spec.dtype(), &mut invalid);
                momentum
            }
            (None, BankKind::Keyed { momentum, .. }) => momentum,
            (None, BankKind::Queue { .. }) => 0.0,
        };
        invalid.or(Self { ids, embeddings, labels, groups, weights: None, step, momentum, origin: None })
    }

    /// The same batch, to be applied once however often it is sent.
    #[must_use]
    pub fn with_origin(self, origin: Option<Origin>) -> Self {
        Self { origin, ..self }
    }

    /// Who sent it, and which of his writes it is.
    pub fn origin(&self) -> Option<&Origin> {
        self.origin.as_ref()
    }

    /// True if the bank numbers the rows.
    pub fn is_numbered_by_bank(&self) -> bool {
        self.ids == Ids::Assigned
    }

    /// The same batch with sampling weights, a whole column. Without one, new entries have weight 1 and others keep theirs.
    ///
    /// # Errors
    /// [`Invalid`] on `weights` for another length than the embeddings, on `weights[row]` for what is not finite and at least 0.
    pub fn with_weights(self, weights: Vec<f32>) -> Result<Self, Invalid> {
        let mut invalid = Invalid::default();
        check_len("weights", weights.len(), self.rows(), &mut invalid);
        for (row, weight) in weights.iter().enumerate().filter(|(_, weight)| !(weight.is_finite() && **weight >= 0.0)) {
            invalid.push(format!("weights[{row}]"), format!("is {weight}: a weight is finite and at least 0"));
            if invalid.is_full() {
                break;
            }
        }
        invalid.or(Self { weights: Some(weights), ..self })
    }

    /// All ids, labels, groups and weights: whole columns, or absent.
    pub fn columns(&self) -> BatchColumns<'_> {
        let ids = match &self.ids {
            Ids::Given(ids) => Some(ids.as_slice()),
            Ids::Assigned => None,
        };
        let (labels, groups, weights) = (self.labels.as_deref(), self.groups.as_deref(), self.weights.as_deref());
        BatchColumns { ids, labels, groups, weights }
    }

    /// All embeddings, as written (not normalised).
    pub fn embeddings(&self) -> &Matrix {
        &self.embeddings
    }

    /// Memory that it takes, about.
    pub fn bytes(&self) -> usize {
        self.rows() * (self.embeddings.dim() * size_of::<f32>() + 44)
    }

    /// Number of rows, at least 1.
    pub fn rows(&self) -> usize {
        self.embeddings.rows()
    }

    /// One row's embedding, as written (not normalised).
    pub fn embedding(&self, row: usize) -> &[f32] {
        self.embeddings.row(row)
    }

    /// One row's id, if the writer gave ids.
    pub fn id(&self, row: usize) -> Option<u64> {
        match &self.ids {
            Ids::Given(ids) => ids.get(row).copied(),
            Ids::Assigned => None,
        }
    }

    /// One row's label: `None` if the batch has no such column, `Some(None)` if the row has no label.
    pub fn label(&self, row: usize) -> Option<Option<i64>> {
        self.labels.as_ref().and_then(|labels| labels.get(row).copied())
    }

    /// One row's group, as [`Self::label`].
    pub fn group(&self, row: usize) -> Option<Option<u64>> {
        self.groups.as_ref().and_then(|groups| groups.get(row).copied())
    }

    /// One row's weight, if the batch has such a column.
    pub fn weight(&self, row: usize) -> Option<f32> {
        self.weights.as_ref().and_then(|weights| weights.get(row).copied())
    }

    /// Training step of the rows.
    pub fn step(&self) -> Option<u64> {
        self.step
    }

    /// Momentum with which rows of known ids move.
    pub fn momentum(&self) -> f32 {
        self.momentum
    }
}

/// The columns of a batch beside its embeddings; one that it doesn't have is `None`.
#[derive(Debug, Clone, Copy)]
pub struct BatchColumns<'a> {
    /// Ids, if the writer gave them.
    pub ids: Option<&'a [u64]>,
    /// Classes.
    pub labels: Option<&'a [Option<i64>]>,
    /// Groups.
    pub groups: Option<&'a [Option<u64>]>,
    /// Sampling weights.
    pub weights: Option<&'a [f32]>,
}

/// What applying a mutation did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// The bank's sequence number of the mutation.
    pub sequence: u64,
    /// New entries.
    pub inserted: u64,
    /// Entries that moved.
    pub updated: u64,
    /// Entries that left to make room.
    pub evicted: u64,
    /// Entries removed by id.
    pub removed: u64,
    /// Ids that the bank gave, in row order; empty if the writer gave them.
    pub assigned: Vec<u64>,
    /// True if the write had been applied before, as `sequence`; then nothing was done.
    pub duplicate: bool,
}

/// Adds a fault for each row that a bank of f16 can't hold. Normalised rows always fit.
fn check_storable(spec: &BankSpec, embeddings: &Matrix, invalid: &mut Invalid) {
    if spec.dtype() != Dtype::F16 || spec.metric() == Metric::Cosine {
        return;
    }
    let largest = Half::LARGEST_F16;
    for row in 0..embeddings.rows() {
        if let Some((column, x)) = embeddings.row(row).iter().enumerate().find(|(_, x)| x.abs() > largest) {
            let reason = format!("column {column} is {x}: an F16 bank holds values up to {largest}; use a bank of dtype BF16");
            invalid.push(format!("embeddings[{row}]"), reason);
            if invalid.is_full() {
                return;
            }
        }
    }
}

fn check_len(field: &str, len: usize, rows: usize, invalid: &mut Invalid) {
    if len != rows {
        invalid.push(field, format!("has {len} values for {rows} rows of embeddings"));
    }
}
