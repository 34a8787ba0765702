//! How large an answer could be, before any work is done.

use super::Limits;
use super::limits::check;
use crate::model::{BankSpec, Draw, Form, Invalid, Layout, SampleQuery, Scope, Strategy};

/// Bytes that the answer to a request could take, from a bank of these settings that holds `entries`; refused if it could pass the limits.
pub(in crate::grpc) fn check_size(
    query: &SampleQuery,
    spec: &BankSpec,
    entries: usize,
    limits: &Limits,
) -> Result<usize, Invalid> {
    let (anchors, draws, form) = (query.anchors(), query.draws(), &query.form());
    let mut invalid = Invalid::default();
    let mut size = Size::default();
    draws.iter().for_each(|draw| size.add(draw, anchors.count, form));
    check("draws", size.picks, limits.max_picks, "max_picks", &mut invalid);
    let ranked = draws.iter().fold(0usize, |sum, draw| sum.saturating_add(ranked(draw, anchors.count)));
    if ranked > limits.max_ranked {
        let reason = format!(
            "{ranked} ranks would be kept while up to 64 anchors are searched for at once (anchors x (skip + window, or candidates), over \
             all draws), over the limit of {} (setting limits.max_ranked): ask for smaller windows, or fewer anchors at a time",
            limits.max_ranked
        );
        invalid.push("draws", reason);
    }
    for (at, draw) in draws.iter().enumerate() {
        let several = query.anchors().views.each > 1;
        let whole = draw.strategy.is_scored() && (several || !matches!(draw.strategy, Strategy::Nearest(_)));
        if whole && entries > limits.max_scored_entries {
            let reason = format!(
                "scores every entry for every anchor, and the bank's {entries} are over the limit of {} (setting limits.max_scored_entries): \
                 draw nearest, or softmax with a positive beta, for one view",
                limits.max_scored_entries
            );
            invalid.push(format!("draws[{at}]"), reason);
        }
    }
    if form.positive_log_q {
        let values = query.anchors().positive_ids.values().len().saturating_mul(draws.len());
        size.bytes = size.bytes.saturating_add(values.saturating_mul(4));
    }
    let rows = if form.layout == Layout::Pooled { size.rows.min(entries) } else { size.rows };
    let answer = rows.saturating_mul(bytes_of_row(form, spec)).saturating_add(size.bytes).saturating_add(BYTES_OF_ANSWER);
    if answer > limits.max_answer_bytes {
        let reason = format!(
            "the answer could take {answer} bytes, over the limit of {} (setting limits.max_answer_bytes): ask for fewer anchors or a \
             smaller k{}",
            limits.max_answer_bytes,
            cheaper(draws, form)
        );
        invalid.push("draws", reason);
    }
    invalid.or(answer)
}

/// Ranks that a draw's search keeps for the anchors that are searched for together.
fn ranked(draw: &Draw, anchors: usize) -> usize {
    match &draw.strategy {
        Strategy::Nearest(nearest) => nearest.depth().saturating_mul(anchors.min(64)),
        _ => 0,
    }
}

/// Bytes of an answer's small fields, and of an anchor's and a draw's: counts, sizes, sums and reasons.
const BYTES_OF_ANSWER: usize = 1_024;
const BYTES_OF_ANCHOR: usize = 32;
const BYTES_OF_DRAW: usize = 512;

/// Counts from above.
#[derive(Default)]
struct Size {
    /// Pairs of an anchor and an entry that are answered for.
    picks: usize,
    /// Rows before pooling.
    rows: usize,
    /// Bytes of everything but the rows.
    bytes: usize,
}

impl Size {
    fn add(&mut self, draw: &Draw, anchors: usize, form: &Form) {
        let pairs = anchors.saturating_mul(draw.k);
        let shared = draw.scope == Scope::Shared;
        let rows = if shared { draw.k } else { pairs };
        let scored = if shared { form.scores_of_shared } else { form.columns.scores };
        let log_q = if shared { anchors.saturating_add(draw.k) } else { pairs };
        let bytes = if form.layout == Layout::Pooled { 4 * rows } else { 0 }
            .saturating_add(if shared { pairs } else { 0 })
            .saturating_add(if scored { pairs.saturating_mul(4) } else { 0 })
            .saturating_add(if form.columns.log_q { log_q.saturating_mul(4) } else { 0 })
            .saturating_add(if form.log_q_mix { pairs.saturating_mul(4) } else { 0 })
            .saturating_add(anchors.saturating_mul(BYTES_OF_ANCHOR) + BYTES_OF_DRAW);
        self.picks = self.picks.saturating_add(pairs);
        self.rows = self.rows.saturating_add(rows);
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

fn bytes_of_row(form: &Form, spec: &BankSpec) -> usize {
    let bytes = |wanted: bool, size: usize| if wanted { size } else { 0 };
    let columns = form.columns;
    bytes(columns.ids, 8)
        + bytes(columns.embeddings, spec.dim() * form.encoding.bytes())
        + bytes(columns.labels, 9)
        + bytes(columns.groups, 9)
        + bytes(columns.steps, 8)
        + bytes(columns.weights, 4)
}

/// The forms that would be smaller than this one.
fn cheaper(draws: &[Draw], form: &Form) -> String {
    let own_unscored = |draw: &Draw| draw.scope == Scope::PerAnchor && !draw.strategy.is_scored();
    let forms = [
        (draws.iter().any(own_unscored), "scope SHARED (one set for all anchors)"),
        (form.layout == Layout::PerAnchor, "layout POOLED (each entry once)"),
        (form.columns.embeddings && form.encoding.bytes() == 4, "encoding F16 or BF16"),
        (form.columns.embeddings, "columns without EMBEDDINGS (ids only)"),
    ];
    let cheaper: Vec<&str> = forms.into_iter().filter(|(smaller, _)| *smaller).map(|(_, form)| form).collect();
    if cheaper.is_empty() { String::new() } else { format!("; cheaper: {}", cheaper.join(", ")) }
}
