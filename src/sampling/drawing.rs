//! One draw at work on a block of anchors.

use super::SampleError;
use super::anchors::Anchor;
use super::eligibility::Eligibility;
use super::nearest::settle;
use super::observed::Observed;
use super::picked::Picked;
use super::route;
use super::search::Searched;
use super::uniform;
use crate::bank::Bank;
use crate::model::{Columns, Draw, DrawAnswer, Nearest, Plan, Reason, SampleQuery, Strategy};

/// A draw with its filters, what its search found, and the answer so far.
pub(super) struct Drawing<'q> {
    query: &'q SampleQuery,
    number: usize,
    pub(super) draw: &'q Draw,
    pub(super) eligibility: Eligibility,
    searched: Option<Searched>,
    pub(super) answer: DrawAnswer,
}

impl<'q> Drawing<'q> {
    /// Draw number `number` of `query`, before any search.
    pub(super) fn new(query: &'q SampleQuery, number: usize, draw: &'q Draw) -> Self {
        let (plan, replace) = match &draw.strategy {
            Strategy::Uniform { replace } => (Plan::Roster, *replace),
            Strategy::Nearest(nearest) => (Plan::PostingList, nearest.choose.replaces()),
        };
        let eligibility = Eligibility::new(&draw.filters, query.step());
        Self { query, number, draw, eligibility, searched: None, answer: DrawAnswer::empty(plan, replace) }
    }

    /// True if what was found for the anchors is no more good enough to start from; `moved`: for another anchor.
    pub(super) fn is_stale(&self, bank: &Bank, moved: bool) -> bool {
        self.searched.as_ref().is_some_and(|searched| moved || searched.is_stale(bank))
    }

    /// Ranks entries for the block's `anchors` from number `first` on, if this is a scored draw.
    pub(super) fn search(
        &mut self,
        observed: &mut Observed<'_>,
        (anchors, first): (&[Anchor], usize),
        wanted: &dyn Fn() -> bool,
    ) -> Result<(), SampleError> {
        if let Strategy::Nearest(nearest) = &self.draw.strategy {
            let anchors = (anchors, first);
            let routed = route::search(observed, anchors, &mut self.eligibility, nearest, &mut self.answer.rejections, wanted)?;
            self.answer.plan = routed.searched.plan;
            self.answer.plan_reason = routed.reason;
            self.answer.graph = routed.graph.or(self.answer.graph);
            self.searched = Some(routed.searched);
        }
        Ok(())
    }

    /// Picks for the block's anchor number `at`; `moved` says that it is not the one that was searched for.
    pub(super) fn pick(&mut self, bank: &Bank, anchor: &Anchor, at: usize, moved: bool) -> Picked {
        let columns = self.query.form().columns;
        match &self.draw.strategy {
            Strategy::Uniform { replace } => self.uniform(bank, anchor, *replace, columns),
            Strategy::Nearest(nearest) => self.nearest(bank, anchor, nearest, (at, moved), columns),
        }
    }

    fn uniform(&mut self, bank: &Bank, anchor: &Anchor, replace: bool, columns: Columns) -> Picked {
        let mut stream = self.query.seed().stream(self.number, anchor.number);
        let asked = (self.draw.k, replace);
        let drawn = uniform::draw(bank, &mut self.eligibility, anchor, asked, &mut stream, &mut self.answer.rejections);
        self.answer.plan = self.answer.plan.max(drawn.plan);
        let scores = drawn.places.iter().filter(|_| columns.scores).filter_map(|&place| anchor.score(bank, place)).collect();
        let log_q = vec![-libm::log(drawn.n as f64) as f32; drawn.places.len()];
        let mut picked = Picked { scores, log_q, n: Some(drawn.n), ..Picked::default() };
        picked.shortfalls.add(Reason::TooFew, (self.draw.k - drawn.places.len()) as u64);
        picked.places = drawn.places;
        picked
    }

    fn nearest(
        &mut self,
        bank: &Bank,
        anchor: &Anchor,
        nearest: &Nearest,
        (at, moved): (usize, bool),
        columns: Columns,
    ) -> Picked {
        // What was ranked for another anchor tells nothing of this one.
        let found = self.searched.as_mut().and_then(|searched| searched.take(at)).filter(|_| !moved);
        let mut stream = self.query.seed().stream(self.number, anchor.number);
        let mut picked = settle(bank, anchor, &mut self.eligibility, nearest, self.draw.k, found, &mut stream);
        if !columns.scores {
            picked.scores.clear();
        }
        picked
    }
}
