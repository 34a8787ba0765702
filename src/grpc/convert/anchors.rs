//! Anchors.

use super::Limits;
use super::columns::{matrix, optional, rows_of};
use super::limits::check;
use crate::model::{Anchors, BankSpec, Combine, Invalid, Lists, Views};
use crate::proto::v1;

/// The anchors of a request to a bank of these settings.
pub(super) fn anchors(message: v1::Anchors, spec: &BankSpec, limits: &Limits) -> Result<Anchors, Invalid> {
    let mut invalid = Invalid::default();
    let given = message.embeddings.unwrap_or_default();
    let rows = rows_of(&given, spec.dim());
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

    let views = views(message.views, message.combine)?;
    let told = [
        embeddings.as_ref().map(|rows| rows.rows() / views.each),
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
    invalid.or(Anchors { count, embeddings, views, ids, labels, groups, positive_scores, positive_ids, denied_ids })
}

fn views(each: u32, combine: i32) -> Result<Views, Invalid> {
    let combine = match v1::Combine::try_from(combine) {
        Ok(v1::Combine::Max | v1::Combine::Unspecified) => Combine::Max,
        Ok(v1::Combine::Mean) => Combine::Mean,
        Err(_) => return Err(Invalid::one("anchors.combine", format!("{combine} is not a Combine: 1 is MAX, 2 is MEAN"))),
    };
    Ok(Views { each: each.max(1) as usize, combine })
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
