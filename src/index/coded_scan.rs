//! The scan over codes: finds the entries that may be among the best without looking at their rows.

use super::candidates::{Candidate, Candidates};
use super::scan::{Admit, Probe};
use super::shortlist::Shortlist;
use crate::kernels::LANES;
use crate::kernels::coded::{Barred, CodedAnchors, CodedBounds, CodedHits, CodedRows, FEW, Intervals};

/// Coded rows of consecutive slots.
#[derive(Debug, Clone, Copy)]
pub struct CodedRun<'a> {
    /// Whole rows, padded to whole lane groups.
    pub rows: CodedRows<'a>,
    /// Slot of the first.
    pub slot: u32,
    /// Shard's number.
    pub shard: u32,
    /// At least the norm of each of the rows.
    pub largest_norm: f64,
}

/// A scan under way, for dot products: feed it runs, then rescore what it shortlists.
///
/// Codes tell between which bounds a score lies. An entry whose upper bound is below the `depth`-th best lower bound of those that
/// may be served and pass the score rules for certain can't be among the best, so its row is never looked at.
#[derive(Debug)]
pub struct CodedScan<'a> {
    stride: usize,
    probes: Vec<Probe<'a>>,
    anchors: CodedAnchors,
    candidates: Vec<Candidates>,
    /// Of the bars and the largest norm of the last rows.
    bounds: Vec<CodedBounds>,
    largest_norm: f64,
    hits: CodedHits,
    intervals: Intervals,
    /// Own class of each probe, a lane a probe, as soon as one was asked for; empty if none has one.
    own_classes: Option<Vec<[u32; LANES]>>,
    /// Of the last rows.
    classes: Vec<u32>,
    /// Rows scanned.
    seen: usize,
    /// Rows scanned when the bars are looked at again.
    next_look: usize,
    /// Rows that will be scanned in all, if bars are foreseen.
    rows: Option<usize>,
}

/// Rows scanned between two looks at the bars: few at first, when each row raises them.
const ROWS_AT_ONCE: std::ops::RangeInclusive<usize> = CodedScan::STEP..=8 * CodedScan::STEP;

/// A scan whose candidates are more than one in so many of the rows that it has seen is no faster than one over the rows themselves.
const TOO_MANY: usize = 24;

/// Hits announced before they are judged: with few anchors they lie far apart.
const HITS_AHEAD: usize = 8;

impl CodedScan<'_> {
    /// Whole blocks of rows to the kernels, which take 5, 6 or 12 at a time.
    pub const STEP: usize = 60;
}

impl<'a> CodedScan<'a> {
    /// A scan for `probes`, all padded to `stride` floats, that count nothing.
    pub fn new(stride: usize, probes: Vec<Probe<'a>>) -> Self {
        Self {
            stride,
            anchors: CodedAnchors::new(stride, probes.iter().map(|probe| probe.anchor)),
            candidates: probes.iter().map(|probe| Candidates::new(probe.depth.max(1), probe.range)).collect(),
            probes,
            bounds: Vec::new(),
            largest_norm: 0.0,
            hits: CodedHits::default(),
            intervals: Intervals::default(),
            own_classes: None,
            classes: Vec::new(),
            seen: 0,
            next_look: 0,
            rows: None,
        }
    }

    /// Foresees the bars: `rows` rows come in all, in an order that has seen about the same share of any part of them at all times. A
    /// probe for which one was foreseen too high is [unsure](Self::unsure) at the end.
    pub fn foreseeing(self, rows: usize) -> Self {
        Self { rows: Some(rows), ..self }
    }

    /// True if rankings of this depth, of so many entries, come faster so than from the rows.
    pub fn pays(depth: usize, entries: usize) -> bool {
        depth.saturating_mul(TOO_MANY) <= entries
    }

    /// Scans the rows of `run`.
    pub fn run(&mut self, run: CodedRun<'_>, admit: &mut impl Admit) {
        let mut first = 0;
        self.largest_norm(run.largest_norm);
        while first < run.rows.scales.len() {
            if self.seen >= self.next_look {
                self.raise_bars(false);
                self.next_look = self.seen + self.seen.clamp(*ROWS_AT_ONCE.start(), *ROWS_AT_ONCE.end());
            }
            let count = (self.next_look - self.seen).next_multiple_of(CodedScan::STEP).min(run.rows.scales.len() - first);
            let rows = CodedRows {
                codes: &run.rows.codes[first * self.stride..][..count * self.stride],
                scales: &run.rows.scales[first..][..count],
                errors: &run.rows.errors[first..][..count],
            };
            self.rows(CodedRun { rows, slot: run.slot + first as u32, ..run }, admit);
            first += count;
            self.seen += count;
        }
    }

