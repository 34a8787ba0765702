//! The scan of a whole bank through the engine, beside its parts on the same rows: the scan over codes without a bank around it,
//! the bare tile with the bars known beforehand, and the scan over floats.

use std::hint::black_box;

use negbank::bank::Bank;
use negbank::index::{Admit, CodedRun, CodedScan, Found, Identity, Probe, Run, Scan, Shortlist, Slots, Visits};
use negbank::kernels::LANES;
use negbank::kernels::coded::{Barred, CodedAnchors, CodedBounds, CodedHits};
use negbank::model::{
    Anchors, Applied, BankKind, BankSpec, Columns, Draw, Dtype, Filters, Form, Ids, Matrix, Metric, Mutation, Nearest,
    SampleAnswer, SampleQuery, Scope, ScoreRange, Seed, Strategy, WriteBatch,
};
use negbank::rows::{Recycler, Rows, Shared};
use negbank::sampling::{BLOCK, Merge, answer_block};

use crate::data::Clustered;
use crate::report::Case;
use crate::timing::{median_us, time_us};

pub(crate) const ENTRIES: usize = 65_536;
pub(crate) const DIM: usize = 128;
pub(crate) const K: usize = 64;
pub(crate) const ROUNDS: usize = 31;

pub(crate) fn measure(cases: &mut Vec<Case>) {
    let entries = Clustered::new(ENTRIES, DIM, 1);
    let bank = bank(&entries);
    let flat = Flat::new(&entries);
    for batch in [1, 32, 256] {
        let anchors = Clustered::new(batch, DIM, 2);
        let query = query(&anchors);
        let bars = flat.bars(&anchors);
        let mut times: [Vec<f64>; 4] = Default::default();
        let (mut served, mut by_rows) = (None, Vec::new());
        for _ in 0..ROUNDS {
            times[0].push(time_us(|| served = Some(answer(&bank, &query, batch))));
            times[1].push(time_us(|| drop(black_box(flat.by_codes(&anchors)))));
            times[2].push(time_us(|| flat.tile(&anchors, &bars)));
            times[3].push(time_us(|| by_rows = flat.by_rows(&anchors)));
        }
        let [engine, codes, tile, rows] = times.map(|times| median_us(times) / batch as f64);
        let recall = served.map_or(0.0, |served| recall(&served, &by_rows));
        for (peer, peer_us_per_anchor) in [("scan alone", codes), ("tile alone", tile), ("f32 scan", rows)] {
            cases.push(Case {
                name: format!("scan {ENTRIES} x {DIM} B={batch}"),
                n: ENTRIES,
                batch,
                k: K,
                plan: "scan",
                us_per_anchor: engine,
                recall,
                peer,
                peer_us_per_anchor,
                peer_recall: 1.0,
            });
        }
    }
}

/// The entries as plain rows, numbered by slot.
pub(crate) struct Flat<'d> {
    entries: &'d Clustered,
    rows: Rows,
}

#[derive(Clone, Copy)]
struct OtherLabels<'d> {
    entries: &'d Clustered,
    anchors: &'d Clustered,
    first: usize,
}

impl Admit for OtherLabels<'_> {
    fn admits(&mut self, probe: usize, slot: u32) -> bool {
        self.entries.labels[slot as usize] != self.anchors.labels[self.first + probe]
    }

    fn classes(&self, slot: u32, classes: &mut [u32]) -> bool {
        let labels = &self.entries.labels[slot as usize..];
        classes.iter_mut().zip(labels).for_each(|(class, &label)| *class = label as u32);
        true
    }

    fn own_class(&self, probe: usize) -> u32 {
        self.anchors.labels[self.first + probe] as u32
    }

    fn out_of_range(&mut self, _probe: usize) {}

    fn identity(&self, slot: u32) -> Option<Identity> {
        Some(Identity { id: u64::from(slot), occupied_at: 1, revision: 1 })
    }
}

/// Norms of unit rows, rounded up.
const LARGEST_NORM: f64 = 1.000_001;

