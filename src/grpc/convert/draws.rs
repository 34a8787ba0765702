//! Draws and their filters.

use super::Limits;
use super::limits::check;
use crate::model::{
    Band, Choose, Draw, Filters, Invalid, Nearest, Plan, SampleQuery, Scope, ScoreRules, Search, Softmax, Strategy,
};
use crate::proto::v1;

/// The draws of a request; `shared` are the filters of those that have none of their own.
/// A request with a seed is answered exactly unless a draw says otherwise.
pub(super) fn draws(
    messages: Vec<v1::Draw>,
    shared: &v1::Filters,
    seeded: bool,
    limits: &Limits,
    invalid: &mut Invalid,
) -> Vec<Draw> {
    let mut draws = Vec::with_capacity(messages.len().min(SampleQuery::MAX_DRAWS));
    for (at, message) in messages.into_iter().enumerate().take(SampleQuery::MAX_DRAWS + 1) {
        let field = format!("draws[{at}]");
        check(&format!("{field}.k"), message.k as usize, limits.max_k, "max_k", invalid);
        if let Some(own) = &message.filters {
            check_filters(&format!("{field}.filters"), own, limits, invalid);
        }
        let strategy = match message.strategy {
            Some(v1::draw::Strategy::Uniform(uniform)) => Strategy::Uniform { replace: uniform.with_replacement },
            Some(v1::draw::Strategy::Weighted(weighted)) => {
                Strategy::Weighted { alpha: weighted.alpha.unwrap_or(1.0), replace: !weighted.without_replacement }
            }
            Some(v1::draw::Strategy::Balanced(balanced)) => Strategy::Balanced { replace: !balanced.without_replacement },
            Some(v1::draw::Strategy::Nearest(nearest)) => {
                let field = format!("{field}.nearest");
                let Some(nearest) = self::nearest(&field, message.k, &nearest, (seeded, limits), invalid) else { continue };
                Strategy::Nearest(nearest)
            }
            Some(v1::draw::Strategy::Softmax(softmax)) => {
                let rules = rules(softmax.rules.unwrap_or_default());
                Strategy::Softmax(Softmax { beta: softmax.beta, replace: !softmax.without_replacement, rules })
            }
            Some(v1::draw::Strategy::Band(band)) => {
                let (lo, hi) = (band.lo, band.hi.unwrap_or(1.0));
                let rules = rules(band.rules.unwrap_or_default());
                Strategy::Band(Band { lo, hi, replace: band.with_replacement, rules })
            }
            None => {
                invalid.push(field, "has no strategy: set uniform, weighted, balanced, nearest, softmax or band");
                continue;
            }
        };
        let scope = scope(&field, message.scope, invalid);
        let filters = filters(message.filters.unwrap_or_else(|| shared.clone()));
        draws.push(Draw { k: message.k as usize, strategy, filters, scope });
    }
    draws
}

fn scope(field: &str, value: i32, invalid: &mut Invalid) -> Scope {
    match v1::Scope::try_from(value) {
        Ok(v1::Scope::PerAnchor | v1::Scope::Unspecified) => Scope::PerAnchor,
        Ok(v1::Scope::Shared) => Scope::Shared,
        Err(_) => {
            invalid.push(format!("{field}.scope"), format!("{value} is not a Scope: 1 is PER_ANCHOR, 2 is SHARED"));
            Scope::PerAnchor
        }
    }
}

fn nearest(
    field: &str,
    k: u32,
    message: &v1::Nearest,
    (seeded, limits): (bool, &Limits),
    invalid: &mut Invalid,
) -> Option<Nearest> {
    let (window, candidates) = (message.window, message.candidates);
    let depths = [("skip", Some(message.skip)), ("window", window), ("candidates", candidates), ("ef", message.ef)];
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
    if !message.beta.is_finite() {
        invalid.push(format!("{field}.beta"), format!("is {}: it must be finite", message.beta));
    }
    Some(Nearest {
        skip: message.skip as usize,
        window: message.window.unwrap_or(k) as usize,
        choose,
        candidates: message.candidates.map(|candidates| candidates as usize),
        rules: rules(message.rules.unwrap_or_default()),
        count_exact: message.count_exact,
        search: search(field, message, seeded, invalid),
        of_all: false,
    })
}

fn rules(message: v1::ScoreRules) -> ScoreRules {
    let v1::ScoreRules { min_score, max_score, max_positive_fraction, margin, within } = message;
    ScoreRules { min_score, max_score, max_positive_fraction, margin, within }
}

fn search(field: &str, message: &v1::Nearest, seeded: bool, invalid: &mut Invalid) -> Search {
    let approximate = match v1::Accuracy::try_from(message.accuracy) {
        Ok(v1::Accuracy::Unspecified) => !seeded,
        Ok(v1::Accuracy::Exact) => false,
        Ok(v1::Accuracy::Approximate) => true,
        Err(_) => {
            let reason = format!("{} is not an Accuracy: 1 is EXACT, 2 is APPROXIMATE", message.accuracy);
            invalid.push(format!("{field}.accuracy"), reason);
            false
        }
    };
    let plan = match v1::Plan::try_from(message.plan) {
        Ok(v1::Plan::Unspecified) => None,
        Ok(v1::Plan::Scan) => Some(Plan::Scan),
        Ok(v1::Plan::PostingList) => Some(Plan::PostingList),
        Ok(v1::Plan::Graph) if approximate => Some(Plan::Graph),
        Ok(v1::Plan::Graph) => {
            let reason = "GRAPH is approximate: set accuracy APPROXIMATE, or leave the request's seed out";
            invalid.push(format!("{field}.plan"), reason);
            None
        }
        Ok(v1::Plan::Roster | v1::Plan::Enumeration) | Err(_) => {
            let reason = format!("{} finds nothing by score: use 4 (SCAN), 5 (GRAPH) or 2 (POSTING_LIST)", message.plan);
            invalid.push(format!("{field}.plan"), reason);
            None
        }
    };
    Search { approximate, ef: message.ef.map(|ef| ef as usize), plan }
}

/// Checks the sizes of filters.
pub(super) fn check_filters(field: &str, filters: &v1::Filters, limits: &Limits, invalid: &mut Invalid) {
    let listed = [
        ("exclude_ids", filters.exclude_ids.len()),
        ("only_labels", filters.only_labels.len()),
        ("exclude_labels", filters.exclude_labels.len()),
    ];
    for (name, len) in listed {
        check(&format!("{field}.{name}"), len, limits.max_filter_values, "max_filter_values", invalid);
    }
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
        only_same_label: message.only_same_label,
        only_same_group: message.only_same_group,
    }
}
