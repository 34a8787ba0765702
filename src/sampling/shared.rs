//! Draws of one set for all anchors, on one thread.

use super::SampleError;
use super::anchors::{Anchor, resolve};
use super::eligibility::Eligibility;
use super::observed::Observed;
use super::part::{Part, PartRows};
use super::repeats::Repeats;
use super::unscored::{Drawn, Unscored};
use crate::bank::{Bank, Entry, Place};
use crate::model::{Draw, DrawAnswer, Metric, Plan, ReasonCounts, SampleQuery, Scope, SharedSet, Strategy};
use crate::rows::{Recycler, Shared};

/// Rows gathered in one hold of the bank's lock.
const ROWS_PER_HOLD: usize = 256;

/// How often a set that a write touched while it was gathered is drawn anew, before it is gathered in one hold.
const ATTEMPTS: usize = 3;

/// Answers the SHARED draws of `query`, for all its anchors.
///
/// Each set and what it is to each anchor is decided in one hold; its rows are gathered in further ones, and if a write has
/// touched one of them meanwhile, everything is drawn anew.
///
/// # Errors
/// [`SampleError`]
pub fn answer_shared(
    bank: &Shared<Bank>,
    query: &SampleQuery,
    recycler: &Recycler,
    wanted: &dyn Fn() -> bool,
) -> Result<Part, SampleError> {
    for _ in 0..ATTEMPTS {
        if let Some(part) = attempt(bank, query, recycler, wanted, false)? {
            return Ok(part);
        }
    }
    attempt(bank, query, recycler, wanted, true)?.ok_or(SampleError::Unwanted)
}

/// `None` if a write touched a row between two holds; with `hold_on` there is one hold a set, however long.
fn attempt(
    bank: &Shared<Bank>,
    query: &SampleQuery,
    recycler: &Recycler,
    wanted: &dyn Fn() -> bool,
    hold_on: bool,
) -> Result<Option<Part>, SampleError> {
    let mut observed = Observed::new(bank.into());
    let mut anchors = resolve(&mut observed, query, 0..query.anchors().count)?;
    let mut rows = {
        let bank = observed.read()?;
        let room = |draw: &Draw| if draw.scope == Scope::Shared { draw.k } else { 0 };
        let expected: Vec<usize> = query.draws().iter().map(room).collect();
        PartRows::new(&query.form(), &expected, bank.entries(), bank.spec(), recycler)
    };
    let mut draws = Vec::with_capacity(query.draws().len());
    for (number, draw) in query.draws().iter().enumerate() {
        if draw.scope != Scope::Shared {
            draws.push(None);
            continue;
        }
        let bank = observed.read()?;
        for anchor in &mut anchors {
            if let Some(now) = observed.anchor_now(&bank, query, anchor) {
                *anchor = now;
            }
        }
        let mut set = Set::draw(&bank, query, number, &anchors);
        let mut held = Some(bank);
        for part in 0..set.places.len().div_ceil(ROWS_PER_HOLD) {
            if !wanted() {
                return Err(SampleError::Unwanted);
            }
            let bank = match held.take() {
                Some(bank) => bank,
                None => observed.read()?,
            };
            if !set.gather(&bank, part, &mut rows) {
                return Ok(None);
            }
            held = Some(bank).filter(|_| hold_on);
            set.score(&anchors, part);
        }
        drop(held);
        draws.push(Some(set.answer(&anchors, wanted)?));
    }
    Ok(Some(Part { rows, draws, seen: observed.seen()? }))
}

/// One draw's set, copied out of the bank part by part.
struct Set<'q> {
    query: &'q SampleQuery,
    number: usize,
    metric: Metric,
    eligibility: Eligibility,
    places: Vec<Place>,
    /// When each entry was last written, as it was drawn.
    revisions: Vec<u64>,
    entries: Vec<Entry>,
    /// Padded rows of the part that was gathered last, where scores are asked for.
    embeddings: Vec<f32>,
    /// Size of each anchor's eligible set.
    n: Vec<usize>,
    /// Natural log of the share of the law by which the set was drawn that each anchor's eligible set has.
    log_shares: Vec<f64>,
    /// Entries that were not there to be drawn, by reason.
    missing: ReasonCounts,
    answer: DrawAnswer,
}

