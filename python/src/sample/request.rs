//! Requests for negatives.

use negbank::client::ClientError;
use negbank::proto::v1::{
    Accuracy, Anchors, Balanced, Band, Choose, Column, Combine, Draw, Filters, IdLists, Layout, Nearest, Plan, SampleRequest,
    Scope, ScoreLists, ScoreRules, Softmax, Uniform, Weighted, draw,
};
use numpy::PyReadonlyArray1;
use pyo3::prelude::*;

use crate::failure::{exception, invalid};
use crate::floats::{FloatMatrix, encoding};
use crate::write::{WriteBatch, values};

/// `negbank.requests.SampleCall`.
#[derive(FromPyObject)]
pub(crate) struct SampleCall<'py> {
    bank: String,
    anchors: AnchorColumns<'py>,
    draws: Vec<DrawCall<'py>>,
    filters: FilterColumns<'py>,
    step: Option<u64>,
    at_least: Vec<u8>,
    min_entries: u64,
    wait_for_entries: bool,
    seed: Option<u64>,
    columns: Vec<String>,
    layout: String,
    dtype: String,
    log_q_mix: bool,
    positive_log_q: bool,
    write: Option<WriteBatch<'py>>,
    retries: Option<u32>,
}

/// `negbank.requests.AnchorColumns`.
#[derive(FromPyObject)]
struct AnchorColumns<'py> {
    rows: u32,
    embeddings: Option<FloatMatrix<'py>>,
    views: u32,
    combine: String,
    ids: Option<PyReadonlyArray1<'py, u64>>,
    labels: Option<PyReadonlyArray1<'py, i64>>,
    has_label: Option<PyReadonlyArray1<'py, u8>>,
    groups: Option<PyReadonlyArray1<'py, u64>>,
    has_group: Option<PyReadonlyArray1<'py, u8>>,
    positive_scores: Option<ScoresPerAnchor<'py>>,
    positive_ids: Option<IdsPerAnchor<'py>>,
    denied_ids: Option<IdsPerAnchor<'py>>,
}

/// `negbank.requests.PerAnchor` of scores.
#[derive(FromPyObject)]
struct ScoresPerAnchor<'py> {
    values: PyReadonlyArray1<'py, f32>,
    counts: PyReadonlyArray1<'py, u32>,
}

/// `negbank.requests.PerAnchor` of ids.
#[derive(FromPyObject)]
struct IdsPerAnchor<'py> {
    values: PyReadonlyArray1<'py, u64>,
    counts: PyReadonlyArray1<'py, u32>,
}

/// `negbank.requests.DrawCall`.
#[derive(FromPyObject)]
struct DrawCall<'py> {
    k: u32,
    strategy: String,
    draw: Bound<'py, PyAny>,
    filters: Option<FilterColumns<'py>>,
    scope: String,
}

/// `negbank.Uniform`.
#[derive(FromPyObject)]
struct UniformCall {
    with_replacement: bool,
}

/// `negbank.Weighted`.
#[derive(FromPyObject)]
struct WeightedCall {
    alpha: f32,
    without_replacement: bool,
}

/// `negbank.Balanced`.
#[derive(FromPyObject)]
struct BalancedCall {
    without_replacement: bool,
}

/// `negbank.Softmax`.
#[derive(FromPyObject)]
struct SoftmaxCall {
    beta: f32,
    without_replacement: bool,
}

/// `negbank.Band`.
#[derive(FromPyObject)]
struct BandCall {
    lo: f64,
    hi: f64,
    with_replacement: bool,
}

/// The score rules of `negbank.Nearest` and its like.
#[derive(FromPyObject)]
struct Rules {
    min_score: Option<f32>,
    max_score: Option<f32>,
    max_positive_fraction: Option<f32>,
    margin: Option<f32>,
    within: Option<f32>,
}

/// `negbank.Nearest`.
#[derive(FromPyObject)]
struct NearestCall {
    skip: u32,
    window: Option<u32>,
    choose: String,
    beta: Option<f32>,
    without_replacement: bool,
    candidates: Option<u32>,
    count_exact: bool,
    accuracy: Option<String>,
    ef: Option<u32>,
    plan: Option<String>,
}

