//! What of an answer is sent, and how.

use super::Limits;
use super::write::encoding;
use crate::model::{Columns, Form, Invalid, Layout};
use crate::proto::v1;

/// The form of the answer to a request.
pub(super) fn form(request: &v1::SampleRequest, limits: &Limits, invalid: &mut Invalid) -> Form {
    let columns = columns(&request.columns, invalid);
    let layout = match v1::Layout::try_from(request.layout) {
        Ok(v1::Layout::Pooled | v1::Layout::Unspecified) => Layout::Pooled,
        Ok(v1::Layout::PerAnchor) => Layout::PerAnchor,
        Err(_) => {
            invalid.push("layout", format!("{} is not a Layout: 1 is POOLED, 2 is PER_ANCHOR", request.layout));
            Layout::Pooled
        }
    };
    let encoding = encoding(request.encoding).map_err(|fault| invalid.merge(fault)).unwrap_or_default();
    let scores_of_shared = columns.scores && !request.columns.is_empty();
    let most_bytes = limits.max_answer_bytes;
    let (log_q_mix, positive_log_q) = (request.log_q_mix, request.positive_log_q);
    Form { columns, layout, encoding, scores_of_shared, most_bytes, log_q_mix, positive_log_q }
}

fn columns(wanted: &[i32], invalid: &mut Invalid) -> Columns {
    if wanted.is_empty() {
        return Columns { ids: true, embeddings: true, labels: true, scores: true, log_q: true, ..Columns::default() };
    }
    let mut columns = Columns::default();
    for (at, &column) in wanted.iter().enumerate() {
        match v1::Column::try_from(column) {
            Ok(v1::Column::Ids) => columns.ids = true,
            Ok(v1::Column::Embeddings) => columns.embeddings = true,
            Ok(v1::Column::Labels) => columns.labels = true,
            Ok(v1::Column::Groups) => columns.groups = true,
            Ok(v1::Column::Steps) => columns.steps = true,
            Ok(v1::Column::Scores) => columns.scores = true,
            Ok(v1::Column::LogQ) => columns.log_q = true,
            Ok(v1::Column::Weights) => columns.weights = true,
            Ok(v1::Column::Unspecified) | Err(_) => {
                invalid.push(format!("columns[{at}]"), format!("{column} is not a Column"));
            }
        }
        if invalid.is_full() {
            break;
        }
    }
    columns
}