impl<'q> Set<'q> {
    /// Draws among what passes the filters that don't depend on an anchor, and counts what is eligible for each.
    fn draw(bank: &Bank, query: &'q SampleQuery, number: usize, anchors: &[Anchor]) -> Self {
        let draw = &query.draws()[number];
        let (mut eligibility, mut unscored) = (Eligibility::new(draw, query.step()), Unscored::new(draw));
        let mut answer = DrawAnswer::empty(Plan::Roster, draw.strategy.replaces());
        let mut stream = query.seed().stream(number, 0);
        let Drawn { places, log_q, n: n_shared, plan, kappa, shortfalls, odds } =
            unscored.draw(bank, &mut eligibility, &Anchor::default(), &mut stream, &mut answer.rejections);
        (answer.plan, answer.shared) = (plan, Some(SharedSet { n: n_shared as u32, ..SharedSet::default() }));
        let n: Vec<usize> = anchors.iter().map(|anchor| eligibility.count(anchor, bank)).collect();
        let log_share = |(anchor, &n)| unscored.log_share(bank, &eligibility, anchor, (n, n_shared));
        let log_shares: Vec<f64> = anchors.iter().zip(&n).map(log_share).collect();
        for (anchor, log_share) in anchors.iter().zip(&log_shares) {
            let log_q = |place: Place| {
                let kept = eligibility.shared().rejects(bank.columns(place), place.slot).is_none();
                let q = if kept { odds.q(bank, anchor, place) } else { 0.0 };
                if q > 0.0 { libm::log(q / (libm::exp(*log_share) + q)) } else { f64::NEG_INFINITY }
            };
            let positives = anchor.positives(bank, query);
            answer.positive_log_q.extend(positives.into_iter().map(|place| place.map_or(f64::NEG_INFINITY, log_q) as f32));
        }
        if !matches!(draw.strategy, Strategy::Uniform { .. }) {
            answer.log_q = log_q;
        }
        if let Some(kappa) = kappa {
            // An anchor that nothing is eligible for has no survivors to be told of.
            let shifted = |log_share: &f64| if *log_share > f64::NEG_INFINITY { kappa - log_share } else { f64::NEG_INFINITY };
            answer.kappa = log_shares.iter().map(|log_share| shifted(log_share) as f32).collect();
        }
        Self {
            query,
            number,
            metric: bank.spec().metric(),
            revisions: places.iter().map(|place| bank.columns(*place).revision(place.slot)).collect(),
            entries: places.iter().map(|place| bank.columns(*place).entry(place.slot)).collect(),
            n,
            log_shares,
            missing: shortfalls,
            embeddings: Vec::new(),
            eligibility,
            places,
            answer,
        }
    }

    /// Copies part number `part` of the rows; false if one of them is no more as it was drawn.
    fn gather(&mut self, bank: &Bank, part: usize, rows: &mut PartRows) -> bool {
        let from = part * ROWS_PER_HOLD;
        let places = &self.places[from..self.places.len().min(from + ROWS_PER_HOLD)];
        let as_drawn = |(place, revision): (&Place, &u64)| {
            let columns = bank.columns(*place);
            columns.is_occupied(place.slot) && columns.revision(place.slot) == *revision
        };
        if !places.iter().zip(&self.revisions[from..]).all(as_drawn) {
            return false;
        }
        self.embeddings.clear();
        if self.query.form().scores_of_shared {
            places.iter().for_each(|&place| bank.padded_row(place).append_to(&mut self.embeddings));
        }
        rows.serve(bank, self.number, places, &mut self.answer);
        true
    }

    /// Scores the part that was gathered last, part number `part`, against every anchor.
    fn score(&mut self, anchors: &[Anchor], part: usize) {
        let drawn = self.places.len();
        if self.embeddings.is_empty() || anchors.iter().any(|anchor| anchor.row.is_none()) {
            return;
        }
        self.answer.scores.resize(anchors.len() * drawn, 0.0);
        for (anchor, scores) in anchors.iter().zip(self.answer.scores.chunks_exact_mut(drawn)) {
            let Some(row) = anchor.row.as_deref() else { continue };
            let scores = scores.iter_mut().skip(part * ROWS_PER_HOLD);
            for (to, embedding) in scores.zip(self.embeddings.chunks_exact(row.len())) {
                *to = anchor.score_of(self.metric, embedding).unwrap_or_default();
            }
        }
    }

    /// What the set is to each anchor.
    fn answer(mut self, anchors: &[Anchor], wanted: &dyn Fn() -> bool) -> Result<DrawAnswer, SampleError> {
        let drawn = self.entries.len();
        let with_log_q = self.query.form().columns.log_q;
        let uniform = matches!(self.query.draws()[self.number].strategy, Strategy::Uniform { .. });
        let shifts = self.log_shares.iter().filter(|_| with_log_q && !uniform).map(|log_share| -log_share as f32).collect();
        if !with_log_q {
            self.answer.log_q.clear();
        }
        let mut repeats = Repeats::default();
        let counted = self.answer.with_replacement && self.query.is_counted();
        let places = if counted { &self.places[..] } else { &[] };
        let repeated: Vec<usize> = repeats.of(places).collect();
        let mut mask = Vec::with_capacity(anchors.len() * drawn);
        for (anchor, &n) in anchors.iter().zip(&self.n) {
            if !wanted() {
                return Err(SampleError::Unwanted);
            }
            let mut left = drawn as u32;
            let from = mask.len();
            mask.resize(from + drawn, 1);
            if self.eligibility.bars_any(anchor) {
                for (entry, passes) in self.entries.iter().zip(&mut mask[from..]) {
                    if let Some(reason) = self.eligibility.rejects_own(anchor, entry.id, entry.label, entry.group) {
                        *passes = 0;
                        left -= 1;
                        self.answer.shortfalls.add(reason, 1);
                    }
                }
            }
            if self.query.is_counted() && !self.answer.scores.is_empty() {
                let DrawAnswer { scores, hardness, .. } = &mut self.answer;
                let served = scores[from..].iter().zip(&mask[from..]).filter(|&(_, &passes)| passes != 0);
                hardness.count(self.metric, served.map(|(&score, _)| score));
            }
            self.answer.shortfalls.merge(&self.missing);
            self.answer.counts.push(left);
            let of_anchor = |&&at: &&usize| mask[from + at] != 0;
            let duplicates = if left as usize == drawn { repeated.len() } else { repeated.iter().filter(of_anchor).count() };
            self.answer.duplicates += duplicates as u64;
            self.answer.n.push(n as u32);
            if with_log_q && uniform {
                self.answer.log_q.push(-libm::log(n as f64) as f32);
            }
        }
        if let Some(shared) = &mut self.answer.shared {
            (shared.mask, shared.log_q_shift) = (mask, shifts);
        }
        Ok(self.answer)
    }
}