impl<'d> Flat<'d> {
    pub(crate) fn new(entries: &'d Clustered) -> Self {
        let mut rows = Rows::new(DIM, Dtype::F32).with_codes();
        rows.reserve(ENTRIES).unwrap();
        for at in 0..ENTRIES {
            rows.change(at as u32, |row| row.copy_from_slice(entries.row(at)));
        }
        Self { entries, rows }
    }

    fn blocks<'a>(&self, anchors: &'a Clustered) -> impl Iterator<Item = (Vec<Probe<'a>>, OtherLabels<'a>)>
    where
        'd: 'a,
    {
        let entries = self.entries;
        let probe = |at| Probe { anchor: anchors.row(at), range: ScoreRange::ALL, depth: K, counted: None };
        (0..anchors.labels.len()).step_by(BLOCK).map(move |first| {
            let last = anchors.labels.len().min(first + BLOCK);
            ((first..last).map(probe).collect(), OtherLabels { entries, anchors, first })
        })
    }

    fn by_codes(&self, anchors: &Clustered) -> Vec<Found> {
        let mut found = Vec::new();
        for (probes, admit) in self.blocks(anchors) {
            let scan = self.scanned(probes.clone(), &admit, true);
            let unsure = scan.unsure();
            let mut shortlists: Vec<Shortlist<'_>> = scan.shortlists().collect();
            for probe in unsure {
                let admit = OtherLabels { first: admit.first + probe, ..admit };
                let again = self.scanned(vec![probes[probe].clone()], &admit, false);
                shortlists[probe] = again.shortlists().next().unwrap();
            }
            found.extend(shortlists.into_iter().map(|mut shortlist| {
                let row = |_, slot| Some(self.rows.padded(slot));
                shortlist.rescore(&mut usize::MAX.clone(), row, (|_, slot| admit.identity(slot), |_, _| ()), || ());
                shortlist.found()
            }));
        }
        found
    }

    /// As the engine scans: spread out and with bars that are foreseen, or in order and without.
    fn scanned<'a>(&self, probes: Vec<Probe<'a>>, admit: &OtherLabels<'_>, foreseeing: bool) -> CodedScan<'a> {
        let (scan, slots) = (CodedScan::new(DIM, probes), [ENTRIES as u32].into_iter());
        let (mut scan, visits) = match foreseeing {
            true => (scan.foreseeing(ENTRIES), Visits::spread(slots, 4 * CodedScan::STEP as u32)),
            false => (scan, Visits::in_order(slots, 2_048)),
        };
        let codes = self.rows.codes().unwrap();
        let mut visits = visits.peekable();
        while let Some(stretch) = visits.next() {
            if let Some(ahead) = visits.peek().filter(|_| foreseeing) {
                codes.prefetch_run(ahead.start, ahead.end.min(ahead.start + 8));
            }
            let mut slot = stretch.start;
            while slot < stretch.end {
                let (rows, count) = codes.run(slot, stretch.end);
                scan.run(CodedRun { rows, slot, shard: 0, largest_norm: LARGEST_NORM }, &mut { *admit });
                slot += count;
            }
        }
        scan
    }

    pub(crate) fn by_rows(&self, anchors: &Clustered) -> Vec<Found> {
        let mut found = Vec::new();
        for (probes, mut admit) in self.blocks(anchors) {
            let mut scan = Scan::new(Metric::Cosine, DIM, probes);
            let mut slot = 0;
            while slot < ENTRIES as u32 {
                let (rows, count) = self.rows.run(slot, (slot + 512).min(ENTRIES as u32));
                let slots = Slots::From(slot);
                scan.run(Run { rows, slots, shard: 0, largest_norm: LARGEST_NORM }, &mut admit);
                slot += count;
            }
            found.extend(scan.found());
        }
        found
    }

    /// Each anchor's k-th best score.
    pub(crate) fn bars(&self, anchors: &Clustered) -> Vec<f64> {
        self.by_rows(anchors).iter().filter_map(|found| Some(f64::from(found.ranking.last()?.score))).collect()
    }

    pub(crate) fn tile(&self, anchors: &Clustered, bars: &[f64]) {
        let mut hits = CodedHits::default();
        for (block, bars) in bars.chunks(BLOCK).enumerate() {
            let rows = (0..bars.len()).map(|at| anchors.row(block * BLOCK + at));
            let coded = CodedAnchors::new(DIM, rows);
            let bounds = |(panel, bars): (usize, &[f64])| {
                coded.bounds(panel * LANES, bars.iter().map(|&bar| (bar, f64::INFINITY)), LARGEST_NORM)
            };
            let bounds: Vec<CodedBounds> = bars.chunks(LANES).enumerate().map(bounds).collect();
            self.runs(|rows, _| {
                hits.clear();
                coded.scan(rows, &bounds, Barred::default(), &mut hits);
                black_box(&hits);
            });
        }
    }

    fn runs(&self, mut take: impl FnMut(negbank::kernels::coded::CodedRows<'_>, u32)) {
        let Some(codes) = self.rows.codes() else { return };
        let mut slot = 0;
        while slot < ENTRIES as u32 {
            let (rows, count) = codes.run(slot, (slot + 2_048).min(ENTRIES as u32));
            take(rows, slot);
            slot += count;
        }
    }
}

