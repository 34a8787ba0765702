//! The exact scan: rows against a block of anchors.

use super::counted::Counted;
use super::ranking::{Known, Ranked, Ranking};
use crate::kernels::coded::{Barred, CodedHits};
use crate::kernels::score::score;
use crate::kernels::tile::{Bounds, Hit, Panel};
use crate::kernels::{LANES, momentum};
use crate::model::{Metric, ScoreRange};
use crate::rows::Stored;

/// Says what may be served, and who an entry is.
pub trait Admit {
    /// True if the entry in `slot` may be served to the scan's probe number `probe`.
    fn admits(&mut self, probe: usize, slot: u32) -> bool;

    /// Hears that `slot` will be asked about.
    fn expect(&self, _slot: u32) {}

    /// Tells the class of each row from `slot` on: those of a probe's [own class](Self::own_class) may not be served to it, whatever else
    /// holds. Nothing is told of a row in [`Barred::NO_ROWS`]. False if nothing is told of any.
    fn classes(&self, _slot: u32, _classes: &mut [u32]) -> bool {
        false
    }

    /// Class of the rows that are kept from a probe.
    fn own_class(&self, _probe: usize) -> u32 {
        Barred::NO_ANCHORS
    }

    /// Hears how many hits were left out since their row was of the probe's own class.
    fn left_out(&mut self, _hits: u64) {}

    /// Drops the hits on rows from `slot` on that may not be served; false, and nothing is dropped, where they must be asked about one by
    /// one.
    fn screen(&mut self, _slot: u32, _hits: &mut CodedHits) -> bool {
        false
    }

    /// Hears that the score rules dropped an entry that was admitted to `probe`.
    fn out_of_range(&mut self, probe: usize);

    /// Who lies in `slot`; `None` if it is free.
    fn identity(&self, slot: u32) -> Option<Identity>;

    /// True unless `slot` is free.
    fn is_occupied(&self, slot: u32) -> bool {
        self.identity(slot).is_some()
    }
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
    /// Scores that are counted; `None`: nothing is counted.
    pub counted: Option<ScoreRange>,
}

/// What was found for one probe.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// The best entries, best first.
    pub ranking: Vec<Ranked>,
    /// How far down the ranking is complete.
    pub known: Known,
    /// Admitted entries whose score lies in the probe's `counted` range.
    pub counted: Counted,
}

/// Rows that lie one after the other in memory, and the slots that they are of.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    /// Whole rows, padded to whole lane groups.
    pub rows: Stored<'a>,
    /// Their slots.
    pub slots: Slots<'a>,
    /// Shard's number.
    pub shard: u32,
    /// At least the norm of each of the rows.
    pub largest_norm: f64,
}

/// Slots of the rows of a run.
#[derive(Debug, Clone, Copy)]
pub enum Slots<'a> {
    /// This one and those after it.
    From(u32),
    /// These.
    Listed(&'a [u32]),
}

/// A scan under way: feed it runs of rows, then take what was found.
///
/// The fused tile finds rows whose approximate score could matter; each is scored again exactly before it is judged. So
/// the result is exact, and the same on every machine and for every split of the anchors into blocks.
#[derive(Debug)]
pub struct Scan<'a> {
    metric: Metric,
    stride: usize,
    probes: Vec<Probe<'a>>,
    rankings: Vec<Ranking>,
    counts: Vec<Counted>,
    norms: Vec<f64>,
    panels: Vec<Panel>,
    hits: Vec<Hit>,
    /// Rows that are stored as halves, decoded.
    decoded: Vec<f32>,
}

/// Up to this many anchors are scored one by one: a panel would leave most of its lanes idle.
const FEW: usize = 3;

