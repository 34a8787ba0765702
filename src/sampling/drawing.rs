//! One draw at work on a block of anchors.

use super::SampleError;
use super::anchors::Anchor;
use super::eligibility::Eligibility;
use super::nearest::settle;
use super::observed::Observed;
use super::picked::Picked;
use super::repeats::Repeats;
use super::route;
use super::search::{Searched, own_lists};
use super::together::Pass;
use super::unscored::Unscored;
use super::whole::{self, Whole};
use crate::bank::{Bank, Place};
use crate::model::{Draw, DrawAnswer, Nearest, Plan, ReasonCounts, SampleQuery, Strategy};

/// How it is drawn, with what was found for it so far.
enum Kind<'q> {
    Unscored(Unscored<'q>),
    Nearest(&'q Nearest, Option<Searched>),
    Whole(Whole),
}

/// A draw with its filters, what its search found, and the answer so far.
pub(super) struct Drawing<'q> {
    query: &'q SampleQuery,
    number: usize,
    pub(super) draw: &'q Draw,
    pub(super) eligibility: Eligibility,
    kind: Kind<'q>,
    repeats: Repeats,
    pub(super) answer: DrawAnswer,
}

impl<'q> Drawing<'q> {
    /// Draw number `number` of `query`, before any search.
    pub(super) fn new(query: &'q SampleQuery, number: usize, draw: &'q Draw) -> Self {
        let eligibility = Eligibility::new(draw, query.step());
        let kind = match &draw.strategy {
            Strategy::Uniform { .. } | Strategy::Weighted { .. } | Strategy::Balanced { .. } => {
                Kind::Unscored(Unscored::new(draw))
            }
            Strategy::Nearest(nearest) if query.anchors().views.each > 1 => {
                Kind::Whole(Whole::new(whole::Kind::Nearest(*nearest)))
            }
            Strategy::Nearest(nearest) => Kind::Nearest(nearest, None),
            Strategy::Softmax(softmax) => Kind::Whole(Whole::new(whole::Kind::Softmax(*softmax))),
            Strategy::Band(band) => Kind::Whole(Whole::new(whole::Kind::Band(*band))),
        };
        let plan = match &kind {
            Kind::Unscored(_) => Plan::Roster,
            Kind::Nearest(..) => Plan::PostingList,
            Kind::Whole(_) => Plan::Scan,
        };
        let answer = DrawAnswer::empty(plan, draw.strategy.replaces());
        Self { query, number, draw, eligibility, kind, repeats: Repeats::default(), answer }
    }

    /// True if what was found for the anchors is no more good enough to start from; `moved`: for another anchor.
    pub(super) fn is_stale(&self, bank: &Bank, moved: bool) -> bool {
        match &self.kind {
            Kind::Unscored(_) => false,
            Kind::Nearest(_, searched) => searched.as_ref().is_some_and(|searched| moved || searched.is_stale(bank)),
            Kind::Whole(whole) => moved || whole.is_stale(bank),
        }
    }

    /// True if the block's anchor number `at` was searched for, if it has to be.
    pub(super) fn covers(&self, at: usize) -> bool {
        match &self.kind {
            Kind::Unscored(_) => true,
            Kind::Nearest(_, searched) => searched.is_some(),
            Kind::Whole(whole) => whole.covers(at),
        }
    }

    /// Scores entries for the block's `anchors` from number `first` on, or the first few of them, if this is a scored draw.
    pub(super) fn search(
        &mut self,
        observed: &mut Observed<'_>,
        (anchors, first): (&[Anchor], usize),
        wanted: &dyn Fn() -> bool,
    ) -> Result<(), SampleError> {
        let (anchors, rejections) = ((anchors, first), &mut self.answer.rejections);
        match &mut self.kind {
            Kind::Unscored(_) => {}
            Kind::Nearest(nearest, searched) => {
                if let Some(listed) = own_lists(observed, anchors, &self.eligibility)? {
                    self.answer.plan = listed.plan;
                    *searched = Some(listed);
                    return Ok(());
                }
                let routed = route::search(observed, anchors, &mut self.eligibility, nearest, rejections, wanted)?;
                self.answer.plan = routed.searched.plan;
                self.answer.plan_reason = routed.reason;
                self.answer.graph = routed.graph.or(self.answer.graph);
                *searched = Some(routed.searched);
            }
            Kind::Whole(whole) => {
                let noise = |anchor: &Anchor| self.query.seed().noise(self.number, anchor.number);
                whole.search(observed, anchors, &self.eligibility, (self.draw.k, &noise), rejections, wanted)?;
            }
        }
        Ok(())
    }

