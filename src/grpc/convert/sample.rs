//! Requests for negatives.

use super::Limits;
use super::columns::{matrix, optional};
use super::limits::check;
use super::write::readable;
use crate::model::{
    Anchors, BankSpec, Choose, Columns, Draw, Filters, Invalid, Lists, Nearest, SampleQuery, ScoreRules, Seed, Strategy,
};
use crate::proto::v1;

/// The query of a request to a bank of these settings that holds `entries` now, and whether embeddings are wanted readable.
/// `seed` is used where the request gives none.
pub(in crate::grpc) fn query(
    request: v1::SampleRequest,
    spec: &BankSpec,
    entries: usize,
    seed: Seed,
    limits: &Limits,
) -> Result<(SampleQuery, bool), Invalid> {
    let mut invalid = Invalid::default();
    let anchors = anchors(request.anchors.unwrap_or_default(), spec, limits).map_err(|faults| invalid.merge(faults)).ok();
    let filters = request.filters.unwrap_or_default();
    check_filters("filters", &filters, limits, &mut invalid);
    let draws = draws(request.draws, &filters, limits, &mut invalid);
    let columns = columns(&request.columns, &mut invalid);
    let readable = readable(request.encoding).map_err(|fault| invalid.merge(fault)).unwrap_or_default();
    let Some(anchors) = anchors else { return Err(invalid) };
    invalid.or(())?;
    check_size(&anchors, &draws, columns, spec, entries, limits)?;
    let seed = request.seed.map_or(seed, Seed);
    Ok((SampleQuery::new(anchors, draws, request.step, seed, columns)?, readable))
}

fn anchors(message: v1::Anchors, spec: &BankSpec, limits: &Limits) -> Result<Anchors, Invalid> {
    let mut invalid = Invalid::default();
    let given = message.embeddings.unwrap_or_default();
    let bytes_of_row = spec.dim() * 4;
    let rows = (given.data.len() / bytes_of_row).max(given.values.len() / spec.dim());
    let longest = rows.max(message.ids.len()).max(message.rows as usize);
    check("anchors", longest, limits.max_anchors, "max_anchors", &mut invalid);
    invalid.or(())?;

    let mut invalid = Invalid::default();
    let has_embeddings = !given.data.is_empty() || !given.values.is_empty();
    let embeddings = has_embeddings
        .then(|| matrix("anchors.embeddings", spec.dim(), spec.metric(), given).map_err(|fault| invalid.merge(fault)).ok())
        .flatten();
    let labels = optional("anchors.labels", message.labels, "anchors.has_label", &message.has_label);
    let labels = labels.map_err(|fault| invalid.merge(fault)).ok().flatten();
    let groups = optional("anchors.groups", message.groups, "anchors.has_group", &message.has_group);
    let groups = groups.map_err(|fault| invalid.merge(fault)).ok().flatten();
    let ids = (!message.ids.is_empty()).then_some(message.ids);
    invalid.or(())?;

    let told = [
        embeddings.as_ref().map(crate::model::Matrix::rows),
        ids.as_ref().map(Vec::len),
        labels.as_ref().map(Vec::len),
        groups.as_ref().map(Vec::len),
    ];
    let count = told.into_iter().flatten().next().unwrap_or(message.rows as usize);
    let mut invalid = Invalid::default();
    if message.rows != 0 && message.rows as usize != count {
        invalid.push("anchors.rows", format!("is {}, but the columns have {count} rows", message.rows));
    }
    let scores = message.positive_scores.unwrap_or_default();
    let positive_scores = lists("anchors.positive_scores", scores.values, &scores.counts, count, limits, &mut invalid);
    let ids_of = |lists_message: Option<v1::IdLists>| lists_message.unwrap_or_default();
    let (positives, denied) = (ids_of(message.positive_ids), ids_of(message.denied_ids));
    let positive_ids = lists("anchors.positive_ids", positives.values, &positives.counts, count, limits, &mut invalid);
    let denied_ids = lists("anchors.denied_ids", denied.values, &denied.counts, count, limits, &mut invalid);
    invalid.or(Anchors { count, embeddings, ids, labels, groups, positive_scores, positive_ids, denied_ids })
}

fn lists<T: Default>(
    field: &str,
    values: Vec<T>,
    counts: &[u32],
    anchors: usize,
    limits: &Limits,
    invalid: &mut Invalid,
) -> Lists<T> {
    check(field, values.len(), limits.max_listed_ids, "max_listed_ids", invalid);
    Lists::new(field, values, counts, anchors).map_err(|fault| invalid.merge(fault)).unwrap_or_default()
}

fn check_filters(field: &str, filters: &v1::Filters, limits: &Limits, invalid: &mut Invalid) {
    let listed = [
        ("exclude_ids", filters.exclude_ids.len()),
        ("only_labels", filters.only_labels.len()),
        ("exclude_labels", filters.exclude_labels.len()),
    ];
    for (name, len) in listed {
        check(&format!("{field}.{name}"), len, limits.max_filter_values, "max_filter_values", invalid);
    }
}

