//! Figures of the banks, looked up when somebody asks.

use std::fmt;
use std::sync::{Arc, Weak};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::super::served::{PLANS, Tally, name_of};
use super::{BankHandle, Engine, Inner};
use crate::engine::IndexInfo;
use crate::model::{Hardness, Metric, ReasonCounts};
use crate::telemetry::Metrics;

impl Engine {
    /// What is measured of it, the banks' figures too.
    pub fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    /// Whom the metrics ask for the banks' figures.
    pub(super) fn scraper(&self) -> impl Collector + use<> {
        Scraper(Arc::downgrade(&self.inner))
    }
}

const LOG_FAILED: &str =
    "1 if a bank's log can't be written: the bank takes no writes until the server is started again; /readyz names it";

const SERVED_SCORE: &str =
    "Mean score of the last few thousand served entries whose score was computed, by the bank's metric: the higher the harder";
const SNAPSHOT_FAILED: &str = "1 if the bank's last snapshot was not taken: its log grows until one is; /readyz says why";

/// Shares of a bank's entries whose ages are told, in percent, and as labels.
const AGES: [(usize, &str); 4] = [(50, "0.5"), (90, "0.9"), (99, "0.99"), (100, "1")];

#[derive(Debug)]
struct Scraper(Weak<Inner>);

/// One bank as it stands.
struct Standing {
    name: String,
    cosine: bool,
    entries: f64,
    bytes_per_entry: f64,
    sequence: f64,
    step: Option<f64>,
    ages: [Option<u64>; AGES.len()],
    index: Option<IndexInfo>,
    /// `None`: nothing of it outlives the server.
    snapshot_failed: Option<bool>,
    tally: Tally,
}

impl Standing {
    fn of(bank: &BankHandle) -> Option<Self> {
        let tally = bank.served.tally();
        let state = bank.state.read().ok()?;
        Some(Self {
            name: bank.name.to_string(),
            cosine: bank.spec.metric() == Metric::Cosine,
            entries: state.entries() as f64,
            bytes_per_entry: state.bytes_per_entry() as f64,
            sequence: state.sequence() as f64,
            step: state.step().map(|step| step as f64),
            ages: AGES.map(|(percent, _)| state.age_of(percent)),
            index: bank.index.as_ref().map(|index| index.describe()),
            snapshot_failed: bank.folder.as_ref().map(|_| bank.snapshots.told().is_some()),
            tally,
        })
    }
}

impl Collector for Scraper {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(inner) = self.0.upgrade() else { return Ok(()) };
        super::occupancy::encode(&inner, &mut encoder)?;
        let log_failed = !inner.health.borrow().unwritable.is_empty();
        let banks = Engine { inner }.banks();
        let banks: Vec<Standing> = banks.iter().filter_map(|bank| Standing::of(bank)).collect();
        let failed = ConstGauge::new(u64::from(log_failed));
        failed.encode(encoder.encode_descriptor("log_failed", LOG_FAILED, None, MetricType::Gauge)?)?;
        let mut figures = Figures { encoder: &mut encoder, banks: &banks };
        figures.gauge("bank_entries", "Entries held", |bank| Some(bank.entries))?;
        figures.gauge("bank_rows_bytes", "Memory of the entries' embeddings, codes and columns", |bank| {
            Some(bank.entries * bank.bytes_per_entry)
        })?;
        figures.gauge("bank_sequence", "Mutations applied", |bank| Some(bank.sequence))?;
        figures.gauge("bank_step", "Training step of the last write that carried one", |bank| bank.step)?;
        figures
            .gauge("snapshot_failed", SNAPSHOT_FAILED, |bank| bank.snapshot_failed.map(|failed| f64::from(u8::from(failed))))?;
        figures.ages()?;
        figures.index()?;
        figures.served()?;
        figures.gauge("served_score", SERVED_SCORE, |bank| bank.tally.score)?;
        figures.scores()
    }
}

/// Takes one more label and a count.
type Add<'a> = &'a mut dyn FnMut(&[(&str, &str)], u64) -> fmt::Result;

fn by_reason(counts: &ReasonCounts, add: Add<'_>) -> fmt::Result {
    counts.iter().try_for_each(|(reason, count)| add(&[("reason", name_of(reason))], count))
}

struct Figures<'a, 'e> {
    encoder: &'a mut DescriptorEncoder<'e>,
    banks: &'a [Standing],
}

impl Figures<'_, '_> {
    fn ages(&mut self) -> fmt::Result {
        let banks = self.banks;
        let help = "Training steps behind the bank's that this share of its entries was last written at, or less";
        let mut family = self.family("bank_age_steps", help, MetricType::Gauge)?;
        let each = |bank: &Standing| AGES.iter().zip(bank.ages).filter_map(|((_, share), age)| Some((*share, age?)));
        banks.iter().flat_map(|bank| each(bank).map(move |told| (bank, told))).try_for_each(|(bank, (share, age))| {
            let labels = [("bank", bank.name.as_str()), ("quantile", share)];
            ConstGauge::new(age as f64).encode(family.encode_family(&labels)?)
        })
    }