/// `negbank.requests.FilterColumns`.
#[derive(FromPyObject)]
struct FilterColumns<'py> {
    exclude_self: Option<bool>,
    exclude_same_group: Option<bool>,
    exclude_same_label: bool,
    exclude_ids: Option<PyReadonlyArray1<'py, u64>>,
    only_labels: Option<PyReadonlyArray1<'py, i64>>,
    exclude_labels: Option<PyReadonlyArray1<'py, i64>>,
    exclude_unlabelled: bool,
    min_step: Option<u64>,
    max_age: Option<u64>,
    only_same_label: bool,
    only_same_group: bool,
}

impl SampleCall<'_> {
    /// How often the call may be tried again; none: as often as any other.
    pub(crate) fn retries(&self) -> Option<u32> {
        self.retries
    }

    /// The message of this request; the arrays are copied once, into it.
    pub(crate) fn into_message(self, py: Python<'_>) -> PyResult<SampleRequest> {
        let refuse = |fault| exception(py, fault);
        let draws: PyResult<_> = self.draws.into_iter().map(|draw| draw.into_message(py)).collect();
        let columns: Result<_, ClientError> = self.columns.iter().map(|name| column(name)).collect();
        Ok(SampleRequest {
            bank: self.bank,
            anchors: Some(self.anchors.into_message(py)?),
            draws: draws?,
            filters: Some(self.filters.into_message()),
            step: self.step,
            at_least: self.at_least.into(),
            min_entries: self.min_entries,
            wait_for_entries: self.wait_for_entries,
            seed: self.seed,
            columns: columns.map_err(refuse)?,
            encoding: encoding(&self.dtype).map_err(refuse)?.into(),
            layout: layout(&self.layout).map_err(refuse)?.into(),
            log_q_mix: self.log_q_mix,
            positive_log_q: self.positive_log_q,
            write: self.write.map(|write| write.into_message(py)).transpose()?,
        })
    }
}

impl AnchorColumns<'_> {
    fn into_message(self, py: Python<'_>) -> PyResult<Anchors> {
        let embeddings = self.embeddings.map(|matrix| matrix.into_message(py)).transpose()?;
        let ids = |lists: IdsPerAnchor<'_>| IdLists { values: values(Some(lists.values)), counts: values(Some(lists.counts)) };
        let scores =
            |lists: ScoresPerAnchor<'_>| ScoreLists { values: values(Some(lists.values)), counts: values(Some(lists.counts)) };
        Ok(Anchors {
            rows: self.rows,
            embeddings,
            views: self.views,
            combine: combine(&self.combine).map_err(|fault| exception(py, fault))?.into(),
            ids: values(self.ids),
            labels: values(self.labels),
            has_label: values(self.has_label).into(),
            groups: values(self.groups),
            has_group: values(self.has_group).into(),
            positive_scores: self.positive_scores.map(scores),
            positive_ids: self.positive_ids.map(ids),
            denied_ids: self.denied_ids.map(ids),
        })
    }
}

impl FilterColumns<'_> {
    fn into_message(self) -> Filters {
        Filters {
            exclude_self: self.exclude_self,
            exclude_same_group: self.exclude_same_group,
            exclude_same_label: self.exclude_same_label,
            exclude_ids: values(self.exclude_ids),
            only_labels: values(self.only_labels),
            exclude_labels: values(self.exclude_labels),
            exclude_unlabelled: self.exclude_unlabelled,
            min_step: self.min_step,
            max_age: self.max_age,
            only_same_label: self.only_same_label,
            only_same_group: self.only_same_group,
        }
    }
}

impl DrawCall<'_> {
    fn into_message(self, py: Python<'_>) -> PyResult<Draw> {
        let strategy = strategy(&self.strategy, &self.draw)?;
        let scope = match self.scope.as_str() {
            "per_anchor" => Scope::PerAnchor,
            "shared" => Scope::Shared,
            other => {
                let reason = format!("{other:?} is none: give \"per_anchor\" or \"shared\"");
                return Err(exception(py, invalid("scope", reason)));
            }
        };
        let filters = self.filters.map(FilterColumns::into_message);
        Ok(Draw { k: self.k, strategy: Some(strategy), filters, scope: scope.into() })
    }
}

