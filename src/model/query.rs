//! A request for negatives.

use super::{
    Anchors, Band, Choose, Columns, Draw, Form, Invalid, Matrix, Nearest, Plan, Scope, ScoreRules, Search, Seed, Softmax,
    Strategy, Views,
};

/// A whole request, valid by construction.
#[derive(Debug, Clone, PartialEq)]
pub struct SampleQuery {
    anchors: Anchors,
    draws: Vec<Draw>,
    step: Option<u64>,
    seed: Seed,
    form: Form,
    is_counted: bool,
}

impl SampleQuery {
    /// Most draws in one request.
    pub const MAX_DRAWS: usize = 16;

    /// A request of the trainer's `step`.
    ///
    /// # Errors
    /// [`Invalid`] naming each column of another length than the anchors, each draw that lacks what it needs (an
    /// embedding, a positive, a label), and each setting out of range.
    pub fn new(anchors: Anchors, draws: Vec<Draw>, step: Option<u64>, seed: Seed, form: Form) -> Result<Self, Invalid> {
        let mut invalid = Invalid::default();
        check_anchors(&anchors, &mut invalid);
        if draws.is_empty() || draws.len() > Self::MAX_DRAWS {
            invalid.push("draws", format!("has {} draws: 1 to {} are served", draws.len(), Self::MAX_DRAWS));
        }
        for (at, draw) in draws.iter().enumerate().take(Self::MAX_DRAWS) {
            let field = format!("draws[{at}]");
            check_draw(&field, draw, &anchors, &mut invalid);
            if draw.filters.max_age.is_some() && step.is_none() {
                invalid.push(format!("{field}.filters.max_age"), "needs the request's step: an age is counted from it");
            }
        }
        if form.log_q_mix {
            check_mixture(&draws, &mut invalid);
        }
        if form.positive_log_q && anchors.positive_ids.is_empty() {
            invalid.push("positive_log_q", "needs anchors.positive_ids: it is of entries of this bank");
        }
        invalid.or(Self { anchors, draws, step, seed, form, is_counted: true })
    }

    /// The nearest of one anchor in one draw, found by `plan`, their ids only; `None` if the draw ranks nothing.
    pub fn nearest_by(&self, plan: Plan, anchor: usize, draw: usize) -> Option<Self> {
        let draw = self.draws.get(draw)?;
        let Strategy::Nearest(nearest) = draw.strategy else { return None };
        let search = Search { plan: Some(plan), ..nearest.search };
        let nearest = Nearest { skip: 0, window: draw.k, choose: Choose::Top, candidates: None, search, ..nearest };
        let draws = vec![Draw { strategy: Strategy::Nearest(nearest), ..draw.clone() }];
        let form = Form::pooled(Columns { ids: true, ..Columns::default() });
        let anchors = self.anchors.only(anchor);
        Some(Self { anchors, draws, step: self.step, seed: self.seed, form, is_counted: false })
    }

    /// The request without a count of its duplicates, which costs a look-up a pick, and of how hard its picks are: for where nobody would
    /// read it.
    #[must_use]
    pub fn uncounted(self) -> Self {
        Self { is_counted: false, ..self }
    }

    /// Whether picks of draws with replacement that repeat an entry are counted, and how hard picks are.
    pub fn is_counted(&self) -> bool {
        self.is_counted
    }

    /// The request with each softmax over everything made one over the `candidates` nearest of each anchor. Those stay as they are for
    /// which the nearest are not the likeliest, and those whose anchors have several views.
    #[must_use]
    pub fn over_candidates(mut self, candidates: usize) -> Self {
        if self.anchors.views.each > 1 {
            return self;
        }
        for draw in &mut self.draws {
            let Strategy::Softmax(Softmax { beta, replace, rules }) = draw.strategy else { continue };
            if beta >= 0.0 {
                let window = candidates.max(draw.k);
                let choose = Choose::Softmax { beta, replace };
                draw.strategy = Strategy::Nearest(Nearest { choose, rules, of_all: true, ..Nearest::top(window) });
            }
        }
        self
    }