    fn index(&mut self) -> fmt::Result {
        let graph = |of: fn(&crate::sampling::Standing) -> f64| {
            move |bank: &Standing| bank.index.as_ref().and_then(|index| index.standing.as_ref().map(of))
        };
        self.gauge("index_generation", "Mutations applied when the serving graph's rows were copied", {
            graph(|graph| graph.taken.sequence as f64)
        })?;
        self.gauge("index_entries", "Entries that the serving graph was built from", graph(|graph| graph.indexed as f64))?;
        self.gauge("index_delta_entries", "Entries scanned beside the graph", graph(|graph| graph.scanned as f64))?;
        self.gauge("index_mean_similarity", "Mean cosine of indexed rows to what they were", graph(|of| of.mean_similarity))?;
        self.gauge("index_unreachable_entries", "Entries that walks can't find", graph(|graph| graph.unreachable as f64))?;
        self.gauge("index_building", "Share of the running build that is done", |bank| bank.index.as_ref()?.building)?;
        self.gauge("index_failed", "1 if the last build failed; GetBank says why", |bank| {
            bank.index.as_ref().map(|index| f64::from(u8::from(index.failed)))
        })?;
        self.gauge("index_recall", "Mean recall of approximate answers that a scan checked", |bank| {
            bank.index.as_ref()?.recall.map(|(mean, _)| mean)
        })?;
        self.counter("index_recall_checks", "Approximate answers that a scan checked", |bank, add| {
            let checks = bank.index.as_ref().and_then(|index| index.recall).map_or(0, |(_, checks)| checks);
            add(&[], checks)
        })
    }

    fn served(&mut self) -> fmt::Result {
        self.counter("draws", "Draws answered, by plan", |bank, add| {
            PLANS.iter().zip(bank.tally.draws).try_for_each(|((_, plan), count)| add(&[("plan", plan)], count))
        })?;
        self.counter("picks", "Entries served", |bank, add| add(&[], bank.tally.picks))?;
        let duplicates = "Picks of an entry that the draw had picked for the same anchor before";
        self.counter("duplicates", duplicates, |bank, add| add(&[], bank.tally.duplicates))?;
        self.counter("joined_scans", "Scans that were for several requests", |bank, add| add(&[], bank.tally.joined.0))?;
        self.counter("joined_requests", "Requests that shared a scan", |bank, add| add(&[], bank.tally.joined.1))?;
        self.counter("shortfalls", "Picks missing from k, by reason", |bank, add| by_reason(&bank.tally.shortfalls, add))?;
        self.counter("rejections", "Entries examined and rejected, by reason", |bank, add| {
            by_reason(&bank.tally.rejections, add)
        })
    }

    fn family<'s>(&'s mut self, name: &'s str, help: &'s str, kind: MetricType) -> Result<MetricEncoder<'s>, fmt::Error> {
        self.encoder.encode_descriptor(name, help, None, kind)
    }

    fn gauge(&mut self, name: &str, help: &str, of: impl Fn(&Standing) -> Option<f64>) -> fmt::Result {
        let banks = self.banks;
        let mut family = self.family(name, help, MetricType::Gauge)?;
        banks.iter().filter_map(|bank| Some((bank, of(bank)?))).try_for_each(|(bank, value)| {
            let labels = [("bank", bank.name.as_str())];
            ConstGauge::new(value).encode(family.encode_family(&labels)?)
        })
    }

    fn counter(&mut self, name: &str, help: &str, each: impl Fn(&Standing, Add<'_>) -> fmt::Result) -> fmt::Result {
        let banks = self.banks;
        let mut family = self.family(name, help, MetricType::Counter)?;
        banks.iter().try_for_each(|bank| {
            each(bank, &mut |more, count| {
                let labels: Vec<(&str, &str)> = [("bank", bank.name.as_str())].iter().chain(more).copied().collect();
                ConstCounter::new(count).encode(family.encode_family(&labels.as_slice())?)
            })
        })
    }

    fn scores(&mut self) -> fmt::Result {
        let banks = self.banks;
        // A histogram of what may be negative has no sum in OpenMetrics: distances, not cosines.
        let help = "1 less the cosine of served entries to their anchors, where it was computed (draws by score, and answers that carry scores): 0 is hardest";
        let mut family = self.family("served_distance", help, MetricType::Histogram)?;
        banks.iter().filter(|bank| bank.cosine).try_for_each(|bank| {
            let hardness = &bank.tally.hardness;
            let buckets: Vec<(f64, u64)> = Hardness::edges().zip(hardness.bins().iter().copied()).collect();
            let count = buckets.iter().map(|(_, count)| count).sum();
            let labels = [("bank", bank.name.as_str())];
            family.encode_family(&labels)?.encode_histogram::<NoLabelSet>(hardness.distances(), count, &buckets, None)
        })
    }
}