/// The settings of a draw, by the name of its class.
fn strategy(name: &str, draw: &Bound<'_, PyAny>) -> PyResult<draw::Strategy> {
    Ok(match name {
        "Uniform" => {
            let UniformCall { with_replacement } = draw.extract()?;
            draw::Strategy::Uniform(Uniform { with_replacement })
        }
        "Weighted" => {
            let WeightedCall { alpha, without_replacement } = draw.extract()?;
            draw::Strategy::Weighted(Weighted { alpha: Some(alpha), without_replacement })
        }
        "Balanced" => {
            let BalancedCall { without_replacement } = draw.extract()?;
            draw::Strategy::Balanced(Balanced { without_replacement })
        }
        "Nearest" => {
            let nearest = draw.extract::<NearestCall>()?.into_message(draw.extract()?);
            draw::Strategy::Nearest(nearest.map_err(|fault| exception(draw.py(), fault))?)
        }
        "Softmax" => {
            let SoftmaxCall { beta, without_replacement } = draw.extract()?;
            draw::Strategy::Softmax(Softmax { beta, without_replacement, rules: Some(draw.extract::<Rules>()?.into()) })
        }
        "Band" => {
            let BandCall { lo, hi, with_replacement } = draw.extract()?;
            draw::Strategy::Band(Band { lo, hi: Some(hi), with_replacement, rules: Some(draw.extract::<Rules>()?.into()) })
        }
        other => return Err(exception(draw.py(), invalid("draws", format!("{other:?} is no draw that is known here")))),
    })
}

impl From<Rules> for ScoreRules {
    fn from(rules: Rules) -> Self {
        let Rules { min_score, max_score, max_positive_fraction, margin, within } = rules;
        Self { min_score, max_score, max_positive_fraction, margin, within }
    }
}

impl NearestCall {
    fn into_message(self, rules: Rules) -> Result<Nearest, ClientError> {
        let choose = match self.choose.as_str() {
            "top" => Choose::Top,
            "uniform" => Choose::Uniform,
            "softmax" => Choose::Softmax,
            other => {
                return Err(invalid("choose", format!("{other:?} is none: give \"top\", \"uniform\" or \"softmax\"")));
            }
        };
        Ok(Nearest {
            skip: self.skip,
            window: self.window,
            choose: choose.into(),
            candidates: self.candidates,
            rules: Some(rules.into()),
            beta: self.beta.unwrap_or_default(),
            without_replacement: self.without_replacement,
            count_exact: self.count_exact,
            accuracy: accuracy(self.accuracy.as_deref())?.into(),
            ef: self.ef,
            plan: plan(self.plan.as_deref())?.into(),
        })
    }
}

fn accuracy(name: Option<&str>) -> Result<Accuracy, ClientError> {
    match name {
        None => Ok(Accuracy::Unspecified),
        Some("exact") => Ok(Accuracy::Exact),
        Some("approximate") => Ok(Accuracy::Approximate),
        Some(other) => Err(invalid("accuracy", format!("{other:?} is none: give \"exact\" or \"approximate\""))),
    }
}

fn plan(name: Option<&str>) -> Result<Plan, ClientError> {
    match name {
        None => Ok(Plan::Unspecified),
        Some("scan") => Ok(Plan::Scan),
        Some("graph") => Ok(Plan::Graph),
        Some("posting_list") => Ok(Plan::PostingList),
        Some(other) => Err(invalid("plan", format!("{other:?} is none: give \"scan\", \"graph\" or \"posting_list\""))),
    }
}

fn combine(name: &str) -> Result<Combine, ClientError> {
    match name {
        "max" => Ok(Combine::Max),
        "mean" => Ok(Combine::Mean),
        other => Err(invalid("combine", format!("{other:?} is none: give \"max\" or \"mean\""))),
    }
}

fn layout(name: &str) -> Result<Layout, ClientError> {
    match name {
        "pooled" => Ok(Layout::Pooled),
        "per_anchor" => Ok(Layout::PerAnchor),
        other => Err(invalid("layout", format!("{other:?} is none: give \"pooled\" or \"per_anchor\""))),
    }
}

fn column(name: &str) -> Result<i32, ClientError> {
    let column = match name {
        "ids" => Column::Ids,
        "embeddings" => Column::Embeddings,
        "labels" => Column::Labels,
        "groups" => Column::Groups,
        "steps" => Column::Steps,
        "scores" => Column::Scores,
        "log_q" => Column::LogQ,
        "weights" => Column::Weights,
        other => {
            let reason =
                format!("{other:?} is none: there are ids, embeddings, labels, groups, steps, weights, scores and log_q");
            return Err(invalid("columns", reason));
        }
    };
    Ok(column.into())
}
