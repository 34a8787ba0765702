//! An answer, laid out for programs.

use serde_json::{Value, json};

use super::shown::{Anchor, Shown, at, present, word};
use crate::client::messages as v1;

impl Shown {
    /// All that the text has; what an entry lacks is null.
    pub(super) fn json(&self) -> Value {
        let Self { bank, anchors, draws, answer } = self;
        let draws: Vec<Value> =
            answer.draws.iter().zip(draws).map(|(draw, name)| self.draw_json(draw, name, anchors)).collect();
        json!({
            "bank": bank.name,
            "dim": bank.dim,
            "entries": bank.entries,
            "sequence": answer.sequence_last,
            "step": answer.step,
            "seed": answer.seed,
            "reproducible": answer.reproducible,
            "draws": draws,
        })
    }

    fn draw_json(&self, draw: &v1::DrawAnswer, name: &str, anchors: &[Anchor]) -> Value {
        let mut first = 0;
        let of_anchor = |(row, anchor): (usize, &Anchor)| {
            let count = at(&draw.counts, row).unwrap_or_default() as usize;
            let picks: Vec<Value> = (first..first + count).map(|pick| self.pick_json(draw, pick)).collect();
            first += count;
            json!({ "anchor": anchor.json(), "n": at(&draw.n, row), "n_scored": at(&draw.n_scored, row), "picks": picks })
        };
        let anchors: Vec<Value> = anchors.iter().enumerate().map(of_anchor).collect();
        json!({
            "draw": name,
            "plan": word(draw.plan().as_str_name(), "PLAN_"),
            "plan_reason": draw.plan_reason,
            "generation": draw.generation,
            "generation_lag": draw.generation_lag,
            "kept_back": reasons(&draw.rejections),
            "missing": reasons(&draw.shortfalls),
            "anchors": anchors,
        })
    }

    fn pick_json(&self, draw: &v1::DrawAnswer, pick: usize) -> Value {
        let none = v1::Rows::default();
        let rows = self.answer.rows.as_ref().unwrap_or(&none);
        let row = at(&draw.indices, pick).unwrap_or_default() as usize;
        json!({
            "id": at(&rows.ids, row),
            "label": present(&rows.labels, &rows.has_label, row),
            "group": present(&rows.groups, &rows.has_group, row),
            "step": at(&rows.steps, row),
            "score": at(&draw.scores, pick),
            "log_q": at(&draw.log_q, pick),
        })
    }
}

impl Anchor {
    fn json(&self) -> Value {
        match self {
            Self::Entry { id, label, group, step } => json!({ "id": id, "label": label, "group": group, "step": step }),
            Self::Vector { label } => json!({ "label": label }),
        }
    }
}

/// `{"same label": 3, ...}`
fn reasons(counts: &[v1::ReasonCount]) -> Value {
    counts.iter().map(|count| (word(count.reason().as_str_name(), "REASON_"), json!(count.count))).collect()
}
