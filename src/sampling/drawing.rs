//! One draw at work on a block of anchors.

use super::SampleError;
use super::anchors::Anchor;
use super::eligibility::Eligibility;
use super::nearest::settle;
use super::observed::Observed;
use super::picked::Picked;
use super::route;
use super::search::Searched;
use super::unscored::Unscored;
use crate::bank::Bank;
use crate::model::{Columns, Draw, DrawAnswer, Nearest, Plan, SampleQuery, Strategy};

/// A draw with its filters, what its search found, and the answer so far.
pub(super) struct Drawing<'q> {
    query: &'q SampleQuery,
    number: usize,
    pub(super) draw: &'q Draw,
    pub(super) eligibility: Eligibility,
    unscored: Unscored<'q>,
    searched: Option<Searched>,
    pub(super) answer: DrawAnswer,
}

impl<'q> Drawing<'q> {
    /// Draw number `number` of `query`, before any search.
    pub(super) fn new(query: &'q SampleQuery, number: usize, draw: &'q Draw) -> Self {
        let plan = if draw.strategy.is_scored() { Plan::PostingList } else { Plan::Roster };
        let answer = DrawAnswer::empty(plan, draw.strategy.replaces());
        let eligibility = Eligibility::new(draw, query.step());
        Self { query, number, draw, eligibility, unscored: Unscored::new(draw), searched: None, answer }
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
            Strategy::Uniform { .. } | Strategy::Weighted { .. } | Strategy::Balanced { .. } => {
                self.unscored(bank, anchor, columns)
            }
            Strategy::Nearest(nearest) => self.nearest(bank, anchor, nearest, (at, moved), columns),
        }
    }

    fn unscored(&mut self, bank: &Bank, anchor: &Anchor, columns: Columns) -> Picked {
        let mut stream = self.query.seed().stream(self.number, anchor.number);
        let drawn = self.unscored.draw(bank, &mut self.eligibility, anchor, &mut stream, &mut self.answer.rejections);
        self.answer.plan = self.answer.plan.max(drawn.plan);
        let scores = drawn.places.iter().filter(|_| columns.scores).filter_map(|&place| anchor.score(bank, place)).collect();
        Picked {
            places: drawn.places,
            scores,
            log_q: drawn.log_q,
            n: Some(drawn.n),
            kappa: drawn.kappa.map(|kappa| kappa as f32),
            shortfalls: drawn.shortfalls,
            odds: drawn.odds,
            ..Picked::default()
        }
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