    /// Of a draw of the nearest: why a search for all of the block's `anchors` is a scan of all rows by such a `pass`; `None` if
    /// it is not.
    pub(super) fn scans(
        &self,
        observed: &mut Observed<'_>,
        anchors: &[Anchor],
        pass: Pass,
    ) -> Result<Option<String>, SampleError> {
        let Kind::Nearest(nearest, None) = &self.kind else { return Ok(None) };
        let fits = |anchor: &Anchor| anchor.row.is_some() && !self.eligibility.is_narrow(anchor);
        if !anchors.iter().all(fits) || Pass::of(&*observed.read()?, nearest) != pass {
            return Ok(None);
        }
        route::scan_reason(observed, anchors.len(), &self.eligibility, nearest)
    }

    /// The draw, if it is one of the nearest.
    pub(super) fn nearest(&self) -> Option<&'q Nearest> {
        match self.kind {
            Kind::Nearest(nearest, _) => Some(nearest),
            Kind::Unscored(_) | Kind::Whole(_) => None,
        }
    }

    /// Takes what a scan found that was made for others, too.
    pub(super) fn searched(&mut self, found: Searched, rejected: &ReasonCounts, reason: String) {
        if let Kind::Nearest(_, searched) = &mut self.kind {
            self.answer.plan = found.plan;
            self.answer.plan_reason = reason;
            self.answer.rejections.merge(rejected);
            *searched = Some(found);
        }
    }

    /// Picks for the block's anchor number `at`; `moved` says that it is not the one that was searched for. The log_q of its `positives` is
    /// told, too.
    pub(super) fn pick(
        &mut self,
        bank: &Bank,
        anchor: &Anchor,
        (at, moved): (usize, bool),
        positives: &[Option<Place>],
    ) -> Picked {
        let scores_wanted = self.query.form().columns.scores;
        let mut stream = self.query.seed().stream(self.number, anchor.number);
        let (k, rejections) = (self.draw.k, &mut self.answer.rejections);
        let mut picked = match &mut self.kind {
            Kind::Unscored(unscored) => {
                let drawn = unscored.draw(bank, &mut self.eligibility, anchor, &mut stream, rejections);
                self.answer.plan = self.answer.plan.max(drawn.plan);
                let log_q = |place| drawn.odds.log_q_beside(bank, anchor, &self.eligibility, place);
                let positive_log_q = positives.iter().map(|place| place.map_or(f64::NEG_INFINITY, log_q) as f32).collect();
                Picked { positive_log_q, ..drawn.picked(bank, anchor, scores_wanted) }
            }
            Kind::Nearest(nearest, searched) => {
                // What was ranked for another anchor tells nothing of this one.
                let found = searched.as_mut().and_then(|searched| searched.take(at)).filter(|_| !moved);
                settle(bank, anchor, &mut self.eligibility, nearest, k, found, (positives, &mut stream))
            }
            Kind::Whole(whole) => {
                let noise = self.query.seed().noise(self.number, anchor.number);
                whole.pick(bank, (anchor, at, moved), &mut self.eligibility, (k, noise), (positives, &mut stream))
            }
        };
        if self.query.is_counted() {
            picked.hardness.count(bank.spec().metric(), picked.scores.iter().copied());
        }
        if !scores_wanted {
            picked.scores.clear();
        }
        picked
    }

    /// Appends an anchor's picks to the answer, all but the rows.
    pub(super) fn tell(&mut self, picked: &Picked) {
        picked.tell(&mut self.answer, self.query.form().columns.log_q);
        if self.answer.with_replacement && self.query.is_counted() {
            self.answer.duplicates += self.repeats.of(&picked.places).count() as u64;
        }
    }
}
