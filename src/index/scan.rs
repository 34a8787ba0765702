//! The exact scan: every row against a block of anchors.

use super::ranking::{Ranked, Ranking};
use crate::kernels::score::score;
use crate::kernels::tile::{Bounds, Hit, Panel};
use crate::kernels::{LANES, momentum};
use crate::model::{Metric, ScoreRange};
use crate::rows::Rows;

/// Says what may be served, and who an entry is.
pub trait Admit {
    /// True if the entry in `slot` may be served to the scan's probe number `probe`.
    fn admits(&mut self, probe: usize, slot: u32) -> bool;

    /// Hears that the score rules dropped an admitted entry.
    fn out_of_range(&mut self);

    /// Who lies in `slot`; `None` if it is free.
    fn identity(&self, slot: u32) -> Option<Identity>;
}

/// Who lies in a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Instance id.
    pub id: u64,
    /// Stamp of the slot's present entry.
    pub occupied_at: u64,
    /// Stamp of its last write.
    pub revision: u64,
}

/// What to look for.
#[derive(Debug, Clone)]
pub struct Probe<'a> {
    /// The anchor, padded to whole lane groups.
    pub anchor: &'a [f32],
    /// Scores that are kept.
    pub range: ScoreRange,
    /// Entries wanted.
    pub depth: usize,
}

/// A scan under way: feed it runs of rows, then take the rankings.
///
/// The fused tile finds rows whose approximate score could matter; each is scored again exactly before it is judged. So
/// the result is exact, and the same on every machine and for every split of the anchors into blocks.
#[derive(Debug)]
pub struct Scan<'a> {
    metric: Metric,
    probes: Vec<Probe<'a>>,
    rankings: Vec<Ranking>,
    norms: Vec<f64>,
    panels: Vec<Panel>,
    hits: Vec<Hit>,
}

/// Up to this many anchors are scored one by one: a panel would leave most of its lanes idle.
const FEW: usize = 3;

impl<'a> Scan<'a> {
    /// A scan for `probes`, all padded to `stride` floats.
    pub fn new(metric: Metric, stride: usize, probes: Vec<Probe<'a>>) -> Self {
        let panels = if probes.len() <= FEW {
            Vec::new()
        } else {
            let panel_of = |group: &[Probe<'a>]| Panel::new(metric, stride, group.iter().map(|probe| probe.anchor));
            probes.chunks(LANES).map(panel_of).collect()
        };
        Self {
            metric,
            rankings: probes.iter().map(|probe| Ranking::new(probe.depth)).collect(),
            norms: probes.iter().map(|probe| momentum::norm(probe.anchor)).collect(),
            probes,
            panels,
            hits: Vec::new(),
        }
    }

    /// Scans slots from `start` up to `end` as far as they lie in one run, and returns how many it did. `largest_norm` is at
    /// least the norm of each of the rows.
    pub fn tile(&mut self, rows: &Rows, shard: u32, start: u32, end: u32, largest_norm: f64, admit: &mut impl Admit) -> u32 {
        let (run, count) = rows.run(start, end);
        if self.panels.is_empty() {
            for (slot, row) in (start..).zip(run.chunks_exact(rows.stride())) {
                for probe in 0..self.probes.len() {
                    self.consider(probe, shard, slot, row, admit);
                }
            }
            return count;
        }
        for panel in 0..self.panels.len() {
            let bounds = self.bounds(panel, largest_norm);
            let mut hits = std::mem::take(&mut self.hits);
            hits.clear();
            self.panels[panel].scan(run, &bounds, &mut hits);
            for hit in &hits {
                let row = &run[hit.row as usize * rows.stride()..][..rows.stride()];
                let mut lanes = hit.lanes;
                while lanes != 0 {
                    let probe = panel * LANES + lanes.trailing_zeros() as usize;
                    self.consider(probe, shard, start + hit.row, row, admit);
                    lanes &= lanes - 1;
                }
            }
            self.hits = hits;
        }
        count
    }

    /// The best entries of each probe, best first.
    pub fn into_rankings(self) -> impl Iterator<Item = Vec<Ranked>> {
        self.rankings.into_iter().map(Ranking::into_sorted)
    }

    fn consider(&mut self, probe: usize, shard: u32, slot: u32, row: &[f32], admit: &mut impl Admit) {
        let score = score(self.metric, self.probes[probe].anchor, row);
        if score < self.rankings[probe].bar() {
            return;
        }
        let Some(identity) = admit.identity(slot) else { return };
        let ranked = Ranked { score, shard, slot, identity };
        if !self.rankings[probe].takes(&ranked) || !admit.admits(probe, slot) {
            return;
        }
        if self.probes[probe].range.keeps(score) {
            self.rankings[probe].offer(ranked);
        } else {
            admit.out_of_range();
        }
    }

    /// Scores that each lane of a panel must hear of: what its ranking and range would take, widened by the tile's error.
    fn bounds(&self, panel: usize, largest_norm: f64) -> Bounds {
        let mut bounds = Bounds { low: [f32::INFINITY; LANES], high: [f32::INFINITY; LANES] };
        let first = panel * LANES;
        for (lane, probe) in (first..self.probes.len().min(first + LANES)).enumerate() {
            let error = f64::from(self.panels[panel].error_bound(self.norms[probe], largest_norm));
            let range = &self.probes[probe].range;
            let low = f64::from(self.rankings[probe].bar()).max(range.floor).max(range.above);
            bounds.low[lane] = ((low - error) as f32).next_down();
            bounds.high[lane] = ((range.ceiling + error) as f32).next_up();
        }
        bounds
    }
}