/// Floats decoded at a time: 64 KiB of them stay in the core's own cache until every panel has seen them.
const FLOATS_DECODED: usize = 16 << 10;

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
            stride,
            rankings: probes.iter().map(|probe| Ranking::new(probe.depth)).collect(),
            counts: vec![Counted::default(); probes.len()],
            norms: probes.iter().map(|probe| momentum::norm(probe.anchor)).collect(),
            probes,
            panels,
            hits: Vec::new(),
            decoded: Vec::new(),
        }
    }

    /// Scans the rows of `run`.
    pub fn run(&mut self, run: Run<'_>, admit: &mut impl Admit) {
        let (half, bits) = match run.rows {
            Stored::F32(rows) => return self.rows(rows, 0, run, admit),
            Stored::Half(half, bits) => (half, bits),
        };
        let mut decoded = std::mem::take(&mut self.decoded);
        let rows_decoded = (FLOATS_DECODED / self.stride).max(1);
        for (part, bits) in bits.chunks(rows_decoded * self.stride).enumerate() {
            let rows = Stored::Half(half, bits).floats(&mut decoded);
            self.rows(rows, part * rows_decoded, run, admit);
        }
        self.decoded = decoded;
    }

    /// Scans `rows`, which lie in `run` from row number `from` on.
    fn rows(&mut self, rows: &[f32], from: usize, run: Run<'_>, admit: &mut impl Admit) {
        if self.panels.is_empty() {
            for (at, row) in rows.chunks_exact(self.stride).enumerate() {
                for probe in 0..self.probes.len() {
                    self.consider(probe, run.shard, run.slots.at(from + at), row, admit);
                }
            }
            return;
        }
        for panel in 0..self.panels.len() {
            let bounds = self.bounds(panel, run.largest_norm);
            let mut hits = std::mem::take(&mut self.hits);
            hits.clear();
            self.panels[panel].scan(rows, &bounds, &mut hits);
            for hit in &hits {
                let at = hit.row as usize;
                let row = &rows[at * self.stride..][..self.stride];
                let mut lanes = hit.lanes;
                while lanes != 0 {
                    let probe = panel * LANES + lanes.trailing_zeros() as usize;
                    self.consider(probe, run.shard, run.slots.at(from + at), row, admit);
                    lanes &= lanes - 1;
                }
            }
            self.hits = hits;
        }
    }

    /// What was found for each probe.
    pub fn found(self) -> impl Iterator<Item = Found> {
        let found = |(ranking, counted): (Ranking, Counted)| {
            let full = ranking.is_full();
            let ranking = ranking.into_sorted();
            let known = ranking.last().filter(|_| full).map_or(Known::All, |&last| Known::DownTo(last));
            Found { ranking, known, counted }
        };
        self.rankings.into_iter().zip(self.counts).map(found)
    }

    fn consider(&mut self, probe: usize, shard: u32, slot: u32, row: &[f32], admit: &mut impl Admit) {
        let score = score(self.metric, self.probes[probe].anchor, row);
        let counts = self.probes[probe].counted.is_some_and(|range| range.keeps(score));
        if !counts && score < self.rankings[probe].bar() {
            return;
        }
        let Some(identity) = admit.identity(slot) else { return };
        let ranked = Ranked { score, shard, slot, identity };
        let takes = self.rankings[probe].takes(&ranked);
        if !(takes || counts) || !admit.admits(probe, slot) {
            return;
        }
        if counts {
            self.counts[probe].note(shard, slot);
        }
        if !self.probes[probe].range.keeps(score) {
            admit.out_of_range(probe);
        } else if takes {
            self.rankings[probe].offer(ranked);
        }
    }

    /// Scores that each lane of a panel must hear of: what its ranking and ranges would take, widened by the tile's error.
    fn bounds(&self, panel: usize, largest_norm: f64) -> Bounds {
        let mut bounds = Bounds { low: [f32::INFINITY; LANES], high: [f32::INFINITY; LANES] };
        let first = panel * LANES;
        for (lane, probe) in (first..self.probes.len().min(first + LANES)).enumerate() {
            let error = f64::from(self.panels[panel].error_bound(self.norms[probe], largest_norm));
            let Probe { range, counted, .. } = &self.probes[probe];
            let mut low = f64::from(self.rankings[probe].bar()).max(range.floor).max(range.above);
            let mut high = range.ceiling;
            if let Some(counted) = counted {
                low = low.min(counted.floor.max(counted.above));
                high = high.max(counted.ceiling);
            }
            bounds.low[lane] = ((low - error) as f32).next_down();
            bounds.high[lane] = ((high + error) as f32).next_up();
        }
        bounds
    }
}

impl Slots<'_> {
    /// Slot of row number `at`.
    fn at(&self, at: usize) -> u32 {
        match self {
            Self::From(first) => first + at as u32,
            Self::Listed(slots) => slots[at],
        }
    }
}