    /// Of each draw, the candidates that it is over instead of everything; 0: it is not.
    pub fn candidates(&self) -> Vec<u32> {
        let of = |draw: &Draw| match draw.strategy {
            Strategy::Nearest(nearest) if nearest.of_all => u32::try_from(nearest.window).unwrap_or(u32::MAX),
            _ => 0,
        };
        self.draws.iter().map(of).collect()
    }

    /// What negatives are drawn for.
    pub fn anchors(&self) -> &Anchors {
        &self.anchors
    }

    /// The draws, at least one.
    pub fn draws(&self) -> &[Draw] {
        &self.draws
    }

    /// The trainer's step.
    pub fn step(&self) -> Option<u64> {
        self.step
    }

    /// Seed of the draws.
    pub fn seed(&self) -> Seed {
        self.seed
    }

    /// What to answer.
    pub fn form(&self) -> Form {
        self.form
    }
}

fn check_anchors(anchors: &Anchors, invalid: &mut Invalid) {
    let count = anchors.count;
    if count == 0 {
        invalid.push("anchors", "there are none: give embeddings, ids or rows");
    }
    let Views { each, .. } = anchors.views;
    let rows = anchors.embeddings.as_ref().map(Matrix::rows);
    if let Some(rows) = rows.filter(|_| each > 1)
        && rows != count * each
    {
        invalid.push("anchors.embeddings", format!("has {rows} rows for {count} anchors of {each} views"));
    }
    if each > 1 && rows.is_none() {
        invalid.push("anchors.views", format!("is {each}, and there are no anchors.embeddings to be views"));
    }
    let columns = [
        ("embeddings", rows.filter(|_| each == 1)),
        ("ids", anchors.ids.as_ref().map(Vec::len)),
        ("labels", anchors.labels.as_ref().map(Vec::len)),
        ("groups", anchors.groups.as_ref().map(Vec::len)),
    ];
    for (name, len) in columns {
        if let Some(len) = len
            && len != count
        {
            invalid.push(format!("anchors.{name}"), format!("has {len} rows for {count} anchors"));
        }
    }
    for (at, bad) in anchors.positive_scores.values().iter().enumerate().filter(|(_, score)| !score.is_finite()).take(1) {
        invalid.push(format!("anchors.positive_scores.values[{at}]"), format!("is {bad}: every score must be finite"));
    }
}

fn check_draw(field: &str, draw: &Draw, anchors: &Anchors, invalid: &mut Invalid) {
    if draw.k == 0 {
        invalid.push(format!("{field}.k"), "must be at least 1");
    }
    if draw.filters.exclude_same_label && anchors.labels.is_none() && anchors.ids.is_none() {
        invalid.push(
            format!("{field}.filters.exclude_same_label"),
            "needs the anchors' labels: give anchors.labels, or anchors.ids of entries that have labels",
        );
    }
    check_narrow(field, draw, anchors, invalid);
    if draw.filters.exclude_self == Some(true) && anchors.ids.is_none() {
        invalid.push(format!("{field}.filters.exclude_self"), "needs anchors.ids");
    }
    if draw.filters.exclude_same_group == Some(true) && anchors.groups.is_none() && anchors.ids.is_none() {
        invalid.push(
            format!("{field}.filters.exclude_same_group"),
            "needs the anchors' groups: give anchors.groups, or anchors.ids of entries that have groups",
        );
    }
    if draw.strategy.is_scored() && draw.scope == Scope::Shared {
        invalid.push(
            format!("{field}.scope"),
            "SHARED draws one set for all anchors, and a scored draw is each anchor's own: leave scope PER_ANCHOR, or draw uniform, \
             weighted or balanced",
        );
    }
    match &draw.strategy {
        Strategy::Nearest(nearest) => check_nearest(&format!("{field}.nearest"), draw.k, nearest, anchors, invalid),
        Strategy::Weighted { alpha, .. } => {
            let largest = Strategy::LARGEST_ALPHA;
            if !(-largest..=largest).contains(alpha) {
                invalid.push(format!("{field}.weighted.alpha"), format!("{alpha} is outside [-{largest}, {largest}]"));
            }
        }
        Strategy::Uniform { .. } | Strategy::Balanced { .. } => {}
        Strategy::Softmax(Softmax { beta, rules, .. }) => {
            let field = format!("{field}.softmax");
            check_beta(&field, *beta, invalid);
            check_scored(&field, rules, anchors, invalid);
        }
        Strategy::Band(Band { lo, hi, rules, .. }) => {
            let field = format!("{field}.band");
            if !(*lo >= 0.0 && *lo < 1.0) {
                invalid.push(format!("{field}.lo"), format!("{lo} is outside [0, 1)"));
            } else if !(hi >= lo && *hi <= 1.0) {
                invalid.push(format!("{field}.hi"), format!("{hi} is outside [lo, 1] with lo = {lo}"));
            }
            check_scored(&field, rules, anchors, invalid);
        }
    }
}