/// Share of the true top k that is served.
pub(crate) fn recall(served: &SampleAnswer, expected: &[Found]) -> f64 {
    let mut hits = 0;
    let mut start = 0;
    for (found, &count) in expected.iter().zip(&served.draws[0].counts) {
        let ids = served.draws[0].indices[start..][..count as usize].iter().map(|&row| served.rows.ids[row as usize]);
        let ids: std::collections::HashSet<u64> = ids.collect();
        hits += found.ranking.iter().filter(|ranked| ids.contains(&ranked.identity.id)).count();
        start += count as usize;
    }
    hits as f64 / expected.iter().map(|found| found.ranking.len()).sum::<usize>() as f64
}

pub(crate) fn answer(bank: &Shared<Bank>, query: &SampleQuery, anchors: usize) -> SampleAnswer {
    let recycler = Recycler::default();
    let mut merge = Merge::new(1, usize::MAX);
    for (number, start) in (0..anchors).step_by(BLOCK).enumerate() {
        merge.add(number, answer_block(bank, query, start..anchors.min(start + BLOCK), &recycler, &|| true).unwrap()).unwrap();
    }
    merge.finish(query.seed()).unwrap()
}

pub(crate) fn bank(entries: &Clustered) -> Shared<Bank> {
    let spec = BankSpec::new(DIM as u32, Metric::Cosine, BankKind::Keyed { momentum: 0.5, capacity: None }, 8).unwrap();
    let mut bank = Bank::new(spec);
    let labels = entries.labels.iter().copied().map(Some).collect();
    let rows = Matrix::new("rows", DIM, Metric::Cosine, entries.rows.clone()).unwrap();
    let ids = Ids::Given((0..ENTRIES as u64).collect());
    let mutation = Mutation::Write(WriteBatch::new(&spec, ids, rows, Some(labels), None, None, None).unwrap());
    bank.reserve(&bank.arrivals(&mutation)).unwrap();
    bank.apply(&mutation, 0, usize::MAX, &mut Applied::default());
    Shared::new(bank)
}

/// Top k of each anchor, its own label excluded; ids and scores.
pub(crate) fn query(anchors: &Clustered) -> SampleQuery {
    let nearest = Nearest::top(K);
    let filters = Filters { exclude_same_label: true, ..Filters::default() };
    let draw = Draw { k: K, strategy: Strategy::Nearest(nearest), filters, scope: Scope::PerAnchor };
    let columns = Columns { ids: true, scores: true, ..Columns::default() };
    let anchors = Anchors {
        count: anchors.labels.len(),
        embeddings: Some(Matrix::new("anchors", DIM, Metric::Cosine, anchors.rows.clone()).unwrap()),
        labels: Some(anchors.labels.iter().copied().map(Some).collect()),
        ..Anchors::default()
    };
    SampleQuery::new(anchors, vec![draw], None, Seed(1), Form::pooled(columns)).unwrap()
}
