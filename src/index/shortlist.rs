//! From candidates to a ranking.

use super::candidates::{Candidate, Candidates};
use super::counted::Counted;
use super::ranking::{Known, Ranked};
use super::scan::{Found, Identity, Probe};
use crate::kernels::score::score;
use crate::model::Metric;
use crate::rows::Stored;

/// The candidates of one probe, which are being scored exactly.
#[derive(Debug)]
pub struct Shortlist<'a> {
    probe: Probe<'a>,
    candidates: Vec<Candidate>,
    /// Entries that are no candidates score less.
    bar: Option<f32>,
    next: usize,
    /// Score, shard and slot.
    scored: Vec<(f32, u32, u32)>,
    /// The worst score of the first `depth` that were scored: entries that score less aren't among the best.
    worst: f32,
    /// A row that is stored as halves, decoded.
    decoded: Vec<f32>,
    ranking: Option<Vec<Ranked>>,
}

/// Rows asked for before they are scored: they lie anywhere, and memory takes as long as some ten scores.
const AHEAD: usize = 12;

impl<'a> Shortlist<'a> {
    pub(super) fn new(probe: Probe<'a>, candidates: Candidates) -> Self {
        let (candidates, bar) = candidates.finish();
        Self {
            probe,
            candidates,
            bar,
            next: 0,
            scored: Vec::new(),
            worst: f32::NEG_INFINITY,
            decoded: Vec::new(),
            ranking: None,
        }
    }

    /// True if every candidate was scored and the best are known.
    pub fn is_done(&self) -> bool {
        self.ranking.is_some()
    }

    /// Scores candidates until all are done or `budget` is spent, one for each. `row` says what lies in a slot of a shard and
    /// `identity` who it is, unless it has changed since the scan began; `expect` hears which slots `identity` will be asked about, and
    /// `out_of_range` of each entry that the score rules drop.
    pub fn rescore<'r>(
        &mut self,
        budget: &mut usize,
        row: impl Fn(u32, u32) -> Option<Stored<'r>>,
        (identity, expect): (impl Fn(u32, u32) -> Option<Identity>, impl Fn(u32, u32)),
        mut out_of_range: impl FnMut(),
    ) {
        while let Some(&candidate) = self.candidates.get(self.next) {
            if *budget == 0 {
                return;
            }
            if let Some(ahead) = self.candidates.get(self.next + AHEAD)
                && ahead.upper >= self.worst
                && let Some(row) = row(ahead.shard, ahead.slot)
            {
                row.prefetch();
            }
            self.next += 1;
            *budget -= 1;
            let Candidate { shard, slot, upper, .. } = candidate;
            let Some(row) = row(shard, slot).filter(|_| upper >= self.worst) else { continue };
            let score = score(Metric::Dot, self.probe.anchor, row.floats(&mut self.decoded));
            if !self.probe.range.keeps(score) {
                out_of_range();
                continue;
            }
            self.scored.push((score, shard, slot));
            if self.scored.len() == self.probe.depth {
                self.worst = self.scored.iter().map(|&(score, ..)| score).fold(f32::INFINITY, f32::min);
            }
        }
        self.rank(identity, expect);
    }

    /// Ranks the best of what was scored. Those that changed in the meantime are left out.
    fn rank(&mut self, identity: impl Fn(u32, u32) -> Option<Identity>, expect: impl Fn(u32, u32)) {
        let mut scored = std::mem::take(&mut self.scored);
        let mut worst = self.worst.max(self.bar.unwrap_or(f32::NEG_INFINITY));
        if scored.len() > self.probe.depth {
            let (_, last, _) = scored.select_nth_unstable_by(self.probe.depth - 1, |a, b| b.0.total_cmp(&a.0));
            worst = worst.max(last.0);
        }
        // What scores less was not scored or is dropped now. If one of the best has changed, the ranking comes out short: then it
        // tells no more than what scores as much.
        self.bar = (worst > f32::NEG_INFINITY).then_some(worst);
        scored.retain(|&(score, ..)| score >= worst);
        scored.iter().for_each(|&(_, shard, slot)| expect(shard, slot));
        let known = |(score, shard, slot)| Some(Ranked { score, shard, slot, identity: identity(shard, slot)? });
        let mut ranking: Vec<Ranked> = scored.into_iter().filter_map(known).collect();
        ranking.sort_unstable();
        ranking.truncate(self.probe.depth);
        self.ranking = Some(ranking);
    }

    /// The ranking of the candidates that were scored, and how much it tells.
    ///
    /// Every entry that was admitted and isn't here scores less than the bar. If no candidate changed, `depth` of them reach it, and
    /// the ranking is full; else it is cut at the bar.
    pub fn found(self) -> Found {
        let (depth, bar, ranking) = (self.probe.depth, self.bar, self.ranking.unwrap_or_default());
        let known = match (ranking.last(), bar) {
            (Some(&last), _) if ranking.len() >= depth => Known::DownTo(last),
            (_, Some(bar)) => Known::AtLeast(bar),
            _ => Known::All,
        };
        Found { ranking, known, counted: Counted::default() }
    }
}