/// Entries of the anchor's own label or group can be asked for where it has one.
fn check_narrow(field: &str, draw: &Draw, anchors: &Anchors, invalid: &mut Invalid) {
    let filters = &draw.filters;
    let asked = [
        ("label", filters.only_same_label, filters.exclude_same_label, anchors.labels.is_some()),
        ("group", filters.only_same_group, filters.exclude_same_group == Some(true), anchors.groups.is_some()),
    ];
    for (what, only, excluded, given) in asked {
        let field = format!("{field}.filters.only_same_{what}");
        if only && excluded {
            invalid.push(field, format!("asks for what exclude_same_{what} excludes: nothing could be served"));
        } else if only && !given && anchors.ids.is_none() {
            invalid.push(
                field,
                format!("needs the anchors' {what}s: give anchors.{what}s, or anchors.ids of entries that have {what}s"),
            );
        }
    }
}

/// Every draw must have a log_q that any entry of the bank could be asked for.
fn check_mixture(draws: &[Draw], invalid: &mut Invalid) {
    for (at, draw) in draws.iter().enumerate() {
        let top = matches!(&draw.strategy, Strategy::Nearest(nearest) if nearest.choose == Choose::Top);
        if top {
            invalid.push(
                "log_q_mix",
                format!("draws[{at}] is TOP, which is deterministic and has no log_q: choose UNIFORM or SOFTMAX"),
            );
        }
        if draw.scope == Scope::Shared {
            invalid.push("log_q_mix", format!("draws[{at}] is SHARED, whose log_q is one value an anchor: make it PER_ANCHOR"));
        }
    }
}

fn check_nearest(field: &str, k: usize, nearest: &Nearest, anchors: &Anchors, invalid: &mut Invalid) {
    // With replacement one entry is enough.
    let needed = if nearest.choose.replaces() { 1 } else { k };
    if nearest.window < needed {
        invalid
            .push(format!("{field}.window"), format!("{} is below k = {needed}: the draw could never be full", nearest.window));
    }
    if let Choose::Softmax { beta, .. } = nearest.choose {
        check_beta(field, beta, invalid);
    }
    if let Some(candidates) = nearest.candidates
        && candidates < nearest.skip.saturating_add(needed)
    {
        invalid.push(
            format!("{field}.candidates"),
            format!("{candidates} is below skip + k = {}: the draw could never be full", nearest.skip.saturating_add(needed)),
        );
    }
    check_scored(field, &nearest.rules, anchors, invalid);
}

fn check_beta(field: &str, beta: f32, invalid: &mut Invalid) {
    if !beta.is_finite() {
        invalid.push(format!("{field}.beta"), format!("is {beta}: it must be finite"));
    }
}

/// What every draw by score needs.
fn check_scored(field: &str, rules: &ScoreRules, anchors: &Anchors, invalid: &mut Invalid) {
    if anchors.embeddings.is_none() && anchors.ids.is_none() {
        invalid.push("anchors.embeddings", "a scored draw needs the anchors' embeddings, or anchors.ids of stored entries");
    }
    if let Err(faults) = rules.check(&format!("{field}.rules")) {
        invalid.merge(faults);
    }
    if rules.need_positive() {
        let lacking =
            (0..anchors.count).find(|&at| anchors.positive_scores.of(at).is_empty() && anchors.positive_ids.of(at).is_empty());
        if let Some(row) = lacking {
            invalid.push(
                format!("{field}.rules"),
                format!("a rule is relative to the positive, and anchor {row} has none: give positive_scores or positive_ids"),
            );
        }
    }
}