fn draws(messages: Vec<v1::Draw>, shared: &v1::Filters, limits: &Limits, invalid: &mut Invalid) -> Vec<Draw> {
    let mut draws = Vec::with_capacity(messages.len().min(SampleQuery::MAX_DRAWS));
    for (at, message) in messages.into_iter().enumerate().take(SampleQuery::MAX_DRAWS + 1) {
        let field = format!("draws[{at}]");
        check(&format!("{field}.k"), message.k as usize, limits.max_k, "max_k", invalid);
        if let Some(own) = &message.filters {
            check_filters(&format!("{field}.filters"), own, limits, invalid);
        }
        let strategy = match message.strategy {
            Some(v1::draw::Strategy::Uniform(uniform)) => Strategy::Uniform { replace: uniform.with_replacement },
            Some(v1::draw::Strategy::Nearest(nearest)) => {
                let field = format!("{field}.nearest");
                let Some(nearest) = self::nearest(&field, message.k, &nearest, limits, invalid) else { continue };
                Strategy::Nearest(nearest)
            }
            None => {
                invalid.push(field, "has no strategy: set uniform or nearest");
                continue;
            }
        };
        let filters = filters(message.filters.unwrap_or_else(|| shared.clone()));
        draws.push(Draw { k: message.k as usize, strategy, filters });
    }
    draws
}

fn nearest(field: &str, k: u32, message: &v1::Nearest, limits: &Limits, invalid: &mut Invalid) -> Option<Nearest> {
    let depths = [("skip", Some(message.skip)), ("window", message.window), ("candidates", message.candidates)];
    for (name, depth) in depths {
        check(&format!("{field}.{name}"), depth.unwrap_or(0) as usize, limits.max_k, "max_k", invalid);
    }
    let choose = match v1::Choose::try_from(message.choose) {
        Ok(v1::Choose::Top | v1::Choose::Unspecified) => Choose::Top,
        Ok(v1::Choose::Uniform) => Choose::Uniform,
        Ok(v1::Choose::Softmax) => Choose::Softmax { beta: message.beta, replace: !message.without_replacement },
        Err(_) => {
            invalid.push(
                format!("{field}.choose"),
                format!("{} is not a Choose: 1 is TOP, 2 is UNIFORM, 3 is SOFTMAX", message.choose),
            );
            return None;
        }
    };
    let rules = message.rules.unwrap_or_default();
    Some(Nearest {
        skip: message.skip as usize,
        window: message.window.unwrap_or(k) as usize,
        choose,
        candidates: message.candidates.map(|candidates| candidates as usize),
        rules: ScoreRules {
            min_score: rules.min_score,
            max_score: rules.max_score,
            max_positive_fraction: rules.max_positive_fraction,
            margin: rules.margin,
            within: rules.within,
        },
    })
}

fn filters(message: v1::Filters) -> Filters {
    Filters {
        exclude_self: message.exclude_self,
        exclude_same_group: message.exclude_same_group,
        exclude_same_label: message.exclude_same_label,
        exclude_ids: message.exclude_ids,
        only_labels: message.only_labels,
        exclude_labels: message.exclude_labels,
        exclude_unlabelled: message.exclude_unlabelled,
        min_step: message.min_step,
        max_age: message.max_age,
    }
}

fn columns(wanted: &[i32], invalid: &mut Invalid) -> Columns {
    let none =
        Columns { ids: false, embeddings: false, labels: false, groups: false, steps: false, scores: false, log_q: false };
    if wanted.is_empty() {
        return Columns { ids: true, embeddings: true, labels: true, scores: true, log_q: true, ..none };
    }
    let mut columns = none;
    for (at, &column) in wanted.iter().enumerate() {
        match v1::Column::try_from(column) {
            Ok(v1::Column::Ids) => columns.ids = true,
            Ok(v1::Column::Embeddings) => columns.embeddings = true,
            Ok(v1::Column::Labels) => columns.labels = true,
            Ok(v1::Column::Groups) => columns.groups = true,
            Ok(v1::Column::Steps) => columns.steps = true,
            Ok(v1::Column::Scores) => columns.scores = true,
            Ok(v1::Column::LogQ) => columns.log_q = true,
            Ok(v1::Column::Unspecified | v1::Column::Weights) | Err(_) => {
                invalid.push(format!("columns[{at}]"), format!("{column} is not a Column"));
            }
        }
        if invalid.is_full() {
            break;
        }
    }
    columns
}

/// Refuses what could give too large an answer, before any work is done.
fn check_size(
    anchors: &Anchors,
    draws: &[Draw],
    columns: Columns,
    spec: &BankSpec,
    entries: usize,
    limits: &Limits,
) -> Result<(), Invalid> {
    let mut invalid = Invalid::default();
    let per_anchor = draws.iter().fold(0usize, |sum, draw| sum.saturating_add(draw.k));
    let picks = anchors.count.saturating_mul(per_anchor);
    check("draws", picks, limits.max_picks, "max_picks", &mut invalid);
    let bytes = |wanted: bool, size: usize| if wanted { size } else { 0 };
    let of_row = bytes(columns.ids, 8)
        + bytes(columns.embeddings, spec.dim() * 4)
        + bytes(columns.labels, 9)
        + bytes(columns.groups, 9)
        + bytes(columns.steps, 8);
    let of_pick = 4 + bytes(columns.scores, 4) + bytes(columns.log_q, 4);
    let answer = picks.min(entries).saturating_mul(of_row).saturating_add(picks.saturating_mul(of_pick));
    if answer > limits.max_answer_bytes {
        let reason = format!(
            "the answer could take {answer} bytes, over the limit of {} (setting limits.max_answer_bytes): ask for \
             fewer anchors or a smaller k, or leave EMBEDDINGS out of the columns",
            limits.max_answer_bytes
        );
        invalid.push("draws", reason);
    }
    invalid.or(())
}