    /// True if codes tell too little of these rows: very many may be among the best.
    pub fn is_lost(&self) -> bool {
        let kept: usize = self.candidates.iter().map(Candidates::len).sum();
        let depths: usize = self.probes.iter().map(|probe| probe.depth).sum();
        kept > 8 * depths + self.seen * self.probes.len() / TOO_MANY
    }

    /// Numbers of the probes for which a bar was foreseen that too few entries reach: they must be searched for once more.
    pub fn unsure(&self) -> Vec<usize> {
        let unsure = |of: &(usize, &Candidates)| !of.1.is_sure();
        self.candidates.iter().enumerate().filter(unsure).map(|(number, _)| number).collect()
    }

    /// What to rescore, probe by probe.
    pub fn shortlists(self) -> impl Iterator<Item = Shortlist<'a>> {
        self.probes.into_iter().zip(self.candidates).map(|(probe, candidates)| Shortlist::new(probe, candidates))
    }

    fn rows(&mut self, run: CodedRun<'_>, admit: &mut impl Admit) {
        self.hits.clear();
        let barred = match self.ask_for_classes(run.slot, run.rows.scales.len(), admit) {
            true => Barred { rows: &self.classes, anchors: self.own_classes.as_deref().unwrap_or_default() },
            false => Barred::default(),
        };
        self.anchors.scan(run.rows, &self.bounds, barred, &mut self.hits);
        admit.left_out(self.hits.barred());
        let screened = admit.screen(run.slot, &mut self.hits);
        self.anchors.intervals(&self.hits, run.rows, &self.bounds, &mut self.intervals);
        let mut ahead = self.hits.iter().skip(HITS_AHEAD);
        let sparse = !screened && self.probes.len() <= FEW;
        for (hit, &(lower, upper)) in self.hits.iter().zip(&self.intervals.of) {
            if sparse && let Some(ahead) = ahead.next() {
                admit.expect(run.slot + ahead.row);
            }
            let (probe, slot) = (hit.anchor as usize, run.slot + hit.row);
            if screened || (admit.is_occupied(slot) && admit.admits(probe, slot)) {
                self.candidates[probe].offer(Candidate { shard: run.shard, slot, lower, upper });
            }
        }
    }

    /// True if rows are left out by their class. Of few probes they are not: asking for each row's costs more than their hits.
    fn ask_for_classes(&mut self, slot: u32, count: usize, admit: &impl Admit) -> bool {
        let probes = self.probes.len();
        let own_classes = self.own_classes.get_or_insert_with(|| {
            let own = |probe| if probe < probes { admit.own_class(probe) } else { Barred::NO_ANCHORS };
            let panel = |first| std::array::from_fn(|lane| own(first + lane));
            let panels: Vec<[u32; LANES]> = (0..probes).step_by(LANES).map(panel).collect();
            let has_class = panels.iter().flatten().any(|&class| class != Barred::NO_ANCHORS);
            if has_class && probes > FEW { panels } else { Vec::new() }
        });
        if own_classes.is_empty() {
            return false;
        }
        self.classes.resize(count, Barred::NO_ROWS);
        admit.classes(slot, &mut self.classes)
    }

    /// Hears of a norm. Those of the shards that were scanned before are kept in mind, or bounds would change with every run.
    fn largest_norm(&mut self, largest_norm: f64) {
        if largest_norm > self.largest_norm {
            self.largest_norm = largest_norm;
            self.raise_bars(true);
        }
    }

    /// Brings the bounds up to date, panel by panel; once the best are found they rarely change. All of them where `all` do.
    fn raise_bars(&mut self, all: bool) {
        let (largest_norm, seen) = (self.largest_norm, self.rows.map(|rows| (self.seen, rows)));
        for (panel, candidates) in self.candidates.chunks_mut(LANES).enumerate() {
            let mut changed = all || panel >= self.bounds.len();
            candidates.iter_mut().for_each(|of| changed |= of.refresh(seen));
            if !changed {
                continue;
            }
            let cuts = candidates.iter().map(Candidates::cuts);
            let bounds = self.anchors.bounds(panel * LANES, cuts, largest_norm);
            match self.bounds.get_mut(panel) {
                Some(known) => *known = bounds,
                None => self.bounds.push(bounds),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{CodedRun, CodedScan};
    use crate::index::{Admit, Found, Identity, Known, Probe, Run, Scan, Shortlist, Slots, Stretch, Visits};
    use crate::kernels::{momentum, stride};
    use crate::model::{Dtype, Metric, ScoreRange, Seed, Stream};
    use crate::rows::Rows;

    /// Serves every slot but those of the probe's own class.
    struct Others(usize);

    impl Admit for Others {
        fn admits(&mut self, probe: usize, slot: u32) -> bool {
            slot as usize % self.0 != probe % self.0
        }

        fn out_of_range(&mut self, _probe: usize) {}

        fn identity(&self, slot: u32) -> Option<Identity> {
            // Ids repeat, so that ties are broken by slot too; every ninth slot is free.
            let id = u64::from(slot / 3);
            (slot % 9 != 4).then_some(Identity { id, occupied_at: 1, revision: u64::from(slot % 11 == 5) })
        }
    }

    /// Rows near a few centres, some of them twice; lengths differ.
    fn rows(count: u32, dim: usize, dtype: Dtype, stream: &mut Stream) -> (Rows, f64) {
        let mut rows = Rows::new(dim, dtype).with_codes();
        rows.reserve(count as usize).unwrap();
        let mut largest = 0.0f64;
        for slot in 0..count {
            let twin = (slot > 8 && stream.below(8) == 0).then(|| rows.row(slot - 8).to_vec());
            let change = |row: &mut [f32]| {
                row.iter_mut().for_each(|x| *x = stream.below(2_001) as f32 / 1e3 - 1.0);
                row[slot as usize % dim] += 3.0;
                if let Some(twin) = twin {
                    row.copy_from_slice(&twin);
                }
            };
            largest = largest.max(rows.change(slot, change));
        }
        (rows, largest)
    }

    /// Of the first `count` slots; of a spread order where bars are foreseen.
    fn scanned<'a>(
        (rows, largest_norm, count): (&Rows, f64, u32),
        probes: Vec<Probe<'a>>,
        classes: usize,
        foreseeing: bool,
    ) -> CodedScan<'a> {
        let (scan, slots) = (CodedScan::new(rows.stride(), probes), [count].into_iter());
        let (mut scan, visits) = match foreseeing {
            true => (scan.foreseeing(count as usize), Visits::spread(slots, 7)),
            false => (scan, Visits::in_order(slots, 700)),
        };
        for Stretch { start, end, .. } in visits {
            let mut slot = start;
            while slot < end {
                let (run, len) = rows.codes().unwrap().run(slot, end);
                scan.run(CodedRun { rows: run, slot, shard: 3, largest_norm }, &mut Others(classes));
                slot += len;
            }
        }
        scan
    }

    fn by_codes(of: (&Rows, f64, u32), probes: Vec<Probe<'_>>, began: u64, classes: usize, foreseeing: bool) -> Vec<Found> {
        let (rows, ..) = of;
        let scan = scanned(of, probes.clone(), classes, foreseeing);
        let unsure = scan.unsure();
        assert!(foreseeing || unsure.is_empty());
        let mut shortlists: Vec<Shortlist<'_>> = scan.shortlists().collect();
        for (probe, again) in scanned(of, probes, classes, false).shortlists().enumerate() {
            if unsure.contains(&probe) {
                shortlists[probe] = again;
            }
        }
        let rescored = shortlists.into_iter().map(|mut shortlist| {
            while !shortlist.is_done() {
                let unchanged = |slot| Others(classes).identity(slot).filter(|identity| identity.revision <= began);
                let row = |_, slot| unchanged(slot).map(|_| rows.padded(slot));
                shortlist.rescore(&mut 5, row, (|_, slot| unchanged(slot), |_, _| ()), || ());
            }
            shortlist.found()
        });
        rescored.collect()
    }

    fn by_rows(rows: &Rows, largest_norm: f64, count: u32, probes: Vec<Probe<'_>>, classes: usize) -> Vec<Found> {
        let mut scan = Scan::new(Metric::Dot, rows.stride(), probes);
        let mut slot = 0;
        while slot < count {
            let (run, len) = rows.run(slot, count);
            scan.run(Run { rows: run, slots: Slots::From(slot), shard: 3, largest_norm }, &mut Others(classes));
            slot += len;
        }
        scan.found().collect()
    }

    fn bits(found: &Found) -> Vec<(u32, u64, u32)> {
        found.ranking.iter().map(|ranked| (ranked.slot, ranked.identity.id, ranked.score.to_bits())).collect()
    }

    proptest! {
        /// The oracle is the scan over rows: the same entries in the same order with the same bits. And where entries changed
        /// since the scan began, all others down to where the ranking is known.
        #[test]
        fn the_same_is_found_as_by_the_rows(
            dim in 1usize..140,
            count in 1u32..1_500,
            anchors in 1usize..40,
            depth in 1usize..40,
            classes in 2usize..6,
            exponent in -40i32..20,
            floor in prop::option::of(-4.0f64..4.0),
            ceiling in prop::option::of(-2.0f64..9.0),
            half in any::<bool>(),
            foreseeing in any::<bool>(),
            seed in any::<u64>(),
        ) {
            let mut stream = Seed(seed).stream(0, 0);
            let dtype = if half { Dtype::BF16 } else { Dtype::F32 };
            let (rows, largest) = rows(count, dim, dtype, &mut stream);
            let scale = 2f32.powi(exponent);
            let anchor = |_| -> Vec<f32> {
                let mut anchor: Vec<f32> = (0..dim).map(|_| (stream.below(2_001) as f32 / 1e3 - 1.0) * scale).collect();
                anchor.resize(stride(dim), 0.0);
                anchor
            };
            let anchors: Vec<Vec<f32>> = (0..anchors).map(anchor).collect();
            let probe = |anchor: &'_ Vec<f32>| -> ScoreRange {
                let unit = momentum::norm(anchor);
                ScoreRange {
                    floor: floor.map_or(f64::NEG_INFINITY, |floor| floor * unit),
                    above: f64::NEG_INFINITY,
                    ceiling: ceiling.map_or(f64::INFINITY, |ceiling| ceiling * unit),
                }
            };
            let probes: Vec<Probe<'_>> =
                anchors.iter().map(|anchor| Probe { anchor, range: probe(anchor), depth, counted: None }).collect();
            let expected = by_rows(&rows, largest, count, probes.clone(), classes);
            let found = by_codes((&rows, largest, count), probes.clone(), 1, classes, foreseeing);
            prop_assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(&expected) {
                prop_assert_eq!(bits(found), bits(expected));
                prop_assert!(expected.ranking.iter().all(|ranked| found.known.reaches(ranked)));
            }
            for (found, expected) in by_codes((&rows, largest, count), probes, 0, classes, foreseeing).iter().zip(&expected) {
                let unchanged = expected.ranking.iter().filter(|ranked| ranked.identity.revision == 0);
                let known: Vec<u32> = unchanged.filter(|ranked| found.known.reaches(ranked)).map(|ranked| ranked.slot).collect();
                let got: Vec<u32> = found.ranking.iter().map(|ranked| ranked.slot).collect();
                prop_assert!(got.starts_with(&known), "{:?} is missing some of {known:?} above {:?}", got, found.known);
                prop_assert!(!matches!(found.known, Known::All) || expected.ranking.len() < depth || got.len() >= known.len());
            }
        }
    }

    /// Rows around an anchor, `alike` of which come one after the other and are nearer to it than all others.
    fn one_group_near(alike: u32, count: u32) -> (Rows, Vec<f32>) {
        let mut stream = Seed(3).stream(0, 0);
        let mut rows = Rows::new(32, Dtype::F32).with_codes();
        rows.reserve(count as usize).unwrap();
        for slot in 0..count {
            rows.change(slot, |row| {
                row.iter_mut().for_each(|x| *x = (stream.unit() - 0.5) as f32);
                row[0] = if (600..600 + alike).contains(&slot) { 9.0 } else { 0.0 };
            });
        }
        let mut anchor = vec![0.1; 32];
        anchor[0] = 1.0;
        (rows, anchor)
    }

    #[test]
    fn a_bar_that_was_foreseen_too_high_is_told() {
        for (alike, lost) in [(40, true), (0, false)] {
            let (rows, anchor) = one_group_near(alike, 6_000);
            let probe = Probe { anchor: &anchor, range: ScoreRange::ALL, depth: 30, counted: None };
            let mut scan = CodedScan::new(32, vec![probe]).foreseeing(6_000);
            // Those that are alike come in the first tenth, all at once.
            let (run, len) = rows.codes().unwrap().run(0, 6_000);
            assert_eq!(len, 6_000);
            scan.run(CodedRun { rows: run, slot: 0, shard: 0, largest_norm: 10.0 }, &mut Others(usize::MAX));
            assert_eq!(scan.unsure(), if lost { vec![0] } else { vec![] }, "{alike} alike");
        }
    }
}
